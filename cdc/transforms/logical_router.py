"""Debezium's ``ByLogicalTableRouter``: several tables into one topic, their keys told apart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

from cdc.errors import ConfigError, Finding
from cdc.plugin import Transform
from cdc.record import ConnectRecord, Field, Schema
from cdc.transforms.schemas import Once, is_envelope
from cdc.transforms.settings import Settings, java_pattern, java_replacement, read

__all__ = ["ByLogicalTableRouter"]

_STRING = Schema("string")


class _Settings(Settings):
    topic_regex: str
    topic_replacement: str
    key_enforce_uniqueness: bool = True
    key_field_name: str = "__dbz__physicalTableIdentifier"
    key_field_regex: str = ""
    key_field_replacement: str = ""
    schema_name_adjustment_mode: Literal["none", "avro"] = "none"
    logical_table_cache_size: int = 16


class ByLogicalTableRouter(Transform):
    """Topics that ``topic.regex`` matches as a whole become ``topic.replacement``, schemas are named after them.

    A field in the key says which table a row is of, unless ``key.enforce.uniqueness`` is off.
    """

    aliases: ClassVar[tuple[str, ...]] = ("io.debezium.transforms.ByLogicalTableRouter",)

    def configure(self, config: Mapping[str, str]) -> None:
        settings = read(_Settings, config)
        self._unique = settings.key_enforce_uniqueness
        self._field = settings.key_field_name
        self._avro = settings.schema_name_adjustment_mode == "avro"
        self._topic, self._topic_to = _pair(settings.topic_regex, settings.topic_replacement, "topic")
        self._key: re.Pattern[str] | None = None
        if settings.key_field_regex:
            self._key, self._key_to = _pair(settings.key_field_regex, settings.key_field_replacement, "key.field")
        self._once = Once()
        self._routes: dict[str, tuple[str, str] | None] = {}

    def apply(self, record: ConnectRecord) -> ConnectRecord | None:
        route = self._route(record.topic)
        if route is None or (record.value is not None and not is_envelope(record)):
            return record
        topic, table = route
        key, key_schema, value_schema = record.key, record.key_schema, record.value_schema
        if key_schema is not None and key is not None:
            if self._unique:
                key = {**key, self._field: table}
            key_schema = self._once(key_schema, lambda: self._key_schema(record.key_schema, topic), topic)
        if value_schema is not None:
            value_schema = self._once(value_schema, lambda: self._envelope(record.value_schema, topic), topic)
        return replace(record, topic=topic, key=key, key_schema=key_schema, value_schema=value_schema)

    def _route(self, topic: str) -> tuple[str, str] | None:
        """The new topic, and what tells the table apart in it; ``None`` when the topic stays."""
        if topic not in self._routes:
            route = None
            match = self._topic.fullmatch(topic)
            if match and (new := match.expand(self._topic_to)):
                found = self._key.fullmatch(topic) if self._key else None
                route = (new, found.expand(self._key_to) if found else topic)
            self._routes[topic] = route
        return self._routes[topic]

    def _key_schema(self, schema: Schema | None, topic: str) -> Schema | None:
        if schema is None:
            return None
        own = (Field(self._field, _STRING),) if self._unique else ()
        return replace(schema, name=self._name(f"{topic}.Key"), fields=(*schema.fields, *own))

    def _envelope(self, schema: Schema | None, topic: str) -> Schema | None:
        if schema is None:
            return None
        fields = tuple(
            Field(field.name, replace(field.schema, name=self._name(f"{topic}.Value")))
            if field.name in {"before", "after"}
            else field
            for field in schema.fields
        )
        return replace(schema, name=self._name(f"{topic}.Envelope"), fields=fields)

    def _name(self, name: str) -> str:
        return re.sub(r"[^A-Za-z0-9_.]", "_", name) if self._avro else name


def _pair(regex: str, replacement: str, what: str) -> tuple[re.Pattern[str], str]:
    try:
        pattern = java_pattern(regex)
    except ValueError as error:
        raise ConfigError([Finding(str(error), key=f"{what}.regex")]) from None
    try:
        return pattern, java_replacement(pattern, replacement)
    except ValueError as error:
        raise ConfigError([Finding(str(error), key=f"{what}.replacement")]) from None
