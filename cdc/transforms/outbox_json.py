"""A JSON text as a Connect value with a schema, as Debezium's ``table.expand.json.payload`` makes it."""

from __future__ import annotations

import json
from typing import Any, Final

from cdc.record import Field, Schema

__all__ = ["expanded"]

_BYTES: Final = Schema("bytes", optional=True)
_STRING: Final = Schema("string", optional=True)
_BOOLEAN: Final = Schema("boolean", optional=True)
_INT32: Final = Schema("int32", optional=True)
_INT64: Final = Schema("int64", optional=True)
_FLOAT64: Final = Schema("float64", optional=True)


class _NoSchema(ValueError):
    """Values that one schema cannot hold."""


def expanded(text: str, name: str, *, optional_bytes: bool) -> tuple[Any, Schema] | None:
    """Value and schema of an object or array; ``None`` for other texts, and where values have no common schema.

    Fields that are null have no type: they are left out, or ``optional_bytes``.
    """
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        value = json.loads(text)
        schema = _schema(value, name, optional_bytes)
        return None if schema is None else (_value(schema, value), schema)
    except (ValueError, RecursionError):
        return None


def _schema(value: Any, name: str, optional_bytes: bool) -> Schema | None:
    match value:
        case None:
            return _BYTES if optional_bytes else None
        case bool():
            return _BOOLEAN
        case int():
            if not -(2**63) <= value < 2**63:
                raise _NoSchema(f"{name} has a number beyond 64 bits")
            return _INT32 if -(2**31) <= value < 2**31 else _INT64
        case float():
            return _FLOAT64
        case str():
            return _STRING
        case list():
            items = _common([_schema(item, name, optional_bytes) for item in value], name)
            return None if items is None else Schema("array", optional=True, values=items)
    fields = []
    for key, item in value.items():
        inner = _schema(item, f"{name}.{key}", optional_bytes)
        if inner is not None:
            fields.append(Field(key, inner))
    return Schema("struct", optional=True, name=name, fields=tuple(fields))


def _common(schemas: list[Schema | None], name: str) -> Schema | None:
    """One schema for the elements of an array: structs have the fields of all, numbers the widest type."""
    known = [schema for schema in schemas if schema is not None and schema is not _BYTES]
    if not known:
        return schemas[0] if schemas else None
    kinds = {schema.type for schema in known}
    if kinds == {"struct"}:
        fields: dict[str, list[Schema | None]] = {}
        for schema in known:
            for field in schema.fields:
                fields.setdefault(field.name, []).append(field.schema)
        merged = [(key, _common(found, f"{name}.{key}")) for key, found in fields.items()]
        kept = tuple(Field(key, schema) for key, schema in merged if schema is not None)
        return Schema("struct", optional=True, name=name, fields=kept)
    if kinds == {"array"}:
        items = _common([schema.values for schema in known], name)
        return None if items is None else Schema("array", optional=True, values=items)
    if kinds == {"int32", "int64"}:
        return _INT64
    if len(kinds) > 1:
        raise _NoSchema(f"{name} has elements of different types: {', '.join(sorted(kinds))}")
    return known[0]


def _value(schema: Schema, value: Any) -> Any:
    if value is None:
        return None
    if schema.type == "array" and schema.values:
        return [_value(schema.values, item) for item in value]
    if schema.type == "struct":
        return {field.name: _value(field.schema, value.get(field.name)) for field in schema.fields}
    return value
