"""Plans made from Connect schemas against plans made from Avro's: the same text for the same value, whatever it is."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from golden_feed import SCENARIOS, Scenario, read
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.codec.avro_binary import writer
from cdc.codec.avro_fields import compile_fields, compile_key
from cdc.codec.connect_avro import avro_schema, avro_text
from cdc.codec.connect_fields import (
    Decoded,
    fields_plan,
    key_plan,
    plain_fields_plan,
    plain_key_plan,
)
from cdc.codec.connect_text import plain_text
from cdc.codec.flattened import metadata_pattern
from cdc.errors import DataError
from cdc.record import Field, Schema

INT32, INT64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
DAY_US = 86_400_000_000


def named(kind: str, name: str, **parameters: str) -> Schema:
    return Schema(kind, name=name, version=1, parameters=tuple(parameters.items()))


VARIABLE = Schema(
    "struct",
    name="io.debezium.data.VariableScaleDecimal",
    fields=(Field("scale", Schema("int32")), Field("value", Schema("bytes"))),
)
POINT = Schema(
    "struct",
    name="io.debezium.data.geometry.Point",
    fields=(
        Field("x", Schema("float64")),
        Field("y", Schema("float64")),
        Field("wkb", Schema("bytes", optional=True)),
        Field("srid", Schema("int32", optional=True)),
    ),
)
ZONED = ["2026-01-31T12:00:00.500000Z", "infinity", "-0043-03-15T12:00:00.000000Z", "2026-01-31T23:30:00.1-01:00"]

SPARSE = Schema(
    "struct",
    name="io.debezium.data.SparseDoubleVector",
    fields=(
        Field("dimensions", Schema("int16")),
        Field("vector", Schema("map", keys=Schema("int16"), values=Schema("float64"))),
    ),
)

SCALARS: list[tuple[Schema, st.SearchStrategy[Any]]] = [
    (Schema("int8"), st.integers(-128, 127)),
    (Schema("int16"), st.integers(-(2**15), 2**15 - 1)),
    (Schema("int32"), INT32),
    (Schema("int64"), INT64),
    (Schema("float32"), st.floats(width=32)),
    (Schema("float64"), st.floats()),
    (Schema("boolean"), st.booleans()),
    (Schema("string"), TEXT),
    (Schema("bytes"), st.binary(max_size=40)),
    (named("int32", "io.debezium.time.Date"), INT32),
    (named("int32", "io.debezium.time.Time"), st.integers(0, DAY_US // 1000)),
    (named("int64", "io.debezium.time.MicroTime"), st.integers(0, DAY_US)),
    (named("int64", "io.debezium.time.NanoTime"), st.integers(0, DAY_US * 1000)),
    (named("int64", "io.debezium.time.Timestamp"), st.integers(-(2**53), 2**53)),
    (named("int64", "io.debezium.time.MicroTimestamp"), INT64 | st.just(9223372036825200000)),
    (named("int64", "io.debezium.time.NanoTimestamp"), INT64 | st.just(2**63 - 1)),
    (named("string", "io.debezium.time.ZonedTimestamp"), st.sampled_from(ZONED)),
    (named("string", "io.debezium.time.ZonedTime"), st.sampled_from(["10:34:56.789012Z", "01:00:00+02:00"])),
    (named("string", "io.debezium.time.IsoDate"), st.sampled_from(["2016-11-04Z", "infinity", "-0043-03-15Z"])),
    (named("string", "io.debezium.time.IsoTime"), st.sampled_from(["10:34:56.500Z", "24:00:00Z"])),
    (named("string", "io.debezium.time.IsoTimestamp"), st.sampled_from(["2016-11-04T13:51:30.123456Z"])),
    (named("string", "io.debezium.time.Interval"), st.sampled_from(["P1Y2M3DT4H5M6.780S", "P0Y0M0DT0H0M-0.5S"])),
    (named("int64", "io.debezium.time.MicroDuration"), INT64),
    (named("int64", "io.debezium.time.NanoDuration"), INT64),
    (named("int32", "org.apache.kafka.connect.data.Date"), INT32),
    (named("int32", "org.apache.kafka.connect.data.Time"), st.integers(0, DAY_US // 1000)),
    (named("int64", "org.apache.kafka.connect.data.Timestamp"), st.integers(-(2**50), 2**50)),
    (named("bytes", "org.apache.kafka.connect.data.Decimal", scale="3"), st.binary(min_size=1, max_size=20)),
    (named("bytes", "io.debezium.data.Bits", length="40"), st.binary(max_size=5)),
    (named("string", "io.debezium.data.Json"), TEXT),
    (named("string", "io.debezium.data.Xml"), TEXT),
    (named("string", "io.debezium.data.Uuid"), st.uuids().map(str)),
    (named("string", "io.debezium.data.Enum", allowed="a,b"), st.sampled_from(["a", "b"])),
    (named("string", "io.debezium.data.EnumSet", allowed="a,b"), st.sampled_from(["a", "a,b"])),
    (named("string", "io.debezium.data.Ltree"), TEXT),
    (named("string", "io.debezium.data.Tsvector"), TEXT),
]
STRUCTS: list[tuple[Schema, st.SearchStrategy[Any]]] = [
    (VARIABLE, st.fixed_dictionaries({"scale": st.integers(0, 40), "value": st.binary(max_size=20)})),
    (
        POINT,
        st.fixed_dictionaries(
            {"x": st.floats(), "y": st.floats(), "wkb": st.none() | st.binary(), "srid": st.none() | INT32}
        ),
    ),
    (
        Schema(
            "struct",
            name="io.debezium.data.geometry.Geometry",
            fields=(Field("wkb", Schema("bytes")), Field("srid", Schema("int32", optional=True))),
        ),
        st.fixed_dictionaries({"wkb": st.binary(), "srid": st.none() | INT32}),
    ),
    (
        Schema("array", name="io.debezium.data.DoubleVector", values=Schema("float64")),
        st.lists(st.floats(), max_size=4),
    ),
    (
        SPARSE,
        st.fixed_dictionaries(
            {
                "dimensions": st.integers(1, 9),
                "vector": st.dictionaries(st.integers(1, 9), st.floats(allow_nan=False), max_size=4),
            }
        ),
    ),
]


def optional(pair: tuple[Schema, st.SearchStrategy[Any]]) -> tuple[Schema, st.SearchStrategy[Any]]:
    schema, values = pair
    return Schema(**{name: getattr(schema, name) for name in schema.__slots__} | {"optional": True}), st.none() | values


@st.composite
def columns(draw: st.DrawFn, structs: list[tuple[Schema, st.SearchStrategy[Any]]]) -> Any:
    pair = draw(st.sampled_from(SCALARS))
    shape = draw(st.sampled_from(["plain"] * 6 + ["array", "matrix", "map", "entries", "struct"]))
    if shape == "struct" and structs:
        pair = structs.pop(draw(st.integers(0, len(structs) - 1)))
    elif shape in ("array", "matrix"):
        item, values = optional(pair) if draw(st.booleans()) else pair
        pair = Schema("array", values=item), st.lists(values, max_size=4)
        if shape == "matrix":
            pair = Schema("array", values=pair[0]), st.lists(pair[1], max_size=3)
    elif shape in ("map", "entries"):
        item, values = optional(pair)
        key = (Schema("string"), TEXT) if shape == "map" else (Schema("int32"), INT32)
        pair = Schema("map", keys=key[0], values=item), st.dictionaries(key[1], values, max_size=4)
        if shape == "entries":
            structs.clear()  # Avro names the entries of all such maps alike
    return optional(pair) if draw(st.booleans()) else pair


@st.composite
def rows(draw: st.DrawFn) -> tuple[Schema, dict[str, Any]]:
    """A struct of a few columns, and a row."""
    fields: list[Field] = []
    row: dict[str, Any] = {}
    structs, entries = list(STRUCTS), 0
    for number in range(draw(st.integers(1, 8))):
        schema, values = draw(columns(structs))
        if "MapEntry" in json.dumps(avro_text(schema)):
            entries += 1
            if entries > 1:
                continue
        name = draw(st.sampled_from(["id", "größe", "value", "is_it"])) + str(number)
        fields.append(Field(name, schema))
        row[name] = draw(values)
    return Schema("struct", name="shop.public.t.Value", fields=tuple(fields)), row


def enveloped(row: Schema) -> Schema:
    image, _ = optional((row, st.none()))
    fields = (Field("before", image), Field("after", image), Field("op", Schema("string")))
    return Schema("struct", name="shop.public.t.Envelope", fields=fields)


def decoded(value: Any) -> Decoded:
    return Decoded.made(b"\0\0\0\0\1", b"payload", value)


def both(schema: Schema, value: Any, logical_types: Any = False) -> tuple[Any, Any]:
    """What the plan from Avro makes of a value, and the plan from Connect."""
    avro = compile_fields(avro_text(schema, logical_types=logical_types))
    general = fields_plan(schema)
    assert (avro.columns, dict(avro.kinds), avro.mirrored) == (general.columns, dict(general.kinds), general.mirrored)
    fields, rest = avro.decode(writer(schema)(value), 0)
    return (fields, rest), general.decode(decoded(value), 5)


@settings(max_examples=200)
@given(data=st.data())
def test_a_value_has_the_text_that_it_has_by_way_of_avro(data: st.DataObject) -> None:
    schema, row = data.draw(rows())
    logical_types = data.draw(st.sampled_from([True, False, "connect"]))
    avro, general = both(schema, row, logical_types)
    assert general == avro
    avro, general = both(enveloped(schema), {"before": None, "after": row, "op": "u"}, logical_types)
    assert general == avro
    key = compile_key(avro_text(schema, logical_types=logical_types))
    plan = key_plan(schema)
    assert (plan.columns, plan.kinds) == (key.columns, key.kinds)
    assert plan.decode(decoded(row), 5) == key.decode(writer(schema)(row), 0)


@pytest.mark.parametrize("op", ["d", "t"])
def test_changes_without_a_row_tell_what_they_are(op: str) -> None:
    schema = enveloped(Schema("struct", fields=(Field("id", Schema("int32")),)))
    avro, general = both(schema, {"before": {"id": 1} if op == "d" else None, "after": None, "op": op})
    assert general == avro == (None, op.encode())


def _same(scenario: Scenario, side: str) -> int:
    """How many of a scenario's records read alike through the registered Avro schema and through the Connect schema."""
    compared = 0
    for record in scenario.records():
        form = record.value if side == "value" else record.key
        found = None if form is None else read(scenario.schemas(record.topic, side), form)
        if found is None:
            continue
        schema, native = found
        data = writer(schema)(native)
        texts = scenario.registered(record.topic, side)
        text = next((text for text in texts if json.loads(text) == avro_schema(schema)), None)
        if text is None:
            continue
        if side == "key":
            assert key_plan(schema).decode(decoded(native), 5) == compile_key(text).decode(data, 0)
        elif schema.type == "struct":
            avro = compile_fields(text)
            general = fields_plan(schema)
            assert general.mirrored == avro.mirrored
            if avro.mirrored:
                assert general.decode(decoded(native), 5) == avro.decode(data, 0)
        compared += 1
    return compared


