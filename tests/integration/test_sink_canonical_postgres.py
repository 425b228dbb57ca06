"""What the canonical texts say of Postgres is what Postgres does."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator

import psycopg
import pytest

from cdc.codec import canonical_floats, canonical_values
from cdc.codec.canonical import from_postgres
from cdc.local.postgres import Postgres

pytestmark = pytest.mark.integration

_SETTINGS = (
    "-c DateStyle=ISO -c IntervalStyle=postgres -c TimeZone=UTC -c bytea_output=hex "
    "-c extra_float_digits=1 -c client_encoding=UTF8"
)


@pytest.fixture
def sql(any_postgres: Postgres) -> Iterator[psycopg.Connection[tuple[str, ...]]]:
    with psycopg.connect(**any_postgres.conninfo("postgres"), options=_SETTINGS, autocommit=True) as connection:
        yield connection


def printed(sql: psycopg.Connection[tuple[str, ...]], kind: str, values: list[str]) -> list[bytes]:
    """What Postgres prints for values of a type."""
    query = f"SELECT v::{kind}::text FROM unnest(%s::text[]) WITH ORDINALITY AS u(v, n) ORDER BY n"
    return [row[0].encode() for row in sql.execute(query, (values,))]


def test_float8_is_printed_as_postgres_prints_it(sql: psycopg.Connection[tuple[str, ...]]) -> None:
    rng = random.Random(1)
    numbers = [0.0, -0.0, 1e15, 1e14, 1e16, 1e-4, 9.999e-5, 1e23, 2.0**53, 2.0**60, 5e-324, 1.7976931348623157e308]
    numbers += [2.0**n for n in range(-1074, 1024)] + [float(10**n) for n in range(300)]
    numbers += [struct.unpack("<d", rng.randbytes(8))[0] for _ in range(20_000)]
    numbers += [float(rng.randrange(2**53, 2**70)) for _ in range(10_000)]
    numbers += [float(f"{rng.randrange(1, 10 ** rng.randrange(1, 17))}e{rng.randrange(-8, 25)}") for _ in range(20_000)]
    finite = [sign * number for number in numbers if number - number == 0 for sign in (1, -1)]
    got = [canonical_floats.float8_text(number) for number in finite]
    assert got == printed(sql, "float8", [repr(number) for number in finite])


def test_float4_is_printed_as_postgres_prints_it(sql: psycopg.Connection[tuple[str, ...]]) -> None:
    rng = random.Random(2)
    bits = [*range(200), *(exponent << 23 for exponent in range(255)), 0x7F7FFFFF, 0x3F800001]
    bits += [(exponent << 23) + step for exponent in range(1, 255) for step in (-1, 1, 2)]
    bits += [rng.randrange(0x7F800000) for _ in range(60_000)]
    numbers = [sign * struct.unpack("<f", struct.pack("<I", n))[0] for n in bits for sign in (1, -1)]
    got = [canonical_floats.float4_text(number) for number in numbers]
    assert got == printed(sql, "float4", [repr(number) for number in numbers])


def test_intervals_are_the_iso_8601_durations_of_postgres(sql: psycopg.Connection[tuple[str, ...]]) -> None:
    rng = random.Random(3)
    values = ["0", "1 day", "-1 day", "1 mon -1 day 00:00:01", "178000000 years", "36 hours 90 minutes", "-00:00:00.5"]
    for _ in range(2000):
        parts = (rng.randrange(-20, 20), rng.randrange(-40, 40), rng.choice([0, rng.randrange(-(10**12), 10**12)]))
        values.append("{} mons {} days {} microseconds".format(*parts))
    postgres = printed(sql, "interval", values)
    sql.execute("SET IntervalStyle = iso_8601")
    assert [from_postgres("interval", text) for text in postgres] == printed(sql, "interval", values)


def test_timestamps_far_and_near_agree_between_both_ways(sql: psycopg.Connection[tuple[str, ...]]) -> None:
    rng = random.Random(4)
    first, last = -210_866_803_200_000_000, 9_223_371_331_200_000_000 - 946_684_800_000_000  # Postgres's own ends
    micros = [0, -1, 1, first, last - 1, 253402300800000000, -62135596800000000, -62135596800000001]
    micros += [rng.randrange(first, last) for _ in range(2000)]
    micros += [rng.randrange(-(10**17), 10**16) for _ in range(2000)]
    query = (
        "SELECT t::text, (t AT TIME ZONE 'UTC')::text, t::date::text, t::date - '1970-01-01'::date"
        " FROM (SELECT '1970-01-01'::timestamp + make_interval(secs => 0) + (v / 86400000000 || ' days')::interval"
        " + (v %% 86400000000 || ' microseconds')::interval AS t, n"
        " FROM unnest(%s::bigint[]) WITH ORDINALITY AS u(v, n)) AS x ORDER BY n"
    )
    for us, (text, zoned, day, days) in zip(micros, sql.execute(query, (micros,)), strict=True):
        assert canonical_values.timestamp_text(us) == from_postgres("timestamp", text.encode())
        assert canonical_values.instant_text(us) == from_postgres("timestamp with time zone", zoned.encode())
        assert canonical_values.date_text(int(days)) == from_postgres("date", day.encode())


@pytest.mark.parametrize(
    ("kind", "value", "canonical"),
    [
        ("bool", "on", "true"),
        ("numeric(10,3)", "1.5", "1.500"),
        ("numeric", "1e3", "1000"),
        ("numeric", "NaN", "NaN"),
        ("timestamp", "2026-01-31 12:00:00.500", "2026-01-31T12:00:00.5"),
        ("timestamp", "infinity", "infinity"),
        ("timestamptz", "2026-01-31 12:00:00+02", "2026-01-31T10:00:00Z"),
        ("timestamptz", "0044-03-15 12:00:00+00 BC", "0044-03-15 12:00:00+00 BC"),
        ("timestamptz", "10000-01-01 00:00:00+00", "10000-01-01 00:00:00+00"),
        ("date", "-infinity", "-infinity"),
        ("time", "24:00", "24:00:00"),
        ("timetz", "00:30:00.25+02", "22:30:00.25Z"),
        ("timetz", "24:00:00+02", "24:00:00+02"),
        ("bytea", "\\x00ff", "AP8="),
        ("json", '{"a":  1}', '{"a":  1}'),
        ("jsonb", '{"b":1, "a":  1}', '{"a": 1, "b": 1}'),
        ("int[]", "{1,NULL,-3}", "[1,null,-3]"),
        ("int[]", "{}", "[]"),
        ("int[]", "{{1,2},{3,4}}", "[[1,2],[3,4]]"),
        ("int[]", "[0:1]={1,2}", "[0:1]={1,2}"),
        ("float8[]", "{1e300,NaN,-0.5}", '[1e+300,"NaN",-0.5]'),
        ("bool[]", "{t,f,NULL}", "[true,false,null]"),
        ("text[]", '{a,"b \\"c\\"","",NULL,"NULL","{x,y}","back\\\\slash",é}', None),
        ("timestamptz[]", "{2026-01-31 12:00:00+00}", '["2026-01-31T12:00:00Z"]'),
        ("bytea[]", '{"\\\\x00ff"}', '["AP8="]'),
    ],
)
def test_canonical_text_of(
    sql: psycopg.Connection[tuple[str, ...]], kind: str, value: str, canonical: str | None
) -> None:
    [text] = printed(sql, kind, [value])
    if canonical is None:
        canonical = json.dumps(
            ["a", 'b "c"', "", None, "NULL", "{x,y}", "back\\slash", "é"], ensure_ascii=False, separators=(",", ":")
        )
    assert from_postgres(kind, text) == canonical.encode()
