"""JSON Schema in Confluent's form, and that of others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cdc.codec.json_reader import ONE_OF, load, reader
from cdc.codec.json_schema import ENUM, connect_schema, json_schema
from cdc.codec.json_writer import writer
from cdc.errors import DataError
from cdc.record import Field, Schema


def test_the_form_is_confluents() -> None:
    decimal = Schema(
        "bytes", name="org.apache.kafka.connect.data.Decimal", version=1, parameters=(("scale", "2"),), optional=True
    )
    schema = Schema(
        "struct",
        name="shop.Row",
        doc="a row",
        fields=(
            Field("id", Schema("int32", default=5)),
            Field("price", decimal),
            Field("tags", Schema("map", keys=Schema("int32"), values=Schema("string"))),
            Field("words", Schema("map", keys=Schema("string"), values=Schema("string", optional=True))),
        ),
    )
    assert json_schema(schema) == {
        "type": "object",
        "title": "shop.Row",
        "description": "a row",
        "properties": {
            "id": {"type": "integer", "default": 5, "connect.type": "int32", "connect.index": 0},
            "price": {
                "oneOf": [
                    {"type": "null"},
                    {
                        "type": "string",
                        "title": "org.apache.kafka.connect.data.Decimal",
                        "connect.type": "bytes",
                        "connect.version": 1,
                        "connect.parameters": {"scale": "2"},
                    },
                ],
                "connect.index": 1,
            },
            "tags": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "key": {"type": "integer", "connect.type": "int32", "connect.index": 0},
                        "value": {"type": "string", "connect.index": 1},
                    },
                },
                "connect.type": "map",
                "connect.index": 2,
            },
            "words": {
                "type": "object",
                "additionalProperties": {"oneOf": [{"type": "null"}, {"type": "string"}]},
                "connect.type": "map",
                "connect.index": 3,
            },
        },
    }
    assert json_schema(schema, numeric=True)["properties"]["price"]["oneOf"][1]["type"] == "number"
    assert json_schema(schema, open_=False)["additionalProperties"] is False


def _read(tree: Any, **options: bool) -> Schema:
    return connect_schema(json.dumps(tree), **options)


def test_schemas_of_others() -> None:
    tree = {
        "$defs": {"name": {"type": "string", "title": "Name"}},
        "type": "object",
        "required": ["a"],
        "properties": {
            "a": {"$ref": "#/$defs/name"},
            "b": {"type": ["null", "integer"]},
            "c": {"enum": ["x", "y"]},
            "d": {"oneOf": [{"type": "integer"}, {"type": "string"}, {"type": "null"}]},
            "e": {"allOf": [{"properties": {"f": {"type": "number"}}}, {"properties": {"g": {"type": "boolean"}}}]},
            "h": {"allOf": [{"$ref": "#/$defs/name"}]},
            "i": {"type": "number", "default": 1.5},
        },
    }
    types = {field.name: field.schema for field in _read(tree).fields}
    assert types["a"] == types["h"] == Schema("string", name="Name")
    assert types["b"] == Schema("int64", optional=True)
    assert types["c"] == Schema("string", parameters=((ENUM, ""), (f"{ENUM}.x", "x"), (f"{ENUM}.y", "y")))
    assert types["d"].optional
    assert [field.schema.type for field in types["d"].fields] == ["int64", "string"]
    assert [field.name for field in types["e"].fields] == ["f", "g"]
    assert types["i"].default == 1.5
    assert not types["e"].optional
    optional = {field.name: field.schema.optional for field in _read(tree, required_only=True).fields}
    assert optional == {"a": False, "b": True, "c": True, "d": True, "e": True, "h": True, "i": True}
    assert _read(json_schema(types["c"])) == types["c"]
    assert _read(json_schema(types["d"])) == types["d"]


def _union() -> Schema:
    cat = Schema("struct", optional=True, fields=(Field("name", Schema("string")), Field("lives", Schema("int64"))))
    dog = Schema("struct", optional=True, fields=(Field("name", Schema("string")), Field("breed", Schema("string"))))
    branches = (Schema("int64", optional=True), Schema("boolean", optional=True), cat, dog)
    return Schema(
        "struct", name=ONE_OF, fields=tuple(Field(f"{ONE_OF}.field.{i}", branch) for i, branch in enumerate(branches))
    )


@pytest.mark.parametrize(
    ("text", "branch"),
    [("3", 0), ("true", 1), ('{"name":"Tom","lives":9}', 2), ('{"name":"Rex","breed":"pug"}', 3)],
)
def test_one_of_several_types_is_a_struct(text: str, branch: int) -> None:
    schema = _union()
    value = reader(schema, entries=True)(load(text)[0])
    assert [name for name, item in value.items() if item is not None] == [f"{ONE_OF}.field.{branch}"]
    assert writer(schema, entries=True)(value) == text


def test_a_value_of_no_branch_is_refused() -> None:
    with pytest.raises(ValueError, match="none of the types"):
        reader(_union(), entries=True)("text")
    entries = Schema("map", keys=Schema("int32"), values=Schema("string"))
    with pytest.raises(ValueError, match='no object of "key" and "value"'):
        reader(entries, entries=True)([[1, "x"]])


@pytest.mark.parametrize(
    ("tree", "told"),
    [
        (True, "true, false or no schema"),
        ({}, "says of no type"),
        ({"$ref": "other.json"}, "another schema"),
        ({"$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}, "contains itself"),
        ({"type": "array"}, "cannot read"),
        ({"allOf": [{}, {}]}, "no single type"),
        ({"properties": {"a": {"connect.index": 0}, "b": {"connect.index": 0}}}, "two properties at one"),
    ],
)
def test_what_has_no_form_in_connect_is_refused(tree: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        _read(tree)


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(DataError, match="cannot read the JSON Schema"):
        connect_schema("{")
