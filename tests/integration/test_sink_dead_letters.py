"""Records that cannot be mirrored go to the dead letter queue, their neighbours to Redis, and none is lost (H21)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from confluent_kafka.cimpl import NewTopic
from letter_box import Found, letters
from sink_feed import Bench, Schemas, Sink, SinkProcess, eventually
from structlog.testing import capture_logs

from cdc.errors import FatalError, RetriableError
from cdc.kafka.producer import RecordProducer
from cdc.local.kafka import ApacheKafka
from cdc.local.redis import Redis
from cdc.record import HEADER_POSITION, HEADER_TEXT

pytestmark = pytest.mark.integration


@pytest.fixture(scope="session")
def schemas() -> Iterator[Schemas]:
    made = Schemas()
    yield made
    made.close()


STORES = ["redis7", "valkey9", "redis7_cluster"]


@pytest.fixture
def bench(apache_kafka: ApacheKafka, redis7: Redis, schemas: Schemas) -> Bench:
    schemas.away = False
    return Bench(apache_kafka, redis7, schemas)


def queue_of(bench: Bench) -> str:
    return f"dlq-{bench.prefix}"


def tolerant(bench: Bench, **more: str) -> dict[str, str]:
    """Settings of a sink that goes on."""
    return {
        "errors_tolerance": "all",
        "errors_deadletterqueue_topic_name": queue_of(bench),
        "errors_deadletterqueue_topic_replication_factor": "1",
        "errors_deadletterqueue_context_headers_enable": "true",
        **more,
    }


def in_queue(bench: Bench) -> list[Found]:
    return letters(bench.kafka.bootstrap_servers, queue_of(bench))


def mirrored(bench: Bench, table: Any, without: tuple[str, ...] = ()) -> None:
    """Redis holds what the table holds, but for some keys; all of the topic is settled."""
    table.flush()
    expected = {key: row for key, row in table.expected().items() if key not in without}

    try:
        eventually(lambda: hashes(bench) == expected, patience=30)
    except AssertionError:
        assert hashes(bench) == expected
        raise


def hashes(bench: Bench) -> dict[str, dict[str, str]]:
    """The rows in Redis, among whatever else has such keys."""
    rows = {}
    with bench.client() as client:
        for key in client.scan_iter(match=f"{bench.prefix}:*", count=1000, _type="hash"):
            row: Any = client.hgetall(key)
            fields = {n.decode(): v.decode() for n, v in row.items() if n != b"__cdc:version"}
            rows[key.decode().removeprefix(f"{bench.prefix}:")] = fields
    return rows


def block(bench: Bench, *numbers: int) -> None:
    """Something else has these rows' keys."""
    with bench.client() as client:
        for number in numbers:
            client.set(f"{bench.prefix}:users:{number}", "not ours")


def passed(bench: Bench, table: Any, offset: int) -> None:
    eventually(lambda: (bench.offset(table.topic) or {"next": 0})["next"] >= offset)


@pytest.mark.parametrize("store", STORES)
def test_a16_a_foreign_key_is_a_letter_with_coordinates_and_its_neighbours_are_applied(
    request: pytest.FixtureRequest, apache_kafka: ApacheKafka, schemas: Schemas, store: str
) -> None:
    bench = Bench(apache_kafka, request.getfixturevalue(store), schemas)
    block(bench, 5)
    table = bench.table()
    for n in range(10):
        table.put(id=n, name="x")
    table.flush()
    with Sink(bench, **tolerant(bench)) as sink:
        mirrored(bench, table, without=("users:5",))
        table.put(id=11, name="behind it")
        mirrored(bench, table, without=("users:5",))
        eventually(lambda: sink.reports["metrics"]["puts"] == 10 and "errors" in sink.reports["metrics"])
        figures = sink.reports["metrics"]
        assert (figures["errors"], figures["dead_letters"], figures["errors_skipped"]) == (1, 1, 0)
        assert f"{table.topic}[0] offset 5" in figures["last_error"]
        assert sink.reports["state"] == "RUNNING"
    [found] = in_queue(bench)
    assert found.where == (table.topic, 0, 5)
    assert found.key == table.key_of({"id": 5})
    assert found.value is not None
    assert found.value.endswith(b"\x0a\x02\x02x\x00\x02u")
    assert dict(found.own)[HEADER_POSITION] is not None
    context = dict(found.context)
    trace = context.pop("exception.stacktrace")
    assert trace is not None
    assert "WRONGTYPE" in trace
    message = context.pop("exception.message")
    assert message is not None
    assert f"'{bench.prefix}:users:5': WRONGTYPE" in message
    assert context == {
        "topic": table.topic,
        "partition": "0",
        "offset": "5",
        "connector.name": f"{bench.prefix}-sink",
        "task.id": "0",
        "stage": "TASK_PUT",
        "class.name": "cdc.redis.connector.RedisSinkConnector",
        "exception.class.name": "cdc.mirror.assembly.Refused",
    }


