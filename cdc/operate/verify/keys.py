"""From the canonical text of a key column, as a key of Redis has it, back to text that Postgres reads. Pure.

The opposite of `cdc.codec.canonical.from_postgres` as far as Postgres does not read the canonical text itself, which it
does for everything but bytea, hstore, arrays and composites.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, urlsafe_b64decode
from typing import Any

from cdc.codec.canonical import ArrayOf, CanonicalType, RowOf, typed

__all__ = ["postgres_text"]

_BOUNDS = re.compile(r"(?:\[-?\d+:-?\d+\])+=")


def postgres_text(type_name: CanonicalType, canonical: bytes) -> str:
    """Text to cast to the column's type. `ValueError` for what is no canonical text of any value."""
    text = canonical.decode("utf-8")
    if "\0" in text:
        raise ValueError("a NUL character, which no value of Postgres has")
    if isinstance(type_name, str):
        type_name = typed(type_name)
    if isinstance(type_name, RowOf) or (isinstance(type_name, ArrayOf) and text.startswith("[")):
        if _BOUNDS.match(text):
            return text
        value = json.loads(text, parse_int=str, parse_float=str)
        if not isinstance(value, dict if isinstance(type_name, RowOf) else list):
            raise ValueError(f"no JSON {'object' if isinstance(type_name, RowOf) else 'array'}: {text[:60]!r}")
        return _text(type_name, value)
    return _text(type_name, text)


def _text(type_: CanonicalType, value: Any) -> str:
    """The text of a value that JSON gave: lists and objects are arrays and rows, all others their canonical text."""
    if isinstance(type_, str):
        type_ = typed(type_)
    if isinstance(type_, ArrayOf) and isinstance(value, list):
        return "{" + type_.delimiter.join(_element(type_, item) for item in value) + "}"
    if isinstance(type_, RowOf) and isinstance(value, dict):
        if value.keys() != {name for name, _ in type_.fields}:
            raise ValueError(f"an object with other members than the row has: {', '.join(value)}")
        return "(" + ",".join(_quoted(kind, value[name]) for name, kind in type_.fields) + ")"
    text = str(value).lower() if isinstance(value, bool) else value
    if not isinstance(text, str):
        raise ValueError(f"a {type(value).__name__} in the place of a single value")  # noqa: TRY004 - the text is bad
    if type_ == "bytea":
        return "\\x" + b64decode(text, validate=True).hex()
    if type_ == "bytea_base64url":
        return "\\x" + urlsafe_b64decode(text).hex()
    if type_ == "bytea_hex":
        return "\\x" + text
    if type_ == "hstore":
        pairs = json.loads(text)
        return ", ".join(f"{_quote(key)}=>{'NULL' if item is None else _quote(item)}" for key, item in pairs.items())
    return text


def _element(array: ArrayOf, item: Any) -> str:
    """One element; a list is a further dimension, unless elements are arrays themselves (domains over arrays)."""
    if item is None:
        return "NULL"
    if isinstance(item, list) and not isinstance(array.element, ArrayOf):
        return _text(array, item)
    return _quoted(array.element, item)


def _quoted(type_: CanonicalType, value: Any) -> str:
    """Text in quotes, as arrays and rows have it; nothing for NULL, as rows have it."""
    return "" if value is None else _quote(_text(type_, value))


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
