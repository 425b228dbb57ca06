"""A store that was set back, on topics from which the broker has really removed tombstones: ghosts go (H20, A26)."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
import redis
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from sink_feed import Bench, Schemas, Sink, Table, eventually

from cdc.errors import FatalError
from cdc.kafka.reader import Retention, TopicReader
from cdc.local.kafka import ApacheKafka
from cdc.local.redis import Redis, Valkey
from cdc.local.redis_cluster import RedisCluster
from cdc.redis.cluster.slots import slot_of

pytestmark = pytest.mark.integration

FORGETFUL = {
    "segment.ms": "50",
    "min.cleanable.dirty.ratio": "0.0",
    "delete.retention.ms": "100",
    "min.compaction.lag.ms": "0",
}
"""Settings of a topic that forgets tombstones as soon as the broker's cleaner comes by."""


@pytest.fixture(scope="module")
def cleaning_kafka() -> Iterator[ApacheKafka]:
    with ApacheKafka(settings={"log.cleaner.backoff.ms": 100}) as server:
        yield server


@pytest.fixture(scope="session")
def schemas() -> Iterator[Schemas]:
    made = Schemas()
    yield made
    made.close()


@pytest.fixture(params=["redis7", "redis7_cluster"])
def bench(request: pytest.FixtureRequest, cleaning_kafka: ApacheKafka, schemas: Schemas) -> Bench:
    return Bench(cleaning_kafka, request.getfixturevalue(request.param), schemas)


def mirrored(bench: Bench, *tables: Table) -> None:
    expected: dict[str, dict[str, str]] = {}
    for table in tables:
        table.flush()
        expected |= table.expected()

    def equal() -> bool:
        try:
            return bench.dump() == expected
        except (redis.RedisError, KeyError):  # a part of the cluster is away
            return False

    eventually(equal, "the mirror is equal")


def keys(bench: Bench, table: Table) -> set[bytes]:
    """All keys that the topic has records of."""
    found = set()
    with closing(TopicReader(bench.worker(), table.topic, "test")) as reader:
        bounds = reader.bounds(range(table.partitions))
        reader.go(dict.fromkeys(range(table.partitions)))
        while any(reader.positions[part] < high for part, (_, high) in bounds.items()):
            found |= {message.key() for message in reader.fetch(1000, 0.1)}
    return found


def compacted_away(bench: Bench, table: Table, *ids: int) -> None:
    """The topic does not have any record of these keys any more, tombstones included."""
    gone = {table.key_of({"id": n}) for n in ids}

    def forgotten() -> bool:
        for n in range(20):  # new segments, so that all before are cleaned
            table.put(id=7_000 + n, score=int(time.time()) % 1_000_000)
        table.flush()
        return gone.isdisjoint(keys(bench, table))

    eventually(forgotten, "the broker has removed the tombstones")


def test_a26_a_sink_that_was_away_longer_than_tombstones_are_kept_removes_the_ghosts(bench: Bench) -> None:
    table = bench.table(partitions=2, settings=FORGETFUL)
    for n in range(100):
        table.put(id=n, name="x", score=1)
    with Sink(bench):
        mirrored(bench, table)
    for n in range(50, 60):
        table.delete(id=n)
    compacted_away(bench, table, *range(50, 60))
    with Sink(bench) as sink:
        mirrored(bench, table)
        eventually(lambda: owed(bench, table) is None, "the debt is paid")
        assert sink.ended() is None


def owed(bench: Bench, table: Table) -> object:
    """Since when the table's entry says that ghosts may be there."""
    with bench.client() as client:
        text = client.hget("__cdc:tables", f"{bench.prefix}-sink {table.topic}")
    assert text is not None
    return json.loads(text).get("ghosts")


def test_a_sweep_that_is_owed_is_done_by_whoever_comes_next(bench: Bench) -> None:
    table = bench.table(settings=FORGETFUL)
    for n in range(20):
        table.put(id=n, score=1)
    with Sink(bench):
        mirrored(bench, table)
    table.delete(id=5)
    compacted_away(bench, table, 5)
    # The first task finds it, writes it down, and dies: everything is applied, and the ghost is still there.
    with bench.client() as client:
        text = client.hget("__cdc:tables", f"{bench.prefix}-sink {table.topic}")
        assert text is not None
        entry = json.loads(text)
        with Sink(bench):
            mirrored(bench, table)
            eventually(lambda: owed(bench, table) is None)
        client.hset(f"{bench.prefix}:users:5", mapping={"id": "5", "score": "1"})
        client.hset("__cdc:tables", f"{bench.prefix}-sink {table.topic}", json.dumps({**entry, "ghosts": 1}))
    with Sink(bench):
        mirrored(bench, table)
        eventually(lambda: owed(bench, table) is None)


def test_an_older_dump_that_is_put_back_loses_its_ghosts(
    cleaning_kafka: ApacheKafka, launch: Callable[[Valkey], Valkey], schemas: Schemas
) -> None:
    """K is in the dump, was deleted since, and its tombstone is compacted away. While the sink runs."""
    server = launch(Valkey(appendonly=False))
    bench = Bench(cleaning_kafka, server, schemas)
    table = bench.table(partitions=2, settings=FORGETFUL)
    for n in range(100):
        table.put(id=n, name="x", score=1)
    old = server.directory / "old.rdb"
    with Sink(bench) as sink:
        mirrored(bench, table)
        with bench.client() as client:
            client.save()
        shutil.copy(server.data / "dump.rdb", old)
        for n in range(10, 20):
            table.delete(id=n)
        for n in range(20, 100):
            table.put(id=n, name="later", score=2)
        mirrored(bench, table)
        compacted_away(bench, table, *range(10, 20))
        mirrored(bench, table)
        server.kill()
        shutil.copy(old, server.data / "dump.rdb")
        server.start()
        with bench.client() as client:
            assert client.exists(f"{bench.prefix}:users:15") == 1
        mirrored(bench, table)
        assert sink.ended() is None


