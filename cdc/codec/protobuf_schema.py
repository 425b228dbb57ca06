"""Connect schema → Protobuf file, as Confluent's ``ProtobufData`` names things, and without loss.

The package and name of the message are the schema's; structs are nested messages, fields are numbered in their order,
and Connect's own Decimal, Date, Time and Timestamp are Confluent's and Google's messages. What may be null is
``optional`` (``optional.for.nullables``). Three things Confluent's converter would lose, and are not lost here:

* whether an array or map is null or empty: one that may be null is a message with the field ``value``;
* nulls, arrays and maps in arrays: each element is a message with the field ``value``;
* names, versions, parameters and defaults: the whole Connect schema is a parameter of the file's options
  (``connect.schema``), which other readers pass over.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from google.protobuf import descriptor_pb2

from cdc.codec.connect_json import schema_text
from cdc.codec.protobuf_types import DATE, DECIMAL, TIME, TIMESTAMP, FileProto, set_params
from cdc.errors import FatalError
from cdc.record import Field, Schema

__all__ = ["SCHEMA_PARAMETER", "item_message", "proto_name", "proto_names", "protobuf_text"]

SCHEMA_PARAMETER: Final = "connect.schema"
_DEFAULT_NAME: Final = "ConnectDefault1"
_Proto = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final[Mapping[str, int]] = {
    "int8": _Proto.TYPE_INT32,
    "int16": _Proto.TYPE_INT32,
    "int32": _Proto.TYPE_INT32,
    "int64": _Proto.TYPE_INT64,
    "float32": _Proto.TYPE_FLOAT,
    "float64": _Proto.TYPE_DOUBLE,
    "boolean": _Proto.TYPE_BOOL,
    "string": _Proto.TYPE_STRING,
    "bytes": _Proto.TYPE_BYTES,
}
_MESSAGES: Final = {
    "org.apache.kafka.connect.data.Decimal": (DECIMAL, "confluent/type/decimal.proto"),
    "org.apache.kafka.connect.data.Date": (DATE, "google/type/date.proto"),
    "org.apache.kafka.connect.data.Time": (TIME, "google/type/timeofday.proto"),
    "org.apache.kafka.connect.data.Timestamp": (TIMESTAMP, "google/protobuf/timestamp.proto"),
}


def protobuf_text(schema: Schema) -> str:
    """What is registered: the ``FileDescriptorProto`` in base64, its root message the first.

    `FatalError` for a schema that is no struct: Protobuf has only messages.
    """
    if schema.type != "struct":
        raise FatalError(
            f"the Protobuf converter writes structs only, not {schema.type}. Use another converter, or a transform "
            "that puts the value into a field (HoistField)"
        )
    package, _, name = (schema.name or _DEFAULT_NAME).rpartition(".")
    space = ".".join(map(proto_name, package.split("."))) if package else ""
    file = FileProto(name=f"{schema.name or _DEFAULT_NAME}.proto", syntax="proto3")
    if space:
        file.package = space
    building = _Building()
    building.message(file.message_type.add(), proto_name(name), schema, f".{space}" if space else "")
    file.dependency.extend(sorted(building.imports | {"confluent/meta.proto"}))
    set_params(file.options, "file", {SCHEMA_PARAMETER: schema_text(schema)})
    return base64.b64encode(file.SerializeToString(deterministic=True)).decode("ascii")


def proto_name(name: str) -> str:
    """A name as Protobuf takes it: ASCII letters, digits and ``_``; another character is ``_x`` and its number."""
    scrubbed = re.sub(r"[^A-Za-z0-9_]", lambda found: f"_x{ord(found[0]):X}", name)
    return scrubbed if re.match(r"[A-Za-z_]", scrubbed) else f"_x{scrubbed}"


def proto_names(names: Iterable[str]) -> list[str]:
    """The names of a message's fields, in order: `proto_name`'s, with ``_`` behind one that is another field's too."""
    found: list[str] = []
    for name in names:
        proto = proto_name(name)
        while proto in found:
            proto += "_"
        found.append(proto)
    return found


