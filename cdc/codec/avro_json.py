"""Readers of single Avro values at a place in a buffer: whole values, nested values as JSON.

For what is too rare or too varied to be worth generated code (`cdc.codec.avro_fields`). Every reader takes ``(buf, p)``
and returns the value and the place behind it. A reader may return a place behind the end of the buffer; whoever
reads on gets an `IndexError`, whoever ends there must look. `ValueError` or `IndexError` for bytes that are no value.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from cdc.codec.avro_schema import VARIABLE_SCALE_DECIMAL, Node
from cdc.codec.avro_structures import whole_text
from cdc.codec.avro_varint import read_block, read_length, read_long
from cdc.codec.canonical import json_string
from cdc.codec.canonical_values import unscaled_text

__all__ = ["json_reader", "skipper", "value_reader"]

_NOT_NUMBERS: Final = frozenset({b"NaN", b"Infinity", b"-Infinity"})
_BOOLS: Final = (False, True)
_float: Final = struct.Struct("<f").unpack_from
_double: Final = struct.Struct("<d").unpack_from

Reader = Callable[[bytes, int], "tuple[bytes, int]"]
JsonReader = Callable[[bytes, int], "tuple[str, int]"]
Skipper = Callable[[bytes, int], int]


def _advanced(size: int, count: int) -> None:
    """Items without a byte of their own (nulls, empty records) could be claimed without end."""
    if size < count:
        raise ValueError(f"{count} items in {size} bytes")


def value_reader(node: Node) -> Reader:
    """A reader of one value's canonical text. Not for unions."""
    text = node.text
    if node.connect_name == VARIABLE_SCALE_DECIMAL:
        return _variable_scale
    if node.whole:
        return whole_text(node)
    if node.type == "enum":
        return lambda buf, p: _enum(buf, p, node.symbols)
    if text is None:
        nested = json_reader(node)

        def as_json(buf: bytes, p: int) -> tuple[bytes, int]:
            value, p = nested(buf, p)
            return value.encode("utf-8", "surrogateescape"), p

        return as_json
    if node.type in ("int", "long"):

        def integer(buf: bytes, p: int) -> tuple[bytes, int]:
            n, p = read_long(buf, p)
            return text(n), p

        return integer
    if node.type in ("bytes", "string"):

        def sized(buf: bytes, p: int) -> tuple[bytes, int]:
            n, p = read_length(buf, p)
            return text(buf[p : p + n]), p + n

        return sized
    if node.type == "fixed":
        return lambda buf, p: (text(_exactly(buf, p, node.size)), p + node.size)
    if node.type == "boolean":
        return lambda buf, p: (text(_BOOLS[buf[p]]), p + 1)
    if node.type == "float":
        return lambda buf, p: (text(_float(buf, p)[0]), p + 4)
    if node.type == "double":
        return lambda buf, p: (text(_double(buf, p)[0]), p + 8)
    raise TypeError(f"no value of type {node.type}")


def _exactly(buf: bytes, p: int, size: int) -> bytes:
    if len(buf) - p < size:
        raise ValueError(f"{len(buf) - p} bytes left of {size}")
    return buf[p : p + size]


def _enum(buf: bytes, p: int, symbols: tuple[bytes, ...]) -> tuple[bytes, int]:
    n, p = read_long(buf, p)
    if not 0 <= n < len(symbols):
        raise ValueError(f"symbol {n} of {len(symbols)}")
    return symbols[n], p


def _variable_scale(buf: bytes, p: int) -> tuple[bytes, int]:
    scale, p = read_long(buf, p)
    if not -20_000 <= scale <= 20_000:  # Postgres's numeric ends at 16383
        raise ValueError(f"a decimal of scale {scale}")
    n, p = read_length(buf, p)
    return unscaled_text(int.from_bytes(buf[p : p + n], "big", signed=True), scale), p + n


