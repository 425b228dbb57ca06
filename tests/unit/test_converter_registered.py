"""Converters whose payloads name a registered schema, on a registry in memory: what they write they read, ids, keys."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
from connect_strategies import pairs
from converter_parts import NOW, Memory, MemoryRegistry, change, column, comparable, configured, shape
from hypothesis import HealthCheck, given, settings
from test_codec_golden import ROWS, _shape

from cdc.codec.connect_json import parse_schema
from cdc.codec.connect_rows import row_values
from cdc.converters.avro import AvroConverter
from cdc.converters.json_schema_converter import JsonSchemaConverter
from cdc.converters.protobuf_converter import ProtobufConverter
from cdc.errors import ConfigError, DataError, FatalError
from cdc.plugin import Converter
from cdc.record import RowChange, Schema, Transaction
from cdc.registry.errors import IncompatibleSchema, RegistryUnavailable

GOLDEN = Path(__file__).parent.parent / "golden"
PROTOBUF = importlib.util.find_spec("google") is not None and importlib.util.find_spec("google.protobuf") is not None
KINDS = [
    JsonSchemaConverter,
    pytest.param(ProtobufConverter, marks=pytest.mark.skipif(not PROTOBUF, reason="the package protobuf is missing")),
]
TABLES = [pytest.param(scenario, table, id=f"{scenario}:{table}") for scenario in ROWS for table in ROWS[scenario]]
Make = Callable[..., Any]

pytestmark = pytest.mark.parametrize("kind", KINDS, ids=["JSON", "PROTOBUF"])


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


def _expected(kind: type[Converter], schema: Schema) -> Schema:
    """What a schema comes back as."""
    return schema


@given(pair=pairs())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_values_come_back(kind: type[Converter], pair: tuple[Schema, Any]) -> None:
    schema, value = pair
    converter = configured(kind, MemoryRegistry())
    data = converter.encoder("t", schema)(value)
    read, back = converter.to_connect("t", data)
    assert read == _expected(kind, schema)
    assert comparable(schema, back) == comparable(schema, value)


@pytest.mark.parametrize("scenario", sorted(path.parent.name for path in GOLDEN.glob("*/connect-schemas.json")))
def test_every_recorded_schema_comes_back(kind: type[Converter], scenario: str, registry: MemoryRegistry) -> None:
    converter = configured(kind, registry)
    for parts in json.loads((GOLDEN / scenario / "connect-schemas.json").read_text()).values():
        for form in [*(parts["key"] or ()), *(parts["value"] or ())]:
            if form is None:
                continue
            schema = parse_schema(form)
            if kind is ProtobufConverter and schema.type != "struct":
                with pytest.raises(FatalError, match="writes structs only"):
                    converter.encoder("t", schema)
                continue
            assert converter._connect(converter._text("t", schema)) == _expected(kind, schema)


@pytest.mark.parametrize(("scenario", "table"), TABLES)
def test_rows_of_every_type_come_back(
    kind: type[Converter], scenario: str, table: str, registry: MemoryRegistry
) -> None:
    of = _shape(scenario, table)
    values, keys = configured(kind, registry), configured(kind, registry, is_key=True)
    write, write_key, native = values.value_encoder(of), keys.key_encoder(of, Memory()), row_values(of, "")
    transaction = Transaction(1, 2, 3_000_000, 4, None)
    for texts in ROWS[scenario][table]["rows"]:
        row = [None if text is None else text.encode() for text in texts]
        one = RowChange(of, "c", row, None, row, transaction, 5, 0, 0)
        schema, value = values.to_connect(of.topic, write(one, NOW))
        assert schema == _expected(kind, of.envelope_schema)
        envelope = native.envelope(one, NOW)
        assert comparable(of.row_schema, value["after"]) == comparable(of.row_schema, envelope["after"])
        assert value["op"] == "c"
        key = native.key(one)
        if of.key_schema is None:
            assert write_key(one) is None
        else:
            schema, value = keys.to_connect(of.topic, write_key(one))
            assert schema == _expected(kind, of.key_schema)
            assert comparable(of.key_schema, value) == comparable(of.key_schema, key)


def test_nothing_is_null_and_without_schema_nothing_else(kind: type[Converter], registry: MemoryRegistry) -> None:
    converter = configured(kind, registry)
    assert converter.encoder("t", None)(None) is None
    assert converter.to_connect("t", None) == (None, None)
    with pytest.raises(DataError, match="without schema"):
        converter.encoder("t", None)({})
    with pytest.raises(RuntimeError, match="before configure"):
        kind().to_connect("t", bytes(5))


def test_key_bytes_are_the_same_after_a_new_default(kind: type[Converter], registry: MemoryRegistry) -> None:
    memory = Memory()
    before, after = shape(column("id", 23, default="5")), shape(column("id", 23))
    first = configured(kind, registry, is_key=True).key_encoder(before, memory)(change(before, b"7"))
    again = configured(kind, registry, is_key=True).key_encoder(after, memory)(change(after, b"7"))
    assert first == again
    assert len(registry.subjects["shop.public.orders-key"]) == 1


def test_lost_offsets_take_up_the_schema_that_the_subject_has(kind: type[Converter], registry: MemoryRegistry) -> None:
    before, after = shape(column("id", 23, default="5")), shape(column("id", 23))
    first = configured(kind, registry, is_key=True).key_encoder(before, Memory())(change(before, b"7"))
    registry.strict = True
    again = configured(kind, registry, is_key=True).key_encoder(after, Memory())(change(after, b"7"))
    assert first == again


def test_another_key_is_refused(kind: type[Converter], registry: MemoryRegistry) -> None:
    memory = Memory()
    configured(kind, registry, is_key=True).key_encoder(shape(column("id", 23)), memory)
    with pytest.raises(FatalError, match="column 'id' was int32 and is int64"):
        configured(kind, registry, is_key=True).key_encoder(shape(column("id", 20)), memory)
    registry.strict = True
    with pytest.raises(FatalError, match="has the schema of another key"):
        configured(kind, registry, is_key=True).key_encoder(shape(column("id", 20)), Memory())


def test_a_wiped_registry_is_refused(kind: type[Converter], registry: MemoryRegistry) -> None:
    memory = Memory()
    configured(kind, registry, is_key=True).key_encoder(shape(column("id", 23)), memory)
    other = MemoryRegistry()
    other.register("else", '"int"')
    with pytest.raises(FatalError, match=r"carry schema id 2, but .* gives id 3"):
        configured(kind, other, is_key=True).key_encoder(shape(column("id", 23)), memory)
    strict = MemoryRegistry(strict=True)
    strict.register("shop.public.orders-key", "other", "JSON")
    with pytest.raises(FatalError, match="refuses it"):
        configured(kind, strict, is_key=True).key_encoder(shape(column("id", 23)), memory)


def test_keys_of_another_converter_are_refused(kind: type[Converter], registry: MemoryRegistry) -> None:
    memory = Memory()
    configured(AvroConverter, registry, is_key=True).key_encoder(shape(column("id", 23)), memory)
    with pytest.raises(FatalError, match="its keys were written as Avro"):
        configured(kind, registry, is_key=True).key_encoder(shape(column("id", 23)), memory)
    memory = Memory()
    configured(kind, registry, is_key=True).key_encoder(shape(column("id", 23)), memory)
    with pytest.raises(FatalError, match=r"its keys were written as .* and would now be Avro"):
        configured(AvroConverter, registry, is_key=True).key_encoder(shape(column("id", 23)), memory)


def test_a_control_key_is_no_rows(kind: type[Converter], registry: MemoryRegistry) -> None:
    converter = configured(kind, registry, is_key=True)
    assert converter.control_key(3)  # a sweep may be the first that needs one, before any row
    of = shape(column("partition", 23))
    row = converter.key_encoder(of, Memory())(change(of, b"3"))
    assert converter.control_key(3) not in {row, converter.control_key(4)}
    schema, value = converter.to_connect("t", converter.control_key(3))
    assert schema.name == "cdc.ControlKey"
    assert value == {"partition": 3}


def test_an_incompatible_value_schema_is_written_all_the_same(kind: type[Converter]) -> None:
    registry = MemoryRegistry(strict=True)
    converter = configured(kind, registry)
    converter.value_encoder(shape(column("id", 23)))
    with structlog.testing.capture_logs() as logs:
        converter.value_encoder(shape(column("id", 23), column("name", 25)))
    assert registry.levels == {"shop.public.orders-value": "NONE"}
    assert [log["log_level"] for log in logs] == ["warning"]


def test_schemas_that_must_be_there(kind: type[Converter]) -> None:
    registry = MemoryRegistry(strict=True)
    of = shape(column("id", 23))
    configured(kind, registry).value_encoder(of)
    found = configured(kind, registry, auto_register_schemas="false")
    found.value_encoder(of)
    with pytest.raises(FatalError, match="not found"):
        found.value_encoder(shape(column("id", 23), column("name", 25)))
    keys = configured(kind, registry, is_key=True, auto_register_schemas="false")
    with pytest.raises(FatalError, match="not found"):
        keys.key_encoder(of, Memory())
    with pytest.raises(FatalError, match=r"auto\.register\.schemas=true"):
        keys.control_key(0)


def test_a_registry_that_is_away_is_waited_for(kind: type[Converter], registry: MemoryRegistry) -> None:
    registry.away = True
    memory = Memory()
    with pytest.raises(RegistryUnavailable):
        configured(kind, registry, is_key=True).key_encoder(shape(column("id", 23)), memory)
    assert memory.stored == {}
    assert issubclass(IncompatibleSchema, FatalError)


def test_every_schema_is_fetched_once(kind: type[Converter], registry: MemoryRegistry) -> None:
    converter = configured(kind, registry)
    of = shape(column("id", 23))
    write = converter.value_encoder(of)
    schemas = {id(converter.to_connect("t", write(change(of, b"%d" % n), NOW))[0]) for n in range(3)}
    assert len(schemas) == 1
    assert len(registry.fetched) == 1


def test_what_is_no_payload_is_refused(kind: type[Converter], registry: MemoryRegistry) -> None:
    converter = configured(kind, registry)
    data = converter.encoder("t", shape(column("id", 23)).row_schema)({"id": 1})
    for payload in (b"", b"\x01" + data[1:], data[:4], data[:5] + b"\xff\xff\xff", data[:5] + b"\xc3\x28{"):
        with pytest.raises(DataError):
            converter.to_connect("t", payload)
    number = registry.register("u", '"string"', "AVRO")
    with pytest.raises(DataError, match=f"which is AVRO and not {converter.kind}"):
        converter.to_connect("t", b"\x00" + number.to_bytes(4, "big"))
    with pytest.raises(DataError, match="does not fit its schema"):
        converter.encoder("t", shape(column("id", 23)).row_schema)({})


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("auto_register_schemas", "maybe", "expected one of true, false"),
        ("use_latest_version", "true", "expected one of false"),
        ("value_subject_name_strategy", "RecordNameStrategy", "expected one of TopicNameStrategy"),
        ("auto_register_schema", "true", "Did you mean auto.register.schemas?"),
    ],
)
def test_what_is_wrong_with_the_properties(
    kind: type[Converter], name: str, value: str, told: str, registry: MemoryRegistry
) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(kind, registry, **{name: value})
    assert told in str(caught.value)
    with pytest.raises(ConfigError, match="needs a schema registry"):
        configured(kind)
