"""Python values from the hashes that the Redis sink writes.

A mirrored row is a hash of texts, one canonical text per type (docs/types.md). An application that knows the types of
its columns gets values back with redis-py and this module::

    >>> from cdc import reader
    >>> USERS = {"id": "bigint", "name": "text", "spent": "numeric", "seen": "timestamptz", "tags": "text[]"}
    >>> fields = {b"id": b"7", b"name": b"Ada", b"spent": b"12.50", b"tags": b'["a",null]'}  # client.hgetall("users:7")
    >>> reader.read(fields, USERS)
    {'id': 7, 'name': 'Ada', 'spent': Decimal('12.50'), 'seen': None, 'tags': ['a', None]}
    >>> reader.parse("2026-01-31T12:00:00.5Z", "timestamptz")
    datetime.datetime(2026, 1, 31, 12, 0, 0, 500000, tzinfo=datetime.timezone.utc)
    >>> reader.parse("infinity", "timestamptz")
    'infinity'

Types are names as in ``pg_type.typname`` or as ``\\d`` of psql shows them; ``X[]`` is an array of any number of
dimensions; a domain is given as its base type, an enum and any type that is not listed here as ``text``. Composites are
a `RowOf`. `column_types` takes them all from the Avro schema of the topic instead.

==================================  ===========================================================================
type                                value
==================================  ===========================================================================
integers, oid, xid, xid8, cid       ``int``
numeric, money                      ``Decimal``, with the scale that Postgres prints; ``NaN`` and infinities too
float4, float8                      ``float``
bool, bit(1)                        ``bool``
bytea                               ``bytes``
date, time, timestamp               ``date``, ``time``, ``datetime`` without zone
timetz, timestamptz                 ``time``, ``datetime`` in UTC
interval                            `Interval`
uuid                                ``UUID``
json, jsonb                         what JSON has; numbers with a point or an exponent as ``Decimal``
inet, cidr                          ``ip_address`` or, with a mask, ``ip_interface``; ``ip_network``
ranges, multiranges                 `Range`; list of `Range`
point                               ``(x, y)``
hstore                              ``dict`` of ``str | None``
vector, halfvec                     list of ``float``
geometry, geography                 ``bytes`` (EWKB)
arrays, composites                  ``list``, ``dict``
all others                          ``str``
==================================  ===========================================================================

What Python's types cannot hold comes as its text, as Postgres spells it: ``infinity``, years BC and over 9999,
``24:00:00``, arrays whose lower bounds are not 1.
"""

from __future__ import annotations

import binascii
import ipaddress
import json
import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Final, NamedTuple
from uuid import UUID

from cdc.codec.avro_fields import compile_fields
from cdc.codec.canonical import ArrayOf, CanonicalType, RowOf, from_postgres, typed
from cdc.codec.literals import multirange_parts, range_parts

__all__ = ["ArrayOf", "CanonicalType", "Interval", "Range", "RowOf", "column_types", "parse", "read"]


_VERSION: Final = "__cdc:version"
"""Not a column: what the sink writes into the hashes of a cluster (docs/redis.md)."""


class Interval(NamedTuple):
    """An interval as Postgres keeps it. Months and days have no fixed length, so the parts stay apart."""

    months: int
    days: int
    microseconds: int


@dataclass(frozen=True, slots=True)
class Range:
    """A range. ``None`` is an infinite end; ``bounds`` is ``[)`` and the like, ``""`` for the empty range."""

    lower: Any
    upper: Any
    bounds: str = "[)"


def read(fields: Mapping[Any, Any], types: Mapping[str, CanonicalType]) -> dict[str, Any] | None:
    """The row of a hash, as ``hgetall`` answers it (names and values as bytes or text).

    Columns of ``types``, in their order, with ``None`` for NULL; then, as text, the fields that ``types`` does not
    name. ``None`` when there is no such hash. `ValueError` names the column whose text is none of its type.
    """
    if not fields:
        return None
    texts = {_text(name): _text(value) for name, value in fields.items()}
    texts.pop(_VERSION, None)
    row: dict[str, Any] = {}
    for name, type_ in types.items():
        text = texts.pop(name, None)
        try:
            row[name] = None if text is None else parse(text, type_)
        except ValueError as error:
            raise ValueError(f"column {name!r}: {error}") from None
    return row | texts