def json_reader(node: Node, depth: int = 0) -> JsonReader:
    """A reader of one value as JSON without spaces (`cdc.codec.canonical` says how)."""
    if depth > 32:
        raise ValueError("a schema of more than 32 levels, or one that contains itself")
    if node.type == "null":
        return lambda buf, p: ("null", p)  # noqa: ARG005 - the shape of all readers
    if node.type == "union":
        branches = [json_reader(branch, depth + 1) for branch in node.branches]

        def union(buf: bytes, p: int) -> tuple[str, int]:
            index, p = read_long(buf, p)
            if not 0 <= index < len(branches):
                raise ValueError(f"branch {index} of a union of {len(branches)}")
            return branches[index](buf, p)

        return union
    if node.type == "array" and node.items is not None and not node.whole:
        item = json_reader(node.items, depth + 1)
        return lambda buf, p: _items(buf, p, item)
    if node.type == "map" and node.items is not None:
        return _map(json_reader(node.items, depth + 1))
    if node.type == "record" and not node.whole:
        return _record([(json_string(name.encode()), json_reader(part, depth + 1)) for name, part in node.fields])
    read, bare = value_reader(node), node.bare

    def scalar(buf: bytes, p: int) -> tuple[str, int]:
        value, p = read(buf, p)
        return (value.decode("ascii") if bare and value not in _NOT_NUMBERS else json_string(value)), p

    return scalar


def _items(buf: bytes, p: int, item: JsonReader) -> tuple[str, int]:
    out: list[str] = []
    count, p = read_block(buf, p)
    while count:
        begin = p
        for _ in range(count):
            value, p = item(buf, p)
            out.append(value)
        _advanced(p - begin, count)
        count, p = read_block(buf, p)
    return f"[{','.join(out)}]", p


def _map(value_of: JsonReader) -> JsonReader:
    def entry(buf: bytes, p: int) -> tuple[str, int]:
        n, p = read_length(buf, p)
        name = json_string(buf[p : p + n])
        value, p = value_of(buf, p + n)
        return f"{name}:{value}", p

    def entries(buf: bytes, p: int) -> tuple[str, int]:
        text, p = _items(buf, p, entry)
        return "{" + text[1:-1] + "}", p

    return entries


def _record(fields: list[tuple[str, JsonReader]]) -> JsonReader:
    def record(buf: bytes, p: int) -> tuple[str, int]:
        out: list[str] = []
        for name, read in fields:
            value, p = read(buf, p)
            out.append(f"{name}:{value}")
        return "{" + ",".join(out) + "}", p

    return record


def skipper(node: Node, depth: int = 0) -> Skipper:
    """A function that steps over one value."""
    if depth > 32:
        raise ValueError("a schema of more than 32 levels, or one that contains itself")
    if node.type == "null":
        return lambda buf, p: p  # noqa: ARG005 - the shape of all skippers
    if node.type in ("int", "long", "enum"):
        return lambda buf, p: read_long(buf, p)[1]
    if node.type in ("bytes", "string"):
        return lambda buf, p: sum(read_length(buf, p))
    if node.type in ("boolean", "float", "double", "fixed"):
        width = {"boolean": 1, "float": 4, "double": 8}.get(node.type, node.size)
        return lambda buf, p: p + width  # noqa: ARG005 - the shape of all skippers
    if node.type == "record":
        return _all([skipper(part, depth + 1) for _, part in node.fields])
    if node.type == "union":
        branches = [skipper(branch, depth + 1) for branch in node.branches]

        def union(buf: bytes, p: int) -> int:
            index, p = read_long(buf, p)
            if not 0 <= index < len(branches):
                raise ValueError(f"branch {index} of a union of {len(branches)}")
            return branches[index](buf, p)

        return union
    if node.items is None:
        raise TypeError(f"no value of type {node.type}")
    item = skipper(node.items, depth + 1)
    if node.type == "map":
        text = skipper(Node("string"))
        item = _all([text, item])

    def items(buf: bytes, p: int) -> int:
        count, p = read_block(buf, p)
        while count:
            begin = p
            for _ in range(count):
                p = item(buf, p)
            _advanced(p - begin, count)
            count, p = read_block(buf, p)
        return p

    return items


def _all(parts: list[Skipper]) -> Skipper:
    def skip(buf: bytes, p: int) -> int:
        for part in parts:
            p = part(buf, p)
        return p

    return skip
