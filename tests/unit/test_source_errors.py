"""What a source does with records that it cannot write: put aside in their place, or stopped at; nothing in silence."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from cdc.codec.envelope import row_shape
from cdc.config import Step
from cdc.converters.json_converter import JsonConverter
from cdc.errors import DataError, FatalError, RetriableError, SchemaRefused, TableError
from cdc.kafka.producer import RecordTooLarge, Undelivered
from cdc.plugin import ConnectorConfig, SourceConnector, SourceTask, Sweep, TaskContext, Transform, ValueEncoder
from cdc.record import HEADER_POSITION, UNCHANGED, Column, ConnectRecord, RowChange, RowShape, Schema, Transaction
from cdc.runtime.letters import CONTEXT, parse_letter
from cdc.runtime.source_errors import SourceErrors
from cdc.runtime.source_sweeps import SweepOutput
from cdc.runtime.source_transforms import Chain
from cdc.runtime.source_writer import SourceWriter

TOPIC = "shop.public.t"
QUEUE = "dlq"
COLUMNS = (Column("id", Schema("int32"), "int32"), Column("v", Schema("string", optional=True), "text"))
TX = Transaction(1, 100, 0, 7, None)


def shape() -> RowShape:
    made = row_shape(
        topic=TOPIC, db="shop", schema="public", table="t", columns=COLUMNS, key=(0,), server="shop", compact=True
    )
    return made


def change(of: RowShape, number: int, value: bytes | None, op: str = "u", marker: str | None = None) -> RowChange:
    row: list[Any] = [b"%d" % number, value]
    return RowChange(of, op, row, None, row if op else None, TX, 5, number, 0, marker=marker)


class Producer:
    """Keeps what is produced. ``largest`` is what it takes."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes | None, bytes | None, list[Any]]] = []
        self.largest = 10_000_000

    def produce(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Any = None,
        partition: int = -1,
        timestamp: int = 0,
    ) -> None:
        del partition, timestamp
        if len(value or b"") > self.largest:
            raise RecordTooLarge("too large", [])
        self.sent.append((topic, key, value, list(headers or ())))

    def topic(self, name: str) -> list[tuple[bytes | None, bytes | None]]:
        return [(key, value) for topic, key, value, _ in self.sent if topic == name]

    def letters(self) -> list[Any]:
        return [parse_letter(headers) for topic, _, _, headers in self.sent if topic == QUEUE]


class Topics:
    def ensure(self, *_args: Any, **_more: Any) -> int:
        return 1


class Values(JsonConverter):
    """JSON, but for values that are told to fail; ``refused`` is raised for every schema."""

    refused: TableError | None = None

    def value_encoder(self, of: RowShape) -> ValueEncoder:
        if self.refused is not None:
            raise self.refused
        encode = super().value_encoder(of)

        def encoded(record: RowChange, now_us: int) -> bytes | None:
            if record.after is not None and record.after[1] == b"fails":
                raise DataError("this value fails")
            return encode(record, now_us)

        return encoded


class Task(SourceTask):
    source_id = "slot"

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, bool]] = []

    def start(self, offsets: Any) -> None: ...
    def poll(self, timeout: float) -> Sequence[RowChange | ConnectRecord]:  # noqa: ARG002
        return ()

    def offsets(self) -> Any: ...
    def committed(self) -> None: ...
    def keep_alive(self) -> None: ...
    def stop(self) -> None: ...

    def refuse(self, shape: RowShape, error: TableError, *, queued: bool = False) -> None:
        del error
        self.told.append((shape.table, queued))

    def accepted(self, shape: RowShape) -> None:
        self.told.append((f"{shape.table} accepted", False))


class Source(SourceConnector):
    config_model = ConnectorConfig
    queues = False

    @property
    def queues_incompatible_schemas(self) -> bool:
        return self.queues

    def check(self) -> Any: ...
    def task(self, context: TaskContext) -> Any: ...