REGISTERED = [scenario for scenario in SCENARIOS if list(scenario.folder.glob("schemas/*.json"))]


@pytest.mark.parametrize("scenario", REGISTERED, ids=lambda scenario: scenario.name)
def test_records_of_debezium_read_the_same_from_connect_and_from_avro(scenario: Scenario) -> None:
    assert _same(scenario, "value") + _same(scenario, "key") > 0


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (Schema("int32"), "1"),
        (Schema("int32"), 1.5),
        (Schema("boolean"), 1),
        (Schema("string"), 1),
        (Schema("bytes"), "AQ=="),
        (Schema("float64"), "x"),
        (Schema("float32"), 1e300),
        (Schema("array", values=Schema("string")), "abc"),
        (named("string", "io.debezium.time.ZonedTimestamp"), "yesterday"),
        (named("int32", "io.debezium.time.Time"), -1),
        (VARIABLE, {"scale": 10**9, "value": b"\1"}),
    ],
)
def test_a_value_that_its_schema_does_not_have_is_refused_by_name(schema: Schema, value: Any) -> None:
    plan = fields_plan(Schema("struct", fields=(Field("spoiled", schema),)))
    with pytest.raises(DataError, match="'spoiled'"):
        plan.decode(decoded({"spoiled": value}), 5)


