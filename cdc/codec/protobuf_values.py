"""Native values ↔ Protobuf messages of `cdc.codec.protobuf_schema`, by the Connect schema.

Methods of messages are called by their class: a field may have the name of one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from cdc.codec.protobuf_schema import item_message, proto_names
from cdc.record import Schema

__all__ = ["Fill", "Take", "date_of", "days_of", "filler", "take_time", "take_timestamp", "taker"]

Fill = Callable[[Any, Any], None]
"""(message, value): sets the message's fields."""
Take = Callable[[Any], Any]
"""Message → value."""
_Put = Callable[[Any, Any], None]
_Get = Callable[[Any], Any]

_DECIMAL: Final = "org.apache.kafka.connect.data.Decimal"
_DATE: Final = "org.apache.kafka.connect.data.Date"
_TIME: Final = "org.apache.kafka.connect.data.Time"
_TIMESTAMP: Final = "org.apache.kafka.connect.data.Timestamp"
_LOGICAL: Final = frozenset({_DECIMAL, _DATE, _TIME, _TIMESTAMP})


def filler(schema: Schema) -> Fill:
    """The writer of a struct into its message."""
    names = proto_names(field.name for field in schema.fields)
    puts = [(field.name, _put(name, field.schema)) for name, field in zip(names, schema.fields, strict=True)]

    def fill(message: Any, value: Any) -> None:
        for name, put in puts:
            try:
                put(message, value[name])
            except (ValueError, TypeError) as error:
                raise ValueError(f"{name}: {error}") from None

    return fill


def taker(schema: Schema) -> Take:
    """The reader of a struct from its message."""
    names = proto_names(field.name for field in schema.fields)
    gets = [(field.name, _get(name, field.schema)) for name, field in zip(names, schema.fields, strict=True)]
    return lambda message: {name: get(message) for name, get in gets}


def _put(name: str, schema: Schema) -> _Put:
    if schema.type in {"array", "map"}:
        return _put_many(name, schema)
    single = _put_one(name, schema)

    def put(message: Any, value: Any) -> None:
        if value is not None:
            single(message, value)
        elif not schema.optional:
            raise ValueError("null, where the schema requires a value")

    return put


def _put_one(name: str, schema: Schema) -> _Put:
    if schema.type == "struct" or schema.name in _LOGICAL:
        fill = _filler_of(schema)

        def put(message: Any, value: Any) -> None:
            inner = getattr(message, name)
            type(inner).SetInParent(inner)
            fill(inner, value)

        return put
    return lambda message, value: setattr(message, name, value)


def _put_many(name: str, schema: Schema) -> _Put:
    if schema.optional:
        inside = _put_many("value", replace(schema, optional=False))

        def put_list(message: Any, value: Any) -> None:
            if value is not None:
                inner = getattr(message, name)
                type(inner).SetInParent(inner)
                inside(inner, value)

        return put_list
    if schema.type == "map" and schema.keys and schema.values:
        put_key, put_value = _put("key", schema.keys), _put("value", schema.values)

        def put_map(message: Any, value: Any) -> None:
            entries = getattr(message, name)
            for key, item in value.items() if isinstance(value, dict) else value:
                entry = entries.add()
                put_key(entry, key)
                put_value(entry, item)

        return put_map
    element = _element(schema)
    if item_message(element):
        put_item = _put("value", element)
        return _each(name, put_item)
    if element.type == "struct" or element.name in _LOGICAL:
        return _each(name, _filler_of(element))
    return lambda message, value: getattr(message, name).extend(value)


def _each(name: str, put: _Put) -> _Put:
    def put_all(message: Any, value: Any) -> None:
        items = getattr(message, name)
        for item in value:
            put(items.add(), item)

    return put_all


def _element(schema: Schema) -> Schema:
    if schema.values is None:
        raise ValueError("an array without elements' schema")
    return schema.values


def _get(name: str, schema: Schema) -> _Get:
    if schema.type in {"array", "map"}:
        return _get_many(name, schema)
    take = _taker_of(schema) if schema.type == "struct" or schema.name in _LOGICAL else None
    if not schema.optional:
        return (
            (lambda message: getattr(message, name)) if take is None else lambda message: take(getattr(message, name))
        )

    def get(message: Any) -> Any:
        if not type(message).HasField(message, name):
            return None
        value = getattr(message, name)
        return value if take is None else take(value)

    return get


