"""The slow, generic way from Avro bytes to fields: fastavro reads the record, then each value is made into text.

An oracle for `cdc.codec.avro_fields`: it shares with it only the texts of single values.
"""

from __future__ import annotations

import io
import json
from typing import Any

import fastavro

from cdc.codec import canonical_values as values
from cdc.codec.avro_schema import Node, parse_schema


def without_logical_types(schema: Any) -> Any:
    """The schema for a reader that hands out numbers, not Python's datetimes and decimals."""
    if isinstance(schema, list):
        return [without_logical_types(branch) for branch in schema]
    if isinstance(schema, dict):
        return {name: without_logical_types(part) for name, part in schema.items() if name != "logicalType"}
    return schema


class Reference:
    def __init__(self, schema: str) -> None:
        self.schema = fastavro.parse_schema(without_logical_types(json.loads(schema)))
        self.root = parse_schema(schema)

    def read(self, payload: bytes) -> Any:
        return fastavro.schemaless_reader(
            io.BytesIO(payload),
            self.schema,
            None,
            return_record_name=True,
            return_record_name_override=True,
            handle_unicode_errors="surrogateescape",
        )

    def fields(self, payload: bytes) -> tuple[list[bytes] | None, Any]:
        record = self.read(payload)
        nodes = dict(self.root.fields)
        if "after" not in nodes:
            return row(self.root, record)
        if record["after"] is not None:
            return row(present(nodes["after"]), record["after"])
        return None, record["op"].encode()

    def key(self, payload: bytes) -> tuple[bytes | None, ...]:
        record = self.read(payload)
        if self.root.type != "record":
            return (text(self.root, record),)
        return tuple(text(node, record[name]) for name, node in self.root.fields)


def present(node: Node) -> Node:
    return next((branch for branch in node.branches if branch.type != "null"), node)


def row(node: Node, record: dict[str, Any]) -> tuple[list[bytes], tuple[bytes, ...]]:
    args: list[bytes] = []
    nulls: list[bytes] = []
    for name, part in node.fields:
        value = text(part, record[name])
        if value is None:
            nulls.append(name.encode())
        else:
            args += (name.encode(), value)
    return args, tuple(nulls)


def text(node: Node, value: Any) -> bytes | None:
    if value is None:
        return None
    node = present(node)
    if node.name.endswith("VariableScaleDecimal"):
        return values.unscaled_text(int.from_bytes(value["value"], "big", signed=True), value["scale"])
    if node.type in ("array", "map", "record"):
        return as_json(node, value).encode("utf-8", "surrogateescape")
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")
    return value if node.text is None else node.text(value)


def as_json(node: Node, value: Any) -> str:
    if value is None:
        return "null"
    node = present(node)
    if node.type == "array":
        return "[" + ",".join(as_json(node.items, item) for item in value) + "]"
    if node.type == "map":
        return "{" + ",".join(f"{quoted(name)}:{as_json(node.items, item)}" for name, item in value.items()) + "}"
    if node.type == "record" and not node.name.endswith("VariableScaleDecimal"):
        return "{" + ",".join(f"{quoted(name)}:{as_json(part, value[name])}" for name, part in node.fields) + "}"
    canonical = text(node, value).decode("utf-8", "surrogateescape")
    return canonical if node.bare and canonical not in ("NaN", "Infinity", "-Infinity") else quoted(canonical)


def quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