def test_a_value_without_columns_is_refused() -> None:
    with pytest.raises(DataError, match="only structs"):
        fields_plan(Schema("string"))
    with pytest.raises(DataError, match="JSON object"):
        plain_fields_plan({}).decode(decoded("text"), 5)


# --- flattened rows --------------------------------------------------------------------------------------

FLAT = Schema(
    "struct",
    fields=tuple(
        Field(name, Schema("string", optional=True))
        for name in ("id", "__v", "__deleted", "__op", "__source_ts_ms", "__table")
    ),
)


@pytest.mark.parametrize(
    ("marks", "deleted"),
    [
        ({"__deleted": "true", "__op": "d"}, True),
        ({"__deleted": "true"}, True),
        ({"__op": "d"}, True),
        ({"__deleted": "false", "__op": "u"}, False),
        ({}, False),
    ],
)
def test_flattened_rows_are_rows_or_deletes_and_their_metadata_no_columns(marks: dict[str, str], deleted: bool) -> None:
    row: dict[str, Any] = dict.fromkeys(field.name for field in FLAT.fields) | {"id": "1", "__table": "t"} | marks
    avro, general = both(FLAT, row)
    assert general == avro == ((None, b"d") if deleted else ([b"id", b"1"], (b"__v",)))
    names = {name: None if name in row and name not in ("id", "__v") else name.encode() for name in row}
    plain = plain_fields_plan(names).decode(decoded(row), 5)
    assert plain == general