class Memory(dict[str, Any]):
    def put(self, topic: str, state: Any) -> None:
        self[topic] = state


class Waiting:
    def __init__(self) -> None:
        self.pauses: list[float] = []

    def patiently(self, call: Callable[[], Any]) -> Any:
        return call()

    def pause(self, seconds: float, reason: str) -> None:
        del reason
        self.pauses.append(seconds)


class World:
    """A writer and everything around it."""

    def __init__(self, transform: Transform | None = None, *, queues: bool = False, **settings: str) -> None:
        properties = {name.replace("_", "."): value for name, value in settings.items()}
        config = ConnectorConfig.model_validate({"name": "shop", "connector.class": "x", **properties})
        connector = Source(config)
        connector.queues = queues
        context = TaskContext("shop", 0, "test", lambda _name, _value: None, lambda: False)
        self.errors = SourceErrors(config, context, {"bootstrap.servers": "x"})
        self.errors.policy.ready = True
        self.producer: Any = Producer()
        self.task = Task()
        self.keys, self.values = JsonConverter(), Values()
        for converter, is_key in ((self.keys, True), (self.values, False)):
            converter.configure({"schemas.enable": "false"}, is_key=is_key)
        self.waiting = Waiting()
        topics: Any = Topics()
        self.writer = SourceWriter(
            connector,
            self.task,
            self.producer,
            topics,
            (self.keys, self.values),
            Memory(),
            None if transform is None else Chain([Step(transform, None, negate=False)]),
            ("cdc.source", b"shop/slot"),
            self.errors,
            self.waiting,
            compacts=True,
        )


TOLERANT = {"errors_tolerance": "all", "errors_deadletterqueue_topic_name": QUEUE}


def test_a_value_that_cannot_be_encoded_is_a_letter_in_its_place_and_the_table_goes_on() -> None:
    world, of = World(**TOLERANT, errors_deadletterqueue_context_headers_enable="true"), shape()
    world.writer.write([change(of, 1, b"a"), change(of, 2, b"fails"), change(of, 3, b"c")])
    assert [topic for topic, *_ in world.producer.sent] == [TOPIC, QUEUE, TOPIC]
    [(key, value)] = world.producer.topic(QUEUE)
    assert json.loads(key)["payload"] == {"id": 2}
    assert json.loads(value)["payload"]["after"] == {"id": 2, "v": "fails"}
    assert json.loads(value)["schema"]["name"] == of.envelope_schema.name
    headers = dict(world.producer.sent[1][3])
    position = TX.position_prefix + b"00000002.00000000"
    assert headers[HEADER_POSITION] == position
    assert headers["cdc.source"] == b"shop/slot"
    assert headers[CONTEXT + "stage"] == b"VALUE_CONVERTER"
    assert headers[CONTEXT + "class.name"] == b"test_source_errors.Values"
    [letter] = world.producer.letters()
    assert (letter.topic, letter.offset, letter.position, letter.form) == (TOPIC, -1, position.decode(), "json")
    # Counted when it is durable, and not before.
    assert world.errors.policy.figures() == {}
    world.errors.committed()
    assert world.errors.policy.figures()["dead_letters"] == 1


def test_a_row_that_no_schema_holds_is_told_as_postgres_has_it() -> None:
    world, of = World(**TOLERANT), shape()
    bad = change(of, 2, b"fails")
    bad.after = [b"no number", UNCHANGED]
    bad.before = [b"no number", b"\xffold"]
    world.writer.write([bad])
    [(key, value)] = world.producer.topic(QUEUE)
    assert json.loads(key) == {"id": "2"}
    assert json.loads(value) == {
        "op": "u",
        "before": {"id": "no number", "v": "\\xffold"},
        "after": {"id": "no number"},
    }
    assert world.producer.letters()[0].form == "text"


