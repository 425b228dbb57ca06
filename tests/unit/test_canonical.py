"""Canonical texts without a server; `tests/integration/test_sink_canonical_postgres.py` holds them against Postgres."""

from __future__ import annotations

import json
import struct
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.codec import canonical_values as values
from cdc.codec.canonical import from_postgres
from cdc.codec.canonical_floats import float4_text, float8_text


@given(st.floats(allow_nan=False))
def test_float8_reads_back_as_the_same_number(number: float) -> None:
    text = float8_text(number).decode()
    assert struct.pack("<d", float(text)) == struct.pack("<d", number)


@given(st.floats(width=32, allow_nan=False))
def test_float4_reads_back_as_the_same_number(number: float) -> None:
    assert struct.pack("<f", float(float4_text(number))) == struct.pack("<f", number)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.1, b"0.1"),
        (-0.0, b"-0"),
        (1e15, b"1e+15"),
        (123456789012345.0, b"123456789012345"),
        (1e-5, b"1e-05"),
        (float("nan"), b"NaN"),
        (float("-inf"), b"-Infinity"),
        (1e23, b"9.999999999999999e+22"),
        (-1e23, b"-9.999999999999999e+22"),
    ],
)
def test_float8_of(number: float, text: bytes) -> None:
    assert float8_text(number) == text


@pytest.mark.parametrize(("number", "text"), [(1e6, b"1e+06"), (123456.0, b"123456"), (16777216.0, b"1.6777216e+07")])
def test_float4_of(number: float, text: bytes) -> None:
    assert float4_text(number) == text


@given(st.integers(-(10**60), 10**60), st.integers(-5, 40))
def test_decimals_have_the_scale_they_are_given(number: int, scale: int) -> None:
    text = values.unscaled_text(number, scale).decode()
    whole, _, fraction = text.lstrip("-").partition(".")
    assert len(fraction) == max(scale, 0)
    assert int(whole + fraction) == abs(number) * 10 ** max(-scale, 0)
    assert text.startswith("-") == (number < 0)
    assert text != "-0"


@given(st.datetimes())
def test_timestamps_are_python_s_iso_format_without_trailing_zeros(moment: datetime) -> None:
    us = (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1)
    expected = moment.isoformat()
    if "." in expected:
        expected = expected.rstrip("0")
    assert values.timestamp_text(us) == expected.encode()
    assert values.instant_text(us) == expected.encode() + b"Z"
    assert values.zoned_timestamp_text(moment.replace(tzinfo=UTC).isoformat().replace("+00:00", "Z").encode()) == (
        expected.encode() + b"Z"
    )
    assert from_postgres("timestamp", str(moment).encode()) == moment.isoformat().encode()


@pytest.mark.parametrize(
    ("days", "text"),
    [
        (0, b"1970-01-01"),
        (2**31 - 1, b"infinity"),
        (-(2**31), b"-infinity"),
        (2932897, b"10000-01-01"),
        (-719163, b"0001-12-31 BC"),
        (-735233, b"0044-01-01 BC"),
        (2145042905, b"5874897-12-31"),
    ],
)
def test_dates_outside_iso_8601_are_spelled_as_postgres_spells_them(days: int, text: bytes) -> None:
    assert values.date_text(days) == text


