"""From a row of Postgres to the fields of a hash: encoded by the source's plan, decoded by the sink's.

A value whose schema holds it exactly, and one that travels in ``cdc.text``, must both come out as the canonical text
that is made from Postgres's own text without any Avro between.
"""

from __future__ import annotations

from typing import Any

import pytest

from cdc.codec import canonical
from cdc.codec.avro_fields import compile_fields
from cdc.codec.avro_rows import compile_value
from cdc.codec.connect_avro import avro_text
from cdc.codec.envelope import row_shape
from cdc.mirror.rows import exactly
from cdc.postgres.pg_type import PgType
from cdc.postgres.types import TypeModes, resolve
from cdc.record import Column, RowChange, Transaction

NUMERIC_10_2 = (10 << 16 | 2) + 4


GEOMETRY = {
    16440: PgType(16440, "geometry", "public", "b", delimiter=":"),
    16441: PgType(16441, "_geometry", "public", "b", element=16440, delimiter=":"),
}


def _field(
    oid: int, typmod: int, text: str | None, logical_types: Any = True, catalog: Any = None, **modes: Any
) -> bytes | None:
    mapping = resolve(oid, typmod, catalog or {}, TypeModes(**modes))
    id_mapping = resolve(23, -1, {}, TypeModes())
    columns = [
        Column("id", id_mapping.schema, id_mapping.kind),
        Column("v", mapping.schema, mapping.kind, mapping.params),
    ]
    shape = row_shape("t.public.x", "d", "public", "x", columns, [0], "t")
    row = [b"1", None if text is None else text.encode()]
    change = RowChange(shape, "c", row, None, row, Transaction(1, 2, 3, 4, None), 5, 0, 0)
    data = compile_value(shape, 1, "1")(change, 6)
    plan = compile_fields(avro_text(shape.envelope_schema, logical_types=logical_types))
    assert data is not None
    fields, nulls = plan.decode(data, 5)
    assert fields is not None
    header = dict(change.headers).get("cdc.text")
    if header is not None:
        fields, nulls = exactly(fields, tuple(nulls), header, plan.kinds)  # type: ignore[arg-type]
    found = dict(zip(fields[::2], fields[1::2], strict=True))
    assert (b"v" in nulls) == (b"v" not in found)
    return found.get(b"v")


@pytest.mark.parametrize("logical_types", [True, False, "connect"])
@pytest.mark.parametrize(
    ("oid", "typmod", "name", "texts"),
    [
        (16, -1, "boolean", ["t", "f"]),
        (20, -1, "bigint", ["-9223372036854775808", "4096"]),
        (26, -1, "oid", ["4294967295"]),
        (700, -1, "real", ["1.1", "3.4028235e+38", "1e-45", "NaN", "-Infinity", "-0"]),
        (701, -1, "double precision", ["1.1", "1e+300", "5e-324", "NaN", "-0", "1e+15", "123456789012345.6"]),
        (1700, NUMERIC_10_2, "numeric", ["1.50", "-0.01", "NaN"]),
        (1700, -1, "numeric", ["1.50", "100", "-0.000001", "0.000", "NaN", "-Infinity"]),
        (25, -1, "text", ["", "żółw", "x" * 5000]),
        (3802, -1, "jsonb", ['{"a": 1.50}']),
        (2950, -1, "uuid", ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
        (17, -1, "bytea", ["\\x", "\\x00ff"]),
        (1082, -1, "date", ["2024-02-29", "infinity", "-infinity", "0044-03-15 BC", "5874897-12-31"]),
        (1083, -1, "time without time zone", ["12:34:56.789", "24:00:00", "00:00:00.000001"]),
        (1083, 0, "time without time zone", ["12:34:56"]),
        (
            *(1114, -1, "timestamp without time zone"),
            ["2024-02-29 12:34:56.5", "infinity", "0044-03-15 12:00:00 BC", "294276-12-31 23:59:59.999999"],
        ),
        (1114, 3, "timestamp without time zone", ["2024-02-29 12:34:56.12", "-infinity", "10000-01-01 00:00:00"]),
        (
            *(1184, -1, "timestamp with time zone"),
            ["2024-02-29 12:34:56+00", "2024-02-29 12:34:56.5+00", "infinity", "0044-03-15 12:00:00+00 BC"],
        ),
        (1266, -1, "time with time zone", ["12:34:56+00", "12:34:56.5+02", "24:00:00+00"]),
        (1186, -1, "interval", ["1 mon -1 days +00:00:01", "-00:00:01.5", "00:00:00", "178000000 years"]),
        (1560, 7, "bit", ["0000101"]),
        (1562, -1, "varbit", ["", "0001", "101"]),
        (1562, 14, "varbit", ["", "0001", "10101010101010"]),
        (1007, -1, "integer[]", ["{}", "{1,NULL,-3}", "{{1,2},{3,4}}", "[0:1]={5,6}"]),
        (1009, -1, "text[]", ['{a,"b c",NULL,"NULL","\\""}']),
        (1231, -1, "numeric[]", ["{1.50,NaN}", "{1.5}"]),
    ],
)
def test_field_is_the_canonical_text(oid: int, typmod: int, name: str, texts: list[str], logical_types: Any) -> None:
    for text in texts:
        assert _field(oid, typmod, text, logical_types) == canonical.from_postgres(name, text.encode()), text


@pytest.mark.parametrize(
    "mode", ["adaptive", "adaptive_time_microseconds", "connect", "microseconds", "nanoseconds", "isostring"]
)
@pytest.mark.parametrize(
    ("oid", "name", "text"),
    [
        (1082, "date", "2024-02-29"),
        (1083, "time without time zone", "12:34:56.789012"),
        (1114, "timestamp without time zone", "2024-02-29 12:34:56.789012"),
        (1114, "timestamp without time zone", "1600-01-01 00:00:00"),
        (1114, "timestamp without time zone", "-infinity"),
    ],
)
def test_every_time_precision_mode_keeps_the_moment(mode: str, oid: int, name: str, text: str) -> None:
    assert _field(oid, -1, text, time=mode) == canonical.from_postgres(name, text.encode())


@pytest.mark.parametrize("mode", ["precise", "string", "double"])
@pytest.mark.parametrize("text", ["1.50", "0.1", "-100", "NaN", "12345678901234567890.5", "0.00000000000000000001"])
def test_every_decimal_handling_mode_keeps_the_digits(mode: str, text: str) -> None:
    assert _field(1700, -1, text, decimal=mode) == text.encode()


def test_null_from_before_not_null_is_no_field() -> None:
    assert _field(23, -1, None) is None
    assert _field(25, -1, None) is None


@pytest.mark.parametrize("text", ["{0101:NULL}", "{{0101:NULL}:{NULL:0102}}", "[0:1]={0101:NULL}", "{}"])
def test_an_array_with_a_delimiter_of_its_own_comes_through(text: str) -> None:
    """PostGIS has colons between the elements; what travels in ``cdc.text`` has commas."""
    point = "0101000000000000000000F03F0000000000000040"
    text = text.replace("0101", point).replace("0102", point)
    type_ = canonical.ArrayOf("geometry", ":")
    assert _field(16441, -1, text, catalog=GEOMETRY) == canonical.from_postgres(type_, text.encode())