def parse(text: bytes | str, type_: CanonicalType) -> Any:
    """The value of a canonical text. `ValueError` when the type has no such text."""
    text = _text(text)
    try:
        return _parser(type_)(text)
    except (ValueError, InvalidOperation, TypeError):
        raise ValueError(f"not the canonical text of a value of type {type_}: {text[:80]!r}") from None


def column_types(schema: str) -> dict[str, CanonicalType]:
    """Column → type, from the Avro schema of a topic's values (an envelope or a record of columns).

    `cdc.errors.DataError` when the text is no such schema.
    """
    return {name.decode(): kind for name, kind in compile_fields(schema).kinds.items()}


_Parse = Callable[[str], Any]


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


@lru_cache(maxsize=4096)
def _parser(type_: CanonicalType) -> _Parse:
    if isinstance(type_, str):
        type_ = typed(type_)
    if isinstance(type_, str):
        return _PARSERS.get(type_.split("(", maxsplit=1)[0], str) if type_ != "bit(1)" else _bool
    return lambda text: _structure(type_, text)


# --- numbers, bytes, json --------------------------------------------------------------------------------

_LONGEST_INT: Final = 4000
"""Python refuses to read integers of more than 4300 digits."""


_BOOLS: Final = {"true": True, "false": False}


def _int(text: str) -> int:
    if not (text.isascii() and text.removeprefix("-").isdigit()):
        raise ValueError(text)
    return int(text) if len(text) < _LONGEST_INT else int(Decimal(text))


def _bool(text: str) -> bool:
    if text not in _BOOLS:
        raise ValueError(text)
    return _BOOLS[text]


def _bytes(text: str) -> bytes:
    return b64decode(text, validate=True)


def _json(text: str) -> Any:
    return json.loads(text, parse_float=Decimal, parse_int=_int)


def _structure(type_: CanonicalType, text: str) -> Any:
    """Arrays and composites: JSON, or else Postgres's own spelling."""
    if text[:1] not in ("[", "{") or _BOUNDS.match(text):
        return text
    return _member(type_, json.loads(text, parse_float=str, parse_int=str))


def _member(type_: CanonicalType, value: Any) -> Any:
    """A value within JSON. A list is a dimension of an array, or an element that is an array itself; all numbers and
    texts in it are of its innermost type, but an array with bounds of its own is text."""
    if isinstance(type_, str):
        type_ = typed(type_)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(type_, ArrayOf) and not (isinstance(value, str) and _BOUNDS.match(value)):
        return [_member(type_, item) for item in value] if isinstance(value, list) else _member(type_.element, value)
    if isinstance(value, dict):
        fields = dict(type_.fields) if isinstance(type_, RowOf) else {}
        return {name: _member(fields.get(name, "text"), item) for name, item in value.items()}
    return _parser(type_)(value)


_BOUNDS: Final = re.compile(r"(?:\[-?\d+:-?\d+\])+=")


# --- dates and times -------------------------------------------------------------------------------------

_OUTSIDE: Final = re.compile(r"-?infinity|.* BC|\d{5,}-\d\d-\d\d.*")
"""Postgres's spelling of dates and times that Python's types cannot hold."""
_INTERVAL: Final = re.compile(
    r"P(?:(-?\d+)Y)?(?:(-?\d+)M)?(?:(-?\d+)D)?(?:T(?:(-?\d+)H)?(?:(-?\d+)M)?(?:(-?)(\d+)(?:\.(\d{1,6}))?S)?)?"
)


def _date(text: str) -> date | str:
    return text if _OUTSIDE.fullmatch(text) else date.fromisoformat(text)


