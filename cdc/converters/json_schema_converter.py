"""Confluent's JSON Schema converter: JSON whose schema is in a registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from cdc.codec.json_reader import load, reader
from cdc.codec.json_schema import connect_schema, json_schema_text
from cdc.codec.json_writer import writer
from cdc.converters.registered import ReadPlan, RegisteredConverter
from cdc.converters.settings import BOOLEAN, Setting
from cdc.record import Schema

__all__ = ["JsonSchemaConverter"]


class JsonSchemaConverter(RegisteredConverter):
    """``io.confluent.connect.json.JsonSchemaConverter``.

    A null stays a null; Confluent's converter writes the default of its schema instead.
    """

    aliases: ClassVar[tuple[str, ...]] = ("io.confluent.connect.json.JsonSchemaConverter",)
    kind = "JSON"
    label = "JSON Schema"
    settings = (
        Setting(
            "decimal.format",
            "BASE64",
            "How decimals are written: the bytes of the number without its point, or a JSON number.",
            {"BASE64": False, "NUMERIC": True},
        ),
        Setting(
            "use.optional.for.nonrequired",
            "false",
            "Whether properties that a schema does not require are optional, when reading.",
            BOOLEAN,
        ),
        Setting("object.additional.properties", "true", "Whether objects may have other properties.", BOOLEAN),
        Setting("preserve.additional.properties", "false", "Not supported: only false.", {"false": False}),
    )
    ignored = frozenset(
        {
            *("json.schema.spec.version", "json.oneof.for.nullables", "json.default.property.inclusion"),
            *("json.fail.invalid.schema", "json.fail.unknown.properties", "json.write.dates.iso8601"),
            *("json.indent.output", "ignore.modern.dialects"),
        }
    )

    def _take(self, found: Mapping[str, Any]) -> None:
        self._numeric = found["decimal.format"]
        self._open = found["object.additional.properties"]
        self._required_only = found["use.optional.for.nonrequired"]

    def _form(self) -> str:
        return f"JSON Schema, decimals {'NUMERIC' if self._numeric else 'BASE64'}"

    def _text(self, topic: str, schema: Schema) -> str:  # noqa: ARG002 - every schema has a form
        return json_schema_text(schema, numeric=self._numeric, open_=self._open)

    def _connect(self, text: str) -> Schema:
        return connect_schema(text, required_only=self._required_only)

    def _payload(self, schema: Schema, text: str) -> Callable[[Any], bytes]:  # noqa: ARG002 - values follow the schema
        write = writer(schema, numeric=self._numeric, entries=True)
        return lambda value: write(value).encode("utf-8")

    def _plan(self, text: str) -> ReadPlan:
        schema = self._connect(text)
        read = reader(schema, entries=True)

        def value(data: bytes) -> tuple[Schema, Any]:
            payload = data.decode("utf-8").strip(" \t\r\n")
            form, end = load(payload)
            if end != len(payload):
                raise ValueError(f"more follows the JSON value that ends at character {end}")
            return schema, read(form)

        return ReadPlan(value)
