"""Every type has a mapping: the modes choose the form, what is not known is text."""

from __future__ import annotations

from typing import Any

import pytest

from cdc.codec.connect_avro import avro_schema
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
        PgType(16430, "pair", "public", "c"),
        PgType(16431, "_pair", "public", "b", element=16430),
        PgType(16440, "geometry", "gis", "b"),
        PgType(16441, "_geometry", "gis", "b", element=16440),
        PgType(16450, "span", "public", "r"),
        PgType(16451, "spans", "public", "m"),
        PgType(1020, "_box", "pg_catalog", "b", element=603),
        PgType(603, "box", "pg_catalog", "b"),
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
        600,
        628,
        3904,
        4451,
        3615,
        3220,
        2205,
        16430,
        16440,
        16441,
        16450,
        16451,
        1020,
        22,
        30,
        99999,
    ],
)
def test_all_other_types_are_text(oid: int) -> None:
    mapping = _resolve(oid)
    assert mapping.schema == Schema("string")
    assert reader(mapping.kind, mapping.params)(b"whatever it prints") == "whatever it prints"


def test_arrays_of_composites_are_arrays_of_text() -> None:
    assert _resolve(16431).schema.values == Schema("string", optional=True)
    mapping = _resolve(16431)
    assert reader(mapping.kind, mapping.params)(b'{"(1,\\"a b\\")",NULL}') == ['(1,"a b")', None]


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
