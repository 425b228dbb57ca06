"""Postgres text → native values: the one place that says what each kind of column means.

A *kind* is how a column's text becomes a value; `cdc.postgres.types` gives each column its kind and parameters
beside its Connect schema. A native value is what an Avro writer without logical types takes: ``int``, ``float``,
``bool``, ``str``, ``bytes``, ``list``, ``dict``. `reader` is the reference for every faster way to
the same bytes (`cdc.codec.avro_rows`).

Readers rely on the session settings DateStyle ISO, IntervalStyle postgres, TimeZone UTC, extra_float_digits 1,
bytea_output hex, client_encoding UTF8, and on COPY's escapes being undone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cdc.codec import numbers, structures, temporal, texts
from cdc.codec.inexact import Inexact

__all__ = ["KINDS", "Inexact", "Kind", "Reader", "reader", "wire_reader"]

Reader = Callable[[bytes], Any]
"""Text of one value (never NULL) → native value, or `Inexact`. `ValueError` for text the type does not print."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How text of one kind is read.

    ``make`` takes the kind's parameters. With ``utf8`` it makes readers of text to the UTF-8 of a string (its
    wire form), otherwise readers of native values.
    """

    make: Callable[..., Reader]
    utf8: bool = False


_RESTATED: Final = {
    "char": "char",
    "hstore_json": "hstore_json",
    "bytes_text": "bytes_text",
    "money": "money_text",
    "money_text": "money_text",
    "money_double": "money_text",
}
"""Kinds whose schema's texts are not Postgres's → the kind that gives those texts."""


def _array(kind: str, params: tuple[Any, ...], optional: bool, delimiter: str = ",") -> Reader:
    restate = wire_reader(_RESTATED[kind], params) if kind in _RESTATED else None
    return texts.array(reader(kind, params), optional, delimiter, restate)


KINDS: Final[dict[str, Kind]] = {
    "boolean": Kind(numbers.boolean),
    "int16": Kind(lambda: numbers.integer(-(2**15), 2**15 - 1)),
    "int32": Kind(lambda: numbers.integer(-(2**31), 2**31 - 1)),
    "int64": Kind(lambda: numbers.integer(-(2**63), 2**63 - 1)),
    "oid": Kind(lambda: numbers.integer(0, 2**32 - 1)),
    "float32": Kind(numbers.float32),
    "float64": Kind(numbers.float64),
    "decimal": Kind(numbers.decimal),  # scale
    "variable_decimal": Kind(numbers.variable_decimal),
    "numeric_text": Kind(numbers.numeric_text, utf8=True),
    "numeric_double": Kind(numbers.numeric_double),
    "money": Kind(numbers.money),  # fraction digits
    "money_text": Kind(numbers.money_text, utf8=True),  # fraction digits
    "money_double": Kind(numbers.money_double),  # fraction digits
    "bit": Kind(numbers.single_bit),
    "bits": Kind(numbers.bits),  # length, varying
    "text": Kind(texts.utf8, utf8=True),
    "char": Kind(structures.internal_char, utf8=True),
    "uuid": Kind(texts.uuid, utf8=True),
    "bytes": Kind(texts.raw_bytes),
    "bytes_text": Kind(texts.base64_text, utf8=True),  # base64, base64-url-safe or hex
    "date": Kind(temporal.date),
    "iso_date": Kind(temporal.iso_date, utf8=True),
    "time": Kind(temporal.time),  # ms, us or ns
    "iso_time": Kind(temporal.iso_time, utf8=True),
    "timestamp": Kind(temporal.timestamp),  # ms, us or ns
    "iso_timestamp": Kind(temporal.iso_timestamp, utf8=True),
    "zoned_timestamp": Kind(temporal.zoned_timestamp, utf8=True),  # digits of the fraction
    "zoned_time": Kind(temporal.zoned_time, utf8=True),
    "interval_us": Kind(temporal.interval_us),
    "interval_iso": Kind(temporal.interval_iso, utf8=True),
    "hstore_json": Kind(structures.hstore_json, utf8=True),
    "hstore_map": Kind(structures.hstore_map),
    "composite": Kind(structures.composite, utf8=True),  # canonical type
    "point": Kind(structures.point),
    "geometry": Kind(structures.geometry),
    "vector": Kind(structures.vector),  # bits of an element
    "sparse_vector": Kind(structures.sparse_vector),
    "array": Kind(_array),  # kind and params of the elements, whether they may be NULL, delimiter
}


def reader(kind: str, params: Sequence[Any] = ()) -> Reader:
    """The reader of a kind: text → native value or `Inexact`."""
    entry = KINDS[kind]
    read = entry.make(*params)
    if not entry.utf8:
        return read

    def as_text(text: bytes) -> Any:
        value = read(text)
        if isinstance(value, Inexact):
            return value if value.fallback is None else Inexact(value.fallback.decode("utf-8"), value.text)
        return value.decode("utf-8")

    return as_text


def wire_reader(kind: str, params: Sequence[Any] = ()) -> Reader:
    """As `reader`, but strings come as their UTF-8: one step less on the way to the wire."""
    return KINDS[kind].make(*params)
