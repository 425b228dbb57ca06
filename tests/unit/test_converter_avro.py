"""The Avro converter against a registry in memory: ids, compatibility, and keys that never change."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import fastavro
import pytest
import structlog

from cdc.codec.envelope import row_shape
from cdc.config.plugins import find_converter
from cdc.converters.avro import CONTROL_SCHEMA, CONTROL_SUBJECT, AvroConverter
from cdc.errors import ConfigError, FatalError, KeyChanged, TableError
from cdc.postgres.types import PgType, TypeModes, default_value, resolve
from cdc.record import NO_DEFAULT, Column, RowChange, RowShape, Transaction
from cdc.registry.errors import IncompatibleSchema, RegistryRefused, RegistryUnavailable

ROOT = Path(__file__).parents[2]
MOOD = {16410: PgType(16410, "mood", "public", "e", labels=("sad", "ok"))}


ZERO_UUID = b"00000000-0000-0000-0000-000000000000"


class FakeRegistry:
    """The registry's part that converters use. A subject that is not at NONE refuses all schemas after its first."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}
        self.subjects: dict[str, list[str]] = {}
        self.levels: dict[str, str] = {}
        self.strict = False
        self.away = False
        self.closed = False

    def close(self) -> None:
        self.closed = True

    def register(self, subject: str, schema_json: str, /) -> int:
        if self.away:
            raise RegistryUnavailable("away")
        versions = self.subjects.setdefault(subject, [])
        if schema_json not in versions:
            if versions and self.strict and self.levels.get(subject) != "NONE":
                raise IncompatibleSchema("incompatible", ["READER_FIELD_MISSING_DEFAULT_VALUE"])
            versions.append(schema_json)
        return self.ids.setdefault(schema_json, len(self.ids) + 1)

    def lookup(self, subject: str, schema_json: str, /) -> int:
        if schema_json not in self.subjects.get(subject, ()):
            raise RegistryRefused(f"schema of {subject} not found")
        return self.ids[schema_json]

    def latest(self, subject: str, /) -> tuple[int, str] | None:
        versions = self.subjects.get(subject)
        return (self.ids[versions[-1]], versions[-1]) if versions else None

    def set_compatibility(self, subject: str, level: str, /) -> None:
        self.levels[subject] = level


class Memory:
    """What is stored with the offsets, as JSON."""

    def __init__(self) -> None:
        self.stored: dict[str, str] = {}

    def get(self, topic: str) -> Mapping[str, Any] | None:
        return json.loads(self.stored[topic]) if topic in self.stored else None

    def put(self, topic: str, state: Mapping[str, Any]) -> None:
        self.stored[topic] = json.dumps(state)


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry()


@pytest.fixture
def memory() -> Memory:
    return Memory()


def _converter(registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch, **config: str) -> AvroConverter:
    converter = AvroConverter()
    monkeypatch.setattr(AvroConverter, "_client", lambda _self, _url, _config: registry)
    converter.configure(
        {"schema.registry.url": "http://registry"} | {key.replace("_", "."): value for key, value in config.items()},
        is_key=True,
    )
    return converter


def _column(name: str, oid: int, typmod: int = -1, *, optional: bool = False, default: str = "") -> Column:
    mapping = resolve(oid, typmod, MOOD, TypeModes())
    constant = default_value(default, mapping) if default else NO_DEFAULT
    return Column(name, replace(mapping.schema, optional=optional, default=constant), mapping.kind, mapping.params)


def _shape(*columns: Column, key: tuple[int, ...] = (0,), topic: str = "shop.public.orders") -> RowShape:
    return row_shape(topic, "shopdb", "public", "orders", columns, key, topic.removesuffix(".public.orders"))


def _change(shape: RowShape, *row: bytes | None) -> RowChange:
    return RowChange(shape, "c", list(row), None, list(row), Transaction(1, 2, 3_000_000, 4, None), 5, 0, 0)


def _value(registry: FakeRegistry, data: bytes | None) -> Any:
    assert data is not None
    text = next(text for text, number in registry.ids.items() if number == int.from_bytes(data[1:5], "big"))
    return fastavro.schemaless_reader(io.BytesIO(data[5:]), fastavro.parse_schema(json.loads(text)), None)


