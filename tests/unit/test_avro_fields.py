"""Generated field plans against the generic reader: the same result for any schema and any row, never a wrong one."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import fastavro
import pytest
from avro_reference import Reference, without_logical_types
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.codec.avro_fields import compile_fields, compile_key
from cdc.errors import DataError

GOLDEN = Path(__file__).parent.parent / "golden"


def connect(avro: str, name: str, **more: Any) -> dict[str, Any]:
    return {"type": avro, "connect.version": 1, "connect.name": name, **more}


def decimal(scale: int) -> dict[str, Any]:
    name = "org.apache.kafka.connect.data.Decimal"
    parameters = {"scale": str(scale), "connect.decimal.precision": "20"}
    return connect(
        "bytes", name, scale=scale, precision=20, logicalType="decimal", **{"connect.parameters": parameters}
    )


VARIABLE = {
    "type": "record",
    "name": "VariableScaleDecimal",
    "namespace": "io.debezium.data",
    "fields": [{"name": "scale", "type": "int"}, {"name": "value", "type": "bytes"}],
    "connect.name": "io.debezium.data.VariableScaleDecimal",
}

INT32, INT64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.text(min_size=60, max_size=300)
DAY_US = 86_400_000_000

TYPES: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "boolean": ("boolean", st.booleans()),
    "int": ("int", INT32 | st.integers(-70, 70)),
    "long": ("long", INT64 | st.integers(-(2**20), 2**20)),
    "float": ("float", st.floats(width=32)),
    "double": ("double", st.floats()),
    "bytes": ("bytes", st.binary(max_size=200)),
    "string": ("string", TEXT),
    "date": (connect("int", "io.debezium.time.Date", logicalType="date"), INT32),
    "time": (connect("int", "io.debezium.time.Time"), st.integers(0, DAY_US // 1000)),
    "micro_time": (connect("long", "io.debezium.time.MicroTime"), st.integers(0, DAY_US)),
    "nano_time": (connect("long", "io.debezium.time.NanoTime"), st.integers(0, DAY_US * 1000)),
    "timestamp": (connect("long", "io.debezium.time.Timestamp"), st.integers(-(2**53), 2**53)),
    "micro": (connect("long", "io.debezium.time.MicroTimestamp"), INT64 | st.just(9223372036825200000)),
    "nano": (connect("long", "io.debezium.time.NanoTimestamp"), INT64 | st.just(2**63 - 1)),
    "zoned": (
        connect("string", "io.debezium.time.ZonedTimestamp"),
        st.sampled_from(
            [
                "2026-01-31T12:00:00.500000Z",
                "2026-01-31T12:00:00Z",
                "2026-01-31T12:00:00.000Z",
                "infinity",
                "-infinity",
                "-0043-03-15T12:00:00.000000Z",
                "+10000-01-01T00:00:00.123450Z",
                "2026-01-31T23:30:00.1-01:00",
                "0000-03-15T12:00:00Z",
            ]
        ),
    ),
    "zoned_time": (
        connect("string", "io.debezium.time.ZonedTime"),
        st.sampled_from(["10:34:56.789012Z", "23:59:59.500Z", "00:00:00Z", "01:00:00+02:00"]),
    ),
    "micro_duration": (connect("long", "io.debezium.time.MicroDuration"), INT64),
    "interval": (
        connect("string", "io.debezium.time.Interval"),
        st.sampled_from(["P1Y2M3DT4H5M6.780S", "P0Y0M0DT0H0M0S", "P-1Y-2M-3DT-4H-5M-6.78S", "P0Y0M0DT0H0M-0.5S"]),
    ),
    "connect_date": (connect("int", "org.apache.kafka.connect.data.Date", logicalType="date"), INT32),
    "connect_timestamp": (
        connect("long", "org.apache.kafka.connect.data.Timestamp", logicalType="timestamp-millis"),
        st.integers(-(2**50), 2**50),
    ),
    "logical_timestamp": ({"type": "long", "logicalType": "timestamp-micros"}, st.integers(-(2**60), 2**60)),
    "decimal": (decimal(3), st.binary(min_size=1, max_size=20)),
    "decimal_0": (decimal(0), st.binary(min_size=1, max_size=20)),
    "variable": (VARIABLE, st.fixed_dictionaries({"scale": st.integers(0, 40), "value": st.binary(max_size=20)})),
    "bits": (
        connect("bytes", "io.debezium.data.Bits", **{"connect.parameters": {"length": "40"}}),
        st.binary(max_size=5),
    ),
    "json": (connect("string", "io.debezium.data.Json"), TEXT),
    "enum": ({"type": "enum", "name": "Mood", "symbols": ["SAD", "OK"]}, st.sampled_from(["SAD", "OK"])),
    "fixed": ({"type": "fixed", "name": "Four", "size": 4}, st.binary(min_size=4, max_size=4)),
    "map": ({"type": "map", "values": ["null", "string"]}, st.dictionaries(TEXT, st.none() | TEXT, max_size=4)),
}


@st.composite
def columns(draw: st.DrawFn) -> tuple[Any, st.SearchStrategy[Any]]:
    name = draw(st.sampled_from(sorted(TYPES)))
    schema, values = TYPES[name]
    if name not in ("map", "enum", "fixed") and draw(st.integers(0, 5)) == 0:
        nullable = draw(st.booleans())
        items = ["null", schema] if nullable else schema
        schema = {"type": "array", "items": items}
        values = st.lists((st.none() | values) if nullable else values, max_size=5)
        if draw(st.integers(0, 3)) == 0:
            schema, values = {"type": "array", "items": schema}, st.lists(values, max_size=3)
    null = draw(st.sampled_from(["no", "first", "last"]))
    if null == "no":
        return schema, values
    return (["null", schema] if null == "first" else [schema, "null"]), st.none() | values


@st.composite
def rows(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """A record schema of a few columns, and a row."""
    taken: set[str] = set()
    fields, values = [], {}
    for number in range(draw(st.integers(1, 9))):
        schema, strategy = draw(columns())
        text = json.dumps(schema)
        for name in ("Mood", "Four", "VariableScaleDecimal"):
            if f'"name": "{name}"' in text:
                if name in taken:
                    schema, strategy = "int", INT32
                taken.add(name)
        column = draw(st.sampled_from(["id", "name", "value", "is_it"])) + str(number)
        fields.append({"name": column, "type": schema})
        values[column] = draw(strategy)
    return {"type": "record", "name": "Value", "namespace": "shop.public.t", "fields": fields}, values


def envelope(row: dict[str, Any]) -> dict[str, Any]:
    source = {
        "type": "record",
        "name": "Source",
        "namespace": "io.debezium",
        "fields": [{"name": "lsn", "type": "long"}],
    }
    return {
        "type": "record",
        "name": "Envelope",
        "namespace": "shop.public.t",
        "connect.name": "shop.public.t.Envelope",
        "fields": [
            {"name": "before", "type": ["null", row], "default": None},
            {"name": "after", "type": ["null", "Value"], "default": None},
            {"name": "source", "type": source},
            {"name": "op", "type": "string"},
            {"name": "ts_ms", "type": ["null", "long"], "default": None},
        ],
    }


def encode(schema: Any, value: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(without_logical_types(schema)), value)
    return out.getvalue()


def changes(row: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    common = {"source": {"lsn": 7}, "ts_ms": 5}
    return st.sampled_from(
        [
            {"before": None, "after": row, "op": "c", **common},
            {"before": row, "after": row, "op": "u", **common},
            {"before": row, "after": None, "op": "d", **common},
            {"before": None, "after": None, "op": "t", **common},
        ]
    )


@settings(max_examples=400)
@given(data=st.data())
def test_envelopes_read_as_the_reference_reads_them(data: st.DataObject) -> None:
    schema, values = data.draw(rows())
    text = json.dumps(envelope(schema))
    payload = encode(envelope(schema), data.draw(changes(values)))
    assert compile_fields(text).decode(payload, 0) == Reference(text).fields(payload)


@settings(max_examples=200)
@given(data=st.data())
def test_flat_records_and_keys_read_as_the_reference_reads_them(data: st.DataObject) -> None:
    schema, values = data.draw(rows())
    text = json.dumps(schema)
    payload = b"prefix" + encode(schema, values)
    assert compile_fields(text).decode(payload, 6) == Reference(text).fields(payload[6:])
    assert compile_key(text).decode(payload, 6) == Reference(text).key(payload[6:])


@settings(max_examples=400)
@given(data=st.data())
def test_damaged_bytes_are_an_error_or_the_row_that_they_spell(data: st.DataObject) -> None:
    """Truncation, lies about lengths and noise: a DataError, or exactly what the reference makes of the same bytes.

    The plan does not read behind ``after``, so only there it may accept what the reference refuses.
    """
    schema, values = data.draw(rows())
    text = json.dumps(envelope(schema))
    payload = bytearray(encode(envelope(schema), data.draw(changes(values))))
    for _ in range(data.draw(st.integers(0, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    payload = payload[: data.draw(st.integers(0, len(payload)))]
    decode = compile_fields(text).decode
    try:
        got = decode(bytes(payload), 0)
    except DataError:
        return
    padded = bytes(payload) + encode(envelope(schema), {"before": None, "after": None, "op": "t", "source": {"lsn": 7}})
    try:
        expected = Reference(text).fields(padded)
    except (ValueError, EOFError, IndexError, OverflowError, MemoryError, KeyError, TypeError, StopIteration):
        return  # bytes that the reference refuses and the plan stepped over or did not reach
    assert got == expected


@pytest.mark.parametrize("cut", range(1, 40))
def test_every_truncation_of_a_row_is_refused(cut: int) -> None:
    row = {
        "type": "record",
        "name": "Value",
        "fields": [{"name": "id", "type": "long"}, {"name": "name", "type": ["null", "string"]}],
    }
    payload = encode(row, {"id": 2**40, "name": "x" * 32})
    assert len(payload) == 40
    with pytest.raises(DataError, match="cannot decode Avro"):
        compile_fields(json.dumps(row)).decode(payload[:-cut], 0)


@pytest.mark.parametrize(
    "items", ["null", {"type": "record", "name": "Empty", "fields": []}, "int", {"type": "array", "items": "null"}]
)
def test_block_counts_that_lie_cost_no_time_and_no_memory(items: Any) -> None:
    row = {"type": "record", "name": "V", "fields": [{"name": "a", "type": {"type": "array", "items": items}}]}
    bomb = b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01" + b"\x02" * 50
    with pytest.raises(DataError):
        compile_fields(json.dumps(row)).decode(bomb, 0)
    with pytest.raises(DataError):
        compile_fields(json.dumps(row)).decode(b"\xc8\x01" * 2000, 0)


def test_records_that_are_not_about_rows_are_not_mirrored() -> None:
    schemas = {
        path.name: path.read_text()
        for folder in ("heartbeat", "logical_message", "transaction_metadata")
        for path in (GOLDEN / folder / "schemas").glob("*-value*.json")
    }
    mirrored = {name: compile_fields(text).mirrored for name, text in schemas.items()}
    tables = {name for name in mirrored if ".public." in name}
    assert tables
    assert {name for name, is_row in mirrored.items() if is_row} == tables


def test_all_schemas_that_debezium_registers_compile() -> None:
    values = [path for path in GOLDEN.glob("*/schemas/*-value*.json") if path.parts[-3] != "outbox"]
    keys = list(GOLDEN.glob("*/schemas/*-key*.json"))
    assert len(values) > 50
    for path in values:
        assert compile_fields(path.read_text()).decode
    for path in keys:
        assert compile_key(path.read_text()).kinds


def test_a_value_without_columns_is_refused() -> None:
    with pytest.raises(DataError, match="only records can become hashes"):
        compile_fields('"string"')


def test_a_schema_that_contains_itself_is_refused() -> None:
    schema = '{"type":"record","name":"T","fields":[{"name":"next","type":["null","T"]}]}'
    with pytest.raises(DataError, match="contains itself"):
        compile_fields(schema)


def test_a_numeric_of_a_hundred_thousand_digits_keeps_them_all() -> None:
    row = {"type": "record", "name": "V", "fields": [{"name": "n", "type": decimal(2)}]}
    number = 10**100_000 + 7
    payload = encode(row, {"n": number.to_bytes(41_600, "big", signed=True)})
    [[name, text], nulls] = compile_fields(json.dumps(row)).decode(payload, 0)
    assert (name, nulls) == (b"n", ())
    assert text == b"1" + b"0" * 99_997 + b"0.07"