@pytest.mark.parametrize(
    ("make", "value", "text"),
    [
        (values.micro_timestamp_text, 9223372036825200000, b"infinity"),
        (values.micro_timestamp_text, -9223372036832400000, b"-infinity"),
        (values.milli_timestamp_text, 9223372036825200, b"infinity"),
        (values.milli_timestamp_text, -9223372036832400, b"-infinity"),
        (values.nano_timestamp_text, 2**63 - 1, b"infinity"),
        (values.nano_timestamp_text, -1000, b"1969-12-31T23:59:59.999999"),
        (values.nano_timestamp_text, 1, b"1970-01-01T00:00:00.000000001"),
        (values.zoned_timestamp_text, b"-0043-03-15T12:00:00.000000Z", b"0044-03-15 12:00:00+00 BC"),
        (values.zoned_timestamp_text, b"0000-03-15T12:00:00Z", b"0001-03-15 12:00:00+00 BC"),
        (values.zoned_timestamp_text, b"+10000-01-01T00:00:00.120000Z", b"10000-01-01 00:00:00.12+00"),
        (values.zoned_timestamp_text, b"2026-01-31T12:00:00.000000Z", b"2026-01-31T12:00:00Z"),
        (values.zoned_timestamp_text, b"2026-01-31T00:30:00+01:00", b"2026-01-30T23:30:00Z"),
        (values.iso_timestamp_text, b"2026-01-31T12:00:00.10Z", b"2026-01-31T12:00:00.1"),
        (values.iso_date_text, b"2016-11-04Z", b"2016-11-04"),
        (values.iso_time_text, b"24:00:00Z", b"24:00:00"),
        (values.zoned_time_text, b"01:00:00.50+02:00", b"23:00:00.5Z"),
        (values.time_text, 86_400_000_000, b"24:00:00"),
        (values.interval_text, b"P0Y0M0DT0H0M0S", b"PT0S"),
        (values.interval_text, b"P-1Y-2M-3DT-4H-5M-6.780S", b"P-1Y-2M-3DT-4H-5M-6.78S"),
        (values.duration_text, 5_400_500_000, b"PT1H30M0.5S"),
        (values.duration_text, -60_000_000, b"PT-1M"),
    ],
)
def test_text_of(make: object, value: object, text: bytes) -> None:
    assert make(value) == text  # type: ignore[operator]


@pytest.mark.parametrize(
    ("value", "length", "text"),
    [(b"\1\2\3", 24, b"000000110000001000000001"), (b"", 2, b"00"), (b"\x40", 7, b"1000000"), (b"", 2**31 - 1, b"")],
)
def test_bits_are_a_little_endian_number(value: bytes, length: int, text: bytes) -> None:
    assert values.bits_text(value, length) == text


@given(st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))))
def test_text_arrays_become_json_with_the_same_elements(elements: list[str | None]) -> None:
    quoted = ("NULL" if e is None else '"{}"'.format(e.replace("\\", "\\\\").replace('"', '\\"')) for e in elements)
    text = from_postgres("text[]", ("{" + ",".join(quoted) + "}").encode())
    assert text is not None
    assert json.loads(text) == elements
    assert text == json.dumps(elements, ensure_ascii=False, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("kind", "text", "canonical"),
    [
        ("pg_catalog.int4", b"5", b"5"),
        ("_numeric", b"{1.10,NaN,NULL}", b'[1.10,"NaN",null]'),
        ("numeric(10,2)[]", b"{{1.10},{2.00}}", b"[[1.10],[2.00]]"),
        ("character varying(20)[]", b"{5}", b'["5"]'),
        ("timestamp(3) without time zone", b"2026-01-31 12:00:00", b"2026-01-31T12:00:00"),
        ("time with time zone", b"12:00:00+05:30:15", b"06:29:45Z"),
        ("interval year to month", b"1 year 2 mons", b"P1Y2M"),
        ("interval", b"-1 years -2 mons +3 days -04:05:06.700", b"P-1Y-2M3DT-4H-5M-6.7S"),
        ("bit(1)", b"1", b"true"),
        ("bit(3)", b"101", b"101"),
        ("mood", b"very happy", b"very happy"),
        ("jsonb", b'{"a": null}', b'{"a": null}'),
        ("int4", None, None),
    ],
)
def test_from_postgres(kind: str, text: bytes | None, canonical: bytes | None) -> None:
    assert from_postgres(kind, text) == canonical


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("timestamptz", b"2026-01-31 12:00:00+02"),
        ("bytea", b"\\000"),
        ("bool", b"yes"),
        ("interval", b"P1D"),
        ("int4[]", b"{1,2"),
    ],
)
def test_text_of_a_session_with_other_settings_is_refused(kind: str, text: bytes) -> None:
    with pytest.raises(ValueError, match=r"ostgres|UTC|hex"):
        from_postgres(kind, text)