def _time(text: str) -> time | str:
    return text if text.startswith("24:") else time.fromisoformat(text)


def _datetime(text: str) -> datetime | str:
    return text if _OUTSIDE.fullmatch(text) else datetime.fromisoformat(text)


def _timetz(text: str) -> time | str:
    return text if text.startswith("24:") else time.fromisoformat(text).replace(tzinfo=UTC)


def _timestamptz(text: str) -> datetime | str:
    return text if _OUTSIDE.fullmatch(text) else datetime.fromisoformat(text).astimezone(UTC)


def _interval(text: str) -> Interval | str:
    if text in ("infinity", "-infinity"):
        return text
    match = _INTERVAL.fullmatch(text)
    if match is None:
        raise ValueError(text)
    years, months, days, hours, minutes, minus, seconds, fraction = match.groups()
    micros = int(seconds or 0) * 1_000_000 + int((fraction or "").ljust(6, "0"))
    return Interval(
        int(years or 0) * 12 + int(months or 0),
        int(days or 0),
        (int(hours or 0) * 60 + int(minutes or 0)) * 60_000_000 + (-micros if minus else micros),
    )


# --- networks, ranges, vectors ---------------------------------------------------------------------------


def _inet(text: str) -> Any:
    return ipaddress.ip_interface(text) if "/" in text else ipaddress.ip_address(text)


def _range(subtype: str) -> _Parse:
    def parse_range(text: str) -> Range:
        return _bounded(subtype, range_parts(text.encode("utf-8")))

    return parse_range


def _multirange(subtype: str) -> _Parse:
    return lambda text: [_bounded(subtype, part) for part in multirange_parts(text.encode("utf-8"))]


def _bounded(subtype: str, parts: tuple[bytes, bytes | None, bytes | None] | None) -> Range:
    """Ends are in Postgres's own spelling."""
    if parts is None:
        return Range(None, None, "")
    bounds, *ends = (None if part is None else part for part in parts)
    lower, upper = (None if end is None else parse(from_postgres(subtype, end) or b"", subtype) for end in ends)
    return Range(lower, upper, _text(bounds))


def _point(text: str) -> tuple[float, float]:
    if text[:1] != "(" or text[-1:] != ")":
        raise ValueError(text)
    x, y = text[1:-1].split(",")
    return float(x), float(y)


def _vector(text: str) -> list[float]:
    if text[:1] != "[" or text[-1:] != "]":
        raise ValueError(text)
    return [float(item) for item in text[1:-1].split(",")]


_SUBTYPES: Final = {
    "int4": "int4",
    "int8": "int8",
    "num": "numeric",
    "ts": "timestamp",
    "tstz": "timestamptz",
    "date": "date",
}
_PARSERS: Final[dict[str, _Parse]] = {
    **dict.fromkeys(("int2", "int4", "int8", "smallint", "integer", "int", "bigint"), _int),
    **dict.fromkeys(("oid", "xid", "xid8", "cid"), _int),
    **dict.fromkeys(("numeric", "decimal", "money"), Decimal),
    **dict.fromkeys(("float4", "float8", "real"), float),
    "bool": _bool,
    "bytea": _bytes,
    "date": _date,
    "time": _time,
    "timetz": _timetz,
    "timestamp": _datetime,
    "timestamptz": _timestamptz,
    "interval": _interval,
    "uuid": UUID,
    "json": _json,
    "jsonb": _json,
    "hstore": _json,
    "inet": _inet,
    "cidr": ipaddress.ip_network,
    "point": _point,
    "vector": _vector,
    "halfvec": _vector,
    "geometry": binascii.unhexlify,
    "geography": binascii.unhexlify,
    **{f"{name}range": _range(subtype) for name, subtype in _SUBTYPES.items()},
    **{f"{name}multirange": _multirange(subtype) for name, subtype in _SUBTYPES.items()},
}
"""Name of ``pg_type`` → parser; all others are text."""
