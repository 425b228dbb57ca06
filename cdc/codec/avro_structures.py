"""Debezium's records and arrays that stand for one value of Postgres's: points, geometries, vectors.

They are rare and small enough to be read into Python values first. Fields are found by name: other versions of Debezium
have more of them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Set
from typing import Any, Final

from cdc.codec.avro_schema import Node
from cdc.codec.avro_varint import read_block, read_length, read_long
from cdc.codec.canonical_floats import float4_text, float8_text
from cdc.codec.structures import single_text

__all__ = ["structure_text", "whole_text"]

_Native = Callable[[bytes, int], "tuple[Any, int]"]
_MOST_LEVELS: Final = 8
_float: Final = struct.Struct("<f").unpack_from
_double: Final = struct.Struct("<d").unpack_from


def whole_text(node: Node) -> Callable[[bytes, int], tuple[bytes, int]]:
    """A reader of the canonical text of a value of ``node``: Postgres's own text. `ValueError` for a schema that lacks
    what the text needs."""
    names = {name for name, _ in node.fields} if node.type == "record" else None
    show = structure_text(node.connect_name, node.kind, names)
    native = _native(node)

    def read(buf: bytes, p: int) -> tuple[bytes, int]:
        value, p = native(buf, p)
        return show(value), p

    return read


def structure_text(connect_name: str, kind: str, names: Set[str] | None) -> Callable[[Any], bytes]:
    """The canonical text of Python values of a structure of `STRUCTURES`: a record with the fields ``names`` as a dict,
    or a list; maps as lists of ``key`` and ``value``. `ValueError` if a field is not there."""
    show, needed = _SHOWN[kind]
    if names is not None and not needed <= names:
        raise ValueError(f"{connect_name} without the fields {', '.join(sorted(needed))}")
    return show


def _point(value: dict[str, Any]) -> bytes:
    return b"(%b,%b)" % (float8_text(value["x"]), float8_text(value["y"]))


def _geometry(value: dict[str, Any]) -> bytes:
    text: str = value["wkb"].hex()
    return text.upper().encode()


def _vector(value: list[float]) -> bytes:
    return b"[" + b",".join(map(single_text, value)) + b"]"


def _half_vector(value: list[float]) -> bytes:
    return b"[" + b",".join(map(float4_text, value)) + b"]"


def _sparse(value: dict[str, Any]) -> bytes:
    pairs = (b"%d:%b" % (entry["key"], single_text(entry["value"])) for entry in value["vector"])
    return b"{%b}/%d" % (b",".join(pairs), value["dimensions"])


_SHOWN: Final[dict[str, tuple[Callable[[Any], bytes], set[str]]]] = {
    "point": (_point, {"x", "y"}),
    "geometry": (_geometry, {"wkb"}),
    "geography": (_geometry, {"wkb"}),
    "vector": (_vector, set()),
    "halfvec": (_half_vector, set()),
    "sparsevec": (_sparse, {"dimensions", "vector"}),
}


def _native(node: Node, level: int = 0) -> _Native:
    """A reader of Python values: records as dicts, arrays as lists, text as bytes."""
    if level > _MOST_LEVELS:
        raise ValueError(f"a schema of more than {_MOST_LEVELS} levels, or one that contains itself")
    match node.type:
        case "null":
            return lambda buf, p: (None, p)  # noqa: ARG005 - the shape of all readers
        case "int" | "long":
            return read_long
        case "float":
            return lambda buf, p: (_float(buf, p)[0], p + 4)
        case "double":
            return lambda buf, p: (_double(buf, p)[0], p + 8)
        case "bytes" | "string":
            return _sized
        case "union":
            return _union([_native(branch, level + 1) for branch in node.branches])
        case "record":
            return _record([(name, _native(part, level + 1)) for name, part in node.fields])
        case "array" | "map" if node.items is not None:
            item = _native(node.items, level + 1)
            return _items(item if node.type == "array" else _record([("key", _sized), ("value", item)]))
    raise ValueError(f"no part of {node.type} in a structure of Debezium's")


def _sized(buf: bytes, p: int) -> tuple[bytes, int]:
    size, p = read_length(buf, p)
    return buf[p : p + size], p + size


def _union(branches: list[_Native]) -> _Native:
    def read(buf: bytes, p: int) -> tuple[Any, int]:
        index, p = read_long(buf, p)
        if not 0 <= index < len(branches):
            raise ValueError(f"branch {index} of a union of {len(branches)}")
        return branches[index](buf, p)

    return read


def _record(fields: list[tuple[str, _Native]]) -> _Native:
    def read(buf: bytes, p: int) -> tuple[Any, int]:
        value = {}
        for name, part in fields:
            value[name], p = part(buf, p)
        return value, p

    return read


def _items(item: _Native) -> _Native:
    def read(buf: bytes, p: int) -> tuple[Any, int]:
        values = []
        count, p = read_block(buf, p)
        while count:
            for _ in range(count):
                value, p = item(buf, p)
                values.append(value)
            count, p = read_block(buf, p)
        return values, p

    return read
