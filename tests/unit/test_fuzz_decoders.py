"""Decoders of what comes from outside, given broken bytes: their documented error, never anything else."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from typing import Any

import fastavro
import pytest
from converter_parts import MemoryRegistry, configured
from fuzzing import broken, broken_text, survives
from hypothesis import given, settings
from hypothesis import strategies as st
from mirror_feed import TOPIC, Feed, Record, Registry, assembler
from test_decoder_messages import BEGIN, COMMIT, MESSAGE, RELATION, UPDATE, OneTable, frame

from cdc.codec.avro_fields import compile_fields, compile_key
from cdc.codec.connect_text import plain_text
from cdc.converters.avro_reader import AvroReader
from cdc.converters.json_converter import JsonConverter
from cdc.converters.json_schema_converter import JsonSchemaConverter
from cdc.converters.protobuf_converter import ProtobufConverter
from cdc.errors import DataError, FatalError
from cdc.kafka.offsets import _take
from cdc.mirror.assembly import Assembler
from cdc.mirror.general import GeneralLane
from cdc.mirror.keys import Template
from cdc.mirror.partitions import Standing
from cdc.mirror.store import Partition, Previous, StoredOffset
from cdc.mirror.tables import KeyColumn, TableEntry, Tables
from cdc.postgres import pgoutput
from cdc.postgres.changes import Decoder
from cdc.postgres.copytext import parse_row
from cdc.postgres.pgoutput import ProtocolError
from cdc.postgres.position import OpenTransaction, Reset, StoredPosition, Tracker
from cdc.postgres.touched import TouchLog
from cdc.record import HEADER_POSITION, HEADER_SOURCE, HEADER_TEXT, HEADER_UNKNOWN, Field, Position, Schema
from cdc.runtime.letters import HEADER_LETTER, HEADER_RECEIPT, parse_letter, parse_receipt

EXAMPLES = settings(max_examples=40)

LETTER = b'{"connector":"c","task":0,"topic":"t","partition":0,"offset":5,"stage":"s","error":"e","message":"m","at":1}'

# --- Postgres ---------------------------------------------------------------------------------------------

FRAMES = [BEGIN, COMMIT, RELATION, UPDATE, frame(MESSAGE), frame(b"T" + (1).to_bytes(4, "big") + b"\x00" + bytes(4))]
FRAMES += [frame(b"I" + (9).to_bytes(4, "big") + UPDATE[30:]), frame(b"D" + UPDATE[26:]), b"k" + bytes(17), b""]


@given(st.lists(broken(FRAMES), min_size=1, max_size=4), st.booleans())
@EXAMPLES
def test_the_stream_of_changes(frames: list[bytes], begun: bool) -> None:
    tracker = Tracker(StoredPosition(1, 0, None, None, {}), 0.0)
    decoder = Decoder(OneTable(), tracker, TouchLog(), 1, None)
    known = [BEGIN, RELATION] if begun else []
    survives(lambda _: decoder.feed([*known, *frames]), b"".join(frames), ProtocolError)


@pytest.mark.parametrize("data", [b"", b"w", frame(b"U" + bytes(3)), frame(b"I")])
def test_frames_that_end_too_early(data: bytes) -> None:
    tracker = Tracker(StoredPosition(1, 0, None, None, {}), 0.0)
    with pytest.raises(ProtocolError):
        Decoder(OneTable(), tracker, TouchLog(), 1, None).feed([BEGIN, RELATION, data])


@pytest.mark.parametrize(
    "read",
    [
        pgoutput.read_begin,
        pgoutput.read_commit,
        pgoutput.read_keepalive,
        pgoutput.read_message,
        pgoutput.read_relation,
        pgoutput.read_truncate,
        lambda payload: pgoutput.read_tuple(payload, 5),
    ],
)
@given(data=broken([one[25:] for one in FRAMES]))
@EXAMPLES
def test_each_message(read: Any, data: bytes) -> None:
    survives(read, data, ProtocolError)


def test_an_escape_of_copy_that_is_no_octal_digit_stands_for_itself() -> None:
    assert parse_row(b"\\9\\8\\101", 1) == [b"98A"]


@given(broken([b"1\ttext\t\\N", b"a\\tb\\\\\t\\x41\\101\\9\t", b""]), st.integers(0, 4))
@EXAMPLES
def test_a_row_of_copy(line: bytes, width: int) -> None:
    survives(lambda data: parse_row(data, width), line, FatalError)


# --- Avro -------------------------------------------------------------------------------------------------

ROW: dict[str, Any] = {
    "type": "record",
    "name": "Value",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "name", "type": ["null", "string"]},
        {"name": "flag", "type": "boolean"},
        {"name": "real", "type": "float"},
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
        {"name": "tags", "type": {"type": "array", "items": ["null", "string"]}},
        {"name": "nothings", "type": {"type": "array", "items": "null"}},
        {"name": "map", "type": {"type": "map", "values": {"type": "array", "items": "int"}}},
        {"name": "point", "type": {"type": "record", "name": "P", "fields": [{"name": "x", "type": "double"}]}},
        {"name": "mood", "type": {"type": "enum", "name": "M", "symbols": ["sad", "ok"]}},
        {"name": "hash", "type": {"type": "fixed", "name": "F", "size": 4}},
        {"name": "when", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    ],
}
ENVELOPE: dict[str, Any] = {
    "type": "record",
    "name": "Envelope",
    "fields": [
        {"name": "before", "type": ["null", ROW]},
        {"name": "after", "type": ["null", "Value"]},
        {"name": "op", "type": "string"},
    ],
}
VALUE: dict[str, Any] = {
    **{"id": 2**40, "name": "näme", "flag": True, "real": 1.5, "amount": b"\x01\x02", "tags": ["a", None, "b" * 200]},
    **{"nothings": [None] * 3, "map": {"k": [1, 2, 3]}, "point": {"x": 0.1}, "mood": "ok", "hash": b"1234"},
    "when": 1_700_000_000_000_000,
}


def encoded(schema: Any, *values: Any) -> list[bytes]:
    parsed = fastavro.parse_schema(schema)
    found = []
    for value in values:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, parsed, value)
        found.append(out.getvalue())
    return found


@given(
    broken(encoded(ENVELOPE, {"before": VALUE, "after": VALUE, "op": "u"}, {"before": None, "after": None, "op": "d"}))
)
@EXAMPLES
def test_avro_of_an_envelope(data: bytes) -> None:
    survives(lambda buf: ENVELOPE_PLAN.decode(buf, 0), data, DataError)


@given(broken(encoded(ROW, VALUE)))
@EXAMPLES
def test_avro_of_a_row_and_of_a_key(data: bytes) -> None:
    survives(lambda buf: ROW_PLAN.decode(buf, 0), data, DataError)
    survives(lambda buf: KEY_PLAN.decode(buf, 0), data, DataError)


ENVELOPE_PLAN = compile_fields(json.dumps(ENVELOPE))
ROW_PLAN = compile_fields(json.dumps(ROW))
KEY_PLAN = compile_key(json.dumps(ROW))
SCHEMAS = [json.dumps(ENVELOPE), json.dumps(ROW), '"string"', '{"type":"record","name":"R","fields":[]}']
SCHEMAS.append('{"type":"record","name":"R","fields":[{"name":"r","type":["null","R"]}]}')  # contains itself


@given(broken_text(SCHEMAS))
@EXAMPLES
def test_the_text_of_an_avro_schema(text: str) -> None:
    survives(compile_fields, text, DataError)
    survives(compile_key, text, DataError)


@given(broken([b"\x00\x00\x00\x00\x01", b"\x00\x00\x00\x00\x02abc", b"\x01", b""]))
@EXAMPLES
def test_what_stands_before_avro(data: bytes) -> None:
    registry = Registry()
    registry.add(ROW)
    survives(AvroReader(registry).fields, data, DataError)
    survives(AvroReader(registry).key, data, DataError)


# --- JSON and Protobuf ------------------------------------------------------------------------------------

STRUCT = Schema(
    "struct",
    name="p.s.t.Value",
    fields=(
        Field("id", Schema("int64")),
        Field("name", Schema("string", optional=True)),
        Field("blob", Schema("bytes")),
        Field("list", Schema("array", values=Schema("int32"))),
        Field("real", Schema("float64")),
        Field("day", Schema("int32", name="org.apache.kafka.connect.data.Date")),
        Field("amount", Schema("bytes", name="org.apache.kafka.connect.data.Decimal", parameters=(("scale", "2"),))),
    ),
)
NATIVE: dict[str, Any] = {
    **{"id": 7, "name": "näme", "blob": b"\x00\xff", "list": [1, 2], "real": 0.5, "day": 20000, "amount": b"\x01"},
}


def converters() -> list[tuple[Any, list[bytes]]]:
    registry = MemoryRegistry()
    made = [
        configured(JsonConverter),
        configured(JsonSchemaConverter, registry),
        configured(ProtobufConverter, registry),
    ]
    found = [(one, [one.encoder(TOPIC, STRUCT)(NATIVE)]) for one in made]
    plain = configured(JsonConverter, schemas_enable="false")
    found.append((plain, [b'{"a":[1,2.5,{"b":null}],"c":"x"}', b"null", b"1e400"]))
    return found


CONVERTERS = converters()


@pytest.mark.parametrize("number", range(len(CONVERTERS)))
@given(data=st.data())
@EXAMPLES
def test_payloads_of_converters(number: int, data: st.DataObject) -> None:
    converter, valid = CONVERTERS[number]
    payload = data.draw(broken(valid))
    survives(lambda given: converter.to_connect(TOPIC, given), payload, DataError)


@pytest.mark.parametrize("number", [0, 1, 3])
@given(data=st.data())
@EXAMPLES
def test_json_that_is_nested_or_large(number: int, data: st.DataObject) -> None:
    _, valid = CONVERTERS[number]
    prefix = b"" if number != 1 else valid[0][:5]
    text = data.draw(broken_text([one[len(prefix) :].decode() for one in valid]))
    _survive_json(number, prefix + text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("number", [0, 3])
@pytest.mark.parametrize("text", ["9" * 20_000, "[" * 980 + "1" * 5000 + "]" * 980, '{"payload":%s}' % ("9" * 20_000)])
def test_json_that_python_does_not_show(number: int, text: str) -> None:
    _survive_json(number, text.encode())


def _survive_json(number: int, payload: bytes) -> None:
    converter, _ = CONVERTERS[number]
    survives(lambda given: converter.to_connect(TOPIC, given), payload, DataError)
    registry = Registry()
    lane = GeneralLane(AvroReader(registry), None, converter.to_connect)
    made = Assembler("sink", lane, lambda _topic: Template("{table}:{pk}"))
    made.assign({Partition(TOPIC, 0): Standing(None, None, 1)}, Tables())
    key = Feed(registry).key({"id": 1})
    survives(lambda given: made.add(lane.routed([Record(0, key, given)])), payload)
    made.finish()


@given(broken_text([json.dumps({"type": "object", "title": "T", "properties": {"a": {"type": "integer"}}})]))
@EXAMPLES
def test_the_text_of_a_json_schema(text: str) -> None:
    registry = MemoryRegistry()
    number = registry.register("s", text, "JSON")
    converter = configured(JsonSchemaConverter, registry)
    payload = b"\x00" + number.to_bytes(4, "big") + b'{"a":1}'
    survives(lambda given: converter.to_connect(TOPIC, given), payload, DataError)


@pytest.mark.parametrize(
    ("number", "taken"),
    [
        ("1e999999999", False),  # a decimal whose digits would fill the memory
        ("1.234567890123456789012e-999999999", False),
        ("9" * 200_000, False),  # as an integer it would take minutes
        ("9" * 100_000, True),
    ],
)
def test_numbers_that_are_too_large_for_any_column(number: str, taken: bool) -> None:
    converter = configured(JsonConverter)
    schema = Schema("bytes", name="org.apache.kafka.connect.data.Decimal", parameters=(("scale", "0"),))
    payload = converter.encoder(TOPIC, schema)(b"\x01").replace(b'"AQ=="', number.encode())
    if taken:
        assert int.from_bytes(converter.to_connect(TOPIC, payload)[1], "big") % 10 == 9
    else:
        survives(lambda given: converter.to_connect(TOPIC, given), payload, DataError)
        with pytest.raises(DataError):
            converter.to_connect(TOPIC, payload)


def test_the_text_of_a_number_has_no_more_zeros_than_a_column() -> None:
    long = Decimal("1.234567890123456789012e-999999999")
    assert plain_text(long) == b"1.234567890123456789012E-999999999"
    assert (
        plain_text(Decimal("1.234567890123456789012e-30")) == b"0.000000000000000000000000000001234567890123456789012"
    )


# --- what is stored ---------------------------------------------------------------------------------------

OFFSETS = [
    StoredOffset(5, 1_700_000_000_000, {"shop/slot": Position(1, 2, 3, 4).text().decode()}, Previous(4, {}), "id", 3),
    StoredOffset(0),
]
ENTRIES = [TableEntry("sink", TOPIC, "{table}:{pk}", ((KeyColumn("id", "int64"),),), ("id", "name"), 60)]


@given(broken_text([one.encode().decode() for one in OFFSETS]))
@EXAMPLES
def test_an_offset_in_the_store(text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    survives(lambda given: StoredOffset.decode(given).encode(), data, FatalError)


@pytest.mark.parametrize("next_", ["1e999", "Infinity", "[" * 3000, "null"])
def test_an_offset_that_is_no_number_is_fatal(next_: str) -> None:
    with pytest.raises(FatalError, match="delete the key"):
        StoredOffset.decode(f'{{"v":1,"next":{next_},"ts":1}}'.encode())


@given(broken_text([one.encode().decode() for one in ENTRIES]))
@EXAMPLES
def test_a_table_in_the_store(text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    survives(lambda given: TableEntry.decode(given).encode(), data, FatalError)


def test_half_a_character_in_the_store_is_fatal() -> None:
    with pytest.raises(FatalError, match="cannot be read"):
        TableEntry.decode(ENTRIES[0].encode().replace(b'"sink"', b'"\\ud800"'))
    with pytest.raises(FatalError, match="delete the key"):
        StoredOffset.decode(b'{"v":1,"next":1,"ts":1,"topic":"\\ud800"}')


@given(broken([Position(1, 2, 3, 4).text(), Position(2**32 - 1, 2**64 - 1, 0, 0).text()]))
@EXAMPLES
def test_a_position(data: bytes) -> None:
    survives(Position.parse, data, ValueError)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(["version", "epoch", "lsn", "open", "lsn_commit", "origin", "reset"]), JSON_VALUES)
@EXAMPLES
def test_a_source_offset(name: str, value: Any) -> None:
    stored = StoredPosition(1, 2, OpenTransaction(3, 4, {"t": 5}), 6, {"slot": "s"}).to_json()
    stored[name] = value
    text = json.dumps(stored)
    survives(lambda given: StoredPosition.from_json(json.loads(given)), text, FatalError)
    survives(lambda given: Reset.from_json(json.loads(given)), text, FatalError)


@given(broken([b'["source",{"server":"s"}]', b"", b"[" * 3000]), broken([b'{"lsn":1}', b"[" * 3000]))
@EXAMPLES
def test_a_record_of_the_offsets_topic(key: bytes, value: bytes) -> None:
    survives(lambda _: _take({}, "source", key, value), key + value, FatalError)


@given(broken([LETTER, b"{}", b"[]"]), broken([b'["t",0,5,""]', b"[]"]))
@EXAMPLES
def test_what_a_dead_letter_says_of_itself(letter: bytes, receipt: bytes) -> None:
    survives(lambda given: parse_letter([(HEADER_LETTER, given)]), letter)
    survives(lambda given: parse_receipt([(HEADER_RECEIPT, given)]), receipt)


# --- records as the sink takes them -----------------------------------------------------------------------

NAMES = [HEADER_SOURCE, HEADER_POSITION, HEADER_TEXT, HEADER_UNKNOWN, "other"]
CONTENTS = [b"shop/slot", Position(1, 2, 3, 4).text(), b'{"name":"x","note":null}', b'["name"]', b"", b"[" * 3000]


@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.none() | broken(CONTENTS)), max_size=4),
    st.sampled_from(["key", "value", "neither"]),
    st.data(),
)
@EXAMPLES
def test_a_record_with_broken_headers_key_or_value(
    headers: list[tuple[str, bytes | None]], part: str, data: st.DataObject
) -> None:
    """It stops its partition with its own fault, or is taken: the batch can be made and its offsets stored."""
    registry = Registry()
    feed = Feed(registry)
    good = feed.put(id=1, name="a", note="b")
    key, value = good.key_bytes, good.value_bytes
    assert key is not None
    assert value is not None
    if part == "key":
        key = data.draw(broken([key]))
    elif part == "value":
        value = data.draw(broken([value]))
    made = assembler(registry)

    def take(_: bytes) -> None:
        assert made.add([Record(0, key, value, headers)]) == []
        for offset in made.finish().offsets.values():
            assert StoredOffset.decode(offset.encode()).next == (0 if made.fault else 1)

    survives(take, key + value + b"".join(content or b"" for _, content in headers))
    assert made.waiting is None
