"""A cluster whose nodes die, are emptied and hand slots over while a sink writes: in the end it holds what the topics
say, and a live key never shows an older value."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator

import pytest
import redis
from fix_bridge import bridged
from fix_servers import Database
from sink_feed import Bench, Schemas, Sink, SinkProcess, Table, eventually

from cdc.local.kafka import ApacheKafka
from cdc.local.redis import Redis, RedisServer, Valkey
from cdc.local.redis_cluster import RedisCluster
from cdc.operate.verify import compare, wait_until_equal
from cdc.redis.cluster.slots import slot_of

pytestmark = pytest.mark.integration

LaunchCluster = Callable[[RedisCluster], RedisCluster]


@pytest.fixture(scope="module")
def schemas() -> Iterator[Schemas]:
    made = Schemas()
    yield made
    made.close()


def mirrored(bench: Bench, table: Table, sink: Sink | None = None) -> None:
    """The cluster holds what the table holds."""
    table.flush()

    def equal() -> bool:
        assert sink is None or not sink.ended(), sink.error
        try:
            return bench.dump() == table.expected()
        except (redis.RedisError, KeyError):  # a part of the cluster is away
            return False

    eventually(equal)


class Watcher:
    """Reads rows all the time. Their ``score`` only grows at the source, so it must never be seen to fall."""

    def __init__(self, bench: Bench, rows: int) -> None:
        self._bench, self._rows = bench, rows
        self._stop = threading.Event()
        self.fallen: list[str] = []
        self.reads = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        seen: dict[int, int] = {}
        chance = random.Random(1)
        with self._bench.client() as client:
            while not self._stop.is_set():
                row = chance.randrange(self._rows)
                try:
                    value = client.hget(f"{self._bench.prefix}:users:{row}", "score")
                except (redis.RedisError, AttributeError):  # redis-py, of a node that has no slots yet
                    continue
                if value is None:
                    continue
                self.reads += 1
                if int(value) < seen.get(row, 0):
                    self.fallen.append(f"row {row}: {seen[row]}, then {int(value)}")
                seen[row] = int(value)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_rest: object) -> None:
        self._stop.set()
        self._thread.join()
        assert self.reads > 0
        assert self.fallen == []


def pid_of(node: RedisServer) -> int:
    assert node.pid is not None
    return node.pid


def load(table: Table, rows: int, scores: range) -> None:
    """Rewrite all rows for each score, some of them deleted and inserted again."""
    for score in scores:
        for row in range(rows):
            if (row + score) % 11 == 0:
                table.delete(id=row)
            table.put(id=row, name=f"n{score}", score=score)
        table.flush()


# --- slots that move -------------------------------------------------------------------------------------


def test_slots_move_to_a_new_node_under_load(
    apache_kafka: ApacheKafka, launch_cluster: LaunchCluster, schemas: Schemas
) -> None:
    cluster = launch_cluster(RedisCluster(Redis))
    bench = Bench(apache_kafka, cluster, schemas)
    table = bench.table(partitions=3)
    rows = 60
    load(table, rows, range(1, 3))
    slots = sorted({slot_of(f"{bench.prefix}:users:{row}".encode()) for row in range(rows)})
    with Sink(bench, batch_max_records="40") as sink, Watcher(bench, rows):
        mirrored(bench, table, sink)
        node = cluster.add_primary()
        score = 3
        for number, slot in enumerate(slots[:20]):

            def write_meanwhile(slot: int = slot) -> None:
                nonlocal score
                load(table, rows, range(score, score + 1))
                score += 1

            cluster.move_slot(slot, node, write_meanwhile if number % 5 == 0 else lambda: None)
        load(table, rows, range(score, score + 3))
        table.delete(id=7)
        mirrored(bench, table, sink)
        table.truncate()
        table.put(id=9, name="after", score=10_000)
        mirrored(bench, table, sink)
        # the node gives all back, and is no primary any more
        for slot in slots[:20]:
            cluster.move_slot(slot, cluster.nodes[0])
        load(table, rows, range(10_001, 10_003))
        mirrored(bench, table, sink)


def test_a_slot_that_stays_half_moved_is_told_and_waited_for(
    apache_kafka: ApacheKafka, launch_cluster: LaunchCluster, schemas: Schemas
) -> None:
    cluster = launch_cluster(RedisCluster(Valkey))
    bench = Bench(apache_kafka, cluster, schemas)
    table = bench.table()
    load(table, 10, range(1, 2))
    with Sink(bench, redis_timeout_ms="500") as sink:
        mirrored(bench, table, sink)
        slot = slot_of(f"{bench.prefix}:users:5".encode())
        source = cluster.owner(slot)
        target = next(node for node in cluster.nodes if node is not source)
        cluster.run(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.id_of(source))
        cluster.run(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.id_of(target))
        load(table, 10, range(2, 3))
        eventually(lambda: "redis-cli --cluster fix" in sink.reports.get("waiting", ""))
        cluster.move_slot(slot, target)
        mirrored(bench, table, sink)
        eventually(lambda: sink.reports["waiting"] == "")


# --- nodes that lose -------------------------------------------------------------------------------------


def test_a_failover_that_loses_what_was_acknowledged_is_healed(
    apache_kafka: ApacheKafka, launch_cluster: LaunchCluster, schemas: Schemas
) -> None:
    """A20: the replica stands still while its primary takes writes, then the primary is killed."""
    cluster = launch_cluster(RedisCluster(Valkey, replicas=1))
    bench = Bench(apache_kafka, cluster, schemas)
    table = bench.table(partitions=3)
    rows = 300
    primary, replica = cluster.nodes[0], cluster.nodes[3]
    load(table, rows, range(1, 2))
    with Sink(bench) as sink:
        mirrored(bench, table, sink)
        os.kill(pid_of(replica), signal.SIGSTOP)
        load(table, rows, range(2, 3))
        table.delete(id=5)
        mirrored(bench, table, sink)
        eventually(lambda: sink.reports["metrics"]["lag"] == 0)
        primary.kill()
        os.kill(pid_of(replica), signal.SIGCONT)
        eventually(lambda: sink.reports.get("waiting"))
        load(table, rows, range(3, 4))
        eventually(lambda: cluster.owner(0) is replica)
        mirrored(bench, table, sink)
        eventually(lambda: sink.reports["waiting"] == "")


def test_a_failover_that_loses_nothing_shows_nothing_older(
    apache_kafka: ApacheKafka, launch_cluster: LaunchCluster, schemas: Schemas
) -> None:
    cluster = launch_cluster(RedisCluster(Redis, replicas=1))
    bench = Bench(apache_kafka, cluster, schemas)
    table = bench.table(partitions=3)
    rows = 60
    load(table, rows, range(1, 3))
    with Sink(bench, batch_max_records="50") as sink, Watcher(bench, rows):
        mirrored(bench, table, sink)
        cluster.run(cluster.nodes[3], "CLUSTER", "FAILOVER")
        load(table, rows, range(3, 20))
        eventually(lambda: cluster.owner(0) is cluster.nodes[3])
        load(table, rows, range(20, 22))
        mirrored(bench, table, sink)


def test_a_primary_without_replica_that_is_killed_comes_back_empty_and_is_filled_again(
    apache_kafka: ApacheKafka, launch_cluster: LaunchCluster, schemas: Schemas
) -> None:
    """A19 on one node of three; and a node that was emptied while the sink was not there."""
    cluster = launch_cluster(RedisCluster(Valkey))
    bench = Bench(apache_kafka, cluster, schemas)
    table = bench.table(partitions=2)
    rows = 300
    load(table, rows, range(1, 2))
    with Sink(bench) as sink:
        mirrored(bench, table, sink)
        cluster.nodes[1].kill()
        load(table, rows, range(2, 3))
        eventually(lambda: sink.reports.get("waiting"))
        cluster.nodes[1].start()
        mirrored(bench, table, sink)
        cluster.run(cluster.nodes[2], "FLUSHALL")
        mirrored(bench, table, sink)
        load(table, rows, range(3, 4))
        cluster.run(cluster.nodes[0], "FLUSHALL")
        load(table, rows, range(4, 5))
        mirrored(bench, table, sink)
    cluster.run(cluster.nodes[1], "FLUSHALL")
    with Sink(bench) as sink:
        mirrored(bench, table, sink)


# --- sinks that die --------------------------------------------------------------------------------------


def test_a22_sinks_that_are_killed_show_nothing_older(
    valkey9_cluster: RedisCluster, apache_kafka: ApacheKafka, schemas: Schemas
) -> None:
    bench = Bench(apache_kafka, valkey9_cluster, schemas)
    table = bench.table(partitions=3)
    rows = 100
    load(table, rows, range(1, 30))
    with Watcher(bench, rows):
        for share in (0.2, 0.6):
            sink = SinkProcess(bench, batch_max_records="100")
            end = share * table.sent

            def reached(end: float = end) -> bool:
                return sum((bench.offset(table.topic, n) or {"next": 0})["next"] for n in range(3)) >= end

            eventually(reached)
            sink.close()
        with Sink(bench, batch_max_records="100") as last:
            mirrored(bench, table, last)


# --- the whole bridge ------------------------------------------------------------------------------------

TABLES = """
create table people (id int primary key, name text, tags text[], visits int not null default 0);
create table lines (a text, b text, n int, primary key (a, b));
insert into people select i, 'person ' || i, array['x', null], 0 from generate_series(1, 500) i;
insert into lines select 'a:' || i, i::text, i from generate_series(1, 100) i;
"""


def test_from_postgres_to_a_cluster_and_equal_by_verify(
    database18: Database, apache_kafka: ApacheKafka, redis7_cluster: RedisCluster
) -> None:
    database18.execute(TABLES)
    settings = {"    redis.uri: ": "    redis.cluster.enabled: true\n    redis.uri: "}
    with bridged(database18, apache_kafka, redis7_cluster, "public.people, public.lines", settings) as bridge:
        database18.execute(
            "update people set visits = visits + 1, name = null where id % 3 = 0;"
            "delete from people where id % 10 = 1; update people set id = id + 1000 where id % 10 = 2;"
            "truncate lines; insert into lines values ('a', 'b:c', 1), ('a:b', 'c', 2);"
            "alter table people drop column tags"
        )
        assert wait_until_equal(bridge.config, 60).equal
        report = compare(bridge.config)
        assert report.equal, report.as_text()
        assert {table.table: table.rows for table in report.tables} == {"public.lines": 2, "public.people": 450}
        row = bridge.hash(f"{bridge.name}:people:3")
        assert {"id": "3", "visits": "1"}.items() <= row.items()
        assert row.keys() == {"id", "visits", "__cdc:version"}
        bridge.redis.hset(f"{bridge.name}:people:3", "visits", "7")
        bridge.redis.hset(f"{bridge.name}:people:999999", "id", "999999")
        report = compare(bridge.config)
        assert sorted(drift.kind for table in report.tables for drift in table.drifts) == ["different", "ghost"]