def _json_name(name: str) -> str:
    """The name that Protobuf derives for JSON: without ``_``, and in upper case behind each."""
    return re.sub(r"_+(.?)", lambda found: found[1].upper(), name)


def item_message(schema: Schema) -> bool:
    """Whether the elements of an array are messages with a field ``value``: else they could not be what they are."""
    return schema.optional or schema.type in {"array", "map"}


class _Building:
    def __init__(self) -> None:
        self.imports: set[str] = set()

    def message(self, message: Any, name: str, schema: Schema, scope: str) -> None:
        message.name = name
        names = proto_names(field.name for field in schema.fields)
        for number, (proto, field) in enumerate(zip(names, schema.fields, strict=True), 1):
            self._field(message, proto, number, field.schema, f"{scope}.{name}")
        derived = Counter(map(_json_name, names))
        for field in message.field:
            if derived[_json_name(field.name)] > 1:  # Protobuf refuses a message with one of them twice
                field.json_name = field.name
        # After all other fields, as the library wants it: the oneof that says whether an optional field is there.
        taken = {*names, *(each.name for each in message.nested_type)}
        for field in message.field:
            if field.proto3_optional:
                field.oneof_index = len(message.oneof_decl)
                oneof = f"_{field.name}"
                while oneof in taken:  # as protoc does
                    oneof = f"X{oneof}"
                taken.add(oneof)
                message.oneof_decl.add(name=oneof)

    def _field(self, message: Any, name: str, number: int, schema: Schema, scope: str) -> None:
        field = message.field.add(name=name, number=number, label=_Proto.LABEL_OPTIONAL)
        if schema.type in {"array", "map"} and schema.optional:
            self._nested(message, field, "List", [("value", replace(schema, optional=False))], scope)
        elif schema.type == "array" and schema.values:
            self._type(message, field, schema.values, scope)
            field.label = _Proto.LABEL_REPEATED
        elif schema.type == "map" and schema.keys and schema.values:
            self._nested(message, field, "Entry", [("key", schema.keys), ("value", schema.values)], scope)
            field.label = _Proto.LABEL_REPEATED
        else:
            self._type(message, field, replace(schema, optional=False), scope)
            # Floats always: without presence, some versions of the library write -0.0 as nothing.
            present = schema.optional or schema.type in {"float32", "float64"}
            field.proto3_optional = present and field.type != _Proto.TYPE_MESSAGE

    def _type(self, message: Any, field: Any, schema: Schema, scope: str) -> None:
        if item_message(schema):
            self._nested(message, field, "Item", [("value", schema)], scope)
        elif schema.type == "struct":
            names = [(each.name, each.schema) for each in schema.fields]
            self._nested(message, field, "", names, scope, (schema.name or "").rpartition(".")[2])
        elif schema.name in _MESSAGES:
            type_name, place = _MESSAGES[schema.name]
            field.type, field.type_name = _Proto.TYPE_MESSAGE, f".{type_name}"
            self.imports.add(place)
            parameters = dict(schema.parameters)
            known = {"precision": parameters.get("connect.decimal.precision"), "scale": parameters.get("scale")}
            params = {key: value for key, value in known.items() if value is not None}
            if params:
                set_params(field.options, "field", params)
        else:
            field.type = _SCALARS[schema.type]
            if schema.type in {"int8", "int16"}:
                set_params(field.options, "field", {"connect.type": schema.type})

    def _nested(
        self,
        message: Any,
        field: Any,
        suffix: str,
        fields: list[tuple[str, Schema]],
        scope: str,
        wanted: str = "",
    ) -> None:
        taken = {each.name for each in message.nested_type} | {each.name for each in message.field}
        name = proto_name(wanted) if wanted else f"{field.name}{suffix or 'Message'}"
        while name in taken:  # a message and a field of one name exclude each other
            name += "Message"
        field.type, field.type_name = _Proto.TYPE_MESSAGE, f"{scope}.{name}"
        inner = message.nested_type.add()
        inner.name = name
        struct = Schema("struct", fields=tuple(Field(each, part) for each, part in fields))
        self.message(inner, name, struct, scope)
