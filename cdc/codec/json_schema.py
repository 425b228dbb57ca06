"""Connect schema ↔ JSON Schema, as Confluent's ``JsonSchemaData`` has them.

``title`` is the schema's name; ``connect.type``, ``connect.version``, ``connect.parameters`` say what JSON Schema has
no word for, ``connect.index`` in which order the properties stand. What may be null is ``oneOf`` null and the type.
Maps whose keys are not texts are arrays of objects with ``key`` and ``value``. JSON Schema of others is read as
Confluent's converter reads it: ``oneOf`` and ``anyOf`` of several types as a struct with an optional field for each,
``enum`` as text with its values as parameters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from cdc.codec.connect_json import value_from_json
from cdc.codec.json_reader import DECIMAL, ONE_OF, load, reader
from cdc.codec.json_writer import writer
from cdc.errors import DataError
from cdc.record import NO_DEFAULT, Field, Schema

__all__ = ["ENUM", "connect_schema", "json_schema", "json_schema_text"]

_NAMESPACE: Final = "io.confluent.connect.json"
ENUM: Final = f"{_NAMESPACE}.Enum"
"""Parameter of a text that is one of several; each is a parameter of its own: this, a dot, and the text."""
_NULL_SYMBOL: Final = "<NULL>"
_NULL: Final = {"type": "null"}
_TYPES: Final = {
    "int8": "integer",
    "int16": "integer",
    "int32": "integer",
    "int64": "integer",
    "float32": "number",
    "float64": "number",
    "boolean": "boolean",
    "string": "string",
    "bytes": "string",
}
_PLAIN: Final = frozenset({"boolean", "string"})
"""Types that JSON Schema has words for."""


def json_schema(schema: Schema, *, numeric: bool = False, open_: bool = True) -> Any:
    """The JSON Schema of ``schema`` as JSON values.

    ``numeric`` if its decimals are numbers, ``open_`` if objects may have other properties too.
    """
    return _Writing(numeric, open_).any(schema, None)


def json_schema_text(schema: Schema, *, numeric: bool = False, open_: bool = True) -> str:
    """The text that is registered: `json_schema` in compact JSON."""
    return json.dumps(json_schema(schema, numeric=numeric, open_=open_), ensure_ascii=False, separators=(",", ":"))


class _Writing:
    def __init__(self, numeric: bool, open_: bool) -> None:
        self._numeric = numeric
        self._open = open_

    def any(self, schema: Schema, index: int | None) -> Any:
        at = {} if index is None else {"connect.index": index}
        if schema.name == ONE_OF and schema.type == "struct":
            branches = [self._base(field.schema) | {"connect.index": i} for i, field in enumerate(schema.fields)]
            return {"oneOf": [_NULL, *branches] if schema.optional else branches} | at
        if schema.optional:
            return {"oneOf": [_NULL, self._base(schema)]} | at
        return self._base(schema) | at

    def _base(self, schema: Schema) -> dict[str, Any]:
        form = self._type(schema)
        if schema.name is not None:
            form["title"] = schema.name
        if schema.doc is not None:
            form["description"] = schema.doc
        if schema.default is not NO_DEFAULT:
            value = value_from_json(schema, schema.default)
            form["default"] = json.loads(writer(schema, numeric=self._numeric, entries=True)(value))
        if schema.type not in _PLAIN and schema.type not in {"array", "struct"}:
            form["connect.type"] = schema.type
        if schema.version is not None:
            form["connect.version"] = schema.version
        parameters = {name: value for name, value in schema.parameters if not name.startswith(_NAMESPACE)}
        if parameters:
            form["connect.parameters"] = parameters
        return form

    def _type(self, schema: Schema) -> dict[str, Any]:
        if schema.type == "struct":
            properties = {field.name: self.any(field.schema, i) for i, field in enumerate(schema.fields)}
            form = {"type": "object", "properties": properties}
            return form if self._open else form | {"additionalProperties": False}
        if schema.type == "array" and schema.values:
            return {"type": "array", "items": self.any(schema.values, None)}
        if schema.type == "map" and schema.keys and schema.values:
            if schema.keys.type == "string" and not schema.keys.optional:
                return {"type": "object", "additionalProperties": self.any(schema.values, None)}
            entry = {"key": self.any(schema.keys, 0), "value": self.any(schema.values, 1)}
            return {"type": "array", "items": {"type": "object", "properties": entry}}
        symbols = [name.removeprefix(f"{ENUM}.") for name, _ in schema.parameters if name.startswith(f"{ENUM}.")]
        if schema.type == "string" and symbols:
            return {"enum": [None if symbol == _NULL_SYMBOL else symbol for symbol in symbols]}
        if self._numeric and schema.name == DECIMAL:
            return {"type": "number"}
        return {"type": _TYPES[schema.type]}


def connect_schema(text: str, *, required_only: bool = False) -> Schema:
    """The Connect schema of a JSON Schema's text.

    With ``required_only`` properties that are not among the ``required`` ones are optional
    (``use.optional.for.nonrequired``). `DataError` for what is no schema or has no form in Connect.
    """
    try:
        tree, _ = load(text)
        return _Reading(tree, required_only).any(tree, optional=False)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"cannot read the JSON Schema {text[:120]!r}: {error!r}") from error


class _Reading:
    def __init__(self, root: Any, required_only: bool) -> None:
        self._root = root
        self._required_only = required_only
        self._open: list[str] = []

    def any(self, tree: Any, *, optional: bool) -> Schema:
        if not isinstance(tree, Mapping):
            raise DataError("the JSON Schema has a part that is true, false or no schema: Connect has no such type")
        if "$ref" in tree:
            return self._reference(str(tree["$ref"]), optional)
        for word in ("oneOf", "anyOf"):
            if word in tree:
                return self._union(tree, tree[word], optional)
        if isinstance(tree.get("type"), list):
            return self._union(tree, [{**tree, "type": kind} for kind in tree["type"]], optional)
        if "allOf" in tree:
            return self._merged(tree, optional)
        schema = self._type(tree)
        version = tree.get("connect.version")
        parameters = tuple((name, str(value)) for name, value in (tree.get("connect.parameters") or {}).items())
        schema = replace(
            schema,
            optional=optional,
            name=tree.get("title"),
            version=None if version is None else int(version),
            doc=tree.get("description"),
            parameters=(*schema.parameters, *parameters),
        )
        return replace(schema, default=_default(schema, tree["default"])) if "default" in tree else schema

    def _type(self, tree: Mapping[str, Any]) -> Schema:
        connect = tree.get("connect.type")
        if "enum" in tree or "const" in tree:
            symbols = [_NULL_SYMBOL if each is None else str(each) for each in tree.get("enum", [tree.get("const")])]
            return Schema("string", parameters=((ENUM, ""), *((f"{ENUM}.{symbol}", symbol) for symbol in symbols)))
        match tree.get("type", "object" if "properties" in tree else None):
            case "integer" | "number" as kind:
                return Schema(str(connect or ("int64" if kind == "integer" else "float64")))
            case "string":
                return Schema("bytes" if connect == "bytes" else "string")
            case "boolean":
                return Schema("boolean")
            case "array" if connect == "map":
                entry = tree["items"]["properties"]
                keys, values = self.any(entry["key"], optional=False), self.any(entry["value"], optional=False)
                return Schema("map", keys=keys, values=values)
            case "array":
                return Schema("array", values=self.any(tree["items"], optional=False))
            case "object" if connect == "map":
                values = self.any(tree["additionalProperties"], optional=False)
                return Schema("map", keys=Schema("string"), values=values)
            case "object":
                return self._struct(tree.get("properties", {}), tree.get("required", ()))
        raise DataError(f"the JSON Schema has a part that says of no type: {str(tree)[:60]}; Connect has no such type")

    def _struct(self, properties: Mapping[str, Any], required: Any) -> Schema:
        places: dict[int, str] = {}
        for name, part in properties.items():
            index = part.get("connect.index") if isinstance(part, Mapping) else None
            places[len(places) if index is None else int(index)] = name
        if len(places) < len(properties):
            raise DataError(f"the JSON Schema has two properties at one connect.index among {', '.join(properties)}")
        fields = [
            Field(name, self.any(properties[name], optional=self._required_only and name not in required))
            for _, name in sorted(places.items())
        ]
        return Schema("struct", fields=tuple(fields))

    def _union(self, tree: Mapping[str, Any], branches: list[Any], optional: bool) -> Schema:
        values = [branch for branch in branches if branch.get("type") != "null"]
        optional = optional or len(values) < len(branches)
        if len(values) == 1:
            return self.any(values[0], optional=optional)
        fields = [Field(f"{ONE_OF}.field.{i}", self.any(each, optional=True)) for i, each in enumerate(values)]
        return Schema("struct", optional=optional, name=ONE_OF, doc=tree.get("description"), fields=tuple(fields))

    def _merged(self, tree: Mapping[str, Any], optional: bool) -> Schema:
        """All properties of all parts, or the one part that says of a type."""
        properties: dict[str, Any] = {}
        required: list[str] = []
        for part in (tree, *map(self._resolved, tree["allOf"])):
            properties |= part.get("properties", {})
            required += part.get("required", ())
        if properties:
            return replace(self._struct(properties, required), optional=optional, name=tree.get("title"))
        typed = [part for part in tree["allOf"] if part.keys() & {"type", "$ref", "oneOf", "anyOf", "enum"}]
        if len(typed) != 1:
            raise DataError("the JSON Schema has an allOf of no single type; Connect has no such type")
        return self.any(typed[0], optional=optional)

    def _resolved(self, tree: Mapping[str, Any]) -> Mapping[str, Any]:
        return self._find(str(tree["$ref"])) if "$ref" in tree else tree

    def _reference(self, place: str, optional: bool) -> Schema:
        if place in self._open:
            raise DataError(f"the JSON Schema {place} contains itself; a Connect schema cannot")
        self._open.append(place)
        try:
            return self.any(self._find(place), optional=optional)
        finally:
            self._open.pop()

    def _find(self, place: str) -> Mapping[str, Any]:
        if not place.startswith("#"):
            raise DataError(f"the JSON Schema refers to {place}, another schema; such references are not supported")
        found = self._root
        for part in place.removeprefix("#").split("/")[1:]:
            found = found[part.replace("~1", "/").replace("~0", "~")]
        return dict(found)


def _default(schema: Schema, form: Any) -> Any:
    """A default in the form of Connect's JSON converter, or `NO_DEFAULT`: null is none."""
    if form is None:
        return NO_DEFAULT
    value = reader(schema, entries=True)(form)
    return json.loads(writer(schema)(value))
