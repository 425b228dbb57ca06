"""What tests of converters share: a registry in memory, what keys remember, tables, and how values are compared."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cdc.codec.envelope import row_shape
from cdc.plugin import Converter
from cdc.postgres.types import PgType, TypeModes, default_value, resolve
from cdc.record import NO_DEFAULT, Column, RowChange, RowShape, Schema, Transaction
from cdc.registry.errors import IncompatibleSchema, RegistryRefused, RegistryUnavailable, UnknownSchemaId

MOOD = {16410: PgType(16410, "mood", "public", "e", labels=("sad", "ok"))}
NOW = 1_700_000_000_123_456


class MemoryRegistry:
    """The registry's part that converters use. A subject that is not at NONE refuses all schemas after its first."""

    def __init__(self, *, strict: bool = False) -> None:
        self.ids: dict[tuple[str, str], int] = {}
        self.subjects: dict[str, list[tuple[str, str]]] = {}
        self.levels: dict[str, str] = {}
        self.strict = strict
        self.away = False
        self.fetched: list[int] = []

    def close(self) -> None:
        self.subjects.clear()

    def register(self, subject: str, schema: str, schema_type: str = "AVRO", /) -> int:
        if self.away:
            raise RegistryUnavailable("away")
        versions = self.subjects.setdefault(subject, [])
        if (schema_type, schema) not in versions:
            if versions and self.strict and self.levels.get(subject) != "NONE":
                raise IncompatibleSchema("incompatible", ["different"])
            versions.append((schema_type, schema))
        return self.ids.setdefault((schema_type, schema), len(self.ids) + 1)

    def lookup(self, subject: str, schema: str, schema_type: str = "AVRO", /) -> int:
        if (schema_type, schema) not in self.subjects.get(subject, ()):
            raise RegistryRefused(f"schema of {subject} not found")
        return self.ids[schema_type, schema]

    def latest(self, subject: str, /, *, serialized: bool = False) -> tuple[int, str] | None:
        del serialized
        versions = self.subjects.get(subject)
        return (self.ids[versions[-1]], versions[-1][1]) if versions else None

    def schema(self, schema_id: int, /) -> tuple[str, str]:
        self.fetched.append(schema_id)
        for content, number in self.ids.items():
            if number == schema_id:
                return content
        raise UnknownSchemaId(f"no schema {schema_id}", schema_id)

    def set_compatibility(self, subject: str, level: str, /) -> None:
        self.levels[subject] = level


class Memory:
    """What is stored with the offsets, as JSON."""

    def __init__(self) -> None:
        self.stored: dict[str, str] = {}

    def get(self, topic: str) -> Mapping[str, Any] | None:
        return json.loads(self.stored[topic]) if topic in self.stored else None

    def put(self, topic: str, state: Mapping[str, Any]) -> None:
        self.stored[topic] = json.dumps(state)


def configured(
    kind: type[Converter], registry: MemoryRegistry | None = None, *, is_key: bool = False, **config: str
) -> Any:
    """A converter of this kind, on this registry; ``_`` in names of properties is a dot."""
    converter: Any = kind()
    properties = {name.replace("_", "."): value for name, value in config.items()}
    if registry is not None:
        converter._client = lambda _url, _config: registry
        properties["schema.registry.url"] = "http://registry"
    converter.configure(properties, is_key=is_key)
    return converter


def column(name: str, oid: int, typmod: int = -1, *, optional: bool = False, default: str = "") -> Column:
    mapping = resolve(oid, typmod, MOOD, TypeModes())
    constant = default_value(default, mapping) if default else NO_DEFAULT
    return Column(name, replace(mapping.schema, optional=optional, default=constant), mapping.kind, mapping.params)


def shape(*columns: Column, key: tuple[int, ...] = (0,), topic: str = "shop.public.orders") -> RowShape:
    return row_shape(topic, "shopdb", "public", "orders", columns, key, topic.removesuffix(".public.orders"))


def change(of: RowShape, *row: Any, op: str = "c") -> RowChange:
    after = None if op in {"", "d"} else list(row)
    before = list(row) if op == "d" else None
    return RowChange(of, op, list(row), before, after, Transaction(1, 2, 3_000_000, 4, None), 5, 0, 0)


def comparable(schema: Schema | None, value: Any) -> Any:
    """A value as it can be compared: floats by their bytes, so that NaN is NaN and a single a single."""
    if value is None or schema is None:
        return value
    match schema.type:
        case "float32":
            return "NaN" if math.isnan(value) else struct.pack("<f", value)
        case "float64":
            return "NaN" if math.isnan(value) else struct.pack("<d", value)
        case "array":
            return [comparable(schema.values, item) for item in value]
        case "map":
            pairs = value.items() if isinstance(value, dict) else value
            return [(comparable(schema.keys, name), comparable(schema.values, item)) for name, item in pairs]
        case "struct":
            return {field.name: comparable(field.schema, value[field.name]) for field in schema.fields}
    return value
