"""Dates, times and intervals in Postgres's text (DateStyle ISO, IntervalStyle postgres, TimeZone UTC).

Years are proleptic Gregorian, as in Postgres and in Java's ``LocalDate``; 1 BC is the year 0.

Infinity: a date is the largest or smallest int32, a timestamp Debezium's sentinel, both outside Postgres's own range
(or `Inexact`, where a finite timestamp equals the sentinel). Text forms keep Postgres's word.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date as civil_date
from typing import Any

from cdc.codec.inexact import Inexact, quoted

__all__ = [
    "DATE_INFINITY",
    "DAYS",
    "DAY_US",
    "MINUTES",
    "SECONDS",
    "clock",
    "date",
    "interval_iso",
    "interval_us",
    "iso_date",
    "iso_time",
    "iso_timestamp",
    "time",
    "timestamp",
    "zoned_time",
    "zoned_timestamp",
]

Reader = Callable[[bytes], Any]

DATE_INFINITY = {b"infinity": 2**31 - 1, b"-infinity": -(2**31)}
_TIMESTAMP_INFINITY = {
    "ms": {b"infinity": 9223372036825200, b"-infinity": -9223372036832400},
    "us": {b"infinity": 9223372036825200000, b"-infinity": -9223372036832400000},
    "ns": {b"infinity": 2**63 - 1, b"-infinity": -(2**63)},
}
_EPOCH = civil_date(1970, 1, 1).toordinal()
_DAYS_BEFORE_MONTH = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)
DAY_US = 86_400_000_000
_FRACTION = (0, 100_000, 10_000, 1_000, 100, 10, 1)
MINUTES = {b"%02d:%02d" % (h, m): (h * 60 + m) * 60_000_000 for h in range(24) for m in range(60)}
"""``hh:mm`` → microseconds, without the ``24:00`` that only a whole day has."""
SECONDS = {b"%02d" % second: second * 1_000_000 for second in range(60)}
_INT64 = 2**63
_CACHED_DATES = 8192

_DATE = re.compile(rb"(\d{4,7})-(\d\d)-(\d\d)( BC)?")
_TIMESTAMP = re.compile(rb"(\d{4,6}-\d\d-\d\d) ([0-9:.]+)(\+00)?( BC)?")
_TIMETZ = re.compile(rb"([0-9:.]+)([+-])(\d\d)(?::(\d\d))?(?::(\d\d))?")
_INTERVAL = re.compile(
    rb"(?:([+-]?\d+) years?)? ?(?:([+-]?\d+) mons?)? ?(?:([+-]?\d+) days?)? ?"
    rb"(?:([+-]?)(\d+):([0-5]\d):([0-5]\d)(?:\.(\d{1,6}))?)?"
)


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 of a proleptic Gregorian date; `ValueError` when there is no such day."""
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if not 1 <= month <= 12:
        raise ValueError(f"no month {month}")
    last = 29 if month == 2 and leap else 28 if month == 2 else 30 if month in {4, 6, 9, 11} else 31
    if not 1 <= day <= last:
        raise ValueError(f"no day {day} in the month {month} of the year {year}")
    before = year - 1
    days = before * 365 + before // 4 - before // 100 + before // 400
    return days + _DAYS_BEFORE_MONTH[month - 1] + (leap and month > 2) + day - _EPOCH


def _date_days(text: bytes) -> int:
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError(f"not a date: {quoted(text)}")
    return _days(_year(match[1], match[4]), int(match[2]), int(match[3]))


def _year(digits: bytes, bc: bytes | None) -> int:
    year = int(digits)
    if not year:
        raise ValueError("there is no year 0")
    return 1 - year if bc else year


class _Dates(dict[bytes, int]):
    """Text of a date → days since 1970: bounded, as dates in a stream are few and near each other."""

    def __missing__(self, text: bytes) -> int:
        days = _date_days(text)
        if len(self) >= _CACHED_DATES:
            self.clear()
        self[text] = days
        return days


DAYS = _Dates()
"""Text of a date → days since 1970-01-01. `ValueError` for what is no date."""


