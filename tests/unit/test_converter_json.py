"""The JSON converter: Kafka's bytes, nulls that stay nulls, keys that never change."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from connect_strategies import pairs
from converter_parts import NOW, Memory, change, column, comparable, configured, shape
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.codec.connect_json import parse_schema, schema_text, value_from_json
from cdc.converters.json_converter import JsonConverter
from cdc.errors import ConfigError, DataError, FatalError
from cdc.record import NO_DEFAULT, Field, Schema

GOLDEN = Path(__file__).parent.parent / "golden"
PLACEHOLDERS = {"<ts_ms>", "<ts_us>", "<ts_ns>", "<lsn>", "<txId>", "<xmin>"}
ID = Schema("struct", fields=(Field("id", Schema("int32")),), name="t.Key")


def test_the_envelope_and_the_bare_value_are_kafkas_bytes() -> None:
    assert configured(JsonConverter).encoder("t", ID)({"id": 3}) == (
        b'{"schema":{"type":"struct","fields":[{"type":"int32","optional":false,"field":"id"}],"optional":false,'
        b'"name":"t.Key"},"payload":{"id":3}}'
    )
    assert configured(JsonConverter, schemas_enable="false").encoder("t", ID)({"id": 3}) == b'{"id":3}'


@pytest.mark.parametrize("with_schemas", ["true", "false"])
@pytest.mark.parametrize("name", sorted(path.parent.name for path in GOLDEN.glob("*/records.jsonl")))
def test_every_recorded_value_is_read_and_written_as_it_was(name: str, with_schemas: str) -> None:
    converter = configured(JsonConverter, schemas_enable=with_schemas)
    schemas = json.loads((GOLDEN / name / "connect-schemas.json").read_text())
    seen = 0
    for line in (GOLDEN / name / "records.jsonl").read_text().splitlines():
        record = json.loads(line)
        for part in ("key", "value"):
            forms = [form for form in schemas.get(record["topic"], {}).get(part) or () if form is not None]
            if len(forms) != 1 or not isinstance(record[part], dict):
                continue
            schema, payload = parse_schema(forms[0]), _without_placeholders(record[part])
            value = value_from_json(schema, payload)
            data = converter.encoder("t", schema)(value)
            if name != "types_float":  # recorded by a Java that printed some singles with a digit more
                envelope = {"schema": forms[0], "payload": payload}
                assert json.loads(data) == (envelope if with_schemas == "true" else payload)
            if with_schemas == "true":
                read, back = converter.to_connect("t", data)
                assert read == schema
                assert comparable(schema, back) == comparable(schema, value)
            seen += 1
    assert seen or name in {"heartbeat", "schema_evolution", "outbox_expand", "logical_router", "outbox"}, name


def _without_placeholders(value: Any) -> Any:
    """What differs from run to run stands in the recording as ``<ts_ms>`` and the like."""
    if isinstance(value, dict):
        return {name: _without_placeholders(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_placeholders(item) for item in value]
    return 1 if isinstance(value, str) and value in PLACEHOLDERS else value


@given(pairs(), st.sampled_from(["BASE64", "NUMERIC"]))
@settings(max_examples=150)
def test_random_values_come_back_with_their_schema(pair: tuple[Schema, Any], decimals: str) -> None:
    schema, value = pair
    converter = configured(JsonConverter, decimal_format=decimals)
    data = converter.encoder("t", schema)(value)
    assert converter.to_connect("t", data) == (schema, value)
    assert converter.to_connect("t", data)[0] is converter.to_connect("t", b" " + data)[0]


def test_nulls() -> None:
    optional = Schema("int32", optional=True, default=7)
    plain, replacing = configured(JsonConverter), configured(JsonConverter, replace_null_with_default="true")
    assert plain.encoder("t", None)(None) is None
    assert plain.to_connect("t", None) == (None, None)
    data = plain.encoder("t", optional)(None)
    assert data.endswith(b'"payload":null}')
    assert plain.to_connect("t", data) == (optional, None)
    assert replacing.encoder("t", optional)(None).endswith(b'"payload":7}')
    assert replacing.to_connect("t", data) == (optional, 7)
    assert configured(JsonConverter, schemas_enable="false").to_connect("t", b"null") == (None, None)


def test_values_without_schema() -> None:
    bare = configured(JsonConverter, schemas_enable="false")
    assert bare.to_connect("t", b'{"a":[1,2.50,"x",null]}') == (None, {"a": [1, Decimal("2.50"), "x", None]})
    assert bare.encoder("t", None)({"a": 1}) == b'{"a":1}'
    data = configured(JsonConverter).encoder("t", None)({"a": 1})
    assert data == b'{"schema":null,"payload":{"a":1}}'
    assert configured(JsonConverter).to_connect("t", data) == (None, {"a": 1})


def test_a_schema_of_all_records_from_the_configuration() -> None:
    converter = configured(JsonConverter, schema_content=schema_text(ID))
    assert converter.to_connect("t", b'{"id":4}') == (ID, {"id": 4})


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (b'{"id":1}', "schemas.enable=false"),
        (b"", "it is empty"),
        (b"\xff", "cannot read the value"),
        (b'{"schema":{"type":"struct"},"payload":{}} x', "more follows"),
        (b'{"schema":{"type":"odd"},"payload":{}}', "type 'odd'"),
        (b'{"schema":7,"payload":{}}', "its schema is none"),
        (b'{"schema":{"type":"int32","optional":false},"payload":"1"}', "'1' is no int32"),
    ],
)
def test_what_is_no_record_is_refused(payload: bytes, told: str) -> None:
    with pytest.raises(DataError, match=told):
        configured(JsonConverter).to_connect("t", payload)


def test_a_value_behind_a_known_schema_is_read_to_its_end() -> None:
    converter = configured(JsonConverter)
    data = converter.encoder("t", ID)({"id": 3})
    converter.to_connect("t", data)
    with pytest.raises(DataError, match="more follows"):
        converter.to_connect("t", data + b"}")
    assert converter.to_connect("t", data + b" \n") == (ID, {"id": 3})


def test_key_bytes_are_the_same_after_a_new_default_or_comment() -> None:
    memory, converter = Memory(), configured(JsonConverter, is_key=True)
    first = converter.key_encoder(shape(column("id", 23, default="5")), memory)
    after = shape(column("id", 23))
    key = change(after, b"7")
    assert first(key) == configured(JsonConverter, is_key=True).key_encoder(after, memory)(key)
    assert b'"default":5' in first(key)


def test_a_key_of_another_type_is_refused_where_it_changes_the_bytes() -> None:
    for schemas, told in (("true", "was int32 and is int64"), ("false", None)):
        memory = Memory()
        converter = configured(JsonConverter, is_key=True, schemas_enable=schemas)
        converter.key_encoder(shape(column("id", 23)), memory)
        wider = shape(column("id", 20))
        if told:
            with pytest.raises(FatalError, match=told):
                converter.key_encoder(wider, memory)
        else:
            assert converter.key_encoder(wider, memory)(change(wider, b"7")) == b'{"id":7}'
        with pytest.raises(FatalError, match=r"its columns were \(id\) and are \(number\)"):
            converter.key_encoder(shape(column("number", 23)), memory)


def test_keys_in_another_form_are_refused() -> None:
    memory = Memory()
    configured(JsonConverter, is_key=True).key_encoder(shape(column("id", 23)), memory)
    other = configured(JsonConverter, is_key=True, schemas_enable="false")
    with pytest.raises(FatalError, match="were written as JSON with schemas"):
        other.key_encoder(shape(column("id", 23)), memory)


def test_a_keyless_table_has_no_key_and_a_control_key_is_no_rows() -> None:
    table = shape(column("id", 23), key=())
    for schemas in ("true", "false"):
        converter = configured(JsonConverter, is_key=True, schemas_enable=schemas)
        assert converter.key_encoder(table, Memory())(change(table, b"1")) is None
        partition = shape(column("partition", 23))
        row = converter.key_encoder(partition, Memory())(change(partition, b"3"))
        assert converter.control_key(3) not in {row, converter.control_key(4)}
        assert converter.to_connect("t", converter.control_key(3))[1] in (
            {"partition": 3},
            {"cdc.ControlKey": {"partition": 3}},
        )


def test_what_the_schema_cannot_hold_travels_in_the_header() -> None:
    table = shape(column("id", 23), column("price", 1700, (10 << 16 | 2) + 4))
    row = change(table, b"1", b"NaN")
    data = configured(JsonConverter, schemas_enable="false").value_encoder(table)(row, NOW)
    assert json.loads(data)["after"] == {"id": 1, "price": "AA=="}
    assert row.headers == (("cdc.text", b'{"price":"NaN"}'),)
    assert configured(JsonConverter).value_encoder(table)(change(table, b"1", b"1", op=""), NOW) is None


def test_a_value_that_does_not_fit_is_named() -> None:
    with pytest.raises(DataError, match="t: the value does not fit its schema: id: null"):
        configured(JsonConverter).encoder("t", ID)({"id": None})


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("schemas_enable", "yes", "expected one of true, false, got 'yes'"),
        ("decimal_format", "HEX", "expected one of BASE64, NUMERIC"),
        ("schema_enable", "true", "Did you mean schemas.enable?"),
        ("schema_content", "{}", "it is no schema"),
    ],
)
def test_what_is_wrong_with_the_properties(name: str, value: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(JsonConverter, **{name: value})
    assert told in str(caught.value)


def test_the_workers_registry_and_letter_case_are_no_fault() -> None:
    properties = {"schema.registry.url": "http://r", "decimal.format": "numeric", "schemas.cache.size": "9"}
    JsonConverter().configure(properties, is_key=False)


def test_only_the_last_schemas_are_remembered() -> None:
    converter = configured(JsonConverter)
    for number in range(100):
        schema = replace(ID, version=number, fields=(Field("id", Schema("int32", default=NO_DEFAULT)),))
        assert converter.to_connect("t", converter.encoder("t", schema)({"id": 1})) == (schema, {"id": 1})
    assert len(converter._known["t"]) == 64
