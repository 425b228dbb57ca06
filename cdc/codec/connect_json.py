"""Connect schemas and values in the form of Kafka Connect's JSON converter.

The form is Kafka's own (``org.apache.kafka.connect.json``): ``{"type": "int32", "optional": false, …}``, with
``float`` and ``double`` for Connect's ``float32`` and ``float64``; bytes are base64 text, non-finite floats the texts
``NaN``, ``Infinity`` and ``-Infinity``. Values here are *native*: what an Avro writer without logical
types takes (``bytes`` of a decimal, days of a date, dict of a struct).
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cdc.codec.json_reader import reader
from cdc.codec.json_writer import string_text, writer
from cdc.record import NO_DEFAULT, Field, Schema

__all__ = ["parse_schema", "schema_text", "value_from_json", "value_to_json"]

_TYPES = {name: name for name in ("int8", "int16", "int32", "int64", "boolean", "string", "bytes", "array", "map")}
_TYPES |= {"float": "float32", "double": "float64", "struct": "struct"}
_NAMES = {"float32": "float", "float64": "double"}


def parse_schema(form: Mapping[str, Any]) -> Schema:
    """The schema that a JSON converter's ``schema`` member describes. `ValueError` names what is not known."""
    name = form.get("type")
    kind = _TYPES.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ValueError(f"not a Connect schema: type {name!r}; expected one of {', '.join(_TYPES)}")
    schema = Schema(
        type=kind,
        optional=bool(form.get("optional", False)),
        name=form.get("name"),
        version=form.get("version"),
        doc=form.get("doc"),
        parameters=tuple((key, str(value)) for key, value in form.get("parameters", {}).items()),
        fields=tuple(Field(field["field"], parse_schema(field)) for field in form.get("fields", ())),
        keys=parse_schema(form["keys"]) if kind == "map" else None,
        values=parse_schema(form["items" if kind == "array" else "values"]) if kind in {"array", "map"} else None,
    )
    default = form.get("default")
    if default is None:
        return schema
    # One form for each default, however its numbers are written.
    return replace(schema, default=value_to_json(schema, value_from_json(schema, default)))


def schema_text(schema: Schema, *, numeric: bool = False) -> str:
    """The JSON text that a JSON converter writes for ``schema``; ``numeric`` if its decimals are numbers."""
    return "{" + ",".join(_members(schema, numeric)) + "}"


def _members(schema: Schema, numeric: bool) -> list[str]:
    found = [f'"type":"{_NAMES.get(schema.type, schema.type)}"']
    if schema.type == "struct":
        fields = [
            "{" + ",".join([*_members(field.schema, numeric), f'"field":{string_text(field.name)}']) + "}"
            for field in schema.fields
        ]
        found.append(f'"fields":[{",".join(fields)}]')
    if schema.keys:
        found.append(f'"keys":{schema_text(schema.keys, numeric=numeric)}')
    if schema.values:
        found.append(f'"{"values" if schema.keys else "items"}":{schema_text(schema.values, numeric=numeric)}')
    found.append(f'"optional":{"true" if schema.optional else "false"}')
    if schema.name is not None:
        found.append(f'"name":{string_text(schema.name)}')
    if schema.version is not None:
        found.append(f'"version":{schema.version}')
    if schema.doc is not None:
        found.append(f'"doc":{string_text(schema.doc)}')
    if schema.parameters:
        pairs = [f"{string_text(name)}:{string_text(value)}" for name, value in schema.parameters]
        found.append(f'"parameters":{{{",".join(pairs)}}}')
    if schema.default is not NO_DEFAULT:
        value = value_from_json(schema, schema.default)
        found.append(f'"default":{writer(schema, numeric=numeric)(value)}')
    return found


def value_to_json(schema: Schema, value: Any) -> Any:
    """What the JSON converter (``schemas.enable=false``, ``replace.null.with.default=false``) writes for ``value``."""
    if value is None:
        return None
    match schema.type:
        case "bytes":
            return base64.b64encode(value).decode("ascii")
        case "float32" | "float64" if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case "float32":
            return _shortest_single(value)
        case "array" if schema.values:
            return [value_to_json(schema.values, item) for item in value]
        case "map" if schema.keys and schema.values:
            if schema.keys.type == "string" and not schema.keys.optional:
                return {key: value_to_json(schema.values, item) for key, item in value.items()}
            return [[value_to_json(schema.keys, k), value_to_json(schema.values, v)] for k, v in value.items()]
        case "struct":
            return {field.name: value_to_json(field.schema, value[field.name]) for field in schema.fields}
    return value


def value_from_json(schema: Schema, form: Any) -> Any:
    """The native value of a JSON converter's form: the inverse of `value_to_json`. `ValueError` if it is of another
    type."""
    return None if form is None else reader(schema)(form)


def _shortest_single(value: float) -> float:
    """The number with the fewest digits that a 32-bit float reads back as ``value``: 0.1, not 0.10000000149."""
    single = struct.pack("<f", value)
    for digits in range(1, 9):
        short = float(f"{value:.{digits}g}")
        try:
            if struct.pack("<f", short) == single:
                return short
        except OverflowError:
            continue
    return value
