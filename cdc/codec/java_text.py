"""Native values as Java's ``toString()`` prints those of Kafka Connect: what its String converter writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from cdc.codec.json_reader import EXACT
from cdc.codec.json_writer import double_text, single_text
from cdc.record import Schema

__all__ = ["Text", "date_of", "java_text"]

Text = Callable[[Any], str]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def java_text(schema: Schema | None) -> Text:
    """The printer of values of ``schema``, or of values without one.

    `ValueError` for bytes, of which Java prints nothing that says what they are, and for dates beyond the years
    1 to 9999.
    """
    if schema is None:
        return _any
    base = _base(schema)
    return lambda value: "null" if value is None else base(value)


def _base(schema: Schema) -> Text:
    match schema.name:
        case "org.apache.kafka.connect.data.Decimal":
            scale = int(dict(schema.parameters).get("scale", "0"))
            return lambda value: str(EXACT.scaleb(Decimal(int.from_bytes(value, "big", signed=True)), -scale))
        case "org.apache.kafka.connect.data.Date":
            return lambda value: _date(value * 86_400_000)
        case "org.apache.kafka.connect.data.Time" | "org.apache.kafka.connect.data.Timestamp":
            return _date
    match schema.type:
        case "string":
            return str
        case "boolean":
            return lambda value: "true" if value else "false"
        case "float32":
            return lambda value: single_text(value).strip('"')
        case "float64":
            return lambda value: double_text(value).strip('"')
        case "array" if schema.values:
            return _list(java_text(schema.values))
        case "map" if schema.keys and schema.values:
            return _map(java_text(schema.keys), java_text(schema.values))
        case "struct":
            return _struct([(field.name, java_text(field.schema)) for field in schema.fields])
        case "bytes":
            return _bytes
    return str


def _any(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return double_text(value).strip('"')
    if isinstance(value, bytes):
        return _bytes(value)
    if isinstance(value, Mapping):
        return _map(_any, _any)(value)
    return _list(_any)(value) if isinstance(value, list | tuple) else str(value)


def _bytes(_value: Any) -> str:
    raise ValueError("bytes have no text; the Java class prints an address in memory")


def _date(milliseconds: int) -> str:
    try:
        at = _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        raise ValueError(f"{milliseconds} ms since 1970 is beyond the year 9999") from None
    return f"{_DAYS[at.weekday()]} {_MONTHS[at.month - 1]} {at:%d %H:%M:%S} UTC {at.year}"


def date_of(text: str) -> int:
    """The days since 1970 that `java_text` printed of a date. `ValueError` for other texts."""
    parts = text.split(" ")
    if len(parts) != 6 or parts[0] not in _DAYS or parts[1] not in _MONTHS or parts[3:5] != ["00:00:00", "UTC"]:
        raise ValueError(f"{text[:60]!r} is no date as Java prints it")
    at = datetime(int(parts[5]), _MONTHS.index(parts[1]) + 1, int(parts[2]), tzinfo=UTC)
    return (at - _EPOCH).days


def _list(item: Text) -> Text:
    return lambda value: f"[{', '.join(map(item, value))}]"


def _map(key: Text, item: Text) -> Text:
    def text(value: Any) -> str:
        pairs = value.items() if isinstance(value, Mapping) else value
        return "{" + ", ".join([f"{key(name)}={item(each)}" for name, each in pairs]) + "}"

    return text


def _struct(fields: list[tuple[str, Text]]) -> Text:
    def text(value: Any) -> str:
        # As in Connect, fields without value are left out.
        return (
            f"Struct{{{','.join([f'{name}={show(value[name])}' for name, show in fields if value[name] is not None])}}}"
        )

    return text
