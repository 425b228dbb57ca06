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
"char"             the character; a byte that is no ASCII as ``\\303`` (three octal digits)
date               ``2026-01-31``
time               ``12:00:00.5``; the fraction has no trailing zeros, here and below
timetz             ``10:00:00Z``, moved to UTC
timestamp          ``2026-01-31T12:00:00.123456``
timestamptz        ``2026-01-31T12:00:00.123456Z``
interval           ISO 8601 duration as with ``IntervalStyle = iso_8601``: ``P1Y2M3DT4H5M6.7S``, ``PT0S``
bytea              base64
hstore             JSON object of strings and nulls, without spaces
arrays             JSON without spaces: finite numbers and booleans bare, arrays and composites nested,
                   anything else a JSON string with the canonical text of the element, NULL ``null``
composites         JSON object without spaces, attribute → value as in arrays
all others         Postgres's text: text kinds, uuid, enums, json and jsonb as stored, ranges, ...
=================  ==================================================================================

Values outside these forms keep Postgres's spelling, which no value inside them has: ``infinity``, years
BC or over 9999, ``24:00:00`` with a zone, arrays whose lower bounds are not 1.

This module starts from text that a session with ``DateStyle ISO, IntervalStyle postgres, TimeZone UTC,
bytea_output hex, lc_monetary C, client_encoding UTF8`` printed. `cdc.codec.canonical_values` makes the same text from
Avro values, on its own; that both agree is tested against real servers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

from cdc.codec.canonical_scalars import (
    NUMBER,
    NUMBERS,
    PRINTERS,
    Text,
    bool_text,
    interval_text,
    json_string,
    same,
)
from cdc.codec.literals import Nested, parse_array, row_fields

__all__ = ["ArrayOf", "CanonicalType", "RowOf", "from_postgres", "json_string", "typed"]


@dataclass(frozen=True, slots=True)
class ArrayOf:
    """An array, of any number of dimensions. ``delimiter`` is ``pg_type.typdelim`` of the elements."""

    element: CanonicalType
    delimiter: str = ","


@dataclass(frozen=True, slots=True)
class RowOf:
    """A composite: names and types of its attributes, in their order."""

    fields: tuple[tuple[str, CanonicalType], ...]


CanonicalType: TypeAlias = str | ArrayOf | RowOf
"""A type by name, as in ``pg_type.typname`` or as ``format_type`` prints it (``_int4``, ``integer[]``,
``timestamp(3) with time zone``), or by its parts. A domain is given as its base type."""


def from_postgres(type_name: CanonicalType, text: bytes | None) -> bytes | None:
    """The canonical text of a value of type ``type_name`` that Postgres prints as ``text``; ``None`` for NULL.

    A type that is not in the table above counts as text. `ValueError` when ``text`` is not what the type prints under
    the settings above.
    """
    return None if text is None else _printer(type_name)(text)


_ALIASES: Final = {
    "boolean": "bool",
    '"char"': "char",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
    "time without time zone": "time",
    "time with time zone": "timetz",
    "double precision": "float8",
}
_MODIFIER = re.compile(r"\(\s*-?\d+\s*(?:,\s*-?\d+\s*)?\)")
_ONE_BIT = frozenset({"bit(1)", "bit varying(1)", "varbit(1)"})
_DELIMITERS: Final = {"box": ";", "geometry": ":", "geography": ":"}


def typed(name: str) -> CanonicalType:
    """What a type's name says: an `ArrayOf`, or the name itself in short, without modifiers but that of ``bit(1)``."""
    name = name.strip().removeprefix("pg_catalog.")
    element = name.removesuffix("[]") if name.endswith("[]") else name[1:] if name.startswith("_") else None
    if element is not None:
        inner = typed(element)
        return ArrayOf(inner, _DELIMITERS.get(inner, ",") if isinstance(inner, str) else ",")
    if name.startswith("interval"):
        return "interval"
    if name in _ONE_BIT:
        return "bit(1)"
    plain = " ".join(_MODIFIER.sub("", name).split())
    return _ALIASES.get(plain, plain)


@lru_cache(maxsize=4096)
def _printer(type_name: CanonicalType) -> Text:
    if isinstance(type_name, str):
        type_name = typed(type_name)
    if isinstance(type_name, str):
        if type_name == "interval":
            return interval_text
        return bool_text if type_name == "bit(1)" else PRINTERS.get(type_name, same)
    if isinstance(type_name, RowOf):
        row = _row(type_name)
        return lambda text: row(text).encode("utf-8", "surrogateescape")
    array = _array(type_name)

    def nested(text: bytes) -> bytes:
        if text[:1] != b"{":  # lower bounds that are not 1, for which JSON has no place; or no array at all
            return text
        return array(text).encode("utf-8", "surrogateescape")

    return nested


_Json = Callable[[bytes], str]


def _json(type_name: CanonicalType) -> _Json:
    """The printer of a value within JSON."""
    if isinstance(type_name, str):
        type_name = typed(type_name)
    if isinstance(type_name, RowOf):
        return _row(type_name)
    printer = _printer(type_name)
    if isinstance(type_name, ArrayOf):
        array, element = _array(type_name), _json(type_name.element)
        # What is no array is an element of a further dimension.
        return lambda text: (array if text[:1] == b"{" else json_string if text[:1] == b"[" else element)(text)
    if printer is bool_text:
        return lambda text: printer(text).decode("ascii")
    if type_name.split(" ", maxsplit=1)[0] not in NUMBERS:
        return lambda text: json_string(printer(text))

    def number(text: bytes) -> str:
        value = printer(text)
        return value.decode("ascii") if NUMBER.fullmatch(value) else json_string(value)

    return number


def _array(array: ArrayOf) -> _Json:
    element, delimiter = _json(array.element), array.delimiter

    def dump(nested: Nested) -> str:
        if nested is None:
            return "null"
        return f"[{','.join(map(dump, nested))}]" if isinstance(nested, list) else element(nested)

    return lambda text: dump(parse_array(text, delimiter)[1])


def _row(row: RowOf) -> _Json:
    members = [(json_string(name.encode()) + ":", _json(kind)) for name, kind in row.fields]

    def dump(text: bytes) -> str:
        fields = row_fields(text)
        if not members and fields == [None]:
            fields = []
        if len(fields) != len(members):
            raise ValueError(f"a row of {len(fields)} fields where its type has {len(members)} attributes")
        parts = (
            name + ("null" if field is None else print_(field))
            for (name, print_), field in zip(members, fields, strict=True)
        )
        return "{" + ",".join(parts) + "}"

    return dump
