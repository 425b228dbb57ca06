"""Connect schema → Avro schema, attribute for attribute as Confluent's ``AvroData`` writes it.

Readers compare schemas, registries give ids to their texts, and a record's key begins with the id; so order of
attributes matters as much as their presence: ``doc, version, parameters, default, name, type`` (each with
``connect.`` before it), then ``logicalType``. A decimal has ``scale`` and ``precision`` first. An optional field is
``["null", T]`` with default null, or ``[T, "null"]`` when it has a default. A struct that
appeared before is named, by its short name within its own namespace.

Beyond ``AvroData``, on request: Avro's own ``logicalType`` beside Debezium's semantic name, where the value has
exactly the form that Avro specifies. Postgres's ``timestamp`` has no zone, so it is a *local* timestamp
(``local-timestamp-micros``), never an instant; ``timestamptz`` is text and has none.

Confluent's ``AvroData`` reads ``date`` and ``time-millis`` as Connect's own Date and Time and then refuses Debezium's
name beside it ("Mismatched names"); it ignores all the others. So ``"connect"`` asks for all but these two, for
topics that Kafka Connect's Avro converter reads too.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Literal

from cdc.errors import DataError
from cdc.record import NO_DEFAULT, Field, Schema

__all__ = ["LogicalTypes", "avro_schema", "avro_text"]

LogicalTypes = bool | Literal["connect"]
"""``False``: as Confluent's converter. ``True``: Avro's logical types too. ``"connect"``: those it can read."""

_PRIMITIVES = {
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
_NAMESPACE = "io.confluent.connect.avro"
_DECIMAL = "org.apache.kafka.connect.data.Decimal"
_UNKNOWN_PRECISION = 64
"""What ``AvroData`` writes for a decimal without the parameter ``connect.decimal.precision``."""

_CONNECT_LOGICAL = {
    "org.apache.kafka.connect.data.Date": "date",
    "org.apache.kafka.connect.data.Time": "time-millis",
    "org.apache.kafka.connect.data.Timestamp": "timestamp-millis",
}
_DEBEZIUM_LOGICAL = {
    ("io.debezium.time.Date", "int32"): "date",
    ("io.debezium.time.Time", "int32"): "time-millis",
    ("io.debezium.time.MicroTime", "int64"): "time-micros",
    ("io.debezium.time.Timestamp", "int64"): "local-timestamp-millis",
    ("io.debezium.time.MicroTimestamp", "int64"): "local-timestamp-micros",
    ("io.debezium.time.NanoTimestamp", "int64"): "local-timestamp-nanos",
    ("io.debezium.data.Uuid", "string"): "uuid",
}
_CLASH = frozenset({"date", "time-millis"})
"""Read by ``AvroData`` as Connect's own types, whose names are not Debezium's."""


def avro_schema(schema: Schema, *, logical_types: LogicalTypes = False) -> Any:
    """The Avro schema of ``schema`` as JSON values, keys in ``AvroData``'s order.

    `DataError` when two structs of one name differ (Avro cannot name both).
    """
    return _Conversion(logical_types).any(schema, "")


def avro_text(schema: Schema, *, logical_types: LogicalTypes = False) -> str:
    """The text that is registered: `avro_schema` in compact JSON, non-ASCII characters as they are."""
    tree = avro_schema(schema, logical_types=logical_types)
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":"))


class _Conversion:
    def __init__(self, logical_types: LogicalTypes) -> None:
        self._logical_types = logical_types
        self._named: dict[str, Schema] = {}
        self._unnamed = 0

    def any(self, schema: Schema, space: str) -> Any:
        base = self._base(schema, space)
        if not schema.optional:
            return base
        if schema.default is not NO_DEFAULT and schema.type != "struct":
            return [base, "null"]
        return ["null", base]

    def _base(self, schema: Schema, space: str) -> Any:
        if schema.type == "struct":
            return self._record(schema, space)
        head = self._head(schema, space)
        tail = self._tail(schema)
        if list(head) == ["type"] and not tail and isinstance(head["type"], str) and schema.type in _PRIMITIVES:
            return head["type"]
        return head | tail

    def _head(self, schema: Schema, space: str) -> dict[str, Any]:
        if schema.type == "array" and schema.values:
            return {"type": "array", "items": self.any(schema.values, space)}
        if schema.type == "map" and schema.keys and schema.values:
            if schema.keys.type == "string" and not schema.keys.optional:
                return {"type": "map", "values": self.any(schema.values, space)}
            return {"type": "array", "items": self._map_entry(schema, schema.keys, schema.values, space)}
        head: dict[str, Any] = {"type": _PRIMITIVES[schema.type]}
        if schema.name == _DECIMAL:
            parameters = dict(schema.parameters)
            head["scale"] = int(parameters.get("scale", "0"))
            head["precision"] = int(parameters.get("connect.decimal.precision", _UNKNOWN_PRECISION))
        return head

    def _map_entry(self, schema: Schema, keys: Schema, values: Schema, space: str) -> Any:
        """Avro's maps have text keys; any other map is an array of key-value records."""
        inner, short = _split(schema.name) if schema.name else (_NAMESPACE, "MapEntry")
        entry = self._head_of_record(inner, short, space)
        entry["fields"] = [self._field(Field("key", keys), inner), self._field(Field("value", values), inner)]
        if schema.name:
            entry["connect.internal.type"] = "MapEntry"
        return entry

    def _record(self, schema: Schema, space: str) -> Any:
        if schema.name:
            inner, short = _split(schema.name)
        else:
            self._unnamed += 1
            inner, short = _NAMESPACE, "ConnectDefault" + (str(self._unnamed) if self._unnamed > 1 else "")
        full = f"{inner}.{short}" if inner else short
        known = self._named.get(full)
        if known is not None:
            if not _same(known, schema):
                raise DataError(f"two different structs are named {full}: an Avro schema can hold only one of them")
            return short if inner == space else full
        self._named[full] = schema
        record = self._head_of_record(inner, short, space)
        record["fields"] = [self._field(field, inner) for field in schema.fields]
        return record | self._tail(schema)

    @staticmethod
    def _head_of_record(inner: str, short: str, space: str) -> dict[str, Any]:
        record: dict[str, Any] = {"type": "record", "name": short}
        if inner != space:
            record["namespace"] = inner
        return record

    def _field(self, field: Field, space: str) -> dict[str, Any]:
        result = {"name": field.name, "type": self.any(field.schema, space)}
        if field.schema.default is not NO_DEFAULT:
            result["default"] = _default(field.schema, field.schema.default)
        elif field.schema.optional:
            result["default"] = None
        return result

    def _tail(self, schema: Schema) -> dict[str, Any]:
        tail: dict[str, Any] = {}
        if schema.doc is not None:
            tail["connect.doc"] = schema.doc
        if schema.version is not None:
            tail["connect.version"] = schema.version
        if schema.parameters:
            tail["connect.parameters"] = dict(schema.parameters)
        if schema.default is not NO_DEFAULT:
            tail["connect.default"] = _default(schema, schema.default)
        if schema.name is not None:
            tail["connect.name"] = schema.name
        if schema.type in {"int8", "int16"}:
            tail["connect.type"] = schema.type
        logical = self._logical(schema)
        if logical:
            tail["logicalType"] = logical
        return tail

    def _logical(self, schema: Schema) -> str | None:
        if schema.name is None:
            return None
        if schema.name == _DECIMAL:
            return "decimal"
        if schema.name in _CONNECT_LOGICAL:
            return _CONNECT_LOGICAL[schema.name]
        logical = _DEBEZIUM_LOGICAL.get((schema.name, schema.type)) if self._logical_types else None
        return None if self._logical_types == "connect" and logical in _CLASH else logical


def _split(name: str) -> tuple[str, str]:
    space, _, short = name.rpartition(".")
    return space, short


def _same(one: Schema, other: Schema) -> bool:
    return (one.fields, one.version, one.doc, one.parameters) == (
        other.fields,
        other.version,
        other.doc,
        other.parameters,
    )


def _default(schema: Schema, form: Any) -> Any:
    """A default in Connect's JSON form as Avro's: bytes as one character a byte."""
    if form is None:
        return None
    match schema.type:
        case "bytes":
            return base64.b64decode(form).decode("latin-1")
        case "array" if schema.values:
            return [_default(schema.values, item) for item in form]
        case "map" if schema.values and isinstance(form, dict):
            return {key: _default(schema.values, item) for key, item in form.items()}
        case "struct":
            return {field.name: _default(field.schema, form[field.name]) for field in schema.fields}
    return form
