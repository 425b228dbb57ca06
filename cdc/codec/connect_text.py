"""The canonical text of native values under Connect schemas: what converters of any kind read.

The same texts as `cdc.codec.avro_fields` makes from Avro, by the same functions (`cdc.codec.avro_schema`), for values
that are Python's already: text of a string, bytes of a decimal, days of a date, dict of a struct. Values without schema
have what JSON says of them; numbers keep their digits.
"""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from math import isfinite
from operator import index
from typing import Any, Final, NamedTuple

from cdc.codec import canonical_values
from cdc.codec.avro_schema import STRUCTURES, VARIABLE_SCALE_DECIMAL, Text, scalar_meaning
from cdc.codec.avro_structures import structure_text
from cdc.codec.canonical import json_string
from cdc.codec.canonical_floats import float8_text
from cdc.codec.json_reader import MOST_DIGITS
from cdc.errors import DataError, brief
from cdc.record import Schema

__all__ = ["FAULTS", "ColumnText", "column_text", "plain_text"]

FAULTS: Final = (ValueError, TypeError, AttributeError, KeyError, OverflowError, ArithmeticError, struct.error)
"""What readers raise for values that their schema does not have."""

_JsonText = Callable[[Any], str]

_AVRO: Final = {
    "int8": "int",
    "int16": "int",
    "int32": "int",
    "int64": "long",
    "float32": "float",
    "float64": "double",
    "boolean": "boolean",
    "string": "string",
    "bytes": "bytes",
}
_NOT_NUMBERS: Final = frozenset({b"NaN", b"Infinity", b"-Infinity"})
_DEEPEST: Final = 32
_DEEPEST_JSON: Final = 200
_WIDEST_SCALE: Final = 20_000
"""Postgres's numeric ends at 16383."""
_MOST_ZEROS: Final = 20
_DIGITS_OF_A_FLOAT: Final = 17
_float: Final = struct.Struct("<f")


class ColumnText(NamedTuple):
    """How the values of a column become text: ``text`` of a value that is not NULL, which raises one of `FAULTS`;
    ``kind`` is the name of the type for `cdc.codec.canonical.from_postgres`."""

    kind: str
    text: Text


def column_text(schema: Schema) -> ColumnText:
    """Compile a column. `DataError` for a schema whose values have no text."""
    kind, text, _ = _any(schema, 0)
    return ColumnText(kind, text)


class _Reader(NamedTuple):
    kind: str
    text: Text
    bare: bool
    """In JSON, finite values stand without quotes; or `text` is JSON itself."""


def _any(schema: Schema, depth: int) -> _Reader:
    if depth > _DEEPEST:
        raise DataError(f"a schema of more than {_DEEPEST} levels")
    if schema.type in _AVRO:
        return _scalar(schema)
    if schema.name is not None and schema.name in STRUCTURES and schema.type in ("array", "struct"):
        return _structure(schema, schema.name)
    if schema.type == "array" and schema.values:
        element = _any(schema.values, depth + 1)
        return _nested(f"{element.kind}[]", _array(_json(element)))
    if schema.type == "map" and schema.keys and schema.values:
        value = _json(_any(schema.values, depth + 1))
        if schema.keys.type == "string" and not schema.keys.optional:
            return _nested("hstore", _map(value))
        return _nested("text[]", _entries(_json(_any(schema.keys, depth + 1)), value))
    if schema.type == "struct":
        fields = [(field.name, _json(_any(field.schema, depth + 1))) for field in schema.fields]
        return _nested("text", _struct(fields))
    raise DataError(f"a Connect schema of type {schema.type!r} has no text")


# --- single values ---------------------------------------------------------------------------------------


def _scalar(schema: Schema) -> _Reader:
    avro = _AVRO[schema.type]
    try:
        kind, text, bare = scalar_meaning(avro, schema.name or "", dict(schema.parameters))
    except (KeyError, ValueError) as error:
        raise DataError(f"the parameters of a {schema.name} are not its own: {schema.parameters}") from error
    if text is None:
        raise DataError(f"a Connect schema of type {schema.type!r} has no text")
    return _Reader(kind, _native(avro, text), bare)


def _native(avro: str, text: Text) -> Text:
    """``text`` for Python's values; a value of another type is a `TypeError`."""
    if avro == "string":
        return str.encode if text is canonical_values.same_text else lambda value: text(str.encode(value))
    if avro in ("int", "long"):
        return lambda value: text(index(value))
    if avro == "float":
        return lambda value: text(_float.unpack(_float.pack(value))[0])
    if avro == "boolean":
        return lambda value: _boolean(value, text)
    return text


def _boolean(value: Any, text: Text) -> bytes:
    if not isinstance(value, bool):
        raise TypeError(f"{brief(value)} is no boolean")
    return text(value)