def test_found_by_confluents_class_name() -> None:
    for name in ("avro", "io.confluent.connect.avro.AvroConverter", "AvroConverter"):
        assert find_converter(name) is AvroConverter


def test_records_are_readable_with_the_registered_schemas(
    registry: FakeRegistry, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    converter = _converter(registry, monkeypatch, avro_logical_types="true")
    shape = _shape(_column("id", 23), _column("born", 1082, optional=True))
    change = _change(shape, b"7", b"2024-02-29")
    key = converter.key_encoder(shape, memory)(change)
    assert _value(registry, key) == {"id": 7}
    value = _value(registry, converter.value_encoder(shape)(change, 1_000_000))
    assert str(value["after"]["born"]) == "2024-02-29"
    assert (value["source"]["name"], value["source"]["db"], value["source"]["connector"]) == (
        "shop",
        "shopdb",
        "postgresql",
    )
    assert set(registry.subjects) == {"shop.public.orders-key", "shop.public.orders-value", CONTROL_SUBJECT}


def test_topic_prefix_may_have_dots_and_dashes(registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = _shape(_column("id", 23), topic="eu.my-shop.public.orders")
    value = _value(registry, _converter(registry, monkeypatch).value_encoder(shape)(_change(shape, b"1"), 0))
    assert value["source"]["name"] == "eu.my-shop"


@pytest.mark.parametrize(("setting", "logical"), [("true", "date"), ("false", None), ("connect", None)])
def test_avro_logical_types(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch, setting: str, logical: str | None
) -> None:
    converter = _converter(registry, monkeypatch, avro_logical_types=setting)
    shape = _shape(_column("id", 23), _column("born", 1082), _column("at", 1114))
    converter.value_encoder(shape)
    row = json.loads(registry.subjects["shop.public.orders-value"][0])["fields"][0]["type"][1]
    assert row["fields"][1]["type"].get("logicalType") == logical
    assert row["fields"][2]["type"].get("logicalType") == (None if setting == "false" else "local-timestamp-micros")


def test_incompatible_value_schema_is_registered_after_all_and_warned_of_once(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.strict = True
    converter = _converter(registry, monkeypatch)
    with structlog.testing.capture_logs() as logs:
        for columns in ([_column("id", 23)], [_column("id", 25)], [_column("id", 20)]):
            shape = _shape(*columns)
            assert _value(registry, converter.value_encoder(shape)(_change(shape, b"1"), 0))
    assert registry.levels == {"shop.public.orders-value": "NONE"}
    assert len(registry.subjects["shop.public.orders-value"]) == 3
    assert [(entry["log_level"], entry["subject"], entry["reasons"]) for entry in logs] == [
        ("warning", "shop.public.orders-value", ["READER_FIELD_MISSING_DEFAULT_VALUE"])
    ]


def test_schemas_that_must_not_be_registered(
    registry: FakeRegistry, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = _shape(_column("id", 23))
    converter = _converter(registry, monkeypatch, auto_register_schemas="false")
    with pytest.raises(RegistryRefused, match=r"orders-value not found"):
        converter.value_encoder(shape)
    _converter(registry, monkeypatch).value_encoder(shape)
    _converter(registry, monkeypatch).key_encoder(shape, Memory())
    del registry.subjects[CONTROL_SUBJECT]
    assert converter.value_encoder(shape)
    assert converter.key_encoder(shape, memory)(_change(shape, b"1"))
    assert CONTROL_SUBJECT not in registry.subjects
    with pytest.raises(FatalError, match=rf"{CONTROL_SUBJECT}.*auto\.register\.schemas"):
        converter.control_key(0)


def test_registry_away_is_waited_for(registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.away = True
    with pytest.raises(RegistryUnavailable):
        _converter(registry, monkeypatch).value_encoder(_shape(_column("id", 23)))


def test_control_keys_are_avro_and_differ_by_partition(
    registry: FakeRegistry, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    converter = _converter(registry, monkeypatch)
    assert converter.control_key(0)  # a sweep may be the first that needs one, before any row
    shape = _shape(_column("id", 23))
    row_key = converter.key_encoder(shape, memory)(_change(shape, b"3"))
    keys = [converter.control_key(partition) for partition in (0, 3, 300)]
    assert [_value(registry, key) for key in keys] == [{"partition": 0}, {"partition": 3}, {"partition": 300}]
    assert row_key not in keys


def test_control_schema_is_the_one_in_the_repository() -> None:
    described = json.loads((ROOT / "schemas" / "control-key.avsc").read_text())
    del described["doc"]
    for field in described["fields"]:
        del field["doc"]
    assert described == json.loads(CONTROL_SCHEMA)


def test_keyless_table_needs_no_registry(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = FakeRegistry()
    shape = _shape(_column("id", 23), key=())
    assert _converter(registry, monkeypatch).key_encoder(shape, memory)(_change(shape, b"1")) is None
    assert (registry.ids, memory.stored) == ({}, {})


# --- H14: the key schema is made once ----------------------------------------------------------------------------

SAME_KEYS = [
    (_column("id", 23), _column("id", 23, default="5"), b"1"),
    (_column("id", 23, default="nextval('s'::regclass)"), _column("id", 23), b"1"),
    (_column("id", 23, optional=True), _column("id", 23, optional=True, default="5"), b"1"),
    (_column("id", 23, optional=True, default="5"), _column("id", 23, optional=True), b"1"),
    (_column("id", 23, optional=True, default="5"), _column("id", 23, optional=True), None),
    (_column("id", 1043, 14), _column("id", 25), b"a"),
    (_column("id", 2950, default="'123e4567-e89b-12d3-a456-426614174000'::uuid"), _column("id", 2950), ZERO_UUID),
]


@pytest.mark.parametrize(("first", "then", "text"), SAME_KEYS)
def test_key_keeps_its_bytes_when_a_default_comes_or_goes(
    first: Column,
    then: Column,
    text: bytes | None,
    registry: FakeRegistry,
    memory: Memory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, after = _shape(first), _shape(then)
    key = _converter(registry, monkeypatch).key_encoder(before, memory)(_change(before, text))
    again = _converter(registry, monkeypatch).key_encoder(after, memory)(_change(after, text))
    assert again == key
    assert len(registry.subjects["shop.public.orders-key"]) == 1
    lost = _converter(registry, monkeypatch).key_encoder(after, Memory())(_change(after, text))
    assert lost == key


def test_key_keeps_its_bytes_when_an_enum_grows_or_logical_types_are_switched(
    registry: FakeRegistry, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shape() -> RowShape:
        return _shape(_column("mood", 16410), _column("day", 1082), key=(0, 1))

    key = _converter(registry, monkeypatch).key_encoder(shape(), memory)(_change(shape(), b"ok", b"2024-01-01"))
    monkeypatch.setitem(MOOD, 16410, PgType(16410, "mood", "public", "e", labels=("sad", "meh", "ok")))
    for setting in ("true", "false", "connect"):
        converter = _converter(registry, monkeypatch, avro_logical_types=setting)
        assert converter.key_encoder(shape(), memory)(_change(shape(), b"ok", b"2024-01-01")) == key


def _numeric(precision: int, scale: int) -> int:
    return (precision << 16 | scale) + 4


@pytest.mark.parametrize(
    ("first", "then", "told"),
    [
        ([_column("id", 23)], [_column("id", 20)], "column 'id' was int and is long"),
        ([_column("id", 21)], [_column("id", 23)], "column 'id' was int16 and is int"),
        ([_column("id", 23)], [_column("id", 23, optional=True)], "column 'id' was int and is null or int"),
        ([_column("id", 23)], [_column("no", 23)], r"its columns were \(id\) and are \(no\)"),
        ([_column("a", 23), _column("b", 23)], [_column("b", 23), _column("a", 23)], r"were \(a, b\) and are \(b, a\)"),
        ([_column("a", 23)], [_column("a", 23), _column("b", 23)], r"were \(a\) and are \(a, b\)"),
        ([_column("at", 1114)], [_column("at", 1184)], "was MicroTimestamp and is ZonedTimestamp"),
        ([_column("at", 1114)], [_column("at", 1114, 3)], "was MicroTimestamp and is Timestamp"),
        (
            [_column("n", 1700, _numeric(10, 2))],
            [_column("n", 1700, _numeric(10, 3))],
            r"was Decimal \(precision 10, scale 2\) and is Decimal \(precision 10, scale 3\)",
        ),
        ([_column("b", 1560, 7)], [_column("b", 1560, 9)], r"was Bits \(length 7\) and is Bits \(length 9\)"),
    ],
)
def test_key_of_other_names_or_types_stops_the_table(
    first: list[Column],
    then: list[Column],
    told: str,
    registry: FakeRegistry,
    memory: Memory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    converter = _converter(registry, monkeypatch)
    converter.key_encoder(_shape(*first, key=tuple(range(len(first)))), memory)
    stored = dict(memory.stored)
    with pytest.raises(FatalError, match=rf"the key of table public\.orders has changed: .*{told}.*delete the topic"):
        converter.key_encoder(_shape(*then, key=tuple(range(len(then)))), memory)
    assert memory.stored == stored


@pytest.mark.parametrize("known_elsewhere", [False, True])
def test_wiped_registry_stops_the_connector(
    registry: FakeRegistry, memory: Memory, monkeypatch: pytest.MonkeyPatch, known_elsewhere: bool
) -> None:
    shape = _shape(_column("id", 23))
    _converter(registry, monkeypatch).key_encoder(shape, memory)
    wiped = FakeRegistry()
    if known_elsewhere:
        wiped.strict = True
        wiped.register("shop.public.orders-key", '"string"')
    else:
        wiped.register("other", '"string"')
        wiped.register("more", '"bytes"')
    with pytest.raises(
        FatalError, match=r"keys carry schema id 2.*Remedy: restore the registry \(its _schemas topic\)"
    ):
        _converter(wiped, monkeypatch).key_encoder(shape, memory)


def test_registry_that_gives_the_id_back_is_fine(
    registry: FakeRegistry, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = _shape(_column("id", 23))
    key = _converter(registry, monkeypatch).key_encoder(shape, memory)(_change(shape, b"1"))
    restored = FakeRegistry()
    restored.ids = dict(registry.ids)
    assert _converter(restored, monkeypatch).key_encoder(shape, memory)(_change(shape, b"1")) == key


def test_topic_that_debezium_wrote_keeps_its_keys(
    registry: FakeRegistry, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = (
        '{"type":"record","name":"Key","namespace":"shop.public.orders","fields":[{"name":"id","type":{"type":"string",'
        '"connect.version":1,"connect.default":"0","connect.name":"io.debezium.data.Uuid"},"default":"0"}],'
        '"connect.name":"shop.public.orders.Key"}'
    )
    number = registry.register("shop.public.orders-key", theirs)
    shape = _shape(_column("id", 2950))
    key = _converter(registry, monkeypatch).key_encoder(shape, memory)(_change(shape, ZERO_UUID))
    assert key is not None
    assert int.from_bytes(key[1:5], "big") == number
    assert registry.subjects["shop.public.orders-key"] == [theirs]


@pytest.mark.parametrize(
    "theirs", ['"string"', '{"type":"record","name":"Key","fields":[{"name":"id","type":"string"}]}']
)
def test_subject_with_another_key_is_named(
    theirs: str, registry: FakeRegistry, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.strict = True
    registry.register("shop.public.orders-key", theirs)
    with pytest.raises(FatalError, match=r"has the schema of another key.*If the topic is new, delete the subject"):
        _converter(registry, monkeypatch).key_encoder(_shape(_column("id", 23)), memory)
    assert memory.stored == {}


# --- settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({}, "schema.registry.url: the Avro converter needs a schema registry.*embedded"),
        ({"auto.register.schemas": "yes"}, "auto.register.schemas: expected true or false, found 'yes'"),
        ({"avro.logical.types": "some"}, "avro.logical.types: expected true, false or connect"),
        ({"auto.register.schema": "true"}, "auto.register.schema: .*Did you mean auto.register.schemas"),
        ({"use.latest.version": "true"}, "use.latest.version: only false is supported"),
        ({"connect.meta.data": "false"}, "connect.meta.data: only true is supported"),
        ({"value.subject.name.strategy": "x.RecordNameStrategy"}, "only TopicNameStrategy"),
        ({"basic.auth.user.info": "u:secret"}, "needs a schema registry"),
    ],
)
def test_wrong_settings_are_named(config: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        AvroConverter().configure(config, is_key=False)
    assert "secret" not in str(caught.value)


def test_confluents_settings_are_taken(registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {
        "schema.registry.url": "http://registry",
        "schema.registry.basic.auth.user.info": "u:secret",
        "basic.auth.credentials.source": "USER_INFO",
        "enhanced.avro.schema.support": "true",
        "schemas.enable": "false",
        "use.latest.version": "false",
        "value.subject.name.strategy": "io.confluent.kafka.serializers.subject.TopicNameStrategy",
    }
    seen: list[Any] = []
    monkeypatch.setattr(AvroConverter, "_client", lambda _self, *given: (seen.append(given), registry)[1])
    AvroConverter().configure(config, is_key=False)
    assert seen == [("http://registry", {key: config[key] for key in list(config)[:3]})]


def test_real_client_is_made_without_a_call() -> None:
    converter = AvroConverter()
    converter.configure({"schema.registry.url": "http://127.0.0.1:1"}, is_key=False)
    converter.close()


@pytest.mark.parametrize("name", ["Order Id", "unit-price", "9lives", "with.dot", "$y"])
def test_columns_that_avro_cannot_name_are_told(
    name: str, registry: FakeRegistry, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = _shape(_column("id", 23), _column(name, 23))
    converter = _converter(registry, monkeypatch)
    for encoder in (lambda: converter.value_encoder(shape), lambda: converter.key_encoder(shape, memory)):
        with pytest.raises(FatalError, match=r"table public\.orders cannot be written as Avro"):
            encoder()


def test_closes_its_client(registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    AvroConverter().close()
    _converter(registry, monkeypatch).close()
    assert registry.closed


def test_not_configured() -> None:
    with pytest.raises(RuntimeError, match=r"before configure"):
        AvroConverter().value_encoder(_shape(_column("id", 23)))


def test_a_key_tells_its_row_if_the_row_would_get_the_same_bytes(
    registry: FakeRegistry, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ghost's delete has the columns of its key; what is not sure is left to the tombstone."""
    converter = _converter(registry, monkeypatch)
    shape = _shape(_column("v", 25, optional=True), _column("id", 23), _column("name", 25), key=(2, 1))
    encode = converter.key_encoder(shape, memory)
    key = encode(_change(shape, b"x", b"7", b"it's \xc5\xbc"))
    assert key is not None
    assert converter.key_row(shape, key) == [None, b"7", b"it's \xc5\xbc"]
    assert converter.key_row(shape, b"\x00\x00\x00\x00\x63" + key[5:]) is None
    at = _shape(_column("at", 1184), topic="shop2.public.orders")
    moment = converter.key_encoder(at, memory)(_change(at, b"2026-01-31 12:00:00+00"))
    assert moment is not None
    assert converter.key_row(at, moment) is None


def test_renewed_keys_may_have_any_schema(
    registry: FakeRegistry, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.strict = True
    converter = _converter(registry, monkeypatch)
    narrow, wide = _shape(_column("id", 23)), _shape(_column("id", 20))
    converter.key_encoder(narrow, memory)
    with pytest.raises(KeyChanged, match=r"schema\.key\.change\.handling\.mode=renew"):
        converter.key_encoder(wide, memory)
    converter.renew_keys(narrow.topic, memory)
    assert _value(registry, converter.key_encoder(wide, memory)(_change(wide, b"5000000000"))) == {"id": 5000000000}
    with pytest.raises(KeyChanged):
        converter.key_encoder(narrow, memory)


def test_an_incompatible_value_schema_may_stop_its_table(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.strict = True
    converter = _converter(registry, monkeypatch)
    converter.refuses_incompatible = True
    converter.value_encoder(_shape(_column("id", 23)))
    with pytest.raises(TableError, match=r"refuses the new value schema of shop\.public\.orders-value"):
        converter.value_encoder(_shape(_column("id", 23), _column("v", 23)))
    assert not registry.levels
