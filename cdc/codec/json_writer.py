"""Native values → the text that Kafka Connect's JSON converter writes for them, to the byte.

That is Jackson's compact JSON: non-ASCII characters as they are, control characters as ``\\u001F``, numbers as Java
prints them (``1.0E10``, the fewest digits that read back), bytes in base64, what is no finite number as text.
"""

from __future__ import annotations

import base64
import math
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Any, Final

from cdc.codec.json_reader import DECIMAL, EXACT, ONE_OF
from cdc.record import NO_DEFAULT, Schema

__all__ = ["Writer", "any_text", "double_text", "single_text", "string_text", "writer"]

Writer = Callable[[Any], str]

_single: Final = struct.Struct("<f")
_LOWER_HEX: Final = re.compile(r"\\(?:\\|u00[01][0-9a-f])")
"""Escaped backslashes too, so that a text that looks like an escape is left alone."""


def string_text(value: str) -> str:
    """A string with its quotes."""
    text = encode_basestring(value)
    if "\\u00" in text:
        return _LOWER_HEX.sub(lambda found: found[0] if found[0] == "\\\\" else "\\u" + found[0][2:].upper(), text)
    return text


def double_text(value: float) -> str:
    """A 64-bit float as Java's ``Double.toString`` prints it since JDK 19; what is not finite as a string."""
    if not math.isfinite(value):
        return _not_finite(value)
    text = repr(value)
    size = abs(value)
    if size == 0 or 1e-3 <= size < 1e7:
        return text
    return _scientific(value, text)


def single_text(value: float) -> str:
    """A 32-bit float, likewise."""
    if not math.isfinite(value):
        return _not_finite(value)
    text = _shortest_single(value)
    size = abs(value)
    if size == 0 or 1e-3 <= size < 1e7:
        return repr(float(text))
    return _scientific(value, text)


def _not_finite(value: float) -> str:
    return '"NaN"' if math.isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'


def _scientific(value: float, text: str) -> str:
    """``text``, the shortest of ``value``, in Java's scientific form: at least two digits, and then the nearest two."""
    number = Decimal(text)
    figures = "".join(map(str, number.as_tuple().digits)).rstrip("0")
    if len(figures) == 1:
        mantissa, _, power_text = f"{value:.1e}".partition("e")
        return f"{mantissa}E{int(power_text)}"
    return f"{'-' if value < 0 else ''}{figures[0]}.{figures[1:]}E{number.adjusted()}"


def _shortest_single(value: float) -> str:
    single = _single.pack(value)
    for digits in range(9):
        text = f"{value:.{digits}e}"
        try:
            if _single.pack(float(text)) == single:
                return text
        except OverflowError:  # rounded up beyond the largest one
            continue
    return repr(value)


def any_text(value: Any) -> str:
    """A value without schema."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return string_text(value)
    if isinstance(value, int | Decimal):
        return str(value)
    if isinstance(value, float):
        return double_text(value)
    if isinstance(value, bytes):
        return _base64(value)
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return "{" + ",".join([f"{string_text(key)}:{any_text(item)}" for key, item in value.items()]) + "}"
        return "[" + ",".join([f"[{any_text(key)},{any_text(item)}]" for key, item in value.items()]) + "]"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(any_text, value)) + "]"
    raise ValueError(f"a value of type {type(value).__name__} has no form in JSON")


@dataclass(frozen=True, slots=True)
class _Form:
    """What may be different in the JSON of a value."""

    numeric: bool
    entries: bool
    default: Callable[[Schema], Any] | None


def writer(
    schema: Schema,
    *,
    numeric: bool = False,
    entries: bool = False,
    default: Callable[[Schema], Any] | None = None,
) -> Writer:
    """The writer of values of ``schema``.

    ``numeric`` decimals are numbers, others their bytes in base64. With ``entries`` the JSON is as a
    JSON Schema describes it (`cdc.codec.json_reader.reader`). ``default`` gives the native value that takes the place
    of a null, for schemas with a default; without it a null is a null. `ValueError` for a null that the schema
    forbids; other values are trusted to be of its type.
    """
    return _writer(schema, _Form(numeric, entries, default))


def _writer(schema: Schema, form: _Form) -> Writer:
    base = _base(schema, form)
    if form.default is not None and schema.default is not NO_DEFAULT:
        filler = base(form.default(schema))
        return lambda value: filler if value is None else base(value)
    if schema.optional:
        return lambda value: "null" if value is None else base(value)

    def required(value: Any) -> str:
        if value is None:
            raise ValueError("null, where the schema requires a value")
        return base(value)

    return required


def _base64(value: bytes) -> str:
    return f'"{base64.b64encode(value).decode("ascii")}"'


def _decimal_text(scale: int) -> Writer:
    # str() of a Decimal and Java's BigDecimal.toString() follow the same rules.
    return lambda value: str(EXACT.scaleb(Decimal(int.from_bytes(value, "big", signed=True)), -scale))


_SCALARS: Final[Mapping[str, Writer]] = {
    "boolean": lambda value: "true" if value else "false",
    "string": string_text,
    "bytes": _base64,
    "float32": single_text,
    "float64": double_text,
}


def _base(schema: Schema, form: _Form) -> Writer:
    if schema.type == "struct" and form.entries and schema.name == ONE_OF:
        return _one_of([(field.name, _writer(field.schema, form)) for field in schema.fields])
    if schema.type == "struct":
        return _struct([(field.name, _writer(field.schema, form)) for field in schema.fields])
    if schema.type == "array" and schema.values:
        item = _writer(schema.values, form)
        return lambda value: "[" + ",".join(map(item, value)) + "]"
    if schema.type == "map" and schema.keys and schema.values:
        item = _writer(schema.values, form)
        if schema.keys.type == "string" and not (form.entries and schema.keys.optional):
            return _object(item)
        return _pairs(_writer(schema.keys, form), item, '{"key":%s,"value":%s}' if form.entries else "[%s,%s]")
    if form.numeric and schema.name == DECIMAL:
        return _decimal_text(int(dict(schema.parameters).get("scale", "0")))
    return _SCALARS.get(schema.type, str)


def _struct(fields: list[tuple[str, Writer]]) -> Writer:
    if not fields:
        return lambda _value: "{}"
    parts = [((",", "{")[at == 0] + string_text(name) + ":", name, write) for at, (name, write) in enumerate(fields)]

    def text(value: Any) -> str:
        out: list[str] = []
        for head, name, write in parts:
            try:
                out += (head, write(value[name]))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        out.append("}")
        return "".join(out)

    return text


def _one_of(branches: list[tuple[str, Writer]]) -> Writer:
    def text(value: Any) -> str:
        return next((write(value[name]) for name, write in branches if value[name] is not None), "null")

    return text


def _object(item: Writer) -> Writer:
    def text(value: Any) -> str:
        pairs = value.items() if isinstance(value, Mapping) else value
        out: list[str] = []
        for key, each in pairs:
            if key is None:
                raise ValueError("a map has a null among its keys, for which JSON has no form")
            out.append(f"{string_text(key)}:{item(each)}")
        return "{" + ",".join(out) + "}"

    return text


def _pairs(key: Writer, item: Writer, pair: str) -> Writer:
    def text(value: Any) -> str:
        pairs = value.items() if isinstance(value, Mapping) else value
        return "[" + ",".join([pair % (key(name), item(each)) for name, each in pairs]) + "]"

    return text