def test_which_fields_are_metadata_can_be_set() -> None:
    pattern = metadata_pattern("meta_.*")
    schema = Schema(
        "struct", fields=tuple(Field(name, Schema("string")) for name in ("id", "meta_op", "__op", "__deleted"))
    )
    value = {"id": "1", "meta_op": "u", "__op": "mine", "__deleted": "false"}
    for plan, payload in (
        (compile_fields(avro_text(schema), pattern), writer(schema)(value)),
        (fields_plan(schema, pattern), decoded(value)),
    ):
        assert plan.columns == (b"id", b"__op")
        at = 5 if isinstance(payload, Decoded) else 0
        assert plan.decode(payload, at) == ([b"id", b"1", b"__op", b"mine"], ())


def test_columns_of_an_envelope_may_be_called_like_metadata() -> None:
    row = Schema("struct", fields=(Field("__op", Schema("string")), Field("__deleted", Schema("string"))))
    avro, general = both(enveloped(row), {"before": None, "after": {"__op": "d", "__deleted": "true"}, "op": "c"})
    assert general == avro == ([b"__op", b"d", b"__deleted", b"true"], ())


# --- values without schema -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (7, "7"),
        (2**70, "1180591620717411303424"),
        (Decimal("1.50"), "1.50"),
        (Decimal("1E-7"), "0.0000001"),
        (Decimal("0." + "3" * 40), "0." + "3" * 40),
        (Decimal("1E+3"), "1000"),
        (Decimal("1.0E+300"), "1.0E+300"),
        (Decimal("5E-324"), "5E-324"),
        (Decimal("0." + "0" * 30 + "12345678901234567890"), "0." + "0" * 30 + "12345678901234567890"),
        (Decimal("1E+100000000"), "1E+100000000"),
        (0.1, "0.1"),
        (float("nan"), "NaN"),
        ("żółw", "żółw"),
        ("", ""),
        (
            {"a": [1, Decimal("2.0"), None, True, "x\n", {}], "ą": float("inf")},
            '{"a":[1,2.0,null,true,"x\\n",{}],"ą":"Infinity"}',
        ),
        ([], "[]"),
        (b"\x00\xff", "AP8="),
    ],
)
def test_values_without_schema_have_json_s_texts_and_all_their_digits(value: Any, text: str) -> None:
    assert plain_text(value).decode() == text


def test_whole_numbers_of_any_length_keep_their_digits() -> None:
    assert plain_text(10**5000) == b"1" + b"0" * 5000


def test_json_nested_beyond_reason_is_refused() -> None:
    deep: Any = []
    for _ in range(300):
        deep = [deep]
    with pytest.raises(DataError, match="levels"):
        plain_fields_plan({"a": b"a"}).decode(decoded({"a": deep}), 5)


def test_keys_without_schema_are_objects_or_single_values() -> None:
    assert plain_key_plan(("b", "a")).decode(decoded({"a": 1, "b": "x"}), 5) == (b"x", b"1")
    assert plain_key_plan(None).decode(decoded("k:1"), 5) == (b"k:1",)
    assert plain_key_plan(None).columns == ()


@pytest.mark.parametrize("op", ["c", "u", "r"])
def test_an_envelope_without_schema_is_told_from_a_row_with_such_columns(op: str) -> None:
    plan = plain_fields_plan({"id": b"id", "op": b"op", "before": b"before", "after": b"after"})
    envelope = {"before": None, "after": {"id": 1}, "source": {}, "op": op}
    assert plan.decode(decoded(envelope), 5)[0] == [b"id", b"1"]
    row = {"before": "08:00", "after": "09:00", "op": op, "id": 1}
    fields, nulls = plan.decode(decoded(row), 5)
    assert fields is not None
    assert dict(zip(fields[::2], fields[1::2], strict=True))[b"before"] == b"08:00"
    assert nulls == ()