def date() -> Reader:
    """date → days since 1970-01-01."""

    def read(text: bytes) -> int:
        if text in DATE_INFINITY:
            return DATE_INFINITY[text]
        return DAYS[text]

    return read


def iso_date() -> Reader:
    """date → ``2016-11-04Z``."""

    def read(text: bytes) -> bytes:
        return text if text in DATE_INFINITY else _iso_day(text) + b"Z"

    return read


def _iso_day(text: bytes) -> bytes:
    """A date as ISO 8601 with expanded years, as Java prints it: ``-0043-03-15``, ``+10000-01-01``."""
    DAYS[text]
    if len(text) == 10:
        return text
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError(f"not a date: {quoted(text)}")
    year = _year(match[1], match[4])
    sign = b"-" if year < 0 else b"+" if year > 9999 else b""
    return sign + b"%04d-%b-%b" % (abs(year), match[2], match[3])


def clock(text: bytes) -> int:
    """``hh:mm:ss[.ffffff]`` → microseconds of the day, up to ``24:00:00``."""
    if text == b"24:00:00":
        return DAY_US
    try:
        value = MINUTES[text[:5]] + SECONDS[text[6:8]]
    except KeyError:
        raise ValueError(f"not a time of day: {quoted(text)}") from None
    fraction = text[9:]
    if fraction:
        if not fraction.isdigit() or len(fraction) > 6 or text[8] != 46:
            raise ValueError(f"not a time of day: {quoted(text)}")
        value += int(fraction) * _FRACTION[len(fraction)]
    elif len(text) != 8:
        raise ValueError(f"not a time of day: {quoted(text)}")
    if text[5] != 58:
        raise ValueError(f"not a time of day: {quoted(text)}")
    return value


def time(unit: str) -> Reader:
    """time → milliseconds (inexact below), microseconds or nanoseconds of the day."""

    def read(text: bytes) -> int | Inexact:
        value = clock(text)
        if unit == "us":
            return value
        if unit == "ns":
            return value * 1000
        return value // 1000 if value % 1000 == 0 else Inexact(value // 1000, text.decode())

    return read


def iso_time() -> Reader:
    """time → ``12:34:56.789Z``."""

    def read(text: bytes) -> bytes:
        clock(text)
        return text + b"Z"

    return read


def timestamp(unit: str) -> Reader:
    """timestamp → milliseconds (inexact below), microseconds or nanoseconds since 1970-01-01T00:00:00 local time."""
    infinity = _TIMESTAMP_INFINITY[unit]
    sentinels = frozenset(infinity.values())

    def read(text: bytes) -> int | Inexact:
        if text[10:11] == b" ":
            try:
                micros = DAYS[text[:10]] * DAY_US + clock(text[11:])
            except ValueError:
                micros = _far(text)
        elif text in infinity:
            return infinity[text]
        else:
            micros = _far(text)
        if unit == "ms":
            value, rest = divmod(micros, 1000)
        else:
            value, rest = (micros if unit == "us" else micros * 1000), 0
        if not -_INT64 <= value < _INT64:
            return Inexact(None, text.decode())
        return value if not rest and value not in sentinels else Inexact(value, text.decode())

    return read


def _far(text: bytes) -> int:
    day, tail, zone = _split(text)
    if zone:
        raise ValueError(f"not a timestamp without time zone: {quoted(text)}")
    return DAYS[day] * DAY_US + clock(tail)


def _split(text: bytes) -> tuple[bytes, bytes, bytes]:
    """A timestamp of any year → date with its era, time of day, zone."""
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        raise ValueError(f"not a timestamp: {quoted(text)}")
    day, tail, zone, era = match.groups(default=b"")
    clock(tail)
    return day + era, tail, zone


def iso_timestamp() -> Reader:
    """timestamp → ``2016-11-04T13:51:30.123456Z``."""

    def read(text: bytes) -> bytes:
        if text in DATE_INFINITY:
            return text
        day, tail, zone = _split(text)
        if zone:
            raise ValueError(f"not a timestamp without time zone: {quoted(text)}")
        return _iso_day(day) + b"T" + tail + b"Z"

    return read


