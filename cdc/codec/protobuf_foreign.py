"""Protobuf messages that no Connect schema describes → Connect schema and reader, as ``ProtobufData`` has them.

Fields with ``optional``, of oneofs and of messages may be null. Unsigned 32-bit numbers are int64, enums text with
their values as parameters, wrappers optional scalars, members of a oneof fields like others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from cdc.codec.protobuf_types import DATE, DECIMAL, TIME, TIMESTAMP, WRAPPERS
from cdc.codec.protobuf_values import days_of, take_time, take_timestamp
from cdc.errors import DataError
from cdc.record import Field, Schema

__all__ = ["foreign_reader"]

_NAMESPACE: Final = "io.confluent.connect.protobuf"
_ENUM: Final = f"{_NAMESPACE}.Enum"
_TAG: Final = f"{_NAMESPACE}.Tag"
_LOGICAL: Final = {
    DATE: ("int32", "Date", lambda message: days_of(message.year, message.month, message.day)),
    TIME: ("int32", "Time", take_time),
    TIMESTAMP: ("int64", "Timestamp", take_timestamp),
}
_Typed = tuple[Schema, "Callable[[Any], Any] | None"]


def foreign_reader(descriptor: Any) -> tuple[Schema, Callable[[Any], Any]]:
    """Schema and reader of a message. `DataError` for one that contains itself."""
    return _message(descriptor, ())


def _message(descriptor: Any, open_: tuple[str, ...]) -> tuple[Schema, Callable[[Any], Any]]:
    if descriptor.full_name in open_:
        raise DataError(f"the Protobuf message {descriptor.full_name} contains itself; a Connect schema cannot")
    fields, getters = [], []
    for field in descriptor.fields:
        schema, get = _field(field, (*open_, descriptor.full_name))
        schema = replace(schema, parameters=(*schema.parameters, (_TAG, str(field.number))))
        fields.append(Field(field.name, schema))
        getters.append((field.name, get))
    schema = Schema("struct", name=descriptor.name, fields=tuple(fields))
    return schema, lambda message: {name: get(message) for name, get in getters}


def _field(field: Any, open_: tuple[str, ...]) -> tuple[Schema, Callable[[Any], Any]]:
    name = field.name
    if _is_map(field):
        keys, _ = _single(field.message_type.fields_by_name["key"], open_)
        values, take = _single(field.message_type.fields_by_name["value"], open_)
        read = take or _same
        return (
            Schema("map", keys=keys, values=values),
            lambda message: {key: read(getattr(message, name)[key]) for key in getattr(message, name)},
        )
    schema, take = _single(field, open_)
    if _is_repeated(field):
        read = take or _same
        return Schema("array", values=schema), lambda message: [read(item) for item in getattr(message, name)]
    if not field.has_presence:
        return schema, (lambda message: getattr(message, name)) if take is None else _through(name, take)

    def get(message: Any) -> Any:
        if not type(message).HasField(message, name):
            return None
        value = getattr(message, name)
        return value if take is None else take(value)

    return replace(schema, optional=True), get


def _single(field: Any, open_: tuple[str, ...]) -> _Typed:
    if field.message_type is not None:
        full = field.message_type.full_name
        if full in _LOGICAL:
            type_, name, take = _LOGICAL[full]
            return Schema(type_, name=f"org.apache.kafka.connect.data.{name}", version=1), take
        if full == DECIMAL:
            return Schema("struct", name="Decimal", fields=_DECIMAL_FIELDS), _decimal
        if full in WRAPPERS:
            inner, _ = _single(field.message_type.fields_by_name["value"], open_)
            return inner, lambda message: message.value
        return _message(field.message_type, open_)
    if field.enum_type is not None:
        labels = {value.number: value.name for value in field.enum_type.values}
        symbols = [(f"{_ENUM}.{value.name}", str(value.number)) for value in field.enum_type.values]
        schema = Schema("string", name=field.enum_type.name, parameters=((_ENUM, field.enum_type.name), *symbols))
        return schema, lambda number: labels.get(number, str(number))
    return Schema("bytes" if field.type == field.TYPE_BYTES else _CPP_TYPES[field.cpp_type]), None


_DECIMAL_FIELDS: Final = (Field("scale", Schema("int32")), Field("value", Schema("bytes")))


def _decimal(message: Any) -> dict[str, Any]:
    return {"scale": message.scale, "value": message.value}


_CPP_TYPES: Final = {
    1: "int32",
    2: "int64",
    3: "int64",  # unsigned 32 bits
    4: "int64",  # unsigned 64 bits: above 2**63 it is no Connect value, and refused by whoever writes it on
    5: "float64",
    6: "float32",
    7: "boolean",
    9: "string",
}


def _same(value: Any) -> Any:
    return value


def _through(name: str, take: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda message: take(getattr(message, name))


def _is_repeated(field: Any) -> bool:
    # The property's name has changed between versions of the library.
    repeated = getattr(field, "is_repeated", None)
    return bool(field.label == field.LABEL_REPEATED) if repeated is None else bool(repeated)


def _is_map(field: Any) -> bool:
    return bool(field.message_type is not None and field.message_type.GetOptions().map_entry and _is_repeated(field))
