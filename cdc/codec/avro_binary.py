"""Avro's binary encoding: integers by table, and writers of native values made from Connect schemas.

The writers are the reference for what `cdc.codec.avro_rows` generates; they follow the Avro schema that
`cdc.codec.connect_avro` gives for the same Connect schema, unions included.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from cdc.record import NO_DEFAULT, Schema

__all__ = ["Writer", "lengths", "long_bytes", "null_bytes", "union_prefix", "writer", "zero"]

Writer = Callable[[Any], bytes]
"""Native value → Avro bytes."""


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


_LAST: Final = [_varint(number) for number in range(1 << 14)]
"""Unsigned numbers of up to 14 bits, complete."""
_MORE: Final = [bytes((number & 127 | 128, number >> 7 | 128)) for number in range(1 << 14)]
"""The lower 14 bits of a number that has more of them."""


def long_bytes(value: int) -> bytes:
    """An Avro ``int`` or ``long``: zigzag, seven bits a byte. ``value`` must fit 64 bits."""
    number = value + value if value >= 0 else -value - value - 1
    if number < 1 << 14:
        return _LAST[number]
    if number < 1 << 28:
        return _MORE[number & 16383] + _LAST[number >> 14]
    if number < 1 << 42:
        return _MORE[number & 16383] + _MORE[number >> 14 & 16383] + _LAST[number >> 28]
    low = _MORE[number & 16383] + _MORE[number >> 14 & 16383] + _MORE[number >> 28 & 16383]
    if number < 1 << 56:
        return low + _LAST[number >> 42]
    return low + _MORE[number >> 42 & 16383] + _LAST[number >> 56]


@cache
def lengths(prefix: bytes) -> tuple[bytes, ...]:
    """``prefix`` and the length that stands before a text or bytes, for all lengths that have an entry."""
    return tuple(prefix + long_bytes(size) for size in range(4096))


def union_prefix(schema: Schema) -> bytes:
    """What stands before a value that is not null: the branch of ``["null", T]`` or ``[T, "null"]``."""
    if not schema.optional:
        return b""
    return b"\x00" if _default_first(schema) else b"\x02"


def null_bytes(schema: Schema) -> bytes:
    """A null of an optional ``schema``."""
    return b"\x02" if _default_first(schema) else b"\x00"


def _default_first(schema: Schema) -> bool:
    return schema.default is not NO_DEFAULT and schema.type != "struct"


def writer(schema: Schema) -> Writer:
    """The writer of native values of ``schema``. Values are trusted to be of its type."""
    prefix, base = union_prefix(schema), _base(schema)
    if not schema.optional:
        return base
    null = null_bytes(schema)
    return lambda value: null if value is None else prefix + base(value)


def _sized(data: bytes) -> bytes:
    return long_bytes(len(data)) + data


def _text(value: str) -> bytes:
    return _sized(value.encode("utf-8"))


_SCALARS: Final[dict[str, Writer]] = {
    "int8": long_bytes,
    "int16": long_bytes,
    "int32": long_bytes,
    "int64": long_bytes,
    "float32": struct.Struct("<f").pack,
    "float64": struct.Struct("<d").pack,
    "boolean": lambda value: b"\x01" if value else b"\x00",
    "string": _text,
    "bytes": _sized,
}


def _base(schema: Schema) -> Writer:
    if schema.type == "struct":
        fields = [(field.name, writer(field.schema)) for field in schema.fields]
        return lambda value: b"".join([write(value[name]) for name, write in fields])
    if schema.type == "array" and schema.values:
        return _blocks(writer(schema.values), lambda value: value)
    if schema.type == "map" and schema.keys and schema.values:
        # Avro's own map and the array of entries that stands for other maps have the same bytes.
        return _blocks(_entry(writer(schema.keys), writer(schema.values)), _pairs)
    return _SCALARS[schema.type]


def _pairs(value: Any) -> Any:
    """The entries of a map, which is a dict, or a list of pairs where keys are none of a dict's."""
    return value.items() if isinstance(value, dict) else value


def _entry(key: Writer, value: Writer) -> Writer:
    return lambda pair: key(pair[0]) + value(pair[1])


def _blocks(item: Writer, items: Callable[[Any], Any]) -> Writer:
    """One block of all items, and the empty block that ends the list."""

    def write(value: Any) -> bytes:
        if not value:
            return b"\x00"
        return b"".join([long_bytes(len(value)), *map(item, items(value)), b"\x00"])

    return write


_ZERO_TEXTS: Final = {
    "io.debezium.time.ZonedTimestamp": "1970-01-01T00:00:00Z",
    "io.debezium.time.ZonedTime": "00:00:00Z",
    "io.debezium.time.IsoDate": "1970-01-01Z",
    "io.debezium.time.IsoTime": "00:00:00Z",
    "io.debezium.time.IsoTimestamp": "1970-01-01T00:00:00Z",
    "io.debezium.time.Interval": "P0Y0M0DT0H0M0S",
}


def zero(schema: Schema) -> Any:
    """What Debezium writes for a column that is NOT NULL and whose value it does not know."""
    match schema.type:
        case "string":
            return _ZERO_TEXTS.get(schema.name or "", "")
        case "bytes":
            return b"\x00" if schema.name == "org.apache.kafka.connect.data.Decimal" else b""
        case "float32" | "float64":
            return 0.0
        case "boolean":
            return False
        case "array":
            return []
        case "map":
            return {}
        case "struct":
            return {field.name: None if field.schema.optional else zero(field.schema) for field in schema.fields} | (
                {"value": b"\x00"} if schema.name == "io.debezium.data.VariableScaleDecimal" else {}
            )
    return 0
