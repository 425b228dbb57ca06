"""Postgres text to values: exact, or told to be inexact, or refused; never something else."""

from __future__ import annotations

import struct
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.codec.canonical import RowOf
from cdc.codec.inexact import Inexact
from cdc.codec.values import KINDS, reader, wire_reader

INEXACT: list[tuple[str, tuple[Any, ...], str, Any]] = [
    ("decimal", (2,), "NaN", None),
    ("decimal", (2,), "1.5", b"\x00\x96"),
    ("decimal", (2,), "1.505", None),
    ("variable_decimal", (), "NaN", None),
    ("variable_decimal", (), "-Infinity", None),
    ("variable_decimal", (), "1.50", {"scale": 1, "value": b"\x0f"}),
    ("variable_decimal", (), "0.000", {"scale": 0, "value": b"\x00"}),
    ("variable_decimal", (), "-10.0", {"scale": 0, "value": b"\xf6"}),
    ("numeric_text", (), "NaN", "NAN"),
    ("numeric_text", (), "Infinity", "POSITIVE_INFINITY"),
    ("numeric_double", (), "1.50", 1.5),
    ("numeric_double", (), "0.1000000000000000055511151231257827", 0.1),
    ("numeric_double", (), "1234567890123456", 1234567890123456.0),
    ("bit", (), "", None),
    ("bits", (10, True), "1011", b"\x0b"),
    ("bits", (10, True), "", b""),
    ("bits", (2**31 - 1, True), "0001", b"\x01"),
    ("bits", (2**31 - 1, True), "0", b""),
    ("zoned_time", (), "24:00:00+00", "24:00:00Z"),
    ("time", ("ms",), "12:34:56.789012", 45296789),
    ("timestamp", ("ms",), "1582-10-10 11:12:13.141516", -12219684466859),
    ("timestamp", ("us",), "294276-12-31 23:59:59.999999", None),
    ("timestamp", ("us",), "294247-01-10 04:00:25.2", 9223372036825200000),
    ("timestamp", ("ns",), "2262-04-11 23:47:16.854776", None),
    ("timestamp", ("ns",), "1677-09-21 00:12:43.145224", None),
    ("zoned_time", (), "12:34:56.789012+02", "10:34:56.789012Z"),
    ("zoned_time", (), "00:30:00+05:30:15", "18:59:45Z"),
    ("zoned_time", (), "24:00:00-01", "01:00:00Z"),
    ("interval_us", (), "1 mon", 2_629_800_000_000),
    ("interval_us", (), "-1 days", -86_400_000_000),
    ("interval_us", (), "1 mon -1 days +00:00:01", 2_543_401_000_000),
    ("interval_us", (), "178000000 years", 2**63 - 1),
    ("interval_us", (), "-178000000 years", -(2**63)),
    ("interval_us", (), "infinity", 2**63 - 1),
    ("array", ("int32", (), True), "{{1,2},{3,4}}", None),
    ("array", ("int32", (), True), "[0:1]={1,2}", [1, 2]),
    ("array", ("int32", (), True), "[0:0][1:1]={{1}}", None),
    ("array", ("text", (), False), "{a,NULL}", None),
    ("array", ("variable_decimal", (), True), "{1.5,NaN}", [{"scale": 1, "value": b"\x0f"}, None]),
    ("array", ("decimal", (2,), False), "{1.50,NaN}", None),
]


@pytest.mark.parametrize(("kind", "params", "text", "fallback"), INEXACT)
def test_what_the_schema_cannot_hold_is_told(kind: str, params: tuple[Any, ...], text: str, fallback: Any) -> None:
    assert reader(kind, params)(text.encode()) == Inexact(fallback, text)


