"""What a header tells of values that were written without schema: their texts are those that their schema gives."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mirror_feed import TOPIC, Record, Registry
from test_connect_fields import SCALARS, decoded, enveloped, rows

from cdc.codec.connect_fields import fields_plan, key_plan
from cdc.codec.told_schema import NOTHING_TOLD, parse_told, told
from cdc.converters.avro_reader import AvroReader
from cdc.converters.json_converter import JsonConverter
from cdc.converters.scalars import StringConverter
from cdc.errors import DataError
from cdc.mirror.general import GeneralLane
from cdc.plugin import Converter
from cdc.record import HEADER_SCHEMA, Field, Schema


def converter(of: type[Converter], *, is_key: bool, **settings: str) -> Converter:
    made = of()
    made.configure({name.replace("_", "."): value for name, value in settings.items()}, is_key=is_key)
    assert not made.tells_types
    return made


KEYS = converter(JsonConverter, is_key=True, schemas_enable="false")
VALUES = converter(JsonConverter, is_key=False, schemas_enable="false")
NUMBERS = converter(JsonConverter, is_key=False, schemas_enable="false", decimal_format="NUMERIC")
PRINTED = converter(StringConverter, is_key=True)


def lane(keys: Converter = KEYS, values: Converter = VALUES) -> GeneralLane:
    return GeneralLane(AvroReader(Registry()), keys.to_connect, values.to_connect)


def routed(made: GeneralLane, key: bytes | None, value: bytes | None, header: bytes | None) -> Any:
    headers = None if header is None else [(HEADER_SCHEMA, header)]
    return made.routed([Record(0, key, value, headers)])[0]


@settings(max_examples=200)
@given(found=rows(), values=st.sampled_from([VALUES, NUMBERS]))
def test_rows_have_the_texts_that_they_have_with_their_schema(
    found: tuple[Schema, dict[str, Any]], values: Converter
) -> None:
    schema, row = found
    expected = fields_plan(schema)
    for written, value in ((schema, row), (enveloped(schema), {"before": None, "after": row, "op": "u"})):
        made = lane(values=values)
        payload = routed(made, None, values.encoder(TOPIC, written)(value), told(None, written)).value()
        fields, nulls = made.fields(payload).decode(payload, 5)
        assert fields is not None
        whole, absent = expected.decode(decoded(row), 5)
        assert whole is not None
        assert dict(zip(fields[::2], fields[1::2], strict=True)) == dict(zip(whole[::2], whole[1::2], strict=True))
        assert sorted(nulls) == sorted(absent)


@settings(max_examples=200)
@given(found=rows())
def test_keys_have_the_texts_that_they_have_with_their_schema(found: tuple[Schema, dict[str, Any]]) -> None:
    schema, row = found
    made = lane()
    payload = routed(made, KEYS.encoder(TOPIC, schema)(row), None, told(schema, None)).key()
    plan, expected = made.key(payload), key_plan(schema)
    assert plan.columns == expected.columns
    assert plan.decode(payload, 5) == expected.decode(decoded(row), 5)


@pytest.mark.parametrize("struct", [True, False])
@given(data=st.data())
def test_printed_keys_have_the_texts_that_they_have_with_their_schema(struct: bool, data: st.DataObject) -> None:
    schema, values = data.draw(st.sampled_from([pair for pair in SCALARS if printable(pair[0])]))
    value = data.draw(values)
    written, native = (Schema("struct", fields=(Field("k", schema),)), {"k": value}) if struct else (schema, value)
    try:
        key = PRINTED.encoder(TOPIC, written)(native)
    except DataError:
        assume(False)  # a date that Java cannot print
    made = lane(PRINTED)
    payload = routed(made, key, None, told(written, None)).key()
    assert made.key(payload).decode(payload, 5) == key_plan(written).decode(decoded(native), 5)


def printable(schema: Schema) -> bool:
    name = schema.name or ""
    whole = name.endswith((".Time", ".Timestamp")) and "connect" in name
    return not whole and (schema.type != "bytes" or name.endswith(".Decimal"))


def test_columns_that_say_it_all_are_not_in_the_header() -> None:
    plain = tuple(Field(kind, Schema(kind)) for kind in ("int32", "string", "boolean"))
    enum = Field("e", Schema("string", name="io.debezium.data.Enum", version=1, parameters=(("allowed", "a,b"),)))
    date = Schema("int32", name="io.debezium.time.Date", version=1, default=0, doc="its day")
    assert told(Schema("struct", fields=(*plain, enum)), Schema("string")) is None
    header = told(Schema("struct", fields=(*plain, enum, Field("d", date))), None)
    assert header is not None
    assert json.loads(header)["key"]["fields"] == [
        {"type": "int32", "optional": True, "name": "io.debezium.time.Date", "version": 1, "field": "d"}
    ]
    assert parse_told(b"{}") == NOTHING_TOLD


@pytest.mark.parametrize(
    "header",
    [b"", b"{", b"[]", b"{} {}", b'{"row":{}}', b'{"value":{"type":"number"}}', b'{"key":7}', b"\xff", b"[" * 9999],
)
def test_a_header_of_another_make_is_the_records_fault(header: bytes) -> None:
    with pytest.raises(DataError, match=r"the header cdc\.schema cannot be read"):
        parse_told(header)
    if header:
        with pytest.raises(DataError, match=r"cdc\.schema"):
            routed(lane(), None, b'{"a":1}', header).value()


def test_headers_of_each_record_s_own_do_not_fill_the_memory() -> None:
    made = lane()

    def put(number: int) -> None:
        header = told(Schema("struct", fields=(Field(f"c{number}", Schema("bytes")),)), None)
        routed(made, b'{"a":1}', None, header).key()

    with pytest.raises(DataError, match="different headers"):
        list(map(put, range(5000)))
