"""Values that stay text, bytes, and arrays: from Postgres's text to what Debezium's schemas hold."""

from __future__ import annotations

import binascii
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from typing import Any

from cdc.codec.inexact import Inexact, quoted
from cdc.codec.literals import Nested, array_text, parse_array

__all__ = ["array", "base64_text", "raw_bytes", "utf8", "uuid"]

Reader = Callable[[bytes], Any]

_HEX_SHAPE = bytes(120 if chr(code) in "0123456789abcdef" else code for code in range(256))
_UUID_SHAPE = b"xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"
_ELEMENT = re.compile(rb'(?:"((?:[^"\\]|\\.)*)"|([^,{}"\\]+))(,|$)', re.DOTALL)
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_BOUNDS = re.compile(rb"(?:\[[+-]?\d+:[+-]?\d+\])+=")


def utf8() -> Reader:
    """Text as it is. `ValueError` when it is not UTF-8, which no session with ``client_encoding`` UTF8 sends."""

    def read(text: bytes) -> bytes:
        if not text.isascii():
            text.decode("utf-8")
        return text

    return read


def uuid() -> Reader:
    """uuid: 32 hexadecimal digits in Postgres's (and Java's) grouping, lower case."""

    def read(text: bytes) -> bytes:
        if text.translate(_HEX_SHAPE) != _UUID_SHAPE:
            raise ValueError(f"not a uuid: {quoted(text)}")
        return text

    return read


def raw_bytes() -> Reader:
    """bytea printed with ``bytea_output`` hex → bytes."""

    def read(text: bytes) -> bytes:
        if text[:2] != b"\\x":
            raise ValueError(f"not a bytea printed with bytea_output hex: {quoted(text)}")
        return binascii.unhexlify(text[2:])

    return read


def base64_text(form: str) -> Reader:
    """bytea → UTF-8 text in ``form`` ``base64``, ``base64-url-safe`` (both padded) or ``hex`` (lower case)."""
    to_bytes = raw_bytes()
    encoders: dict[str, Callable[[bytes], bytes]] = {
        "base64": b64encode,
        "base64-url-safe": urlsafe_b64encode,
        "hex": binascii.hexlify,
    }
    encode = encoders[form]
    return lambda text: encode(to_bytes(text))


def array(
    element: Callable[[bytes], Any], optional: bool, delimiter: str = ",", restate: Reader | None = None
) -> Reader:
    """A one-dimensional array → list of what ``element`` reads.

    Inexact: other dimensions than one, lower bounds other than 1, NULL where the element schema is not ``optional``, an
    element that is inexact itself. `ValueError` for text that is not an array's.

    The exact text has elements as text of the schema's type, with commas between them: where the type's own
    ``delimiter`` is another, and where ``restate`` makes such text from Postgres's, it is another text than Postgres's.
    With bounds, which no reader takes apart, it is Postgres's.
    """
    mark = delimiter.encode()
    tokens = _ELEMENT if mark == b"," else re.compile(_ELEMENT.pattern.replace(b",", re.escape(mark)), re.DOTALL)

    def exact_text(text: bytes) -> str:
        if text[:1] == b"{" and (restate is not None or mark != b","):
            nested = parse_array(text, delimiter)[1]
            text = array_text(nested if restate is None else _restated(nested, restate))
        return text.decode("utf-8")

    def read(text: bytes) -> Any:
        bounds = _BOUNDS.match(text)
        body = text[bounds.end() :] if bounds else text
        if body[:1] != b"{" or body[-1:] != b"}" or len(body) < 2:
            raise ValueError(f"not an array: {quoted(text)}")
        inner = body[1:-1]
        if inner[:1] == b"{":
            return Inexact(None, exact_text(text))
        exact, values = bounds is None, []
        for item in _split(inner, mark, tokens) if inner else ():
            value = None if item is None else element(item)
            if isinstance(value, Inexact):
                exact, value = False, value.fallback
            if value is None and not optional:
                return Inexact(None, exact_text(text))
            values.append(value)
        return values if exact else Inexact(values, exact_text(text))

    return read


def _restated(nested: list[Nested], restate: Reader) -> list[Nested]:
    return [
        _restated(item, restate) if isinstance(item, list) else None if item is None else restate(item)
        for item in nested
    ]


def _split(inner: bytes, mark: bytes, tokens: re.Pattern[bytes]) -> list[bytes | None]:
    if b'"' not in inner and b"\\" not in inner and b"{" not in inner and b"}" not in inner:
        items = inner.split(mark)
        if b"" in items:
            raise ValueError(f"not an array: an empty element in {quoted(inner)}")
        return [None if item == b"NULL" else item for item in items]
    items_or_nulls: list[bytes | None] = []
    at = 0
    while True:
        match = tokens.match(inner, at)
        if match is None:
            raise ValueError(f"not an array: {quoted(inner[at:])} is no element")
        inside, bare, end = match.groups()
        if bare is None:
            items_or_nulls.append(_ESCAPE.sub(rb"\1", inside) if b"\\" in inside else inside)
        else:
            items_or_nulls.append(None if bare == b"NULL" else bare)
        at = match.end()
        if not end:
            return items_or_nulls