def zoned_timestamp(precision: int) -> Reader:
    """timestamptz → ``2016-11-04T13:51:30.123456Z``, the fraction padded to ``precision`` digits."""
    pads = {n: (b"." if not n and precision else b"") + b"0" * (precision - n) + b"Z" for n in range(precision + 1)}

    def read(text: bytes) -> bytes:
        if text in DATE_INFINITY:
            return text
        day, tail, zone = _split(text)
        if not zone:
            raise ValueError(f"not a timestamptz printed with TimeZone UTC: {quoted(text)}")
        digits = max(len(tail) - 9, 0)
        return _iso_day(day) + b"T" + tail + pads.get(digits, b"Z")

    return read


def zoned_time() -> Reader:
    """timetz → the same moment of the day in UTC, ``11:51:30.123789Z``. Another zone than UTC is lost: inexact."""

    def read(text: bytes) -> bytes | Inexact:
        match = _TIMETZ.fullmatch(text)
        if match is None:
            raise ValueError(f"not a timetz: {quoted(text)}")
        local, sign, hours, minutes, seconds = match.groups(default=b"00")
        micros = clock(local)
        offset = (int(hours) * 60 + int(minutes)) * 60 + int(seconds)
        if not offset:
            # A reader of RFC 3339 has no 24:00.
            exact = match[2] == b"+" and micros < DAY_US
            return local + b"Z" if exact else Inexact(local + b"Z", text.decode())
        utc = (micros + (-offset if sign == b"+" else offset) * 1_000_000) % DAY_US
        rest, fraction = divmod(utc, 1_000_000)
        shown = b"%02d:%02d:%02d" % (rest // 3600, rest // 60 % 60, rest % 60)
        if fraction:
            shown += (b".%06d" % fraction).rstrip(b"0")
        return Inexact(shown + b"Z", text.decode())

    return read


_MONTH_SECONDS = 2_629_800
"""A month in Debezium's MicroDuration: 365.25 / 12 days."""


def _interval(text: bytes) -> tuple[int, int, int, int, int, int, int]:
    """years, months, days, sign of the time, hours, minutes, microseconds of the minute."""
    match = _INTERVAL.fullmatch(text)
    if match is None or not text or text.endswith(b" "):
        raise ValueError(f"not an interval: {quoted(text)}")
    years, months, days, sign, hours, minutes, seconds, fraction = match.groups(default=b"")
    micros = int(seconds or b"0") * 1_000_000 + int((fraction or b"0").ljust(6, b"0"))
    return (
        int(years or b"0"),
        int(months or b"0"),
        int(days or b"0"),
        -1 if sign == b"-" else 1,
        int(hours or b"0"),
        int(minutes or b"0"),
        micros,
    )


def interval_us() -> Reader:
    """interval → microseconds as Debezium's MicroDuration. Months and days have no fixed length: inexact."""

    def read(text: bytes) -> int | Inexact:
        if text in DATE_INFINITY:
            return Inexact(_INT64 - 1 if text == b"infinity" else -_INT64, text.decode())
        years, months, days, sign, hours, minutes, micros = _interval(text)
        fixed = sign * ((hours * 60 + minutes) * 60_000_000 + micros)
        value = ((years * 12 + months) * _MONTH_SECONDS + days * 86_400) * 1_000_000 + fixed
        value = max(-_INT64, min(value, _INT64 - 1))
        return value if value == fixed and not (years or months or days) else Inexact(value, text.decode())

    return read


def interval_iso() -> Reader:
    """interval → ``P1Y2M3DT4H5M6.78S`` with all six parts, as Debezium's Interval."""

    def read(text: bytes) -> bytes:
        if text in DATE_INFINITY:
            return text
        years, months, days, sign, hours, minutes, micros = _interval(text)
        seconds, fraction = divmod(micros, 1_000_000)
        shown = b"%d" % seconds + ((b".%06d" % fraction).rstrip(b"0") if fraction else b"")
        minus = b"-" if sign < 0 and micros else b""
        return b"P%dY%dM%dDT%dH%dM%b%bS" % (years, months, days, sign * hours, sign * minutes, minus, shown)

    return read
