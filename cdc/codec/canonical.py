"""The canonical text of a value, made from Postgres's own text output.

Mirrored fields hold one documented text per type, which a program in any language parses without
knowing Postgres (DESIGN.md §6):

=================  ==================================================================================
type               canonical text
=================  ==================================================================================
integers, oid      digits
numeric            digits with the scale that Postgres prints; ``NaN``, ``Infinity``, ``-Infinity``
money              digits with two decimals, without currency and grouping
float4, float8     shortest text that reads back as the same number, as Postgres prints it
bool, bit(1)       ``true`` / ``false``
date               ``2026-01-31``
time               ``12:00:00.5``; the fraction has no trailing zeros, here and below
timetz             ``10:00:00Z``, moved to UTC
timestamp          ``2026-01-31T12:00:00.123456``
timestamptz        ``2026-01-31T12:00:00.123456Z``
interval           ISO 8601 duration as with ``IntervalStyle = iso_8601``: ``P1Y2M3DT4H5M6.7S``, ``PT0S``
bytea              base64
arrays             JSON without spaces: finite numbers and booleans bare, anything else a JSON string
                   with the canonical text of the element, NULL ``null``, dimensions nested
all others         Postgres's text: text kinds, uuid, enums, json and jsonb as stored, ...
=================  ==================================================================================

Values outside these forms keep Postgres's spelling, which no value inside them has: ``infinity``, years
BC or over 9999, ``24:00:00`` with a zone, arrays whose lower bounds are not 1.

This module starts from text that a session with ``DateStyle ISO, IntervalStyle postgres, TimeZone UTC,
bytea_output hex, lc_monetary C, client_encoding UTF8`` printed. `cdc.codec.canonical_values` makes the same text from
Avro values, on its own; that both agree is tested against real servers.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Final

__all__ = ["from_postgres", "json_string"]

_Text = Callable[[bytes], bytes]


def from_postgres(type_name: str, text: bytes | None) -> bytes | None:
    """The canonical text of a value of type ``type_name`` that Postgres prints as ``text``; ``None`` for NULL.

    ``type_name`` is a name as in ``pg_type.typname`` or as ``format_type`` prints it (``_int4``, ``integer[]``,
    ``timestamp(3) with time zone``); a type that is not in the table above counts as text. A domain is
    given as its base type. `ValueError` when ``text`` is not what the type prints under the settings above.
    """
    return None if text is None else _printer(type_name)(text)


def json_string(text: bytes) -> str:
    """``text`` as a JSON string, non-ASCII as it is. Bytes that are not UTF-8 become lone surrogates."""
    return encode_basestring(text.decode("utf-8", "surrogateescape"))


# --- which type ------------------------------------------------------------------------------------------

_NUMBERS: Final = frozenset(
    {"int2", "int4", "int8", "oid", "xid", "cid", "smallint", "integer", "int", "bigint"}
    | {"float4", "float8", "real", "double", "numeric", "decimal", "money"}
)
_ALIASES: Final = {
    "boolean": "bool",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
    "time without time zone": "time",
    "time with time zone": "timetz",
    "double precision": "float8",
}
_MODIFIER = re.compile(r"\(\s*-?\d+\s*(?:,\s*-?\d+\s*)?\)")
_ONE_BIT = frozenset({"bit(1)", "bit varying(1)", "varbit(1)"})


@lru_cache(maxsize=4096)
def _printer(type_name: str) -> _Text:
    name = type_name.strip().removeprefix("pg_catalog.")
    element = None
    if name.endswith("[]"):
        element = name.rstrip("[]")
    elif name.startswith("_"):
        element = name[1:]
    if element is not None:
        return lambda text: _array(element, text)
    if name.startswith("interval"):
        return _interval
    if name in _ONE_BIT:
        return _bool
    plain = " ".join(_MODIFIER.sub("", name).split())
    return _PRINTERS.get(_ALIASES.get(plain, plain), _same)


def _same(text: bytes) -> bytes:
    return text


# --- scalars ---------------------------------------------------------------------------------------------

_BOOLS: Final = {b"t": b"true", b"f": b"false", b"true": b"true", b"false": b"false", b"1": b"true", b"0": b"false"}


def _bool(text: bytes) -> bytes:
    try:
        return _BOOLS[text]
    except KeyError:
        raise ValueError(f"not a boolean of Postgres: {text[:40]!r}") from None


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


def _interval(text: bytes) -> bytes:
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
    if text[:2] != b"\\x":
        raise ValueError(f"a bytea that does not begin with \\x (bytea_output is not hex): {text[:20]!r}")
    return b64encode(bytes.fromhex(text[2:].decode("ascii")))


_MONEY = re.compile(rb"(-?)\$([0-9,]+\.[0-9]{2})")


def _money(text: bytes) -> bytes:
    match = _MONEY.fullmatch(text)
    if match is None:
        raise ValueError(f"not a money value printed with lc_monetary C: {text[:60]!r}")
    return match[1] + match[2].replace(b",", b"")


_PRINTERS: Final[dict[str, _Text]] = {
    "bool": _bool,
    "timestamp": _timestamp,
    "timestamptz": _timestamptz,
    "timetz": _timetz,
    "bytea": _bytea,
    "money": _money,
}


# --- arrays ----------------------------------------------------------------------------------------------

_NOT_NUMBERS: Final = frozenset({b"NaN", b"Infinity", b"-Infinity"})


def _array(element: str, text: bytes) -> bytes:
    if text[:1] != b"{":  # lower bounds that are not 1, for which JSON has no place; or no array at all
        return text
    printer = _printer(element)
    number = " ".join(_MODIFIER.sub("", element).split()).split(" ", maxsplit=1)[0] in _NUMBERS
    boolean = printer is _bool
    delimiter = ord(";") if element == "box" else ord(",")
    out: list[str] = []
    at, size = 0, len(text)
    while at < size:
        char = text[at]
        if char == 0x7B:  # {
            out.append("[")
            at += 1
        elif char == 0x7D:  # }
            out.append("]")
            at += 1
        elif char == delimiter:
            out.append(",")
            at += 1
        else:
            raw, at = _element(text, at, delimiter)
            if raw is None:
                out.append("null")
                continue
            value = printer(raw)
            bare = boolean or (number and value not in _NOT_NUMBERS)
            out.append(value.decode("ascii") if bare else json_string(value))
    if not out or out[0] != "[" or out[-1] != "]":
        raise ValueError(f"not an array of Postgres: {text[:60]!r}")
    return "".join(out).encode("utf-8", "surrogateescape")


_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)


def _element(text: bytes, at: int, delimiter: int) -> tuple[bytes | None, int]:
    """The element of an array literal that begins at ``at``, and where it ends."""
    if text[at] == 0x22:
        match = _QUOTED.match(text, at)
        if match is None:
            raise ValueError(f"not an array of Postgres: {text[:60]!r}")
        return _ESCAPE.sub(rb"\1", match[1]), match.end()
    end = at
    while end < len(text) and text[end] not in (delimiter, 0x7D):
        end += 1
    raw = text[at:end]
    return (None if raw == b"NULL" else raw), end
