"""Readers of Avro bytes that give native values: the inverse of `cdc.codec.avro_binary`'s writers.

Every reader takes ``(buf, p)`` and returns the value and the place behind it, as in `cdc.codec.avro_varint`. It may
raise `IndexError`, `ValueError` or `struct.error` for bytes that are no value, and may read beyond the end of the
buffer: who ends there must look.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

from cdc.codec.avro_varint import read_length, read_long

__all__ = ["PRIMITIVES", "Reader", "array", "enum", "fixed", "mapping", "nullable", "record", "single", "sum_type"]

Reader = Callable[[bytes, int], "tuple[Any, int]"]

_float: Final = struct.Struct("<f").unpack_from
_double: Final = struct.Struct("<d").unpack_from


def _boolean(buf: bytes, p: int) -> tuple[bool, int]:
    if buf[p] > 1:
        raise ValueError(f"{buf[p]} is no boolean")
    return buf[p] == 1, p + 1


def _int(buf: bytes, p: int) -> tuple[int, int]:
    value, p = read_long(buf, p)
    if not -(2**31) <= value < 2**31:
        raise ValueError(f"{value} is no int of 32 bits")
    return value, p


def _bytes(buf: bytes, p: int) -> tuple[bytes, int]:
    size, p = read_length(buf, p)
    return buf[p : p + size], p + size


def _string(buf: bytes, p: int) -> tuple[str, int]:
    size, p = read_length(buf, p)
    return buf[p : p + size].decode("utf-8"), p + size


def _branch(buf: bytes, p: int, count: int) -> tuple[int, int]:
    """The number of one of ``count`` branches or symbols."""
    index, p = read_long(buf, p)
    if not 0 <= index < count:
        raise ValueError(f"there is no branch or symbol {index} of {count}")
    return index, p


PRIMITIVES: Final[dict[str, Reader]] = {
    "boolean": _boolean,
    "int": _int,
    "long": read_long,
    "float": lambda buf, p: (_float(buf, p)[0], p + 4),
    "double": lambda buf, p: (_double(buf, p)[0], p + 8),
    "bytes": _bytes,
    "string": _string,
}


def fixed(size: int) -> Reader:
    return lambda buf, p: (buf[p : p + size], p + size)


def enum(symbols: Sequence[str]) -> Reader:
    def read(buf: bytes, p: int) -> tuple[str, int]:
        index, p = _branch(buf, p, len(symbols))
        return symbols[index], p

    return read


def record(fields: Sequence[tuple[str, Reader]]) -> Reader:
    def read(buf: bytes, p: int) -> tuple[dict[str, Any], int]:
        struct: dict[str, Any] = {}
        for name, field in fields:
            struct[name], p = field(buf, p)
        return struct, p

    return read


def nullable(branch: int, base: Reader) -> Reader:
    """A union of null and one type, which is its ``branch``."""

    def read(buf: bytes, p: int) -> tuple[Any, int]:
        index, p = _branch(buf, p, 2)
        return base(buf, p) if index == branch else (None, p)

    return read


def single(base: Reader) -> Reader:
    """A union of one type."""

    return lambda buf, p: base(buf, _branch(buf, p, 1)[1])


def sum_type(branches: Sequence[tuple[str, Reader] | None]) -> Reader:
    """Any other union, as a struct with a field for each type; ``None`` stands for null."""
    names = [branch[0] for branch in branches if branch]

    def read(buf: bytes, p: int) -> tuple[Any, int]:
        index, p = _branch(buf, p, len(branches))
        branch = branches[index]
        if branch is None:
            return None, p
        struct: dict[str, Any] = dict.fromkeys(names)
        struct[branch[0]], p = branch[1](buf, p)
        return struct, p

    return read


def array(item: Reader) -> Reader:
    def read(buf: bytes, p: int) -> tuple[list[Any], int]:
        items = []
        count, p = _block(buf, p)
        while count:
            for _ in range(count):
                value, p = item(buf, p)
                items.append(value)
            count, p = _block(buf, p)
        return items, p

    return read


def mapping(key: Reader, value: Reader, *, as_dict: bool = True) -> Reader:
    """A map, or the array of entries that stands for one; its keys are no keys of a dict where ``as_dict`` is false."""
    pairs = array(record((("key", key), ("value", value))))

    def read(buf: bytes, p: int) -> tuple[Any, int]:
        entries, p = pairs(buf, p)
        if as_dict:
            return {entry["key"]: entry["value"] for entry in entries}, p
        return [(entry["key"], entry["value"]) for entry in entries], p

    return read


def _block(buf: bytes, p: int) -> tuple[int, int]:
    """How many items follow. A negative count says that their size in bytes does, too."""
    count, p = read_long(buf, p)
    if count < 0:
        _, p = read_long(buf, p)
        count = -count
    if count > len(buf):
        raise ValueError(f"a block of {count} items in {len(buf)} bytes")
    return count, p
