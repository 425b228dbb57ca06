"""Every type has a mapping: the modes choose the form, what is not known is text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cdc.codec.connect_avro import avro_schema
from cdc.codec.inexact import Inexact
from cdc.codec.values import KINDS, reader
from cdc.postgres.types import PgType, TypeMapping, TypeModes, resolve
from cdc.record import Schema

CATALOG = {
    entry.oid: entry
    for entry in (
        PgType(16400, "citext", "ext", "b"),
        PgType(16401, "_citext", "ext", "b", element=16400),
        PgType(16410, "mood", "public", "e", labels=("sad", "very happy")),
        PgType(16411, "_mood", "public", "b", element=16410),
        PgType(16412, "mood_domain", "public", "d", base=16410),
        PgType(16413, "_mood_domain", "public", "b", element=16412),
        PgType(16420, "price", "public", "d", base=1700, base_typmod=(12 << 16 | 3) + 4),
        PgType(16421, "dear", "public", "d", base=16420),
        PgType(16422, "_dear", "public", "b", element=16421),
        PgType(16423, "numbers", "public", "d", base=1007),
        PgType(16430, "pair", "public", "c", attributes=(("a", 23, -1), ("b", 16412, -1))),
        PgType(16431, "_pair", "public", "b", element=16430),
        PgType(16440, "geometry", "gis", "b", delimiter=":"),
        PgType(16441, "_geometry", "gis", "b", element=16440),
        PgType(16450, "span", "public", "r"),
        PgType(16451, "spans", "public", "m"),
        PgType(1020, "_box", "pg_catalog", "b", element=603),
        PgType(603, "box", "pg_catalog", "b", delimiter=";"),
        PgType(23, "int4", "pg_catalog", "b"),
        PgType(16460, "hstore", "ext", "b"),
        PgType(16461, "_hstore", "ext", "b", element=16460),
        PgType(16470, "vector", "ext", "b"),
        PgType(16471, "halfvec", "ext", "b"),
        PgType(16472, "sparsevec", "ext", "b"),
    )
}


def _resolve(oid: int, typmod: int = -1, **modes: Any) -> TypeMapping:
    return resolve(oid, typmod, CATALOG, TypeModes(**modes))


def _numeric(precision: int, scale: int) -> int:
    return (precision << 16 | scale & 0x7FF) + 4


@pytest.mark.parametrize(
    ("mode", "date", "time_3", "time_6", "timestamp_3", "timestamp_6"),
    [
        ("adaptive", "Date", "Time", "MicroTime", "Timestamp", "MicroTimestamp"),
        ("adaptive_time_microseconds", "Date", "MicroTime", "MicroTime", "Timestamp", "MicroTimestamp"),
        ("microseconds", "Date", "MicroTime", "MicroTime", "MicroTimestamp", "MicroTimestamp"),
        ("nanoseconds", "Date", "NanoTime", "NanoTime", "NanoTimestamp", "NanoTimestamp"),
        ("isostring", "IsoDate", "IsoTime", "IsoTime", "IsoTimestamp", "IsoTimestamp"),
        ("connect", "Date", "Time", "Time", "Timestamp", "Timestamp"),
    ],
)
def test_time_precision_mode(
    mode: str, date: str, time_3: str, time_6: str, timestamp_3: str, timestamp_6: str
) -> None:
    space = "org.apache.kafka.connect.data." if mode == "connect" else "io.debezium.time."
    for oid, typmod, name in (
        (1082, -1, date),
        (1083, 0, time_3),
        (1083, 3, time_3),
        (1083, 4, time_6),
        (1083, -1, time_6),
        (1114, 3, timestamp_3),
        (1114, 6, timestamp_6),
        (1114, -1, timestamp_6),
    ):
        assert _resolve(oid, typmod, time=mode).schema.name == space + name
    for oid, name in ((1184, "ZonedTimestamp"), (1266, "ZonedTime")):
        assert _resolve(oid, time=mode).schema.name == f"io.debezium.time.{name}"


@pytest.mark.parametrize(
    ("precision", "scale", "declared"),
    [
        (10, 2, (10, 2)),
        (1, 0, (1, 0)),
        (1000, 1000, (1000, 1000)),
        (5, -2, (7, 0)),
        (3, 5, (5, 5)),
        (2, -1000, (1002, 0)),
    ],
)
def test_numeric_with_any_scale_is_a_decimal_that_avro_allows(
    precision: int, scale: int, declared: tuple[int, int]
) -> None:
    avro = avro_schema(_resolve(1700, _numeric(precision, scale)).schema)
    assert (avro["precision"], avro["scale"], avro["logicalType"]) == (*declared, "decimal")


def test_decimal_handling_mode() -> None:
    assert _resolve(1700).schema.name == "io.debezium.data.VariableScaleDecimal"
    for typmod in (-1, _numeric(10, 2)):
        assert _resolve(1700, typmod, decimal="string").schema == Schema("string")
        assert _resolve(1700, typmod, decimal="double").schema == Schema("float64")
    assert _resolve(790, decimal="string").kind == "money_text"
    assert _resolve(790, decimal="double").kind == "money_double"
    assert dict(_resolve(790, money_fraction_digits=3).schema.parameters) == {"scale": "3"}


def test_binary_and_interval_handling_mode() -> None:
    assert _resolve(17).schema == Schema("bytes")
    assert {_resolve(17, binary=mode).params for mode in ("base64", "base64-url-safe", "hex")} == {
        ("base64",),
        ("base64-url-safe",),
        ("hex",),
    }
    assert _resolve(1186).schema.name == "io.debezium.time.MicroDuration"
    assert _resolve(1186, interval="string").schema.name == "io.debezium.time.Interval"


def test_bit_strings() -> None:
    assert _resolve(1560, 1).schema == _resolve(1562, 1).schema == Schema("boolean")
    assert dict(_resolve(1560, 7).schema.parameters) == {"length": "7"}
    assert _resolve(1560, 7).params == (7, False)
    assert _resolve(1562, -1).params == (2147483647, True)
    assert _resolve(1560, -1).params == (2147483647, True)


def test_enum_lists_its_labels_in_order() -> None:
    enum = _resolve(16410).schema
    assert (enum.name, enum.parameters) == ("io.debezium.data.Enum", (("allowed", "sad,very happy"),))
    assert _resolve(16412).schema == enum
    for array in (16411, 16413):
        assert _resolve(array).schema.values == enum


def test_domains_are_what_they_are_over() -> None:
    decimal = _resolve(1700, _numeric(12, 3))
    for oid in (16420, 16421):
        assert _resolve(oid).schema == decimal.schema
        assert _resolve(oid).params == decimal.params
    assert _resolve(16422).params == ("decimal", (3,), True)
    assert _resolve(16423).schema == _resolve(1007).schema


def test_array_elements_are_optional_and_keep_the_modifier() -> None:
    mapping = _resolve(1231, _numeric(8, 2))
    assert mapping.schema.type == "array"
    assert mapping.schema.values is not None
    assert mapping.schema.values.optional
    assert mapping.params == ("decimal", (2,), True)
    assert _resolve(16401).schema.values == Schema("string", optional=True)


@pytest.mark.parametrize(
    "oid",
    [
        18,
        19,
        869,
        650,
        829,
        774,
        628,
        3904,
        4451,
        3615,
        3220,
        2205,
        16450,
        16451,
        22,
        30,
        99999,
    ],
)
def test_all_other_types_are_text(oid: int) -> None:
    mapping = _resolve(oid)
    assert mapping.schema == Schema("string")
    assert reader(mapping.kind, mapping.params)(b"whatever it prints") == "whatever it prints"


JSON = Schema("string", name="io.debezium.data.Json", version=1)


def test_composites_and_arrays_of_them_are_json() -> None:
    pair, pairs = _resolve(16430), _resolve(16431)
    assert pair.schema == pairs.schema == JSON
    assert reader(pair.kind, pair.params)(b'(1,"a ""b""")') == '{"a":1,"b":"a \\"b\\""}'
    assert reader(pairs.kind, pairs.params)(b'{"(1,\\"a b\\")",NULL}') == '[{"a":1,"b":"a b"},null]'


