"""Sink tasks from real topics into real Redis: what the topics say is what Redis holds, whatever happens meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions
from sink_feed import Bench, Schemas, Sink, SinkProcess, eventually

from cdc.errors import FatalError
from cdc.local.kafka import ApacheKafka, Kafka
from cdc.local.redis import Redis, RedisServer
from cdc.record import HEADER_TEXT, HEADER_UNKNOWN

pytestmark = pytest.mark.integration


@pytest.fixture(scope="session")
def schemas() -> Iterator[Schemas]:
    made = Schemas()
    yield made
    made.close()


@pytest.fixture
def bench(apache_kafka: ApacheKafka, redis7: Redis, schemas: Schemas) -> Bench:
    schemas.away = False
    return Bench(apache_kafka, redis7, schemas)


@pytest.fixture(params=["redis7", "valkey9_cluster"])
def both_bench(request: pytest.FixtureRequest, apache_kafka: ApacheKafka, schemas: Schemas) -> Bench:
    """One server, and a cluster."""
    schemas.away = False
    return Bench(apache_kafka, request.getfixturevalue(request.param), schemas)


@pytest.fixture
def any_bench(any_kafka: Kafka, any_redis: RedisServer, schemas: Schemas) -> Bench:
    schemas.away = False
    return Bench(any_kafka, any_redis, schemas)


def mirrored(bench: Bench, *tables: Any, sink: Sink | SinkProcess | None = None) -> None:
    """Redis holds what the tables hold."""
    expected: dict[str, dict[str, str]] = {}
    for table in tables:
        table.flush()
        expected |= table.expected()

    def equal() -> bool:
        assert not (isinstance(sink, Sink) and sink.ended()), sink.error
        return bench.dump() == expected

    try:
        eventually(equal)
    except AssertionError:
        assert bench.dump() == expected
        raise


def failure(sink: Sink) -> str:
    """The text of the `FatalError` that the task ends with."""
    error = eventually(sink.ended)
    assert isinstance(error, FatalError), repr(error)
    return str(error)


def test_a_history_is_mirrored_on_every_broker_and_every_redis(any_bench: Bench) -> None:
    """A1 insert and delete together, A2 delete and insert, A8 NULL and '', A12 changed key, A14 truncate."""
    users = any_bench.table("users", partitions=3)
    orders = any_bench.table("orders", columns={"a": "string", "b": "string", "n": ["null", "int"]}, key=("a", "b"))
    for n in range(300):
        users.put(id=n, name=f"n{n}", score=n)
    users.put(id=1, name=None, score=0)
    users.put(id=2, name="")
    users.delete(id=3)
    users.put(id=3, name="again")
    users.put(id=1000)
    users.delete(id=1000)
    users.delete(id=4)
    users.put(id=4000, name="n4", score=4)
    orders.put(a="x", b="y", n=1)
    with Sink(any_bench) as sink:
        mirrored(any_bench, users, orders, sink=sink)
        assert any_bench.dump()["users:1"] == {"id": "1", "score": "0"}
        assert any_bench.dump()["users:2"] == {"id": "2", "name": ""}
        users.truncate()
        users.put(id=5, name="after")
        mirrored(any_bench, users, orders, sink=sink)
        orders.truncate()
        mirrored(any_bench, users, orders, sink=sink)


def test_a13_composite_keys_with_colons_are_distinct(both_bench: Bench) -> None:
    table = both_bench.table(columns={"a": "string", "b": "string"}, key=("a", "b"))
    table.put(a="a:b", b="c")
    table.put(a="a", b="b:c")
    table.flush()
    with Sink(both_bench):
        eventually(lambda: len(both_bench.dump()) == 2)
    assert both_bench.dump() == {"users:a\\:b:c": {"a": "a:b", "b": "c"}, "users:a:b\\:c": {"a": "a", "b": "b:c"}}


def test_a9_a_dropped_column_goes_away_also_after_a_restart(both_bench: Bench) -> None:
    table = both_bench.table()
    for n in range(10):
        table.put(id=n, name="old", score=1)
    with Sink(both_bench) as sink:
        mirrored(both_bench, table, sink=sink)
    table.alter({"id": "long", "name": ["null", "string"], "age": ["null", "int"]})
    for n in range(10):
        table.put(id=n, name="new", age=n)
    with Sink(both_bench) as sink:
        mirrored(both_bench, table, sink=sink)


def test_a11_unknown_columns_stay_and_exact_texts_win(both_bench: Bench) -> None:
    table = both_bench.table()
    table.put(id=1, name="a long text", score=1)
    with Sink(both_bench) as sink:
        mirrored(both_bench, table, sink=sink)
        unknown = {HEADER_UNKNOWN: json.dumps(["name"]).encode()}
        table.put(id=1, name="filler", score=2, headers=unknown)
        table.put(id=2, score=3, headers={HEADER_TEXT: json.dumps({"name": "exact"}).encode()})
        table.rows[1,]["name"], table.rows[2,]["name"] = "a long text", "exact"
        mirrored(both_bench, table, sink=sink)


def test_a3_a_replay_from_the_beginning_changes_nothing(both_bench: Bench) -> None:
    table = both_bench.table(partitions=2)
    for n in range(100):
        table.put(id=n % 20, name=f"v{n}")
        table.delete(id=(n + 7) % 20)
    with Sink(both_bench) as sink:
        mirrored(both_bench, table, sink=sink)
    with both_bench.client() as client:
        client.delete(*client.keys(f"__cdc:offset:{{{both_bench.prefix}-sink}}:*"))
    with Sink(both_bench) as sink:
        mirrored(both_bench, table, sink=sink)
        eventually(
            lambda: sum((both_bench.offset(table.topic, n) or {"next": 0})["next"] for n in (0, 1)) == table.sent
        )


def test_a5_records_that_the_source_sends_again_are_dropped(both_bench: Bench) -> None:
    """At-least-once: the source sends what it sent once more, with the same positions."""
    table = both_bench.table()
    for n in range(50):
        table.put(id=n, name="old")
    for n in range(50):
        table.put(id=n, name="new")
    with Sink(both_bench) as sink:
        mirrored(both_bench, table, sink=sink)
        table.sent = 0
        rows = dict(table.rows)
        for n in range(50):
            table.put(id=n, name="old")
        table.rows = rows
        table.sent = 100
        table.put(id=99, name="last")
        mirrored(both_bench, table, sink=sink)
        eventually(lambda: sink.reports["metrics"]["replays"] == 50)


def test_debezium_s_records_without_our_headers_are_mirrored(both_bench: Bench) -> None:
    table = both_bench.table(positions=False)
    for n in range(20):
        table.put(id=n, name="x")
    table.delete(id=3)
    with Sink(both_bench) as sink:
        mirrored(both_bench, table, sink=sink)
        table.truncate()
        table.put(id=1, name="after")
        mirrored(both_bench, table, sink=sink)


def test_records_of_aborted_transactions_are_never_seen(bench: Bench) -> None:
    table = bench.table()
    plain = table.producer
    table.producer = Producer(
        {"bootstrap.servers": bench.kafka.bootstrap_servers, "transactional.id": bench.prefix, "linger.ms": 1}
    )
    table.producer.init_transactions(30)
    table.producer.begin_transaction()
    table.put(id=1, name="kept")
    table.producer.commit_transaction(30)
    table.producer.begin_transaction()
    table.put(id=2, name="never")
    table.producer.flush(30)
    table.producer.abort_transaction(30)
    del table.rows[2,]
    table.producer = plain
    table.put(id=3, name="behind")
    with Sink(bench) as sink:
        mirrored(bench, table, sink=sink)
    with Sink(bench) as sink:  # and with the last batch applied again
        table.put(id=4)
        mirrored(bench, table, sink=sink)


def test_rows_without_key_are_counted_and_told_once(bench: Bench) -> None:
    events = bench.table("events", policy="delete")
    users = bench.table("users")
    for _ in range(5):
        value = events._encode(events._value, {"before": None, "after": {"id": 1, "name": "e", "score": 1}, "op": "c"})
        events.send(None, value)
    events.truncate()
    events.send(None, value)
    users.put(id=1)
    with Sink(bench) as sink:
        mirrored(bench, users, sink=sink)
        eventually(lambda: sink.reports["metrics"]["keyless"] == {events.flush().topic: 6})


def test_a_topic_that_appears_is_found_by_the_expression(bench: Bench) -> None:
    with Sink(bench) as sink:
        eventually(lambda: sink.reports.get("state") == "RUNNING")
        first = bench.table("first")
        first.put(id=1, name="x")
        mirrored(bench, first, sink=sink)
        second = bench.table("second", partitions=2)
        second.put(id=1, name="y")
        mirrored(bench, first, second, sink=sink)


def test_named_topics_are_waited_for(bench: Bench) -> None:
    topic = f"{bench.prefix}.public.users"
    with Sink(bench, topics=topic, topics_regex="") as sink:
        eventually(lambda: sink.reports.get("state") == "RUNNING")
        table = bench.table()
        table.put(id=1, name="x")
        mirrored(bench, table, sink=sink)


def test_h22_a_topic_that_would_share_keys_stops_the_task_before_its_first_row(both_bench: Bench) -> None:
    users = both_bench.table("users")
    users.put(id=1, name="x")
    sink = Sink(both_bench, redis_key=both_bench.prefix + ":users:{id}")
    mirrored(both_bench, users, sink=sink)
    other = both_bench.table("others")
    other.put(id=1, name="y")
    other.flush()
    assert "would share keys such as" in failure(sink)
    mirrored(both_bench, users)


# --- bad records -----------------------------------------------------------------------------------------


def test_a16_a_foreign_key_stops_the_task_with_its_coordinates_and_nothing_is_lost(both_bench: Bench) -> None:
    table = both_bench.table()
    with both_bench.client() as client:
        client.set(f"{both_bench.prefix}:users:5", "not ours")
    for n in range(10):
        table.put(id=n, name="x")
    table.flush()
    for _ in range(2):  # it stays that way over restarts
        message = failure(Sink(both_bench))
        assert f"{table.topic}[0] offset 5" in message
        assert f"{both_bench.prefix}:users:5" in message
        assert "WRONGTYPE" in message
        assert "Remedy: remove or rename that key" in message
    with both_bench.client() as client:
        assert client.hmget(f"{both_bench.prefix}:users:9", "id", "name") == [b"9", b"x"]
        client.delete(f"{both_bench.prefix}:users:5")
    with Sink(both_bench) as sink:
        mirrored(both_bench, table, sink=sink)


def test_an_undecodable_record_stops_the_task_in_front_of_it(bench: Bench) -> None:
    table = bench.table(partitions=2)
    for n in range(20):
        table.put(id=n, name="x")
    table.flush()
    table.send(table.key_of({"id": 1}), b"\0\0\0\0\1garbage", partition=0)
    table.flush()
    message = failure(Sink(bench))
    assert f"{table.topic}[0] offset" in message
    assert "Everything before it is mirrored" in message
    mirrored(bench, table)
    held = bench.offset(table.topic, 0)
    assert held is not None
    assert f"offset {held['next']}:" in message


def test_a_schema_id_that_nobody_knows_stops_the_task(bench: Bench) -> None:
    table = bench.table()
    table.send(table.key_of({"id": 1}), b"\0\0\x0f\xff\xffx")
    table.flush()
    assert "1048575" in failure(Sink(bench))


# --- topics that changed ---------------------------------------------------------------------------------


def admin(bench: Bench) -> AdminClient:
    return AdminClient({"bootstrap.servers": bench.kafka.bootstrap_servers})


def test_h17_a_topic_made_anew_stops_the_task(bench: Bench) -> None:
    table = bench.table()
    for n in range(5):
        table.put(id=n)
    with Sink(bench) as sink:
        mirrored(bench, table, sink=sink)
    client = admin(bench)
    client.delete_topics([table.topic])[table.topic].result(30)
    eventually(lambda: table.topic not in client.list_topics(timeout=10).topics)
    anew = bench.table()
    for n in range(9):
        anew.put(id=n)
    anew.flush()
    assert "was deleted and made anew" in failure(Sink(bench))


def test_h17_partitions_that_were_added_stop_the_task(bench: Bench) -> None:
    table = bench.table()
    table.put(id=1)
    with Sink(bench) as sink:
        mirrored(bench, table, sink=sink)
    client = admin(bench)
    client.create_partitions([NewPartitions(table.topic, 3)])[table.topic].result(30)
    eventually(lambda: len(client.list_topics(table.topic, timeout=10).topics[table.topic].partitions) == 3)
    assert "had 1 partitions and has 3" in failure(Sink(bench))


def test_h20_records_removed_before_they_were_read_stop_the_task(bench: Bench) -> None:
    table = bench.table(policy="delete")
    for n in range(10):
        table.put(id=n)
    with Sink(bench) as sink:
        mirrored(bench, table, sink=sink)
    for n in range(10):
        table.put(id=n, name="later")
    table.flush()
    client = admin(bench)
    part = TopicPartition(table.topic, 0, 15)
    [future] = client.delete_records([part]).values()
    future.result(30)
    message = failure(Sink(bench))
    assert "the topic holds 15 to 20" in message


def test_of_a_batch_to_be_applied_again_the_topic_may_have_lost_the_beginning(bench: Bench) -> None:
    table = bench.table(policy="delete")
    for n in range(10):
        table.put(id=n)
    with Sink(bench) as sink:
        mirrored(bench, table, sink=sink)
    unseen = {"v": 1, "next": 10, "ts": 0, "prev": {"next": 2, "pos": {}}}
    with bench.client() as redis:
        redis.set(f"__cdc:offset:{{{bench.prefix}-sink}}:{table.topic}:0", json.dumps(unseen))
    client = admin(bench)
    [future] = client.delete_records([TopicPartition(table.topic, 0, 8)]).values()
    future.result(30)
    with Sink(bench) as sink:
        table.put(id=11)
        mirrored(bench, table, sink=sink)
        eventually(lambda: sink.reports["metrics"]["records"] == 3)


# --- figures ---------------------------------------------------------------------------------------------


def test_the_task_reports_figures(bench: Bench) -> None:
    table = bench.table()
    for n in range(30):
        table.put(id=n)
    table.delete(id=1)
    with Sink(bench) as sink:
        mirrored(bench, table, sink=sink)
        eventually(lambda: sink.reports["metrics"]["records"] == 32 and sink.reports["metrics"]["lag"] == 0)
        figures = sink.reports["metrics"]
        assert (figures["puts"], figures["deletes"], figures["replays"]) == (30, 2, 0)
        assert figures["batches"] >= 1
        latencies = [value for name, value in sink.history if name == "metrics" and "latency_p99_ms" in value]
        assert latencies
        assert ("state", "RUNNING") in sink.history


# --- outages ---------------------------------------------------------------------------------------------


def test_a_registry_that_is_away_is_waited_for(bench: Bench) -> None:
    table = bench.table()
    table.put(id=1)
    bench.schemas.away = True
    with Sink(bench) as sink:
        eventually(lambda: "schema" in sink.reports.get("waiting", ""))
        bench.schemas.away = False
        mirrored(bench, table, sink=sink)
        eventually(lambda: sink.reports["waiting"] == "")


def test_a18_a_redis_that_stands_still_under_load_loses_nothing(
    apache_kafka: ApacheKafka, launch: Callable[[Redis], Redis], schemas: Schemas
) -> None:
    bench = Bench(apache_kafka, launch(Redis(appendonly=False)), schemas)
    table = bench.table(partitions=2)
    for n in range(3000):
        table.put(id=n % 500, name=f"v{n}")
    with Sink(bench, redis_timeout_ms="500", batch_max_records="50") as sink:
        eventually(lambda: len(bench.dump()) > 100)
        with bench.client() as client:
            client.client_pause(2000)
        for n in range(1000):
            table.put(id=n % 500, name=f"w{n}")
        mirrored(bench, table, sink=sink)


def test_a17_a_redis_without_memory_is_waited_for(
    apache_kafka: ApacheKafka, launch: Callable[[Redis], Redis], schemas: Schemas
) -> None:
    bench = Bench(apache_kafka, launch(Redis(appendonly=False)), schemas)
    table = bench.table()
    for n in range(500):
        table.put(id=n, name="x" * 200)
    with bench.client() as client, Sink(bench, batch_max_records="50") as sink:
        eventually(lambda: sink.reports.get("state") == "RUNNING")
        client.config_set("maxmemory", "1mb")
        table.put(id=1000, name="y")
        table.flush()
        eventually(lambda: "OOM" in sink.reports.get("waiting", ""))
        client.config_set("maxmemory", "0")
        mirrored(bench, table, sink=sink)


def test_a19_a_redis_that_comes_back_empty_is_filled_again(
    apache_kafka: ApacheKafka, launch: Callable[[Redis], Redis], schemas: Schemas
) -> None:
    server = launch(Redis(appendonly=False))
    bench = Bench(apache_kafka, server, schemas)
    table = bench.table(partitions=2)
    for n in range(300):
        table.put(id=n, name="x")
    with Sink(bench) as sink:
        mirrored(bench, table, sink=sink)
        server.kill()
        eventually(lambda: sink.reports.get("waiting"))
        table.put(id=1, name="while it was away")
        server.start()
        mirrored(bench, table, sink=sink)
        with bench.client() as client:
            client.flushall()
        mirrored(bench, table, sink=sink)


def test_a_kafka_that_is_killed_is_waited_for(
    launch: Callable[[ApacheKafka], ApacheKafka], redis7: Redis, schemas: Schemas
) -> None:
    kafka = launch(ApacheKafka())
    bench = Bench(kafka, redis7, schemas)
    table = bench.table()
    for n in range(100):
        table.put(id=n, name="x")
    with Sink(bench) as sink:
        mirrored(bench, table, sink=sink)
        kafka.kill()
        eventually(lambda: sink.reports.get("waiting"))
        kafka.start()
        for n in range(100):
            table.put(id=n, name="y")
        mirrored(bench, table, sink=sink)


# --- several tasks, kills --------------------------------------------------------------------------------


def test_a14_a_truncate_with_several_tasks(both_bench: Bench) -> None:
    table = both_bench.table(partitions=4)
    with Sink(both_bench, task=0) as one, Sink(both_bench, task=1) as other:
        for history in range(3):
            for n in range(200):
                table.put(id=n, name=f"h{history}")
            table.truncate()
            for n in range(100, 150):
                table.put(id=n, name=f"after{history}")
        mirrored(both_bench, table, sink=one)
        table.truncate()
        mirrored(both_bench, table, sink=other)


@pytest.fixture
def processes() -> Iterator[Callable[..., SinkProcess]]:
    """Sinks that end with the test."""
    started: list[SinkProcess] = []

    def start(*args: Any, **settings: Any) -> SinkProcess:
        started.append(SinkProcess(*args, **settings))
        return started[-1]

    yield start
    for process in started:
        process.close()


def test_a22_a_sink_that_is_killed_again_and_again_ends_equal(
    both_bench: Bench, processes: Callable[..., SinkProcess]
) -> None:
    table = both_bench.table(partitions=3)
    for n in range(20_000):
        table.put(id=n % 3000, name=f"v{n}", score=n if n % 2 else None)
        if n % 7 == 0:
            table.delete(id=(n * 13) % 3000)
        if n == 12_000:
            table.truncate()
    table.flush()
    for share in (0.1, 0.4, 0.7):
        sink = processes(both_bench, batch_max_records="100")
        end = share * table.sent

        def reached(end: float = end) -> bool:
            return sum((both_bench.offset(table.topic, n) or {"next": 0})["next"] for n in range(3)) >= end

        eventually(reached)
        sink.kill()
    sink = processes(both_bench, batch_max_records="100")
    mirrored(both_bench, table)
    assert sink.stop() == 0


def test_a23_a_zombie_that_wakes_up_cannot_bring_old_values_back(
    both_bench: Bench, processes: Callable[..., SinkProcess]
) -> None:
    table = both_bench.table(partitions=2)
    for n in range(200):
        table.put(id=n, name="first")
    zombie = processes(both_bench, 0)
    mirrored(both_bench, table)
    zombie.pause()
    heir = processes(both_bench, 1)
    for n in range(200):
        table.put(id=n, name="second")
    mirrored(both_bench, table)
    zombie.resume()
    for n in range(200):
        table.put(id=n, name="third")
    mirrored(both_bench, table)
    assert heir.stop() == 0


def test_a24_what_the_consumer_group_remembers_does_not_matter(bench: Bench) -> None:
    table = bench.table()
    for n in range(50):
        table.put(id=n, name="x")
    with Sink(bench) as sink:
        mirrored(bench, table, sink=sink)
    client = admin(bench)
    group = f"connect-{bench.prefix}-sink"
    for future in client.delete_consumer_groups([group]).values():
        assert future.exception(30) is None or future.exception().args[0].name() in (
            "NON_EMPTY_GROUP",
            "GROUP_ID_NOT_FOUND",
        )
    for n in range(50):
        table.put(id=n, name="y")
    with Sink(bench) as sink:
        mirrored(bench, table, sink=sink)
        eventually(lambda: sink.reports["metrics"]["records"] == 50)


def test_a_topic_that_came_while_the_sink_was_away_a_moment_is_read(bench: Bench) -> None:
    # The group still knows the member that left, and by its name gives its successor what that one had.
    first = bench.table()
    first.put(id=1, name="x")
    with Sink(bench) as sink:
        mirrored(bench, first, sink=sink)
    second = bench.table("orders")
    second.put(id=2, name="y")
    first.put(id=1, name="z")
    with Sink(bench) as sink:
        mirrored(bench, first, second, sink=sink)


def test_a_sink_that_is_to_read_other_topics_reads_those(bench: Bench) -> None:
    first, second = bench.table(), bench.table("orders")
    first.put(id=1, name="x")
    second.put(id=2, name="y")
    with Sink(bench, topics_regex=f"{bench.prefix}.*users") as sink:
        mirrored(bench, first, sink=sink)
    with bench.client() as client:
        client.flushall()
    with Sink(bench, topics_regex=f"{bench.prefix}.*orders") as sink:
        mirrored(bench, second, sink=sink)
    assert bench.offset(first.topic) is None
