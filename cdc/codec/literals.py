"""Postgres's literals of composed values, taken apart: arrays, rows, hstore, ranges. Parts keep Postgres's own text.

The forms are those that Postgres prints. `ValueError` for everything else.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

from cdc.codec.inexact import quoted

__all__ = [
    "Nested",
    "array_text",
    "hstore_pairs",
    "multirange_parts",
    "parse_array",
    "range_parts",
    "row_fields",
]

Nested: TypeAlias = "list[Nested] | bytes | None"
"""An element's text, ``None`` for NULL, or the elements of one dimension."""

_BOUNDS: Final = re.compile(rb"(?:\[[+-]?\d+:[+-]?\d+\])+=")
_ESCAPE: Final = re.compile(rb"\\(.)", re.DOTALL)
_DOUBLED: Final = re.compile(rb'\\(.)|""', re.DOTALL)
_FIELD: Final = re.compile(rb'(?:"((?:[^"\\]|\\.|"")*)"|([^,()"\\]*))([,)])', re.DOTALL)
_PAIR: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"=>(?:"((?:[^"\\]|\\.)*)"|NULL)(?:, |$)', re.DOTALL)
_RANGE: Final = re.compile(
    rb'(?:([\[(])(?:"((?:[^"\\]|\\.|"")*)"|([^,()\[\]"\\]*)),(?:"((?:[^"\\]|\\.|"")*)"|([^,()\[\]"\\]*))([\])])|empty)',
    re.DOTALL,
)


def _token(delimiter: bytes) -> re.Pattern[bytes]:
    mark = re.escape(delimiter)
    return re.compile(rb'"((?:[^"\\]|\\.)*)"|([^' + mark + rb'{}"\\]+)|([{}' + mark + rb"])", re.DOTALL)


_TOKENS: Final = {mark: _token(mark) for mark in (b",", b";", b":")}


def parse_array(text: bytes, delimiter: str = ",") -> tuple[bytes, list[Nested]]:
    """An array's bounds as printed (``[0:1]=``; empty where all are 1) and its elements, dimension within dimension."""
    mark = delimiter.encode()
    tokens = _TOKENS.get(mark) or _token(mark)
    prefix = _BOUNDS.match(text)
    at = prefix.end() if prefix else 0
    outer: list[Nested] = []
    open_: list[list[Nested]] = [outer]
    ready = True  # an element or a dimension may begin here
    while at < len(text):
        match = tokens.match(text, at)
        if match is None:
            raise _no_array(text)
        inside, bare, sign = match.groups()
        at = match.end()
        if sign is None:
            if not ready or len(open_) == 1:
                raise _no_array(text)
            unquoted = None if bare == b"NULL" else bare
            open_[-1].append(unquoted if inside is None else _ESCAPE.sub(rb"\1", inside))
            ready = False
        elif sign == b"{":
            if not ready:
                raise _no_array(text)
            inner: list[Nested] = []
            open_[-1].append(inner)
            open_.append(inner)
        elif sign == b"}":
            closed = open_.pop()
            if not open_ or (ready and closed):
                raise _no_array(text)
            ready = False
        else:
            if ready or len(open_) == 1:
                raise _no_array(text)
            ready = True
    if len(open_) != 1 or len(outer) != 1 or not isinstance(outer[0], list):
        raise _no_array(text)
    return prefix[0] if prefix else b"", outer[0]


def _no_array(text: bytes) -> ValueError:
    return ValueError(f"not an array of Postgres: {quoted(text)}")


def array_text(nested: Nested) -> bytes:
    """The literal of an array whose delimiter is a comma; every element in quotes."""
    if nested is None:
        return b"NULL"
    if isinstance(nested, list):
        return b"{" + b",".join(array_text(item) for item in nested) + b"}"
    return b'"' + nested.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def row_fields(text: bytes) -> list[bytes | None]:
    """The fields of a row, ``(1,"a b",)``; one that is not there is NULL. ``()`` is one NULL, or a row of no fields."""
    fields: list[bytes | None] = []
    at, end = 1, b"," if text[:1] == b"(" else b""
    while end == b",":
        match = _FIELD.match(text, at)
        if match is None:
            break
        inside, bare, end = match.groups()
        fields.append((bare or None) if inside is None else _undoubled(inside))
        at = match.end()
    if end != b")" or at != len(text):
        raise ValueError(f"not a row of Postgres: {quoted(text)}")
    return fields


def _undoubled(text: bytes) -> bytes:
    return _DOUBLED.sub(lambda match: match[1] or b'"', text)


def hstore_pairs(text: bytes) -> list[tuple[bytes, bytes | None]]:
    """The pairs of an hstore, in the order in which Postgres prints them."""
    pairs: list[tuple[bytes, bytes | None]] = []
    at = 0
    while at < len(text):
        match = _PAIR.match(text, at)
        if match is None:
            raise ValueError(f"not an hstore of Postgres: {quoted(text)}")
        key, value = match.groups()
        pairs.append((_ESCAPE.sub(rb"\1", key), None if value is None else _ESCAPE.sub(rb"\1", value)))
        at = match.end()
    return pairs


def range_parts(text: bytes) -> tuple[bytes, bytes | None, bytes | None] | None:
    """Bounds (``[)`` and the like), lower and upper end (``None``: infinite) of a range; ``None`` for ``empty``."""
    match = _RANGE.fullmatch(text)
    if match is None:
        raise ValueError(f"not a range of Postgres: {quoted(text)}")
    return _range(match)


def _range(match: re.Match[bytes]) -> tuple[bytes, bytes | None, bytes | None] | None:
    left, quoted_lower, lower, quoted_upper, upper, right = match.groups()
    if left is None:
        return None
    return (
        left + right,
        (lower or None) if quoted_lower is None else _undoubled(quoted_lower),
        (upper or None) if quoted_upper is None else _undoubled(quoted_upper),
    )


def multirange_parts(text: bytes) -> list[tuple[bytes, bytes | None, bytes | None]]:
    """The ranges of a multirange, as `range_parts` has them."""
    parts = []
    at, end = 1, len(text) - 1
    while at < end:
        match = _RANGE.match(text, at, end)
        part = _range(match) if match else None
        if match is None or part is None or (match.end() < end and text[match.end() : match.end() + 1] != b","):
            break
        parts.append(part)
        at = match.end() + 1
    if text[:1] != b"{" or text[-1:] != b"}" or len(text) < 2 or (parts and at != end + 1) or (not parts and end != 1):
        raise ValueError(f"not a multirange of Postgres: {quoted(text)}")
    return parts