def test_what_cannot_be_read_or_mapped_is_a_letter_as_it_was(bench: Bench) -> None:
    table = bench.table(policy="delete")  # which may have records without key
    good = table.key_of({"id": 1})
    table.put(id=1, name="x")
    table.send(good, b"garbage", headers={"theirs": b"\xff\x00"})
    table.send(good, b"\0\0\x0f\xff\xffx")  # a schema id that nobody knows
    table.send(b"garbage", None)
    table.send(None, b"\0\0\0\0")
    table.put(id=2, headers={HEADER_TEXT: b'{"nobody": "x"}'})
    del table.rows[2,]
    table.put(id=3, name="y")
    with Sink(bench, **tolerant(bench)):
        mirrored(bench, table)
        passed(bench, table, 7)
    found = in_queue(bench)
    assert [(each.letter.offset, each.letter.stage, each.letter.error) for each in found] == [
        (1, "VALUE_CONVERTER", "cdc.errors.DataError"),
        (2, "VALUE_CONVERTER", "cdc.registry.errors.UnknownSchemaId"),
        (3, "KEY_CONVERTER", "cdc.errors.DataError"),
        (4, "VALUE_CONVERTER", "cdc.errors.DataError"),
        (5, "TASK_PUT", "cdc.errors.DataError"),
    ]
    assert [(each.key, each.value) for each in found[:4]] == [
        (good, b"garbage"),
        (good, b"\0\0\x0f\xff\xffx"),
        (b"garbage", None),
        (None, b"\0\0\0\0"),
    ]
    assert dict(found[0].own)["theirs"] == b"\xff\x00"
    assert all(each.timestamp > 0 for each in found)
    assert found[0].context["class.name"] == "cdc.converters.avro.AvroConverter"


def test_without_a_queue_they_are_skipped_counted_and_logged(bench: Bench) -> None:
    block(bench, 7)
    table = bench.table()
    table.put(id=1)
    table.send(b"garbage", b"garbage")
    table.put(id=7)
    table.put(id=2)
    with capture_logs() as logs, Sink(bench, errors_tolerance="all") as sink:
        mirrored(bench, table, without=("users:7",))
        eventually(lambda: sink.reports["metrics"].get("errors_skipped") == 2)
        assert sink.reports["metrics"]["dead_letters"] == 0
    assert [entry["event"] for entry in logs].count("a record is at fault") == 2


def test_context_headers_are_left_out_unless_asked_for(bench: Bench) -> None:
    table = bench.table()
    table.send(b"k", b"garbage")
    table.put(id=2)
    settings = tolerant(bench)
    del settings["errors_deadletterqueue_context_headers_enable"]
    with Sink(bench, **settings):
        mirrored(bench, table)
    [found] = in_queue(bench)
    assert found.context == {}
    assert found.where == (table.topic, 0, 0)


def test_the_queue_is_created_for_keeping(bench: Bench) -> None:
    with Sink(bench, **tolerant(bench)) as sink:
        eventually(lambda: sink.reports.get("state") == "RUNNING")
    admin = AdminClient({"bootstrap.servers": bench.kafka.bootstrap_servers})
    resource = ConfigResource(ResourceType.TOPIC, queue_of(bench))
    config = admin.describe_configs([resource])[resource].result(30)
    assert config["cleanup.policy"].value == "delete"
    assert config["retention.ms"].value == "-1"
    assert len(admin.list_topics(queue_of(bench), timeout=30).topics[queue_of(bench)].partitions) == 1


def test_a_queue_that_cannot_be_created_says_so(bench: Bench) -> None:
    table = bench.table()
    table.put(id=1)
    settings = tolerant(bench)
    del settings["errors_deadletterqueue_topic_replication_factor"]  # Connect's default is 3
    error = eventually(Sink(bench, **settings).ended)
    assert isinstance(error, FatalError)
    assert "errors.deadletterqueue.topic.replication.factor=3" in str(error)


