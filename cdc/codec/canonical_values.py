"""The canonical text of a value, made from what an Avro record holds under Debezium's semantic types.

The other way to the texts that `cdc.codec.canonical` documents. Numbers are what Avro holds (days, milliseconds,
microseconds), texts are UTF-8 bytes. `ValueError` for values that their type does not have.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from functools import lru_cache
from typing import Final

__all__ = [
    "base64_text",
    "bits_text",
    "bool_text",
    "date_text",
    "decimal_text",
    "duration_text",
    "instant_text",
    "int_text",
    "interval_text",
    "iso_date_text",
    "iso_time_text",
    "iso_timestamp_text",
    "micro_timestamp_text",
    "milli_time_text",
    "milli_timestamp_text",
    "nano_duration_text",
    "nano_time_text",
    "nano_timestamp_text",
    "same_text",
    "time_text",
    "timestamp_text",
    "unscaled_text",
    "zoned_time_text",
    "zoned_timestamp_text",
]

DAY_US: Final = 86_400_000_000
_EPOCH: Final = date(1970, 1, 1).toordinal()
_LAST_DAY: Final = date(9999, 12, 31).toordinal() - _EPOCH
_FIRST_DAY: Final = 1 - _EPOCH

INFINITE_DATES: Final = {2**31 - 1: b"infinity", -(2**31): b"-infinity"}
INFINITE_US: Final = {9223372036825200000: b"infinity", -9223372036832400000: b"-infinity"}
"""Debezium's `PGStatement.DATE_POSITIVE_INFINITY` and its opposite, as microseconds; by 1000 as milliseconds."""
INFINITE_MS: Final = {us // 1000: text for us, text in INFINITE_US.items()}
INFINITE_NS: Final = {2**63 - 1: b"infinity", -(2**63): b"-infinity"}


def same_text(text: bytes) -> bytes:
    return text


def int_text(value: int) -> bytes:
    return b"%d" % value


def bool_text(value: bool) -> bytes:
    return b"true" if value else b"false"


base64_text: Callable[[bytes], bytes] = b64encode


_LONG: Final = 1700
"""Bytes of a number that Python prints by itself; it refuses to print more than 4300 digits."""


# --- decimals --------------------------------------------------------------------------------------------


def decimal_text(scale: int) -> Callable[[bytes], bytes]:
    """A function from a two's complement number to number x 10**-scale, with ``scale`` digits after the point."""
    if scale <= 0:
        return lambda unscaled: unscaled_text(int.from_bytes(unscaled, "big", signed=True), scale)
    power, layout = 10**scale, b"%%d.%%0%dd" % scale

    def text(unscaled: bytes) -> bytes:
        value = int.from_bytes(unscaled, "big", signed=True)
        if len(unscaled) > _LONG:
            return unscaled_text(value, scale)
        digits: bytes = layout % divmod(abs(value), power)
        return digits if value >= 0 else b"-" + digits

    return text


def unscaled_text(value: int, scale: int) -> bytes:
    """``value`` x 10**-scale. Postgres's numerics have up to 147455 digits."""
    if scale < 0:
        value, scale = value * 10**-scale, 0
    digits = b"%d" % abs(value) if value.bit_length() < 8 * _LONG else str(Decimal(abs(value))).encode()
    if scale == 0:
        return b"-" + digits if value < 0 else digits
    if len(digits) <= scale:
        digits = digits.rjust(scale + 1, b"0")
    return b"%b%b.%b" % (b"-" if value < 0 else b"", digits[:-scale], digits[-scale:])


# --- dates and times -------------------------------------------------------------------------------------


@lru_cache(maxsize=8192)
def _day(days: int) -> bytes | None:
    """``2026-01-31``; ``None`` outside the years 1 to 9999."""
    return date.fromordinal(days + _EPOCH).isoformat().encode() if _FIRST_DAY <= days <= _LAST_DAY else None


def _civil(days: int) -> tuple[bytes, bytes]:
    """The date in Postgres's own spelling, in two parts: ``0044-03-15`` and `` BC``. Any number of days."""
    era, day = divmod(days + 719468, 146097)  # the calendar repeats every 400 years; eras begin on 1 March
    year = (day - day // 1460 + day // 36524 - day // 146096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    day -= (153 * month + 2) // 5 - 1
    month += 3 if month < 10 else -9
    year += era * 400 + (month <= 2)
    text = b"%04d-%02d-%02d" % (year if year > 0 else 1 - year, month, day)
    return text, b"" if year > 0 else b" BC"


def date_text(days: int) -> bytes:
    """Days since 1970; the ends of 32 bits are the infinities."""
    text = _day(days)
    if text is not None:
        return text
    return INFINITE_DATES.get(days) or b"".join(_civil(days))


_MINUTES: Final = tuple(b"%02d:%02d" % divmod(minute, 60) for minute in range(1441))
_SECONDS: Final = tuple(b":%02d" % second for second in range(60))


def time_text(us: int) -> bytes:
    """Microseconds since midnight, 24:00:00 included."""
    if not 0 <= us <= DAY_US:
        raise ValueError(f"a time of day of {us} microseconds")
    seconds, fraction = divmod(us, 1_000_000)
    minute, second = divmod(seconds, 60)
    if fraction:
        return _MINUTES[minute] + _SECONDS[second] + (b".%06d" % fraction).rstrip(b"0")
    return _MINUTES[minute] + _SECONDS[second]


def micro_timestamp_text(us: int) -> bytes:
    """Debezium's MicroTimestamp: `timestamp_text` with infinities."""
    return INFINITE_US.get(us) or timestamp_text(us)


def milli_timestamp_text(ms: int) -> bytes:
    """Debezium's Timestamp, and Kafka Connect's: milliseconds, with infinities."""
    return INFINITE_MS.get(ms) or timestamp_text(ms * 1000)


def nano_timestamp_text(ns: int) -> bytes:
    """Debezium's NanoTimestamp: the ends of 64 bits are the infinities."""
    us, rest = divmod(ns, 1000)  # 64 bits of nanoseconds stay within the years 1677 to 2262
    return INFINITE_NS.get(ns) or _nanos(timestamp_text(us), rest)


def timestamp_text(us: int) -> bytes:
    """Microseconds since 1970, no zone."""
    days, rest = divmod(us, DAY_US)
    text = _day(days)
    if text is not None:
        return text + b"T" + time_text(rest)
    day, era = _civil(days)
    return day + b" " + time_text(rest) + era


def instant_text(us: int) -> bytes:
    """Microseconds since 1970 UTC."""
    days, rest = divmod(us, DAY_US)
    text = _day(days)
    if text is not None:
        return text + b"T" + time_text(rest) + b"Z"
    day, era = _civil(days)
    return day + b" " + time_text(rest) + b"+00" + era


def _nanos(us_text: bytes, ns: int) -> bytes:
    """``us_text``, which ends in a time, with its last three digits."""
    if not ns:
        return us_text
    whole, _, fraction = us_text.partition(b".")
    return whole + b"." + fraction.ljust(6, b"0") + (b"%03d" % ns).rstrip(b"0")


def milli_time_text(ms: int) -> bytes:
    return time_text(ms * 1000)


def nano_time_text(ns: int) -> bytes:
    us, rest = divmod(ns, 1000)
    return _nanos(time_text(us), rest)


_ISO = re.compile(
    rb"(?P<year>[+-]?\d{4,})-(?P<day>\d\d-\d\d)T(?P<h>\d\d):(?P<m>\d\d)(?::(?P<s>\d\d)(?:\.(?P<f>\d{1,9}))?)?"
    rb"(?P<zone>Z|[+-]\d\d:\d\d(?::\d\d)?)?"
)


def zoned_timestamp_text(text: bytes) -> bytes:
    """An ISO 8601 timestamp with zone, in UTC and without the trailing zeros of the fraction."""
    if text[10:11] == b"T" and text[-1:] == b"Z" and text[16:17] == b":" and text[:4] != b"0000":
        if text[19:20] == b".":
            return text[:-1].rstrip(b"0").rstrip(b".") + b"Z"
        return text
    return _iso(text, b"Z")


def iso_timestamp_text(text: bytes) -> bytes:
    """Debezium's IsoTimestamp: a local time that is printed with a ``Z``."""
    return _iso(text, b"")


def _iso(text: bytes, suffix: bytes) -> bytes:
    if text in (b"infinity", b"-infinity"):
        return text
    match = _ISO.fullmatch(text)
    if match is None:
        raise ValueError(f"not an ISO 8601 timestamp: {text[:60]!r}")
    month, day = (int(part) for part in match["day"].split(b"-"))
    seconds = int(match["h"]) * 3600 + int(match["m"]) * 60 + int(match["s"] or 0) - _offset(match["zone"])
    fraction = (match["f"] or b"").rstrip(b"0")
    days, rest = divmod(seconds, 86400)
    days += _days_of(int(match["year"]), month, day)
    time = time_text(rest * 1_000_000) + (b"." + fraction if fraction else b"")
    regular = _day(days)
    if regular is not None:
        return regular + b"T" + time + suffix
    date_part, era = _civil(days)
    return date_part + b" " + time + (b"+00" if suffix else b"") + era


def _offset(zone: bytes | None) -> int:
    """Seconds east of UTC of ``Z``, ``+05:30`` or ``-00:00:28``."""
    if not zone or zone == b"Z":
        return 0
    hours, minutes, *seconds = (int(part) for part in zone[1:].split(b":"))
    offset = hours * 3600 + minutes * 60 + sum(seconds)
    return offset if zone[:1] == b"+" else -offset


def _days_of(year: int, month: int, day: int) -> int:
    """Days since 1970 of a date of the proleptic Gregorian calendar; year 0 is 1 BC."""
    year -= month <= 2
    era, year = divmod(year, 400)
    day_of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return era * 146097 + year * 365 + year // 4 - year // 100 + day_of_year - 719468


def iso_date_text(text: bytes) -> bytes:
    """Debezium's IsoDate: ``2016-11-04Z``."""
    if text in (b"infinity", b"-infinity"):
        return text
    match = _ISO_DATE.fullmatch(text)
    if match is None:
        raise ValueError(f"not an ISO 8601 date: {text[:60]!r}")
    return date_text(_days_of(int(match[1]), int(match[2]), int(match[3])))


_ISO_DATE = re.compile(rb"([+-]?\d{4,})-(\d\d)-(\d\d)Z?")
_ISO_TIME = re.compile(rb"(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d:\d\d(?::\d\d)?)?")


def zoned_time_text(text: bytes) -> bytes:
    """An ISO 8601 time with zone, moved to UTC: ``10:34:56.5Z``."""
    return _iso_time(text) + b"Z"


def iso_time_text(text: bytes) -> bytes:
    """Debezium's IsoTime: a local time that is printed with a ``Z``."""
    return _iso_time(text)


def _iso_time(text: bytes) -> bytes:
    match = _ISO_TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"not an ISO 8601 time: {text[:60]!r}")
    seconds = int(match[1]) * 3600 + int(match[2]) * 60 + int(match[3] or 0)
    if not text.startswith(b"24:00"):
        seconds = (seconds - _offset(match[5])) % 86400
    fraction = (match[4] or b"").rstrip(b"0")
    return time_text(seconds * 1_000_000) + (b"." + fraction if fraction else b"")


# --- intervals and bits ----------------------------------------------------------------------------------

_DURATION = re.compile(
    rb"P(?:(-?\d+)Y)?(?:(-?\d+)M)?(?:(-?\d+)D)?(?:T(?:(-?\d+)H)?(?:(-?\d+)M)?(?:(-?)(\d+)(?:\.(\d+))?S)?)?"
)


def interval_text(text: bytes) -> bytes:
    """An ISO 8601 duration such as Debezium's ``P0Y0M1DT0H0M6.780S``, without the parts that are zero."""
    if text.endswith(b"infinity"):
        return text
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"not an ISO 8601 duration: {text[:60]!r}")
    *parts, minus, seconds, fraction = match.groups()
    units = (b"Y", b"M", b"D", b"H", b"M")
    out = [b"%d%b" % (int(part), unit) if part and int(part) else b"" for part, unit in zip(parts, units, strict=True)]
    return _duration(out, minus or b"", int(seconds or 0), (fraction or b"").rstrip(b"0"))