def test_without_a_queue_it_is_skipped_and_counted() -> None:
    world, of = World(errors_tolerance="all"), shape()
    world.writer.write([change(of, 1, b"fails"), change(of, 2, b"b")])
    world.errors.committed()
    assert len(world.producer.sent) == 1
    assert world.errors.policy.figures()["errors_skipped"] == 1


def test_without_tolerance_the_task_stops_in_front_of_it_and_says_what_to_do() -> None:
    world, of = World(), shape()
    with pytest.raises(FatalError, match=r"position|at .*this value fails.*errors\.tolerance=all"):
        world.writer.write([change(of, 1, b"a"), change(of, 2, b"fails")])
    assert len(world.producer.sent) == 1


def test_what_was_put_aside_before_an_abort_is_not_counted() -> None:
    world, of = World(**TOLERANT), shape()
    world.writer.write([change(of, 1, b"fails")])
    topics: Any = Topics()
    world.errors.begin(topics)
    world.errors.committed()
    assert world.errors.policy.figures() == {}


# --- oversize --------------------------------------------------------------------------------------------


def test_a_record_larger_than_the_producer_may_send_goes_to_the_queue_with_its_bytes() -> None:
    world, of = World(**TOLERANT), shape()
    world.writer.write([change(of, 1, b"x" * 1_100_000), change(of, 2, b"small")])
    assert [len(value or b"") > 1_100_000 for _, value in world.producer.topic(QUEUE)] == [True]
    [letter] = world.producer.letters()
    assert (letter.stage, letter.size, letter.form) == ("KAFKA_PRODUCE", -1, "")
    assert len(world.producer.topic(TOPIC)) == 1


def test_what_even_the_queue_cannot_hold_leaves_its_key_and_size() -> None:
    world, of = World(**TOLERANT), shape()
    world.producer.largest = 1_050_000
    world.writer.write([change(of, 1, b"x" * 1_100_000)])
    assert world.producer.topic(QUEUE) == [(b'{"id":1}', None)]
    assert world.producer.letters()[0].size > 1_100_000


def test_a_broker_that_refuses_a_batch_makes_batches_smaller_first_and_the_record_a_letter_then() -> None:
    world, of = World(**TOLERANT), shape()
    refused = RecordTooLarge("refused", [Undelivered(TOPIC, b'{"id":1}', 70_000), Undelivered(TOPIC, b"other", 100)])
    assert world.errors.learn(refused, lambda _topic: 60_000)
    assert 50_000 < world.errors.producer_settings()["batch.size"] < 60_000
    world.writer.write([change(of, 1, b"x" * 70_000)])
    assert len(world.producer.topic(TOPIC)) == 1
    size = len(world.producer.topic(TOPIC)[0][1] or b"") + len(b'{"id":1}')
    alone = RecordTooLarge("refused", [Undelivered(TOPIC, b'{"id":1}', size)])
    assert world.errors.learn(alone, lambda _topic: 60_000)
    world.writer.write([change(of, 1, b"x" * 70_000), change(of, 1, b"small"), change(of, 3, b"x" * 70_000)])
    assert len(world.producer.topic(QUEUE)) == 1
    assert len(world.producer.topic(TOPIC)) == 3
    # The queue refuses it as well: without its value then.
    [(key, value)] = world.producer.topic(QUEUE)
    letter = RecordTooLarge("refused", [Undelivered(QUEUE, key, len(key or b"") + len(value or b""))])
    assert world.errors.learn(letter, lambda _topic: 60_000)
    world.writer.write([change(of, 1, b"x" * 70_000)])
    assert world.producer.topic(QUEUE)[1] == (b'{"id":1}', None)
    assert not world.errors.learn(alone, lambda _topic: 60_000)  # nothing new: the task stops


def test_without_tolerance_nothing_is_learned() -> None:
    refused = RecordTooLarge("refused", [Undelivered(TOPIC, b"k", 70_000)])
    assert not World().errors.learn(refused, lambda _topic: 60_000)


