"""JSON as Kafka Connect's JSON converter writes it → native values, compiled from a Connect schema.

JSON is as `load` gives it, so that no digit of a decimal is lost. Stricter than Kafka's converter, which makes 0 of a
text and false of a number: what is not of the schema's type is a `ValueError` that names the place.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal, InvalidOperation
from typing import Any, Final

from cdc.errors import brief
from cdc.record import NO_DEFAULT, Schema

__all__ = ["DECIMAL", "EXACT", "MOST_DIGITS", "ONE_OF", "Reader", "load", "reader", "unscaled"]

Reader = Callable[[Any], Any]
DECIMAL: Final = "org.apache.kafka.connect.data.Decimal"
ONE_OF: Final = "io.confluent.connect.json.OneOf"
"""Name of the struct that stands for one of several types in JSON Schema, with an optional field for each."""
EXACT: Final = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)
"""Arithmetic that never rounds."""
MOST_DIGITS: Final = 150_000
"""More than Postgres's numeric has. What takes longer digits apart takes time by their square."""
_RANGES: Final = {f"int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)}
_NOT_NUMBERS: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


_decoder: Final = json.JSONDecoder(parse_float=Decimal, parse_constant=_constant)


def _long_integer(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(Decimal(text))


_long_decoder: Final = json.JSONDecoder(parse_float=Decimal, parse_constant=_constant, parse_int=_long_integer)
"""For numbers of more digits than ``int`` takes."""


def load(text: str, start: int = 0) -> tuple[Any, int]:
    """The JSON value that begins at ``start``, without spaces before it, and the place behind it.

    Whole numbers are ``int``, all others ``Decimal``. `ValueError` for what is no JSON.
    """
    try:
        try:
            return _decoder.raw_decode(text, start)
        except json.JSONDecodeError:
            raise
        except ValueError:
            return _long_decoder.raw_decode(text, start)
    except RecursionError:
        raise ValueError("the JSON is nested too deep") from None
    except InvalidOperation:
        raise ValueError("a number has an exponent that is too large") from None


def reader(schema: Schema, *, replace_null: bool = False, entries: bool = False) -> Reader:
    """The reader of values of ``schema``.

    With ``replace_null`` a null is the default, where there is one. With ``entries`` the JSON is as a JSON Schema
    describes it: a map whose keys are no texts is an array of objects with ``key`` and ``value``, not of pairs, and a
    struct named `ONE_OF` the value of one of its fields.
    """
    return _reader(schema, _Form(replace_null, entries))


@dataclass(frozen=True, slots=True)
class _Form:
    """What may be different in the JSON of a value."""

    replace_null: bool
    entries: bool


def _reader(schema: Schema, how: _Form) -> Reader:
    base = _base(schema, how)
    if schema.default is not NO_DEFAULT and (how.replace_null or not schema.optional):
        # Not a shared object: whoever gets a struct or a list may change it.
        read, form = _base(schema, replace(how, entries=False)), schema.default
        return lambda value: read(form) if value is None else base(value)
    if schema.optional:
        return lambda value: None if value is None else base(value)

    def required(value: Any) -> Any:
        if value is None:
            raise ValueError("null, where the schema requires a value")
        return base(value)

    return required


def unscaled(value: int | Decimal, scale: int) -> bytes:
    """A decimal as Connect holds it: digits without the point, in two's complement. `ValueError` if digits are lost."""
    scaled = EXACT.scaleb(Decimal(value), scale)
    if scaled.is_finite() and scaled.adjusted() > MOST_DIGITS:  # an exponent that nobody could write out
        raise ValueError(f"{brief(value)} is too large for any column")
    if scaled != scaled.to_integral_value():
        raise ValueError(f"{brief(value)} has more than {scale} digits after the point")
    number = int(scaled)
    bits = number.bit_length() if number >= 0 else (number + 1).bit_length()
    return number.to_bytes(bits // 8 + 1, "big", signed=True)


def _base(schema: Schema, how: _Form) -> Reader:
    match schema.type:
        case "boolean":
            return _boolean
        case "string":
            return _string
        case "float32" | "float64":
            return _single if schema.type == "float32" else _double
        case "bytes":
            return _decimal(schema) if schema.name == DECIMAL else _bytes
        case "array" if schema.values:
            return _array(_reader(schema.values, how))
        case "map" if schema.keys and schema.values:
            return _map(schema.keys, _reader(schema.keys, how), _reader(schema.values, how), how.entries)
        case "struct" if how.entries and schema.name == ONE_OF:
            return _one_of([(field.name, field.schema, _reader(field.schema, how)) for field in schema.fields])
        case "struct":
            return _struct([(field.name, _reader(field.schema, how)) for field in schema.fields])
    low, high = _RANGES[schema.type]

    def integer(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise _wrong(value, schema.type)
        return value

    return integer


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(value, "boolean")
    return value


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(value, "string")
    return value


def _double(value: Any) -> float:
    if isinstance(value, str) and value in _NOT_NUMBERS:
        return _NOT_NUMBERS[value]
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise _wrong(value, "number")
    return float(value)


def _single(value: Any) -> float:
    number = _double(value)
    try:
        return float(struct.unpack("<f", struct.pack("<f", number))[0])
    except OverflowError:
        raise _wrong(value, "float of 32 bits") from None


def _bytes(value: Any) -> bytes:
    if not isinstance(value, str):
        raise _wrong(value, "text in base64")
    return base64.b64decode(value, validate=True)


def _decimal(schema: Schema) -> Reader:
    scale = int(dict(schema.parameters).get("scale", "0"))

    def decimal(value: Any) -> bytes:
        if isinstance(value, int | Decimal) and not isinstance(value, bool):
            return unscaled(value, scale)
        return _bytes(value)

    return decimal


def _array(item: Reader) -> Reader:
    def array(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise _wrong(value, "array")
        return [item(each) for each in value]

    return array


def _map(keys: Schema, key: Reader, item: Reader, entries: bool) -> Reader:
    hashable = keys.type not in {"array", "map", "struct"}

    def pairs(value: Any) -> Any:
        if isinstance(value, Mapping):
            if keys.type != "string":
                raise ValueError("an object, where a map whose keys are no texts is an array")
            return [(name, item(each)) for name, each in value.items()]
        if not isinstance(value, list):
            raise _wrong(value, "map")
        return [(key(name), item(each)) for name, each in map(_entry if entries else _pair, value)]

    return lambda value: dict(pairs(value)) if hashable else pairs(value)


def _pair(value: Any) -> Any:
    if not isinstance(value, list) or len(value) != 2:
        raise _wrong(value, "pair of key and value")
    return value


def _entry(value: Any) -> Any:
    if not isinstance(value, Mapping) or value.keys() != {"key", "value"}:
        raise _wrong(value, 'object of "key" and "value"')
    return value["key"], value["value"]


def _struct(fields: list[tuple[str, Reader]]) -> Reader:
    def struct_(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise _wrong(value, "object")
        result = {}
        for name, read in fields:
            try:
                result[name] = read(value.get(name))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return result

    return struct_


def _one_of(branches: list[tuple[str, Schema, Reader]]) -> Reader:
    """The first branch of the value's own type, as Confluent's converter takes it; among objects the one with most
    fields in common."""

    def one_of(value: Any) -> dict[str, Any]:
        best = max(branches, key=lambda branch: _likeness(branch[1], value))
        if not _likeness(best[1], value):
            raise ValueError(f"{brief(value)} is of none of the types that may be here")
        return {name: read(value) if name == best[0] else None for name, _, read in branches}

    return one_of


def _likeness(schema: Schema, value: Any) -> float:
    if schema.type == "struct":
        if not isinstance(value, Mapping):
            return 0
        common = [field for field in schema.fields if field.name in value]
        nested = [field for field in common if field.schema.type == "struct"]
        return len(common) + sum(_likeness(field.schema, value[field.name]) for field in nested)
    return math.inf if _accepts(schema, value) else 0


def _accepts(schema: Schema, value: Any) -> bool:
    match schema.type:
        case "boolean":
            return isinstance(value, bool)
        case "string" | "bytes":
            return isinstance(value, str)
        case "array":
            return isinstance(value, list)
        case "map":
            return isinstance(value, list | Mapping)
    kinds = int | Decimal if schema.type in {"float32", "float64"} else int
    return isinstance(value, kinds) and not isinstance(value, bool)


def _wrong(value: Any, what: str) -> ValueError:
    return ValueError(f"{brief(value)} is no {what}")
