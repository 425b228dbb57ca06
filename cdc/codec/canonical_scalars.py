"""Canonical texts of single values, from Postgres's text (`cdc.codec.canonical` says what they are)."""

from __future__ import annotations

import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from json.encoder import encode_basestring
from typing import Final

from cdc.codec.literals import hstore_pairs

__all__ = ["NUMBER", "NUMBERS", "PRINTERS", "bool_text", "char_text", "interval_text", "json_string", "same"]

Text = Callable[[bytes], bytes]

NUMBERS: Final = frozenset(
    {"int2", "int4", "int8", "oid", "smallint", "integer", "int", "bigint"}
    | {"float4", "float8", "real", "double", "numeric", "decimal", "money"}
)
"""Types whose values are numbers in JSON, as far as JSON can say them (`NUMBER`)."""
NUMBER: Final = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?(?:e[+-][0-9]+)?")
"""A finite number, as all types of `NUMBERS` print it."""


def json_string(text: bytes) -> str:
    """``text`` as a JSON string, non-ASCII as it is. Bytes that are not UTF-8 become lone surrogates."""
    return encode_basestring(text.decode("utf-8", "surrogateescape"))


def same(text: bytes) -> bytes:
    return text


_BOOLS: Final = {b"t": b"true", b"f": b"false", b"true": b"true", b"false": b"false", b"1": b"true", b"0": b"false"}


def bool_text(text: bytes) -> bytes:
    try:
        return _BOOLS[text]
    except KeyError:
        raise ValueError(f"not a boolean of Postgres: {text[:40]!r}") from None


def char_text(text: bytes) -> bytes:
    """``"char"``: a byte that is no ASCII as three octal digits, as Postgres prints it from version 16 on; before, it
    prints the bare byte, which is not UTF-8."""
    return b"\\%03o" % text[0] if len(text) == 1 and text[0] > 127 else text


def _timestamp(text: bytes) -> bytes:
    if text[4:5] == b"-" and text[10:11] == b" " and not text.endswith(b" BC"):
        return text[:10] + b"T" + text[11:]
    return text


def _timestamptz(text: bytes) -> bytes:
    if text.endswith(b"infinity"):
        return text
    if not text.removesuffix(b" BC").endswith(b"+00"):
        raise ValueError(f"a timestamptz printed with another TimeZone than UTC: {text[:60]!r}")
    if text[4:5] == b"-" and not text.endswith(b" BC"):
        return text[:10] + b"T" + text[11:-3] + b"Z"
    return text


_TIMETZ = re.compile(rb"(\d\d):(\d\d):(\d\d)(\.\d+)?([+-])(\d\d)(?::(\d\d))?(?::(\d\d))?")


def _timetz(text: bytes) -> bytes:
    match = _TIMETZ.fullmatch(text)
    if match is None:
        raise ValueError(f"not a timetz of Postgres: {text[:60]!r}")
    hours, minutes, seconds, fraction, sign, *zone = match.groups()
    if hours == b"24":
        return text
    offset = int(zone[0]) * 3600 + int(zone[1] or 0) * 60 + int(zone[2] or 0)
    moved = int(hours) * 3600 + int(minutes) * 60 + int(seconds) - (offset if sign == b"+" else -offset)
    minute, second = divmod(moved % 86400, 60)
    return b"%02d:%02d:%02d%bZ" % (*divmod(minute, 60), second, fraction or b"")


_INTERVAL = re.compile(
    rb"(?:([+-]?\d+) years? ?)?(?:([+-]?\d+) mons? ?)?(?:([+-]?\d+) days? ?)?"
    rb"(?:([+-]?)(\d+):(\d\d):(\d\d)(?:\.(\d+))?)?"
)


def interval_text(text: bytes) -> bytes:
    """An ISO 8601 duration as with ``IntervalStyle = iso_8601``."""
    if text.endswith(b"infinity"):
        return text
    match = _INTERVAL.fullmatch(text)
    if match is None or not text:
        raise ValueError(f"not an interval printed with IntervalStyle postgres: {text[:60]!r}")
    years, months, days, sign, hours, minutes, seconds, fraction = match.groups()
    minus = b"-" if sign == b"-" else b""
    date = b"".join(
        b"%d%b" % (int(part), unit)
        for part, unit in ((years, b"Y"), (months, b"M"), (days, b"D"))
        if part is not None and int(part)
    )
    time = b"".join(
        b"%b%d%b" % (minus, int(part), unit)
        for part, unit in ((hours, b"H"), (minutes, b"M"))
        if part is not None and int(part)
    )
    fraction = (fraction or b"").rstrip(b"0")
    if fraction or int(seconds or 0):
        time += minus + b"%d" % int(seconds) + (b"." + fraction if fraction else b"") + b"S"
    if not date and not time:
        return b"PT0S"
    return b"P" + date + (b"T" + time if time else b"")


def _bytea(text: bytes) -> bytes:
    return b64encode(_raw(text))


def _raw(text: bytes) -> bytes:
    if text[:2] != b"\\x":
        raise ValueError(f"a bytea that does not begin with \\x (bytea_output is not hex): {text[:20]!r}")
    return bytes.fromhex(text[2:].decode("ascii"))


_MONEY = re.compile(rb"(-?)\$([0-9,]+\.[0-9]{2})")


def _money(text: bytes) -> bytes:
    match = _MONEY.fullmatch(text)
    if match is None:
        raise ValueError(f"not a money value printed with lc_monetary C: {text[:60]!r}")
    return match[1] + match[2].replace(b",", b"")


def _hstore(text: bytes) -> bytes:
    members = (
        f"{json_string(key)}:{'null' if value is None else json_string(value)}" for key, value in hstore_pairs(text)
    )
    return ("{" + ",".join(members) + "}").encode("utf-8", "surrogateescape")


PRINTERS: Final[dict[str, Text]] = {
    "bool": bool_text,
    "char": char_text,
    "timestamp": _timestamp,
    "timestamptz": _timestamptz,
    "timetz": _timetz,
    "bytea": _bytea,
    "money": _money,
    "hstore": _hstore,
    # Not types, but what a source's settings make of them (`cdc.operate.verify.modes`).
    "bytea_hex": lambda text: _raw(text).hex().encode("ascii"),
    "bytea_base64url": lambda text: urlsafe_b64encode(_raw(text)),
    "money_text": _money,
}
"""Name of ``pg_type`` → printer; all others are `same`."""