@pytest.mark.parametrize("text", ["(1,2,3)", "[0:0]={(1)}", "(1", "text"])
def test_a_composite_that_is_no_json_is_exact_beside_it(text: str) -> None:
    pair = _resolve(16430)
    assert reader(pair.kind, pair.params)(text.encode()) == Inexact(f'"{text}"', text)


def test_hstore_handling_mode() -> None:
    assert _resolve(16460).schema == JSON
    assert _resolve(16460, hstore="map").schema == Schema(
        "map", keys=Schema("string"), values=Schema("string", optional=True)
    )
    for mode in ("json", "map"):
        assert _resolve(16461, hstore=mode).schema.values == replace(JSON, optional=True)


def test_structures_of_extensions_are_debeziums() -> None:
    point, geometry, sparse = (_resolve(oid).schema for oid in (600, 16440, 16472))
    assert [point.name, geometry.name] == [f"io.debezium.data.geometry.{name}" for name in ("Point", "Geometry")]
    assert [field.name for field in geometry.fields] == ["wkb", "srid"]
    assert (_resolve(16470).schema.name, _resolve(16470).schema.values) == (
        "io.debezium.data.DoubleVector",
        Schema("float64"),
    )
    assert _resolve(16471).schema.values == Schema("float32")
    assert [field.schema.type for field in sparse.fields] == ["int16", "map"]


def test_arrays_know_their_delimiter() -> None:
    box = _resolve(1020)
    assert reader(box.kind, box.params)(b"{(1,1),(0,0);(2,2),(1,1)}") == ["(1,1),(0,0)", "(2,2),(1,1)"]
    assert reader(box.kind, box.params)(b"{{(1,1),(0,0)};{NULL}}") == Inexact(None, '{{"(1,1),(0,0)"},{NULL}}')
    point = "0101000000000000000000F03F0000000000000040"
    geometries = _resolve(16441)
    wkb = bytes.fromhex(point)
    assert reader(geometries.kind, geometries.params)(f"{{{point}:NULL}}".encode()) == [
        {"wkb": wkb, "srid": None},
        None,
    ]


def test_exact_texts_of_arrays_are_those_of_their_schema() -> None:
    hstores = _resolve(16461)
    read = reader(hstores.kind, hstores.params)
    assert read(rb'{"\"a\"=>\"1\""}') == ['{"a":"1"}']
    assert read(rb'{{"\"a\"=>\"1\""},{NULL}}') == Inexact(None, r'{{"{\"a\":\"1\"}"},{NULL}}')


def test_every_mapping_names_a_kind_that_exists() -> None:
    for oid in range(1, 5000):
        for modes in (
            TypeModes(),
            TypeModes("string", "isostring", "hex", "map", "string"),
            TypeModes("double", "connect"),
        ):
            for typmod in (-1, 1, 6):
                mapping = resolve(oid, typmod, CATALOG, modes)
                assert mapping.kind in KINDS
                reader(mapping.kind, mapping.params)
                assert not mapping.schema.optional