def test_a_record_that_the_queue_cannot_hold_leaves_its_size(bench: Bench) -> None:
    admin = AdminClient({"bootstrap.servers": bench.kafka.bootstrap_servers})
    small = NewTopic(queue_of(bench), 1, 1, config={"max.message.bytes": "20000"})
    admin.create_topics([small])[queue_of(bench)].result(30)
    table = bench.table()
    noise = bytes(range(256)) * 200
    table.send(b"k", b"garbage")
    table.send(b"big", noise[::-1] + b"".join(bytes([n % 251, n * n % 253]) for n in range(30_000)))
    table.send(b"k", b"garbage again")
    table.put(id=2)
    with Sink(bench, **tolerant(bench)):
        mirrored(bench, table)
    found = {each.letter.offset: each for each in in_queue(bench)}
    assert found[0].value == b"garbage"
    assert (found[1].key, found[1].value, found[1].letter.size) == (b"big", None, len(noise) + 60_000)
    assert found[2].value == b"garbage again"


# --- outages and crashes ---------------------------------------------------------------------------------


def test_a_queue_that_is_away_is_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    block(bench, 3)
    table = bench.table()
    for n in range(6):
        table.put(id=n)
    table.send(b"k", b"garbage")
    table.put(id=7)
    real = RecordProducer.commit
    away = [True]

    def commit(producer: RecordProducer) -> None:
        if away[0]:
            raise RetriableError("the queue's broker is away")
        real(producer)

    monkeypatch.setattr(RecordProducer, "commit", commit)
    with Sink(bench, **tolerant(bench)) as sink:
        eventually(lambda: "broker is away" in sink.reports.get("waiting", ""))
        assert (bench.offset(table.topic) or {"next": 0})["next"] < 6
        away[0] = False
        mirrored(bench, table, without=("users:3",))
    assert {each.letter.offset for each in in_queue(bench)} == {3, 6}


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


STEPS = [
    ("before", "cdc.runtime.sink_errors:SinkErrors.put_aside", 1),
    ("after", "cdc.runtime.sink_errors:SinkErrors.put_aside", 2),
    ("before", "cdc.kafka.producer:RecordProducer.commit", 3),
    ("after", "cdc.redis.store:RedisStore.settle", 3),
]
CLUSTER_STEPS = [
    *STEPS[:3],
    ("after", "cdc.redis.cluster.store:ClusterStore.settle", 3),
    ("after", "cdc.redis.cluster.witnesses:Witnesses.write", 2),
]


@pytest.mark.parametrize(
    ("store", "die"),
    [*(("redis7", step) for step in STEPS), *(("redis7_cluster", step) for step in CLUSTER_STEPS)],
    ids=lambda part: part if isinstance(part, str) else " ".join(str(one).rpartition(".")[2] for one in part),
)
def test_h21_a_kill_at_any_step_loses_no_letter(
    request: pytest.FixtureRequest,
    apache_kafka: ApacheKafka,
    schemas: Schemas,
    processes: Callable[..., SinkProcess],
    store: str,
    die: tuple[str, str, int],
) -> None:
    """Refused rows and garbage in batches of four; the sink kills itself at the step, and another goes on."""
    bench = Bench(apache_kafka, request.getfixturevalue(store), schemas)
    blocked = (2, 9, 10, 17, 23)
    block(bench, *blocked)
    table = bench.table()
    expected = set()
    for n in range(30):
        if n in blocked:
            expected.add(table.sent)
        table.put(id=n, name="x")
        if n % 7 == 3:
            expected.add(table.sent)
            table.send(b"k", b"garbage")
    table.flush()
    settings = tolerant(bench, batch_max_records="4")
    first = processes(bench, die=die, **settings)
    eventually(lambda: first.process.poll() is not None)
    assert first.process.returncode == -9
    second = processes(bench, **settings)
    mirrored(bench, table, without=tuple(f"users:{n}" for n in blocked))
    passed(bench, table, table.sent)
    assert second.stop() == 0
    found = [each.letter.offset for each in in_queue(bench)]
    assert set(found) == expected
    assert len(found) <= 2 * len(expected)  # at least once