def test_a_row_that_was_read_again_and_put_aside_is_no_ghost() -> None:
    world, of = World(**TOLERANT), shape()
    world.writer.write(
        [change(of, 1, b"fails", "r", marker="true"), change(of, 2, b"x" * 1_100_000, "r", marker="last")]
    )
    world.writer.write([change(of, 3, b"fails")])
    output = SweepOutput(world.writer, world.task, lambda: None, lambda: None)
    sweep = Sweep(of, b"")
    for number in (1, 2, 3):
        row: list[Any] = [b"%d" % number, None]
        gone = RowChange(of, "", row, None, None, TX, 5, 9, 0)
        output.write(sweep, gone, b'{"id":%d}' % number, 0, 0)
    assert world.producer.topic(TOPIC) == [(b'{"id":3}', None)]


# --- schemas that are refused ----------------------------------------------------------------------------


def test_changes_under_a_refused_schema_go_to_the_queue_and_the_table_is_read_again_when_it_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, of = World(queues=True, **TOLERANT), shape()
    world.values.refused = SchemaRefused("incompatible")
    world.writer.write([change(of, 1, b"a"), change(of, 1, None, op=""), change(of, 2, b"row", "r", marker="true")])
    world.writer.write([change(of, 3, b"c")])
    assert world.task.told == [("t", True)] * 2  # it may have been read again in between
    assert [json.loads(key or b"")["payload"] for key, _ in world.producer.topic(QUEUE)] == [{"id": 1}, {"id": 3}]
    assert world.producer.topic(TOPIC) == []
    world.values.refused = None
    monkeypatch.setattr("cdc.runtime.source_writer.ASK_AGAIN_S", 0.0)
    world.writer.write([change(of, 4, b"d")])
    assert world.task.told[2:] == [("t accepted", False)]
    assert len(world.producer.topic(TOPIC)) == 1


def test_another_fault_of_a_table_stops_it_as_ever() -> None:
    world, of = World(queues=True, **TOLERANT), shape()
    world.values.refused = TableError("no key")
    world.writer.write([change(of, 1, b"a")])
    assert world.task.told == [("t", False)]
    assert world.producer.sent == []


# --- transforms ------------------------------------------------------------------------------------------


class Moody(Transform):
    """Cannot change some records; others not at once."""

    def __init__(self, away: int = 0) -> None:
        self.away = away

    def configure(self, config: Any) -> None: ...

    def apply(self, record: ConnectRecord) -> ConnectRecord | None:
        if record.value["after"]["v"] == "fails":
            raise DataError("cannot be changed")
        if record.value["after"]["v"] == "later" and self.away:
            self.away -= 1
            raise RetriableError("not now")
        return record


def test_a_record_that_a_transform_cannot_change_is_a_letter() -> None:
    world, of = World(Moody(), **TOLERANT, errors_deadletterqueue_context_headers_enable="true"), shape()
    world.writer.write([change(of, 1, b"fails"), change(of, 2, b"b")])
    assert len(world.producer.topic(TOPIC)) == 1
    [letter] = world.producer.letters()
    assert (letter.stage, letter.form) == ("TRANSFORMATION", "json")
    assert dict(world.producer.sent[0][3])[CONTEXT + "class.name"] == b"test_source_errors.Moody"


@pytest.mark.parametrize(("timeout", "away", "letters"), [("0", 1, 1), ("-1", 3, 0)])
def test_what_may_be_tried_again_is_for_as_long_as_connect_s_setting_says(
    timeout: str, away: int, letters: int
) -> None:
    world, of = World(Moody(away), **TOLERANT, errors_retry_timeout=timeout, errors_retry_delay_max_ms="700"), shape()
    world.writer.write([change(of, 1, b"later"), change(of, 2, b"b")])
    assert len(world.producer.topic(QUEUE)) == letters
    assert len(world.producer.topic(TOPIC)) == 2 - letters
    assert world.waiting.pauses[:2] == ([] if timeout == "0" else [0.3, 0.6])
    assert all(pause <= 0.7 for pause in world.waiting.pauses)