def _duration(parts: list[bytes], minus: bytes, seconds: int, fraction: bytes) -> bytes:
    tail = b""
    if seconds or fraction:
        tail = b"%b%d%bS" % (minus, seconds, b"." + fraction if fraction else b"")
    date_part, time_part = b"".join(parts[:3]), b"".join(parts[3:]) + tail
    if not date_part and not time_part:
        return b"PT0S"
    return b"P" + date_part + (b"T" + time_part if time_part else b"")


def duration_text(us: int) -> bytes:
    """Microseconds as hours, minutes and seconds; days and months cannot be known any more."""
    return nano_duration_text(us * 1000)


def nano_duration_text(ns: int) -> bytes:
    minus = b"-" if ns < 0 else b""
    seconds, fraction = divmod(abs(ns), 1_000_000_000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    time_parts = [b"%b%d%b" % (minus, part, unit) if part else b"" for part, unit in ((hours, b"H"), (minutes, b"M"))]
    return _duration([b"", b"", b"", *time_parts], minus, seconds, (b"%09d" % fraction).rstrip(b"0"))


def bits_text(value: bytes, length: int) -> bytes:
    """Debezium's Bits: the bit string as a little-endian number. ``length`` 2**31 - 1 is a varbit without limit,
    whose leading zeros the value does not have."""
    number = int.from_bytes(value, "little")
    if length == 2**31 - 1:
        return b"" if not value else format(number, "b").encode()
    if number.bit_length() > length:
        raise ValueError(f"{number.bit_length()} bits in a bit string of {length}")
    return format(number, f"0{length}b").encode() if length else b""
