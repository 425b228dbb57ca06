"""Records of other converters than Avro, from Debezium and from others, become the same rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from golden_feed import SCENARIOS, Scenario
from mirror_feed import TOPIC, Memory, Record, Registry

from cdc.converters.avro_reader import AvroReader
from cdc.converters.json_converter import JsonConverter
from cdc.converters.scalars import StringConverter
from cdc.errors import DataError, RetriableError
from cdc.mirror.assembly import Assembler
from cdc.mirror.general import Convert, GeneralLane
from cdc.mirror.keys import Template
from cdc.mirror.partitions import Standing
from cdc.mirror.rows import placeholders
from cdc.mirror.store import Partition, Previous, StoredOffset
from cdc.mirror.tables import Tables
from cdc.record import HEADER_POSITION, HEADER_SOURCE, HEADER_TEXT, Field, Position, Schema

P0 = Partition(TOPIC, 0)
NOT_KNOWN = placeholders("__debezium_unavailable_value")


def json_convert(*, schemas: bool, is_key: bool = False) -> Convert:
    converter = JsonConverter()
    converter.configure({"schemas.enable": str(schemas).lower()}, is_key=is_key)
    return converter.to_connect


class Lane:
    """An assembler behind a general lane, and a store of dicts."""

    def __init__(
        self,
        key: Convert | None,
        value: Convert | None,
        *,
        registry: Registry | None = None,
        partitions: int = 1,
        topics: set[str] | None = None,
        tables: Tables | None = None,
    ) -> None:
        avro = AvroReader(registry or Registry())
        self.lane = GeneralLane(avro, key, value)
        reader = avro if key is value is None else self.lane
        self.made = Assembler("sink", reader, lambda _: Template("{table}:{pk}"), not_known=NOT_KNOWN)
        parts = [Partition(topic, number) for topic in topics or {TOPIC} for number in range(partitions)]
        self.made.assign({part: Standing(None, None, partitions) for part in parts}, tables or Tables())
        self.memory = Memory()
        self.offset = 0

    def record(self, key: Any, value: Any, **options: Any) -> Record:
        def payload(form: Any) -> bytes | None:
            return form if form is None or isinstance(form, bytes) else json.dumps(form).encode()

        self.offset += 1
        return Record(self.offset - 1, payload(key), payload(value), **options)

    def add(self, *records: Record) -> None:
        messages = self.lane.routed(records)
        while messages:
            messages = self.made.add(messages)
            self.memory.write(self.made.finish())
        assert self.made.waiting is None

    def put(self, key: Any, value: Any, **options: Any) -> None:
        self.add(self.record(key, value, **options))

    @property
    def rows(self) -> dict[str, dict[str, str]]:
        assert self.made.fault is None, self.made.fault
        return {
            key.decode(): {name.decode(): text.decode() for name, text in row.items()}
            for key, row in self.memory.rows.items()
        }


@pytest.fixture
def plain() -> Lane:
    return Lane(json_convert(schemas=False, is_key=True), json_convert(schemas=False))


def envelope(op: str, after: Any, before: Any = None) -> dict[str, Any]:
    return {"before": before, "after": after, "source": {"db": "shop"}, "op": op, "ts_ms": 1}


# --- JSON without schemas --------------------------------------------------------------------------------


def test_a_history_in_json_without_schemas(plain: Lane) -> None:
    plain.put({"id": 1}, envelope("r", {"id": 1, "name": "a", "note": None}))
    plain.put({"id": 2}, envelope("c", {"id": 2, "name": "b", "note": "n"}))
    plain.put({"id": 1}, envelope("u", {"id": 1, "name": None, "note": "x"}))
    assert plain.rows == {"users:1": {"id": "1", "note": "x"}, "users:2": {"id": "2", "name": "b", "note": "n"}}
    plain.put({"id": 1}, envelope("d", None, {"id": 1}))
    plain.put({"id": 1}, None)
    plain.put({"id": 2}, b"null")
    assert plain.rows == {}


def test_flattened_rows_in_json_without_schemas(plain: Lane) -> None:
    plain.put({"id": 1}, {"id": 1, "name": "a", "__deleted": "false", "__op": "c"})
    plain.put({"id": 2}, {"id": 2, "name": "b", "__deleted": "false", "__op": "c"})
    assert plain.rows == {"users:1": {"id": "1", "name": "a"}, "users:2": {"id": "2", "name": "b"}}
    plain.put({"id": 1}, {"id": 1, "name": "", "__deleted": "true", "__op": "d"})
    assert plain.rows == {"users:2": {"id": "2", "name": "b"}}


def test_columns_that_a_row_without_schema_does_not_name_go_away(plain: Lane) -> None:
    plain.put({"id": 1}, {"id": 1, "a": 1})
    plain.put({"id": 1}, {"id": 1, "b": 2})
    assert plain.rows == {"users:1": {"id": "1", "b": "2"}}
    plain.put({"id": 1}, {"b": 3, "id": 1, "c": {"x": [1.50, None]}})
    assert plain.rows == {"users:1": {"id": "1", "b": "3", "c": '{"x":[1.5,null]}'}}
    plain.put({"id": 1}, {"id": 1, "a": 4})
    assert plain.rows == {"users:1": {"id": "1", "a": "4"}}
    again = Lane(json_convert(schemas=False, is_key=True), json_convert(schemas=False), tables=plain.memory.tables)
    again.memory.rows = plain.memory.rows
    again.put({"id": 1}, {"id": 1, "b": 5})
    assert again.rows == {"users:1": {"id": "1", "b": "5"}}


def test_objects_that_are_no_rows_are_refused_before_they_fill_the_store(plain: Lane) -> None:
    for number in range(6):
        plain.put({"id": number}, {f"user{number * 1000 + n}": n for n in range(1000)})
    assert plain.made.fault is not None
    assert plain.made.fault.offset == 5
    assert "more than 5000 different field names" in str(plain.made.fault.error)


def test_no_digit_of_a_number_without_schema_is_lost(plain: Lane) -> None:
    plain.put(b'{"id":12345678901234567890123}', b'{"a":0.10000000000000000000000000001,"b":1.50,"c":1e3,"d":-0}')
    assert plain.rows == {
        "users:12345678901234567890123": {"a": "0.10000000000000000000000000001", "b": "1.50", "c": "1000", "d": "0"}
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ({"serverName": "shop"}, {"ts_ms": 1}),
        ({"serverName": "shop"}, {"ts_ms": 1, "ts_us": 1000, "ts_ns": 1000000}),
        ({"id": "7"}, {"status": "END", "id": "7", "event_count": 0, "data_collections": None, "ts_ms": 1}),
        ({"prefix": "p"}, {"op": "m", "ts_ms": 1, "source": {}, "transaction": None, "message": {"prefix": "p"}}),
        ({"databaseName": "d"}, {"source": {}, "databaseName": "d", "schemaName": "s", "ddl": "x", "tableChanges": []}),
        ({"id": "1"}, {"id": "1", "type": "t", "aggregate_type": "Snapshot", "additional_data": {}, "timestamp": 1}),
    ],
)
def test_records_that_are_not_about_rows_are_counted_and_skipped(plain: Lane, key: Any, value: Any) -> None:
    plain.put(key, value)
    assert (plain.rows, plain.made.counts.foreign, plain.made.counts.records) == ({}, 1, 1)


def test_a_row_with_a_column_like_a_heartbeat_s_is_a_row(plain: Lane) -> None:
    plain.put({"ts_ms": 1}, {"ts_ms": 1})
    assert plain.rows == {"users:1": {"ts_ms": "1"}}


@pytest.mark.parametrize(
    ("value", "said"), [(b"7", "JSON object"), (b"[]", "JSON object"), (b"{", "cannot read"), (b'{"id":1}x', "follows")]
)
def test_what_is_no_row_is_a_fault_behind_what_came_before(plain: Lane, value: bytes, said: str) -> None:
    plain.add(plain.record({"id": 1}, {"id": 1}), plain.record({"id": 2}, value), plain.record({"id": 3}, {"id": 3}))
    assert plain.made.fault is not None
    assert plain.made.fault.offset == 1
    assert said in str(plain.made.fault.error)
    assert list(plain.memory.rows) == [b"users:1"]


# --- keys ------------------------------------------------------------------------------------------------


def string_convert(topic: str, payload: bytes) -> tuple[Schema | None, Any]:
    converter = StringConverter()
    converter.configure({}, is_key=True)
    return converter.to_connect(topic, payload)


def test_the_text_of_a_key_of_one_column_is_its_column() -> None:
    lane = Lane(string_convert, json_convert(schemas=False))
    lane.put(b"Struct{id=a=b,c}", {"id": None})
    lane.put(b"Struct{id=}", {"v": 1})
    assert lane.rows == {"users:a=b,c": {"id": "a=b,c"}, "users:": {"v": "1"}}
    lane.put(b"Struct{id=a=b,c}", None)
    assert lane.rows == {"users:": {"v": "1"}}


@pytest.mark.parametrize(
    ("key", "row"),
    [
        ({"id": 1}, "users:1"),
        ({"b": "x:y", "a": 1}, "users:x\\:y:1"),
        (b"7", "users:7"),
        (b'"a:b"', "users:a:b"),
        (b"true", "users:true"),
        ({"id": 1.5}, "users:1.5"),
    ],
)
def test_keys_without_schema(plain: Lane, key: Any, row: str) -> None:
    plain.put(key, {"v": 1})
    assert plain.rows == {row: {"v": "1"}}
    plain.put(key, None)
    assert plain.rows == {}


def test_keys_and_values_may_have_different_converters() -> None:
    lane = Lane(string_convert, json_convert(schemas=False))
    lane.put(b"ann:1", {"v": 1})
    lane.put(b"{}", {"v": 2})
    assert lane.rows == {"users:ann:1": {"v": "1"}, "users:{}": {"v": "2"}}
    registry = Registry()
    mixed = Lane(None, json_convert(schemas=False), registry=registry)
    mixed.put(registry.add('"long"') + b"\x0e", {"v": 1})
    assert mixed.rows == {"users:7": {"v": "1"}}


def test_records_without_key_are_counted(plain: Lane) -> None:
    plain.put(None, {"v": 1})
    plain.put(b"null", {"v": 1})
    assert plain.rows == {}
    assert plain.made.counts.keyless == {TOPIC: 2}


def test_a_key_with_schema_of_one_value_or_a_struct() -> None:
    lane = Lane(json_convert(schemas=True, is_key=True), json_convert(schemas=False))
    lane.put({"schema": {"type": "int64", "optional": False}, "payload": 7}, {"v": 1})
    lane.put({"schema": None, "payload": {"id": 8}}, {"v": 2})
    assert lane.rows == {"users:7": {"v": "1"}, "users:8": {"v": "2"}}


# --- truncates, unknown values, headers ------------------------------------------------------------------


def test_a_truncate_of_debezium_s_waits_at_the_barrier_of_a_topic_with_one_partition(plain: Lane) -> None:
    plain.put({"id": 1}, envelope("c", {"id": 1}))
    plain.add(plain.record(None, envelope("t", None)))
    assert [arrival.offset for arrival in plain.made.arrivals()] == [1]
    batch, begins = plain.made.release([P0])
    assert (batch.offsets[P0].next, begins) == (2, {P0: 2})


def test_a_truncate_of_debezium_s_in_a_topic_of_several_partitions_is_refused_by_name() -> None:
    lane = Lane(json_convert(schemas=False, is_key=True), json_convert(schemas=False), partitions=2)
    lane.put(None, envelope("t", None))
    assert lane.made.fault is not None
    assert "truncate without position" in str(lane.made.fault.error)
    assert "skipped.operations=t" in str(lane.made.fault.error)


def test_placeholders_are_text_in_records_of_ours_and_unknown_in_others(plain: Lane) -> None:
    plain.put({"id": 1}, envelope("c", {"id": 1, "t": "long", "ta": ["long"], "n": 1}))
    unavailable = {"id": 1, "t": "__debezium_unavailable_value", "ta": ["__debezium_unavailable_value"], "n": 2}
    plain.put({"id": 1}, envelope("u", unavailable))
    assert plain.rows == {"users:1": {"id": "1", "t": "long", "ta": '["long"]', "n": "2"}}
    ours = [(HEADER_SOURCE, b"shop/slot"), (HEADER_POSITION, Position(1, 1, 1, 1).text())]
    plain.put({"id": 1}, envelope("u", unavailable), header_list=ours)
    assert plain.rows["users:1"]["t"] == "__debezium_unavailable_value"


def test_a_placeholder_set_by_its_bytes() -> None:
    texts = placeholders("hex:ff00")
    assert {b"\xff\x00", b"/wA=", b"_wA=", b"ff00", b'["/wA="]', b"[255,0]", b'["1970-09-13","1970-01-01"]'} <= texts
    assert placeholders("") == frozenset()
    with pytest.raises(ValueError, match="hex"):
        placeholders("hex:xy")


def test_exact_texts_of_our_headers_win(plain: Lane) -> None:
    header = (HEADER_TEXT, json.dumps({"n": "NaN", "m": None}).encode())
    plain.put({"id": 1}, envelope("c", {"id": 1, "n": None, "m": 0}), header_list=[header])
    assert plain.rows == {"users:1": {"id": "1", "n": "NaN"}}


# --- schemas and outages ---------------------------------------------------------------------------------


def test_schemas_that_a_converter_makes_anew_are_one() -> None:
    def convert(_topic: str, payload: bytes) -> tuple[Schema | None, Any]:
        return Schema("struct", fields=(Field("id", Schema("int32", default=[0])),)), json.loads(payload)

    lane = Lane(convert, convert)
    tokens = set()
    for number in range(5000):
        [message] = lane.lane.routed([lane.record({"id": number}, {"id": number})])
        tokens.add((message.key()[:5], message.value()[:5]))
    assert len(tokens) == 1


def test_an_outage_of_the_registry_is_waited_for_and_nothing_is_lost() -> None:
    away = True

    def convert(topic: str, payload: bytes) -> tuple[Schema | None, Any]:
        if away:
            raise RetriableError("the registry is away")
        return json_convert(schemas=False)(topic, payload)

    lane = Lane(json_convert(schemas=False, is_key=True), convert)
    left = lane.made.add(lane.lane.routed([lane.record({"id": n}, {"id": n}) for n in range(3)]))
    assert len(left) == 3
    assert lane.made.waiting is not None
    away = False
    assert lane.made.add(left) == []
    assert set(lane.made.finish().ops) == {b"users:0", b"users:1", b"users:2"}


def test_a_record_that_a_converter_cannot_read_is_asked_for_once() -> None:
    asked = []

    def convert(_topic: str, payload: bytes) -> tuple[Schema | None, Any]:
        asked.append(payload)
        raise DataError("no")

    lane = Lane(json_convert(schemas=False, is_key=True), convert)
    lane.put({"id": 1}, b"x")
    assert asked == [b"x"]
    assert lane.made.fault is not None


# --- what Debezium wrote ---------------------------------------------------------------------------------


def mirrored(scenario: Scenario, how: str, first: int | None = None) -> Lane:
    """The rows that all records of a scenario come to, or the ``first`` ones."""
    registry = Registry()
    sides: dict[str, Callable[[bool], Convert | None]] = {
        "avro": lambda _: None,
        "json": lambda is_key: json_convert(schemas=False, is_key=is_key),
        "json+schemas": lambda is_key: json_convert(schemas=True, is_key=is_key),
    }
    records = list(scenario.encoded(how, lambda _, text: registry.add(text)))[:first]
    partitions = 1 + max(record.partition for record in records)
    topics = {record.topic for record in records}
    lane = Lane(sides[how](True), sides[how](False), registry=registry, partitions=partitions, topics=topics)
    offsets: dict[Partition, int] = {}
    for record in records:
        part = Partition(record.topic, record.partition)
        offset = offsets.get(part, 0)
        offsets[part] = offset + 1
        lane.add(Record(offset, record.key, record.value, record.headers, part.number, part.topic))
        for arrival in lane.made.arrivals():
            table = f"{arrival.partition.topic.rpartition('.')[2]}:".encode()
            lane.memory.rows = {key: row for key, row in lane.memory.rows.items() if not key.startswith(table)}
            lane.memory.write(lane.made.release([arrival.partition])[0])
    return lane


ROWS = [scenario for scenario in SCENARIOS if scenario.of_tables]


@pytest.mark.parametrize("scenario", ROWS, ids=lambda scenario: scenario.name)
def test_what_debezium_wrote_comes_to_the_same_rows_in_every_form(scenario: Scenario) -> None:
    described = mirrored(scenario, "json+schemas")
    assert described.made.counts.records > 0
    if list(scenario.folder.glob("schemas/*.json")):
        avro = mirrored(scenario, "avro")
        assert (avro.memory.rows, str(avro.made.fault)) == (described.memory.rows, str(described.made.fault))
    plain = mirrored(scenario, "json")
    assert plain.made.counts.foreign == described.made.counts.foreign
    columns = {key: set(row) for key, row in plain.memory.rows.items()}
    assert columns == {key: set(row) for key, row in described.memory.rows.items()}
    # message.key.columns with a column that can be NULL: such a row has no key
    assert (described.made.fault is not None) == (scenario.name == "pk_kinds")


@pytest.mark.parametrize("how", ["avro", "json", "json+schemas"])
@pytest.mark.parametrize("name", ["unwrap_defaults", "unwrap_rewrite", "unwrap_delete_to_tombstone"])
def test_flattened_records_of_every_way_to_tell_deletes(name: str, how: str) -> None:
    rows = mirrored(Scenario(name), how).rows
    amount = "3.00" if how != "json" else "ASw="
    assert rows == {"flat:20": {"id": "20", "name": "b"}, "flat:3": {"id": "3", "name": "c", "n": amount}}


@pytest.mark.parametrize("how", ["avro", "json", "json+schemas"])
def test_unchanged_toast_of_debezium_s_is_left_alone(how: str) -> None:
    """Text, bytea, jsonb and arrays: what the first record said stays until another says something else."""
    scenario = Scenario("toast_default")
    [inserted] = mirrored(scenario, how, 1).rows.values()
    assert inserted.keys() == {"id", "n", "t", "t_nn", "b", "j", "ta", "ia"}
    assert mirrored(scenario, how, 2).rows == {"toast:1": {**inserted, "n": "2"}}
    assert mirrored(scenario, how, 3).rows == {"toast:1": {**inserted, "n": "3", "t": "short now"}}
    # A new key begins with what its record knows: here Debezium knows no more.
    moved = mirrored(scenario, how, 8).rows
    assert moved == {"toast:10": {"id": "10", "t": "z" * 2500, "t_nn": "small"}}


def test_a_batch_whose_outcome_nobody_saw_is_taken_again_as_one() -> None:
    """H21, with schemas that the converter cannot have at first."""
    away = True

    def convert(topic: str, payload: bytes) -> tuple[Schema | None, Any]:
        if away:
            raise RetriableError("the registry is away")
        return json_convert(schemas=False)(topic, payload)

    lane = Lane(json_convert(schemas=False, is_key=True), convert)
    stored = StoredOffset(3, previous=Previous(1, {}))
    lane.made.assign({P0: Standing(stored, None, 1)}, Tables())
    records = [lane.record({"id": n % 2}, {"id": n % 2, "v": n}) for n in range(4)]
    left = lane.made.add(lane.lane.routed(records))
    assert lane.made.waiting is not None
    assert not lane.made.finish()
    away = False
    assert lane.made.add(left) == []
    batch = lane.made.finish()
    lane.memory.write(batch)
    assert lane.rows == {"users:1": {"id": "1", "v": "3"}, "users:0": {"id": "0", "v": "2"}}
    assert batch.offsets[P0].next == 4
