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
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from typing import Any, Final

from cdc.record import NO_DEFAULT, Schema

__all__ = ["DECIMAL", "EXACT", "Reader", "load", "reader", "unscaled"]

Reader = Callable[[Any], Any]
DECIMAL: Final = "org.apache.kafka.connect.data.Decimal"
EXACT: Final = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)
"""Arithmetic that never rounds."""
_RANGES: Final = {f"int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)}
_NOT_NUMBERS: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


_decoder: Final = json.JSONDecoder(parse_float=Decimal, parse_constant=_constant)
_long_decoder: Final = json.JSONDecoder(
    parse_float=Decimal, parse_constant=_constant, parse_int=lambda text: int(Decimal(text))
)
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


def reader(schema: Schema, *, replace_null: bool = False) -> Reader:
    """The reader of values of ``schema``. With ``replace_null`` a null is the default, where there is one."""
    base = _base(schema, replace_null)
    if schema.default is not NO_DEFAULT and (replace_null or not schema.optional):
        # Not a shared object: whoever gets a struct or a list may change it.
        form = schema.default
        return lambda value: base(form) if value is None else base(value)
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
    if scaled != scaled.to_integral_value():
        raise ValueError(f"{_shown(value)} has more than {scale} digits after the point")
    number = int(scaled)
    bits = number.bit_length() if number >= 0 else (number + 1).bit_length()
    return number.to_bytes(bits // 8 + 1, "big", signed=True)


def _base(schema: Schema, replace_null: bool) -> Reader:
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
            return _array(reader(schema.values, replace_null=replace_null))
        case "map" if schema.keys and schema.values:
            return _map(
                schema.keys,
                reader(schema.keys, replace_null=replace_null),
                reader(schema.values, replace_null=replace_null),
            )
        case "struct":
            return _struct([(field.name, reader(field.schema, replace_null=replace_null)) for field in schema.fields])
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


def _map(keys: Schema, key: Reader, item: Reader) -> Reader:
    hashable = keys.type not in {"array", "map", "struct"}

    def pairs(value: Any) -> Any:
        if isinstance(value, Mapping):
            if keys.type != "string":
                raise ValueError("an object, where a map whose keys are no texts is an array of pairs")
            return [(name, item(each)) for name, each in value.items()]
        if not isinstance(value, list) or any(not isinstance(pair, list) or len(pair) != 2 for pair in value):
            raise _wrong(value, "map")
        return [(key(name), item(each)) for name, each in value]

    return lambda value: dict(pairs(value)) if hashable else pairs(value)


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


def _wrong(value: Any, what: str) -> ValueError:
    return ValueError(f"{_shown(value)} is no {what}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"