def _variable_scale(value: Mapping[str, Any]) -> bytes:
    scale = index(value["scale"])
    if not -_WIDEST_SCALE <= scale <= _WIDEST_SCALE:
        raise ValueError(f"a decimal of scale {scale}")
    return canonical_values.unscaled_text(int.from_bytes(value["value"], "big", signed=True), scale)


def _structure(schema: Schema, name: str) -> _Reader:
    """Structs and arrays that are one value of Postgres's."""
    if name == VARIABLE_SCALE_DECIMAL:
        return _Reader("numeric", _variable_scale, True)
    kind = STRUCTURES[name]
    names = {field.name for field in schema.fields} if schema.type == "struct" else None
    try:
        show = structure_text(name, kind, names)
    except ValueError as error:
        raise DataError(str(error)) from error
    maps = [field.name for field in schema.fields if field.schema.type == "map"]
    if not maps:
        return _Reader(kind, show, False)

    def with_entries(value: Mapping[str, Any]) -> bytes:
        entries = {name: [{"key": key, "value": item} for key, item in _pairs(value[name])] for name in maps}
        return show({**value, **entries})

    return _Reader(kind, with_entries, False)


# --- nested values, as JSON ------------------------------------------------------------------------------


def _json(reader: _Reader) -> _JsonText:
    text = reader.text

    def part(value: Any) -> str:
        if value is None:
            return "null"
        out = text(value)
        if reader.bare and out not in _NOT_NUMBERS:
            return out.decode("utf-8", "surrogateescape")
        return json_string(out)

    return part


def _nested(kind: str, json: _JsonText) -> _Reader:
    return _Reader(kind, lambda value: json(value).encode("utf-8", "surrogateescape"), True)


def _array(item: _JsonText) -> _JsonText:
    def array(value: Sequence[Any]) -> str:
        if isinstance(value, str | bytes | Mapping):
            raise TypeError(f"{brief(value)} is no array")
        return f"[{','.join(map(item, value))}]"

    return array


def _map(item: _JsonText) -> _JsonText:
    def entries(value: Any) -> str:
        return "{" + ",".join(f"{json_string(key.encode())}:{item(part)}" for key, part in _pairs(value)) + "}"

    return entries


def _entries(key_text: _JsonText, item: _JsonText) -> _JsonText:
    """A map whose keys are no texts: Confluent's Avro has an array of such entries."""

    def entries(value: Any) -> str:
        parts = (f'{{"key":{key_text(key)},"value":{item(part)}}}' for key, part in _pairs(value))
        return f"[{','.join(parts)}]"

    return entries


def _pairs(value: Any) -> Any:
    """A native map is a dict or a list of pairs."""
    return value.items() if isinstance(value, Mapping) else value


def _struct(fields: Sequence[tuple[str, _JsonText]]) -> _JsonText:
    parts = [(name, json_string(name.encode()), text) for name, text in fields]

    def struct_text(value: Mapping[str, Any]) -> str:
        return "{" + ",".join(f"{quoted}:{text(value.get(name))}" for name, quoted, text in parts) + "}"

    return struct_text


# --- values without schema -------------------------------------------------------------------------------


def plain_text(value: Any) -> bytes:
    """The text of a value without schema, as JSON has them; not of null.

    A `Decimal`, as which converters read numbers, keeps its digits. One of `FAULTS` for what JSON does not have.
    """
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return b64encode(value)
    return _plain_json(value, 0).encode()


def _plain_json(value: Any, depth: int) -> str:
    if depth > _DEEPEST_JSON:
        raise ValueError(f"a value of more than {_DEEPEST_JSON} levels")
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return json_string(value.encode())
        case int():
            return canonical_values.unscaled_text(value, 0).decode()
        case float():
            digits = float8_text(value).decode()
            return digits if depth == 0 or isfinite(value) else f'"{digits}"'
        case Decimal():
            return _plain_number(value)
        case bytes():
            return json_string(b64encode(value))
        case Mapping():
            parts = (f"{json_string(name.encode())}:{_plain_json(part, depth + 1)}" for name, part in value.items())
            return "{" + ",".join(parts) + "}"
        case list() | tuple():
            return f"[{','.join(_plain_json(part, depth + 1) for part in value)}]"
    raise TypeError(f"a value of type {type(value).__name__} without schema")


def _plain_number(value: Decimal) -> str:
    """With an exponent only where a float has one; more digits than a float has are a numeric's."""
    digits = len(value.as_tuple().digits)
    size = abs(value.adjusted())
    near = size <= _MOST_ZEROS
    whole = size <= MOST_DIGITS and digits > _DIGITS_OF_A_FLOAT >= value.adjusted() - digits
    return f"{value:f}" if near or whole else str(value)
