"""Avro schemas and bytes become the Connect schemas and values that they were made of."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import pytest
from connect_strategies import pairs
from hypothesis import given, settings

from cdc.codec.avro_binary import writer
from cdc.codec.avro_connect import avro_plan
from cdc.codec.connect_avro import avro_text
from cdc.codec.connect_json import parse_schema, schema_text
from cdc.errors import DataError
from cdc.record import Field, Schema

GOLDEN = Path(__file__).parent.parent / "golden"
SCENARIOS = sorted(path.parent for path in GOLDEN.glob("*/connect-schemas.json"))


def _forms(folder: Path) -> list[Any]:
    topics = json.loads((folder / "connect-schemas.json").read_text()).values()
    return [form for parts in topics for part in parts.values() for form in part or () if form is not None]


@pytest.mark.parametrize("folder", SCENARIOS, ids=lambda path: path.name)
@pytest.mark.parametrize("logical_types", [False, True, "connect"])
def test_every_recorded_schema_comes_back(folder: Path, logical_types: Any) -> None:
    for form in _forms(folder):
        schema = parse_schema(form)
        assert avro_plan(avro_text(schema, logical_types=logical_types)).schema == schema


@pytest.mark.parametrize("folder", SCENARIOS, ids=lambda path: path.name)
def test_every_recorded_schema_is_written_as_kafka_wrote_it(folder: Path) -> None:
    for form in _forms(folder):
        assert schema_text(parse_schema(form)) == json.dumps(form, ensure_ascii=False, separators=(",", ":"))


@given(pairs())
@settings(max_examples=200)
def test_random_values_come_back(pair: tuple[Schema, Any]) -> None:
    schema, value = pair
    plan = avro_plan(avro_text(schema))
    assert plan.schema == schema
    assert plan.read(b"head" + writer(schema)(value), 4) == value


def _read(avro: Any, value: Any) -> tuple[Schema, Any]:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(avro), value)
    plan = avro_plan(json.dumps(avro))
    return plan.schema, plan.read(out.getvalue(), 0)


def test_avro_of_others_is_read_as_avrodata_reads_it() -> None:
    schema, value = _read(
        {
            "type": "record",
            "name": "shop.Order",
            "fields": [
                {"name": "day", "type": {"type": "int", "logicalType": "date"}},
                {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}], "default": None},
                {"name": "sum", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
                {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["NEW", "PAID"]}},
                {"name": "again", "type": "State", "default": "NEW"},
                {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 2}},
                {"name": "what", "type": ["null", "string", {"type": "record", "name": "Thing", "fields": []}]},
                {"name": "more", "type": {"type": "map", "values": ["long", "null"]}},
                {"name": "count", "type": "int", "default": 7},
            ],
        },
        {
            "day": 20000,
            "at": 5,
            "sum": Decimal("2.58"),
            "state": "PAID",
            "again": "NEW",
            "hash": b"ab",
            "what": ("shop.Thing", {}),
            "more": {"x": 1, "y": None},
            "count": 1,
        },
    )
    assert value == {
        "day": 20000,
        "at": 5,
        "sum": b"\x01\x02",
        "state": "PAID",
        "again": "NEW",
        "hash": b"ab",
        "what": {"string": None, "Thing": {}},
        "more": {"x": 1, "y": None},
        "count": 1,
    }
    types = {field.name: field.schema for field in schema.fields}
    assert schema.name == "shop.Order"
    assert types["day"] == Schema("int32", name="org.apache.kafka.connect.data.Date", version=1)
    assert types["at"] == Schema("int64", optional=True, name="org.apache.kafka.connect.data.Timestamp", version=1)
    assert types["sum"].parameters == (("scale", "2"), ("connect.decimal.precision", "9"))
    enum = "io.confluent.connect.avro.Enum"
    assert types["state"].parameters == ((enum, "shop.State"), (f"{enum}.NEW", "NEW"), (f"{enum}.PAID", "PAID"))
    assert types["again"].default == "NEW"
    assert types["hash"] == Schema("bytes", name="shop.Hash", parameters=(("connect.fixed.size", "2"),))
    assert types["what"].name == "io.confluent.connect.avro.Union"
    assert [field.name for field in types["what"].fields] == ["string", "Thing"]
    assert types["count"] == Schema("int32", default=7)


def test_a_map_whose_keys_are_structs_is_read_as_pairs() -> None:
    key = Schema("struct", name="a.Key", fields=(Field("x", Schema("int32")),))
    schema = Schema("map", keys=key, values=Schema("string"))
    plan = avro_plan(avro_text(schema))
    value = [({"x": 1}, "one"), ({"x": 2}, "two")]
    assert plan.schema == schema
    assert plan.read(writer(schema)(value), 0) == value


@pytest.mark.parametrize(
    ("avro", "told"),
    [
        ('"null"', "null that is in no union"),
        ('["null"]', "nothing but null"),
        ('{"type":"record","name":"R","fields":[{"name":"r","type":["null","R"]}]}', "contains itself"),
        ('[{"type":"enum","name":"a.X","symbols":["A"]},{"type":"fixed","name":"b.X","size":1}]', "two types named X"),
        ('{"type":"strange"}', "cannot read"),
        ("{", "cannot read"),
    ],
)
def test_what_has_no_form_in_connect_is_refused(avro: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        avro_plan(avro)


@pytest.mark.parametrize(
    ("avro", "payload"),
    [
        ('"string"', b"\x0aab"),
        ('"string"', b"\x02\xff"),
        ('"int"', b"\x80\x80\x80\x80\x80\x01"),
        ('"int"', b""),
        ('"int"', b"\x02\x02"),
        ('"boolean"', b"\x02"),
        ('["null","int"]', b"\x04\x02"),
        ('["string"]', b"\x02"),
        ('{"type":"fixed","name":"F","size":3}', b"ab"),
        ('{"type":"enum","name":"E","symbols":["A"]}', b"\x02"),
        ('{"type":"array","items":"int"}', b"\xfe\xff\xff\xff\x0f\x02"),
        ('"double"', b"\x00"),
    ],
)
def test_bytes_that_are_no_value_are_refused(avro: str, payload: bytes) -> None:
    with pytest.raises(DataError):
        avro_plan(avro).read(payload, 0)


def test_blocks_with_sizes_are_read() -> None:
    assert avro_plan('{"type":"array","items":"int"}').read(b"\x03\x04\x02\x04\x01\x02\x06\x00", 0) == [1, 2, 3]