def _get_many(name: str, schema: Schema) -> _Get:
    if schema.optional:
        inside = _get_many("value", replace(schema, optional=False))
        return lambda message: inside(getattr(message, name)) if type(message).HasField(message, name) else None
    if schema.type == "map" and schema.keys and schema.values:
        get_key, get_value = _get("key", schema.keys), _get("value", schema.values)
        hashable = schema.keys.type not in {"array", "map", "struct"}

        def get_map(message: Any) -> Any:
            pairs = [(get_key(entry), get_value(entry)) for entry in getattr(message, name)]
            return dict(pairs) if hashable else pairs

        return get_map
    element = _element(schema)
    if item_message(element):
        get_item = _get("value", element)
        return lambda message: [get_item(item) for item in getattr(message, name)]
    if element.type == "struct" or element.name in _LOGICAL:
        take = _taker_of(element)
        return lambda message: [take(item) for item in getattr(message, name)]
    return lambda message: list(getattr(message, name))


def _filler_of(schema: Schema) -> Fill:
    match schema.name:
        case "org.apache.kafka.connect.data.Decimal":
            return _decimal(int(dict(schema.parameters).get("scale", "0")))
        case "org.apache.kafka.connect.data.Date":
            return _fill_date
        case "org.apache.kafka.connect.data.Time":
            return _fill_time
        case "org.apache.kafka.connect.data.Timestamp":
            return _fill_timestamp
    return filler(schema)


def _taker_of(schema: Schema) -> Take:
    match schema.name:
        case "org.apache.kafka.connect.data.Decimal":
            return lambda message: message.value
        case "org.apache.kafka.connect.data.Date":
            return lambda message: days_of(message.year, message.month, message.day)
        case "org.apache.kafka.connect.data.Time":
            return take_time
        case "org.apache.kafka.connect.data.Timestamp":
            return take_timestamp
    return taker(schema)


def _decimal(scale: int) -> Fill:
    def fill(message: Any, value: bytes) -> None:
        number = abs(int.from_bytes(value, "big", signed=True))
        message.value = value
        message.precision = _digits(number)
        message.scale = scale

    return fill


def _digits(number: int) -> int:
    """How many decimal digits a number has, without writing them."""
    guess = int(number.bit_length() * 0.30102999566398)
    return guess + 1 if number >= 10**guess else max(guess, 1)


def _fill_date(message: Any, days: int) -> None:
    message.year, message.month, message.day = date_of(days)


def _fill_time(message: Any, milliseconds: int) -> None:
    seconds, rest = divmod(milliseconds, 1000)
    minutes, message.seconds = divmod(seconds, 60)
    message.hours, message.minutes = divmod(minutes, 60)
    message.nanos = rest * 1_000_000


def take_time(message: Any) -> int:
    """A ``google.type.TimeOfDay`` as milliseconds since midnight."""
    seconds = (message.hours * 60 + message.minutes) * 60 + message.seconds
    return int(seconds * 1000 + message.nanos // 1_000_000)


def take_timestamp(message: Any) -> int:
    """A ``google.protobuf.Timestamp`` as milliseconds since 1970."""
    return int(message.seconds * 1000 + message.nanos // 1_000_000)


def _fill_timestamp(message: Any, milliseconds: int) -> None:
    message.seconds, rest = divmod(milliseconds, 1000)
    message.nanos = rest * 1_000_000


def date_of(days: int) -> tuple[int, int, int]:
    """Year (0 is 1 BC), month and day of a day since 1970, in the proleptic Gregorian calendar, however far away."""
    era, day = divmod(days + 719_468, 146_097)  # eras of 400 years from the 1st of March of year 0
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    of_year = day - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153  # from March
    return (
        year + era * 400 + (month >= 10),
        month + 3 if month < 10 else month - 9,
        of_year - (153 * month + 2) // 5 + 1,
    )


def days_of(year: int, month: int, day: int) -> int:
    """The inverse of `date_of`."""
    year -= month <= 2
    era, of_era = divmod(year, 400)
    of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
