"""One column: from Postgres's text to Avro bytes, union branch included.

A `Step` says how generated code (`cdc.codec.avro_rows`) encodes a column, by one of three patterns:

* ``table``: ``table[text]`` is the answer; texts that are not in the table make their own entry or answer (`_Table`).
  NULL and UNCHANGED are entries like any other.
* ``text``: length and text, without a copy.
* ``call``: a function of the text, for all other kinds; its answer ``None`` means inexact.

Each is byte for byte what `reference` gives, only faster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

from cdc.codec.avro_binary import lengths, long_bytes, null_bytes, union_prefix, writer
from cdc.codec.fillers import missing, nothing
from cdc.codec.inexact import Inexact
from cdc.codec.temporal import DAY_US, DAYS, MINUTES, SECONDS
from cdc.codec.values import KINDS, reader, wire_reader
from cdc.record import UNCHANGED, Column

__all__ = ["Fillers", "Step", "fillers", "reference", "step"]

Encode = Callable[[bytes], "bytes | None"]


@dataclass(frozen=True, slots=True)
class Fillers:
    """What is written for a value that is not there: null where it may be, else what Debezium writes.

    ``missing`` is for an image that does not carry the column (the old row of a DELETE under REPLICA IDENTITY
    DEFAULT): the column's default if there is one, else zero. ``unchanged`` is zero.
    """

    missing: bytes
    unchanged: bytes


def fillers(column: Column) -> Fillers:
    """The fillers of a column, as Avro bytes."""
    schema = column.schema
    if schema.optional:
        null = null_bytes(schema)
        return Fillers(null, null)
    write = writer(schema)
    return Fillers(write(missing(column)), write(nothing(column)))


def reference(column: Column) -> Callable[[bytes], tuple[bytes, str | None]]:
    """Text → Avro bytes, and the exact text where the bytes are not exact. `ValueError` for what is no such text."""
    read, write, filler = reader(column.kind, column.params), writer(column.schema), fillers(column).unchanged

    def encode(text: bytes) -> tuple[bytes, str | None]:
        value = read(text)
        if isinstance(value, Inexact):
            return filler if value.fallback is None else write(value.fallback), value.text
        return write(value), None

    return encode


@dataclass(frozen=True, slots=True)
class Step:
    """How a column is encoded: ``pattern`` (``table``, ``text`` or ``call``) and the object it needs."""

    pattern: str
    object: Any


class _Table(dict[Any, bytes]):
    """Answers by text. One that has no entry is computed, and kept while there is ``room``."""

    def __init__(self, compute: Callable[[bytes], bytes], fixed: dict[Any, bytes], room: int) -> None:
        super().__init__(fixed)
        self._compute, self._fixed, self._room = compute, fixed, room

    def __missing__(self, text: Any) -> bytes:
        if text is None:
            raise ValueError("NULL in a column that is NOT NULL")
        answer = self._compute(text)
        if self._room:
            if len(self) >= len(self._fixed) + self._room:
                self.clear()
                self.update(self._fixed)
            self[text] = answer
        return answer


_SMALL: Final = 4096
"""Integers that have an entry in a table; the others are computed each time."""
_DATES: Final = 4096
"""Dates kept at a time."""
_TABLES: Final = frozenset({"int16", "int32", "int64", "oid", "boolean", "date"})
"""Kinds with few texts, or few that come often. Their zero is one zero byte."""


def step(column: Column) -> Step:
    """The fastest way to encode a column."""
    schema = column.schema
    if column.kind in _TABLES:
        return Step("table", _table(column.kind, union_prefix(schema), null_bytes(schema) if schema.optional else None))
    if column.kind == "text":
        return Step("text", lengths(union_prefix(schema)))
    make = _FAST.get(column.kind, _composed)
    return Step("call", make(column))


@cache
def _table(kind: str, prefix: bytes, null: bytes | None) -> dict[Any, bytes]:
    """The table of all columns of a kind; NULL and UNCHANGED are in it, NULL only where it may be."""
    read = reader(kind)
    fixed: dict[Any, bytes] = {UNCHANGED: b"\x00"} if null is None else {UNCHANGED: null, None: null}
    if kind == "boolean":
        return _Table(lambda text: prefix + (b"\x01" if read(text) else b"\x00"), fixed, 2)
    if kind == "date":
        return _Table(lambda text: prefix + long_bytes(read(text)), fixed, _DATES)
    return _Integers(read, prefix, fixed, _SURE_DIGITS[kind])


_SURE_DIGITS: Final = {"int16": 4, "int32": 9, "int64": 18, "oid": 9}
"""So many digits are within the range of the type."""


class _Integers(dict[Any, bytes]):
    """Small integers by text; others, which seldom come again, are computed."""

    def __init__(self, read: Callable[[bytes], int], prefix: bytes, fixed: dict[Any, bytes], sure: int) -> None:
        super().__init__(fixed)
        self.update((b"%d" % number, prefix + long_bytes(number)) for number in range(_SMALL))
        self._read, self._prefix, self._sure = read, prefix, sure

    def __missing__(self, text: Any) -> bytes:
        if text is None:
            raise ValueError("NULL in a column that is NOT NULL")
        if text.isdigit() and len(text) <= self._sure:
            return self._prefix + long_bytes(int(text))
        return self._prefix + long_bytes(self._read(text))


def _composed(column: Column) -> Encode:
    """Reader and writer, one after the other; texts without the way through ``str``."""
    schema = column.schema
    read, prefix = wire_reader(column.kind, column.params), union_prefix(schema)
    if KINDS[column.kind].utf8 or schema.type == "bytes":
        sizes = lengths(prefix)

        def encode_sized(text: bytes) -> bytes | None:
            value = read(text)
            if value.__class__ is not bytes:
                return None
            size = len(value)
            return (sizes[size] if size < 4096 else prefix + long_bytes(size)) + value

        return encode_sized
    write = writer(replace(schema, optional=False))

    def encode(text: bytes) -> bytes | None:
        value = read(text)
        return None if value.__class__ is Inexact else prefix + write(value)

    return encode


_NO_DIGITS: Final = bytes(48 if 48 <= code <= 57 else code for code in range(256))
"""Translates all digits to ``0``: what is left is the shape of a text."""


def _zoned_timestamp(column: Column) -> Encode:
    """timestamptz of the years 1 to 9999; all others as composed."""
    precision, prefix, slow = column.params[0], union_prefix(column.schema), _composed(column)
    ends = {}
    for digits in range(precision + 1):
        shape = b"0000-00-00 00:00:00" + (b"." + b"0" * digits if digits else b"") + b"+00"
        padding = (b"." if precision and not digits else b"") + b"0" * (precision - digits) + b"Z"
        ends[shape] = prefix + long_bytes(len(shape) - 3 + len(padding)), padding

    def encode(text: bytes) -> bytes | None:
        end = ends.get(text.translate(_NO_DIGITS))
        if end is None or text[11:16] not in MINUTES or text[17:19] not in SECONDS:
            return slow(text)
        day = text[:10]
        DAYS[day]
        return b"%b%bT%b%b" % (end[0], day, text[11:-3], end[1])

    return encode


def _timestamp(column: Column) -> Encode:
    """timestamp of the years 1 to 9999, in milli- or microseconds; all others as composed."""
    unit, prefix, slow = column.params[0], union_prefix(column.schema), _composed(column)
    if unit == "ns":
        return slow
    scales = {b"0000-00-00 00:00:00" + b"." + b"0" * digits: 10 ** (6 - digits) for digits in range(1, 7)}
    scales[b"0000-00-00 00:00:00"] = 0

    def encode(text: bytes) -> bytes | None:
        scale = scales.get(text.translate(_NO_DIGITS))
        if (
            scale is None
            or (minutes := MINUTES.get(text[11:16])) is None
            or (seconds := SECONDS.get(text[17:19])) is None
        ):
            return slow(text)
        value = DAYS[text[:10]] * DAY_US + minutes + seconds
        if scale:
            value += int(text[20:]) * scale
        if unit == "ms":
            value, rest = divmod(value, 1000)
            if rest:
                return None
        return prefix + long_bytes(value)

    return encode


def _decimal(column: Column) -> Encode:
    """numeric whose digits fit Python's ``int``; all others as composed."""
    scale, prefix, slow = column.params[0], union_prefix(column.schema), _composed(column)
    if not 0 < scale < 1000:
        return slow
    sizes, point = lengths(prefix), -scale - 1

    def encode(text: bytes) -> bytes | None:
        digits = text[:point] + text[-scale:]
        if not digits.isdigit() or text[point] != 46 or len(digits) > 1000:
            return slow(text)
        number = int(digits)
        size = number.bit_length() // 8 + 1
        return sizes[size] + number.to_bytes(size, "big")

    return encode


_FAST: Final[dict[str, Callable[[Column], Encode]]] = {
    "zoned_timestamp": _zoned_timestamp,
    "timestamp": _timestamp,
    "decimal": _decimal,
}
