"""Avro schema → Connect schema and reader of its values, by ``AvroData``'s rules.

The inverse of `cdc.codec.connect_avro`. Attributes that begin with ``connect.`` say what the schema was. Avro that no
Connect converter wrote has none: then its logical types ``decimal``, ``date``, ``time-millis`` and
``timestamp-millis`` are Connect's own, an enum is text with its symbols as parameters, and a union of several types a
struct with an optional field for each.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from cdc.codec import avro_native
from cdc.codec.avro_native import PRIMITIVES, Reader
from cdc.errors import DataError
from cdc.record import NO_DEFAULT, Field, Schema

__all__ = ["AvroPlan", "avro_plan"]

_TYPES: Final = {
    "boolean": "boolean",
    "int": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "bytes": "bytes",
    "string": "string",
}
_SMALL: Final = frozenset({"int8", "int16"})
_NAMESPACE: Final = "io.confluent.connect.avro"
_UNNAMED: Final = f"{_NAMESPACE}.ConnectDefault"
_MAP_ENTRY: Final = f"{_NAMESPACE}.MapEntry"
_UNION: Final = f"{_NAMESPACE}.Union"
_ENUM: Final = f"{_NAMESPACE}.Enum"
_DECIMAL: Final = "org.apache.kafka.connect.data.Decimal"
_UNKNOWN_PRECISION: Final = 64
"""What ``AvroData`` writes for a decimal of which it knows none."""
_LOGICAL: Final = {
    ("int", "date"): "org.apache.kafka.connect.data.Date",
    ("int", "time-millis"): "org.apache.kafka.connect.data.Time",
    ("long", "timestamp-millis"): "org.apache.kafka.connect.data.Timestamp",
}

_Typed = tuple[Schema, Reader]


@dataclass(frozen=True, slots=True)
class AvroPlan:
    """A writer schema: what it is in Connect, and how its bytes are read.

    ``read(payload, start)`` is the native value that ends with the payload; `DataError` for bytes that are none.
    """

    schema: Schema
    read: Callable[[bytes, int], Any]


def avro_plan(text: str) -> AvroPlan:
    """Compile the text of a writer schema. `DataError` for what is no schema, or has no form in Connect."""
    try:
        schema, reader = _Conversion().any(json.loads(text), "", NO_DEFAULT)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"cannot read the Avro schema {text[:120]!r}: {error!r}") from error

    def read(payload: bytes, start: int) -> Any:
        try:
            value, end = reader(payload, start)
        except (IndexError, ValueError, TypeError, struct.error) as error:
            raise DataError(f"the bytes are no value of their Avro schema: {error}") from error
        if end != len(payload):
            raise DataError(f"the value of its Avro schema ends at byte {end} of {len(payload)}")
        return value

    return AvroPlan(schema, read)


class _Conversion:
    def __init__(self) -> None:
        self._named: dict[str, _Typed | None] = {}
        """By whole name; ``None`` while a record's fields are being read."""

    def any(self, tree: Any, space: str, default: Any) -> _Typed:
        """Schema and reader of ``tree``; ``default`` is that of the field it is the type of, in Avro's form."""
        if isinstance(tree, list):
            return self._union(tree, space, default)
        if isinstance(tree, str):
            return self._reference(tree, {}, space, default)
        kind = tree["type"]
        if not isinstance(kind, str):
            return self.any(kind, space, default)
        match kind:
            case "array":
                base, reader = self._array(tree["items"], space)
                return _attributed(base, kind, tree, default), reader
            case "map":
                values, value = self.any(tree["values"], space, NO_DEFAULT)
                base = Schema("map", keys=Schema("string"), values=values)
                return _attributed(base, kind, tree, default), avro_native.mapping(PRIMITIVES["string"], value)
            case "record" | "error" | "enum" | "fixed":
                return self._definition(kind, tree, space, default)
        return self._reference(kind, tree, space, default)

    def _reference(self, name: str, tree: Mapping[str, Any], space: str, default: Any) -> _Typed:
        if name == "null":
            raise DataError("the Avro schema has a null that is in no union; Connect has no such type")
        if name in _TYPES:
            small = tree.get("connect.type")
            type_ = str(small) if name == "int" and small in _SMALL else _TYPES[name]
            return _attributed(Schema(type_), name, tree, default), PRIMITIVES[name]
        known = self._named[self._whole(name, space)]
        if known is None:
            raise DataError(f"the Avro record {name} contains itself; a Connect schema cannot")
        schema, reader = known
        return (schema if default is NO_DEFAULT else replace(schema, default=_default(schema, default))), reader

    def _whole(self, name: str, space: str) -> str:
        qualified = f"{space}.{name}"
        return qualified if "." not in name and qualified in self._named else name

    def _union(self, branches: list[Any], space: str, default: Any) -> _Typed:
        values = [branch for branch in branches if branch != "null"]
        optional = len(values) < len(branches)
        if not values:
            raise DataError("the Avro schema has a union of nothing but null; Connect has no such type")
        if len(values) == 1 and len(branches) < 3:
            at = branches.index(values[0])
            # A default belongs to the first branch.
            schema, reader = self.any(values[0], space, NO_DEFAULT if at else default)
            union = avro_native.nullable(at, reader) if optional else avro_native.single(reader)
            return replace(schema, optional=optional), union
        fields: list[Field] = []
        readers: list[tuple[str, Reader] | None] = []
        for branch in branches:
            if branch == "null":
                readers.append(None)
                continue
            schema, reader = self.any(branch, space, NO_DEFAULT)
            name = _member(branch)
            if any(field.name == name for field in fields):
                raise DataError(f"the Avro schema has a union with two types named {name}; Connect cannot tell them")
            fields.append(Field(name, replace(schema, optional=True)))
            readers.append((name, reader))
        return Schema("struct", optional=optional, name=_UNION, fields=tuple(fields)), avro_native.sum_type(readers)

    def _array(self, items: Any, space: str) -> _Typed:
        if isinstance(items, dict) and items.get("type") == "record" and _is_map_entry(items, space):
            full, inner = _full_name(items, space)
            types = {field["name"]: field["type"] for field in items["fields"]}
            keys, key = self.any(types["key"], inner, NO_DEFAULT)
            values, value = self.any(types["value"], inner, NO_DEFAULT)
            reader = avro_native.mapping(key, value, as_dict=keys.type not in {"array", "map", "struct"})
            entries = self._named[full] = Schema("map", keys=keys, values=values), reader
            return entries
        if isinstance(items, str) and items not in _TYPES:
            known = self._named[self._whole(items, space)]
            if known is not None and known[0].type == "map":  # entries that were defined before
                return known
        schema, reader = self.any(items, space, NO_DEFAULT)
        return Schema("array", values=schema), avro_native.array(reader)

    def _definition(self, kind: str, tree: Mapping[str, Any], space: str, default: Any) -> _Typed:
        full, inner = _full_name(tree, space)
        if kind == "fixed":
            size = int(tree["size"])
            name = None if tree.get("logicalType") == "decimal" else full
            schema = _attributed(Schema("bytes"), kind, tree, default, name)
            schema = replace(schema, parameters=(*schema.parameters, ("connect.fixed.size", str(size))))
            typed = schema, avro_native.fixed(size)
        elif kind == "enum":
            schema = _attributed(Schema("string"), kind, tree, default, full)
            symbols = [(f"{_ENUM}.{symbol}", symbol) for symbol in tree["symbols"]]
            schema = replace(schema, parameters=((_ENUM, full), *symbols, *schema.parameters))
            typed = schema, avro_native.enum(tree["symbols"])
        else:
            self._named[full] = None
            fields, readers = [], []
            for field in tree["fields"]:
                part, reader = self.any(field["type"], inner, field.get("default", NO_DEFAULT))
                fields.append(Field(field["name"], part))
                readers.append((field["name"], reader))
            name = None if full.startswith(_UNNAMED) else full
            typed = (
                _attributed(Schema("struct", fields=tuple(fields)), kind, tree, default, name),
                avro_native.record(readers),
            )
        self._named[full] = typed
        return typed