EXACT: list[tuple[str, tuple[Any, ...], str, Any]] = [
    ("oid", (), "4294967295", 4294967295),
    ("decimal", (2,), "-1.28", b"\x80"),
    ("decimal", (0,), "128", b"\x00\x80"),
    ("decimal", (0,), "-129", b"\xff\x7f"),
    ("variable_decimal", (), "100", {"scale": 0, "value": b"d"}),
    ("variable_decimal", (), "-0.000001", {"scale": 6, "value": b"\xff"}),
    ("numeric_double", (), "1234.5678", 1234.5678),
    ("numeric_double", (), "5", 5.0),
    ("numeric_double", (), "Infinity", float("inf")),
    ("money", (2,), "-$92,233,720,368,547,758.08", (-(2**63)).to_bytes(8, "big", signed=True)),
    ("money", (2,), "1.234,50 €", b"\x01\xe2\x3a"),
    ("money", (2,), "($0.01)", b"\xff"),
    ("money", (0,), "¥1,234", b"\x04\xd2"),
    ("money", (0,), "¥12", b"\x0c"),
    ("money", (3,), "KD1,234.567", b"\x12\xd6\x87"),
    ("money_text", (2,), "-$0.01", "-0.01"),
    ("money_text", (0,), "¥1,234", "1234"),
    ("money_double", (2,), "$12.34", 12.34),
    ("float64", (), "-0", -0.0),
    ("bits", (24, False), "000000110000001000000001", b"\x01\x02\x03"),
    ("bits", (4, True), "0011", b"\x03"),
    ("bits", (2**31 - 1, True), "1011", b"\x0b"),
    ("bits", (2**31 - 1, True), "", b""),
    ("date", (), "infinity", 2**31 - 1),
    ("date", (), "-infinity", -(2**31)),
    ("date", (), "5874897-12-31", 2145042905),
    ("date", (), "4713-01-01 BC", -2440550),
    ("date", (), "0001-12-31 BC", -719163),
    ("iso_date", (), "0001-12-31 BC", "0000-12-31Z"),
    ("iso_date", (), "21016-11-04", "+21016-11-04Z"),
    ("iso_date", (), "infinity", "infinity"),
    ("time", ("us",), "24:00:00", 86_400_000_000),
    ("time", ("ms",), "12:34:56.700", 45_296_700),
    ("time", ("ns",), "00:00:00.000001", 1000),
    ("timestamp", ("us",), "infinity", 9223372036825200000),
    ("timestamp", ("ms",), "-infinity", -9223372036832400),
    ("timestamp", ("ns",), "-infinity", -(2**63)),
    ("timestamp", ("us",), "0044-03-15 12:00:00 BC", -63517780800000000),
    ("timestamp", ("us",), "21016-11-04 13:51:30.123456", 601060312290123456),
    ("timestamp", ("ms",), "294276-12-31 23:59:59.999", 9224318015999999),
    ("iso_timestamp", (), "0044-03-15 12:00:00.5 BC", "-0043-03-15T12:00:00.5Z"),
    ("zoned_timestamp", (6,), "2024-02-29 12:34:56+00", "2024-02-29T12:34:56.000000Z"),
    ("zoned_timestamp", (0,), "2024-02-29 12:34:56+00", "2024-02-29T12:34:56Z"),
    ("zoned_timestamp", (3,), "2024-02-29 12:34:56.12+00", "2024-02-29T12:34:56.120Z"),
    ("zoned_timestamp", (6,), "0044-03-15 12:00:00+00 BC", "-0043-03-15T12:00:00.000000Z"),
    ("zoned_timestamp", (6,), "-infinity", "-infinity"),
    ("zoned_time", (), "23:59:59.5+00", "23:59:59.5Z"),
    ("interval_us", (), "-04:05:06.78", -14_706_780_000),
    ("interval_us", (), "2000000000:00:00", 7_200_000_000_000_000_000),
    ("interval_iso", (), "1 mon -1 days +00:00:01", "P0Y1M-1DT0H0M1S"),
    ("interval_iso", (), "-00:00:01.5", "P0Y0M0DT0H0M-1.5S"),
    ("interval_iso", (), "-01:00:00", "P0Y0M0DT-1H0M0S"),
    ("interval_iso", (), "-1 years -2 mons -3 days -04:05:06.78", "P-1Y-2M-3DT-4H-5M-6.78S"),
    ("interval_iso", (), "00:00:00", "P0Y0M0DT0H0M0S"),
    ("bytes", (), "\\x00ff", b"\x00\xff"),
    ("bytes_text", ("base64-url-safe",), "\\xfbfffefc3e3f", "-__-_D4_"),
    ("array", ("int32", (), True), "{}", []),
    (
        "array",
        ("text", (), True),
        '{"a\\"b","c\\\\d",NULL,"NULL","","{x}","e,f"}',
        ['a"b', "c\\d", None, "NULL", "", "{x}", "e,f"],
    ),
    ("array", ("array", ("int32", (), True), True), '{"{1,2}","{}",NULL}', [[1, 2], [], None]),
    ("array", ("text", (), True, ";"), "{(1,1),(0,0);(2,2),(1,1)}", ["(1,1),(0,0)", "(2,2),(1,1)"]),
]