def test_an_older_dump_of_one_node_of_a_cluster_loses_its_ghosts(
    cleaning_kafka: ApacheKafka, launch_cluster: Callable[[RedisCluster], RedisCluster], schemas: Schemas
) -> None:
    cluster = launch_cluster(RedisCluster(Valkey))
    bench = Bench(cleaning_kafka, cluster, schemas)
    table = bench.table(partitions=2, settings=FORGETFUL)
    for n in range(100):
        table.put(id=n, name="x", score=1)
    node = cluster.nodes[1]
    theirs = [n for n in range(100) if cluster.owner(slot_of(f"{bench.prefix}:users:{n}".encode())) is node]
    old = node.directory / "old.rdb"
    with Sink(bench) as sink:
        mirrored(bench, table)
        cluster.run(node, "SAVE")
        shutil.copy(node.data / "dump.rdb", old)
        for n in theirs[:10]:
            table.delete(id=n)
        for n in theirs[10:]:
            table.put(id=n, name="later", score=2)
        mirrored(bench, table)
        compacted_away(bench, table, *theirs[:10])
        mirrored(bench, table)
        node.kill()
        shutil.copy(old, node.data / "dump.rdb")
        node.start()
        eventually(lambda: b"users:" in b"".join(cluster.run(node, "KEYS", f"{bench.prefix}:users:{theirs[0]}")))
        mirrored(bench, table)
        eventually(lambda: owed(bench, table) is None, "the debt is paid")
        assert sink.ended() is None


def test_a_short_absence_needs_no_sweep(bench: Bench) -> None:
    table = bench.table()
    table.put(id=1, score=1)
    with Sink(bench):
        mirrored(bench, table)
    table.put(id=2, score=1)
    with Sink(bench) as sink:
        mirrored(bench, table)
        assert owed(bench, table) is None
        assert "healing" not in sink.reports.get("metrics", {})


def test_old_records_that_are_mirrored_for_the_first_time_owe_no_sweep(bench: Bench) -> None:
    table = bench.table()
    table.timestamp = 1_600_000_000_000
    table.put(id=1, score=1)
    with Sink(bench):
        mirrored(bench, table)
    table.put(id=2, score=1)
    with Sink(bench):
        mirrored(bench, table)
        assert owed(bench, table) is None
    # Had the first row been mirrored long ago, a delete could be gone by now.
    field = f"{bench.prefix}-sink {table.topic}"
    with bench.client() as client:
        text = client.hget("__cdc:tables", field)
        assert text is not None
        client.hset("__cdc:tables", field, json.dumps({**json.loads(text), "began": 1_600_000_000_000}))
        client.hset(f"{bench.prefix}:users:3", "id", "3")
    table.put(id=4, score=1)
    with Sink(bench):
        mirrored(bench, table)


# --- topics that are trimmed by time ---------------------------------------------------------------------


def trim(bench: Bench, table: Table, offset: int) -> None:
    admin = AdminClient({"bootstrap.servers": bench.kafka.bootstrap_servers})
    [future] = admin.delete_records([TopicPartition(table.topic, 0, offset)]).values()
    future.result(30)


def failure(sink: Sink) -> str:
    error = eventually(sink.ended)
    assert isinstance(error, FatalError), repr(error)
    return str(error)


def test_a26_records_trimmed_before_they_were_read_stop_the_task_with_the_remedy(bench: Bench) -> None:
    table = bench.table(policy="delete")
    for n in range(10):
        table.put(id=n)
    with Sink(bench):
        mirrored(bench, table)
    for n in range(10):
        table.put(id=n, name="later")
    table.flush()
    trim(bench, table, 15)
    message = failure(Sink(bench))
    assert "the topic holds 15 to 20" in message
    assert "snapshot the table again at the source" in message


def test_a_store_that_is_emptied_is_not_filled_in_part_from_a_trimmed_topic(
    cleaning_kafka: ApacheKafka, launch: Callable[[Redis], Redis], schemas: Schemas
) -> None:
    bench = Bench(cleaning_kafka, launch(Redis(appendonly=False)), schemas)
    table = bench.table(policy="delete")
    events = bench.table("events", policy="delete")
    for n in range(20):
        table.put(id=n)
        events.send(None, events._encode(events._value, {"before": None, "after": {"id": n}, "op": "c"}))
    with Sink(bench):
        mirrored(bench, table)
        eventually(lambda: (bench.offset(events.flush().topic) or {"next": 0})["next"] == 20)
    trim(bench, events, 10)
    with Sink(bench):  # rows without key are not mirrored, so that none is missing
        mirrored(bench, table)
    trim(bench, table, 10)
    with bench.client() as client:
        client.flushall()
    message = failure(Sink(bench))
    assert f"the store holds nothing of {table.topic}[0], which was mirrored before" in message
    assert f"delete the consumer group connect-{bench.prefix}-sink" in message


@pytest.mark.parametrize(
    ("timestamp", "lacks"), [(1_000_000, True), (1_000_000 - 1, True), (2_000_000, False), (-1, True)]
)
def test_a_record_as_old_as_the_retention_may_have_lost_what_followed(timestamp: int, lacks: bool) -> None:
    kept = Retention(compacted=True, timed=False, tombstones_ms=1_000_000)
    assert kept.may_lack_tombstones(timestamp, 2_000_000) is lacks