def _attributed(
    base: Schema, kind: str, tree: Mapping[str, Any], default: Any, record_name: str | None = None
) -> Schema:
    """``base`` with what the attributes of ``tree`` say of it."""
    name, version = tree.get("connect.name", record_name), tree.get("connect.version")
    parameters = tuple((key, str(value)) for key, value in tree.get("connect.parameters", {}).items())
    logical = tree.get("logicalType")
    if logical == "decimal" and base.type == "bytes" and name in (None, _DECIMAL):
        if not any(key == "scale" for key, _ in parameters):
            precision = tree.get("precision", _UNKNOWN_PRECISION)
            known = () if precision == _UNKNOWN_PRECISION else (("connect.decimal.precision", str(precision)),)
            parameters = (("scale", str(tree.get("scale", 0))), *known, *parameters)
        name, version = _DECIMAL, 1 if version is None else version
    elif name is None and (kind, logical) in _LOGICAL:
        name, version = _LOGICAL[kind, str(logical)], 1
    schema = replace(base, name=name, version=version, doc=tree.get("connect.doc"), parameters=parameters)
    form = tree.get("connect.default") if default is None or default is NO_DEFAULT else default
    return schema if form is None else replace(schema, default=_default(schema, form))


def _member(branch: Any) -> str:
    """The field that ``AvroData`` has for a type in a union: the type, or the last part of its name."""
    name = branch if isinstance(branch, str) else branch.get("name", branch["type"])
    return str(name).rpartition(".")[2]


def _full_name(tree: Mapping[str, Any], space: str) -> tuple[str, str]:
    """Whole name and namespace of a named type."""
    name = tree["name"]
    if "." in name:
        return name, name.rpartition(".")[0]
    inner = tree.get("namespace", space)
    return (f"{inner}.{name}" if inner else name), inner


def _is_map_entry(tree: Mapping[str, Any], space: str) -> bool:
    return tree.get("connect.internal.type") == "MapEntry" or _full_name(tree, space)[0] == _MAP_ENTRY


def _default(schema: Schema, form: Any) -> Any:
    """An Avro default in Connect's JSON form: bytes as base64."""
    if form is None:
        return None
    match schema.type:
        case "bytes":
            return base64.b64encode(form.encode("latin-1")).decode("ascii")
        case "array" if schema.values:
            return [_default(schema.values, item) for item in form]
        case "map" if schema.values and isinstance(form, dict):
            return {key: _default(schema.values, item) for key, item in form.items()}
        case "struct":
            return {field.name: _default(field.schema, form.get(field.name)) for field in schema.fields}
    return form