@pytest.mark.parametrize(("kind", "params", "text", "value"), EXACT)
def test_exact_values(kind: str, params: tuple[Any, ...], text: str, value: Any) -> None:
    got = reader(kind, params)(text.encode())
    assert got == value
    assert str(got) == str(value)  # -0.0, True and 1


_NO_INTEGERS = ["", "1_0", " 1", "1 ", "+1", "1.0", "٣"]
_NO_FLOATS = ["", "1_0", " 1", "nan", "inf", "1e", "0x1", "1e-500"]
_NO_NUMERICS = ["", "1_0.00", "1e2", ".5", "1.", "--1", "1.0x", "nan"]
_NO_DATES = ["", "2024-02-30", "2023-02-29", "2024-13-01", "0000-01-01", "now", "01/02/2024", "2024-W01-1"]
_NO_TIMES = ["", "24:00:01", "25:00:00", "12:60:00", "12:00:61", "12:00", "12:00:00.", "12:00:00.1234567", "12-00:00"]
_NO_TIMESTAMPS = ["2024-01-01", "2024-01-01T00:00:00", "2024-01-01 00:00:00+00", "2024-01-32 00:00:00", "epoch"]
_NO_ZONED = ["2024-01-01 00:00:00", "2024-01-01 00:00:00+02", "2024-13-01 00:00:00+00", "2024-01-01 24:00:01+00"]
_NO_INTERVALS = ["", "1 year ", "P1D", "@ 1 day", "1", "1 day 2", "00:61:00"]
_NO_ARRAYS = ["", "1", "{1", "{1,}", "{,1}", '{"1}', "{1}}", "{a}", '{"1"2}', "{1,{2}}"]

GARBAGE: list[tuple[str, tuple[Any, ...], list[str]]] = [
    ("boolean", (), ["true", ""]),
    ("int16", (), [*_NO_INTEGERS, "32768"]),
    ("int32", (), [*_NO_INTEGERS, "-2147483649"]),
    ("int64", (), [*_NO_INTEGERS, "9223372036854775808"]),
    ("oid", (), [*_NO_INTEGERS, "-1", "4294967296"]),
    ("float32", (), [*_NO_FLOATS, "1e39", "1e-46"]),
    ("float64", (), [*_NO_FLOATS, "1e400"]),
    ("decimal", (2,), _NO_NUMERICS),
    ("variable_decimal", (), _NO_NUMERICS),
    ("numeric_text", (), _NO_NUMERICS),
    ("numeric_double", (), _NO_NUMERICS),
    ("money", (2,), ["$", "¥123", "¥1,234"]),
    ("money", (0,), ["$12.34"]),
    ("bit", (), ["2", "11"]),
    ("bits", (3, False), ["01", "0b1"]),
    ("bits", (3, True), ["1111"]),
    ("text", (), ["\udcff"]),
    ("uuid", (), ["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc999c0b4ef8bb6d6bb9bd380a11"]),
    ("bytes", (), ["abc", "\\x0", "\\x0g"]),
    ("date", (), _NO_DATES),
    ("iso_date", (), _NO_DATES),
    ("time", ("us",), _NO_TIMES),
    ("iso_time", (), _NO_TIMES),
    ("timestamp", ("us",), _NO_TIMESTAMPS),
    ("iso_timestamp", (), _NO_TIMESTAMPS),
    ("zoned_timestamp", (6,), _NO_ZONED),
    ("zoned_time", (), ["12:00:00", "25:00:00+00"]),
    ("interval_us", (), _NO_INTERVALS),
    ("interval_iso", (), _NO_INTERVALS),
    ("array", ("int32", (), True), _NO_ARRAYS),
]


@pytest.mark.parametrize(("kind", "params", "text"), [(k, p, text) for k, p, texts in GARBAGE for text in texts])
def test_what_the_type_never_prints_is_refused(kind: str, params: tuple[Any, ...], text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the next line looks at it
        reader(kind, params)(text.encode("utf-8", "surrogateescape"))
    assert str(caught.value)


@given(st.integers(-(10**60), 10**60), st.integers(0, 20))
def test_decimals_keep_every_digit(unscaled: int, scale: int) -> None:
    text = _plain(Fraction(unscaled), scale)
    value = reader("decimal", (scale,))(text.encode())
    assert int.from_bytes(value, "big", signed=True) == unscaled
    loose = reader("variable_decimal")(text.encode())
    kept = loose.fallback if isinstance(loose, Inexact) else loose
    kept_value = Fraction(int.from_bytes(kept["value"], "big", signed=True), 10 ** kept["scale"])
    assert kept_value == Fraction(unscaled, 10**scale)
    assert isinstance(loose, Inexact) == ("." in text and text.endswith("0"))


def test_numerics_of_any_length() -> None:
    """Longer than Python reads integers from text, as long as Postgres's numeric can be."""
    value = reader("variable_decimal")(b"-" + b"9" * 131072 + b".5")
    assert value["scale"] == 1
    assert int.from_bytes(value["value"], "big", signed=True) == -(10**131073 - 5)


@given(st.dates())
def test_dates_count_days(day: date) -> None:
    assert reader("date")(f"{day:%Y-%m-%d}".rjust(10, "0").encode()) == day.toordinal() - 719163


@given(st.datetimes())
def test_timestamps_count_microseconds(moment: datetime) -> None:
    text = str(moment).rstrip("0") if moment.microsecond else str(moment)
    micros = (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1)
    assert reader("timestamp", ("us",))(text.encode()) == micros
    assert (
        wire_reader("zoned_timestamp", (6,))(text.encode() + b"+00").decode()
        == f"{moment.isoformat(timespec='microseconds')}Z"
    )


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_singles_from_their_shortest_digits(value: float) -> None:
    texts = (f"{value:.{digits}g}" for digits in range(1, 10))
    short = next(text for text in texts if abs(float(text)) <= 3.4028235e38 and _single(float(text)) == _single(value))
    assert _single(reader("float32")(short.encode())) == _single(value)


def _single(value: float) -> bytes:
    return struct.pack("<f", value)


@given(st.integers(1, 0x7F7FFFFE), st.sampled_from([-1, 1]))
def test_singles_are_rounded_once(bits: int, side: int) -> None:
    """Just beside the middle of two singles the text decides, not the double it rounds to first."""
    low, high = (float(struct.unpack("<f", struct.pack("<I", bits + step))[0]) for step in (0, 1))
    middle = (Fraction(low) + Fraction(high)) / 2 + side * Fraction(1, 10**60) * Fraction(high)
    assert reader("float32")(_plain(middle).encode()) == (low if side < 0 else high)


def _plain(value: Fraction, places: int = 0) -> str:
    """A number as digits, of which ``places`` or as many as it takes are behind the point."""
    while value.denominator != 1:
        value *= 10
        places += 1
    sign, digits = "-" if value < 0 else "", str(abs(value.numerator)).rjust(places + 1, "0")
    return f"{sign}{digits[:-places]}.{digits[-places:]}" if places else f"{sign}{digits}"


@pytest.mark.parametrize(
    ("text", "double", "digits"),
    [
        ("$12.30", 12.3, "12.30"),
        ("-$1,000.00", -1000.0, "-1000.00"),
        ("$90,071,992,547,409.93", 90071992547409.94, None),
    ],
)
def test_money_that_a_double_does_not_print_is_told_in_digits(text: str, double: float, digits: str | None) -> None:
    assert reader("money_double", (2,))(text.encode()) == Inexact(
        double, digits or text.translate({36: None, 44: None})
    )


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_garbage_is_never_accepted_blindly(kind: str) -> None:
    params: dict[str, tuple[Any, ...]] = {
        "decimal": (2,), "money": (2,), "money_text": (2,), "money_double": (2,), "bits": (4, False),
        "bytes_text": ("hex",), "time": ("us",), "timestamp": ("us",), "zoned_timestamp": (6,),
        "array": ("int32", (), True), "composite": (RowOf(()),), "vector": (64,),
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"\w"):
        wire_reader(kind, params.get(kind, ()))(b"\xff\xfe")
