"""What a writer schema means: Avro JSON → a tree of nodes that know their canonical text.

The meaning of a primitive comes from ``connect.name`` (Debezium's semantic types, Kafka Connect's logical
types) or, in schemas of plain Avro writers, from ``logicalType``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple

from cdc.codec import canonical_values as values
from cdc.codec.canonical_floats import float4_text, float8_text
from cdc.errors import DataError

__all__ = ["STRUCTURES", "VARIABLE_SCALE_DECIMAL", "Meaning", "Node", "Text", "parse_schema", "scalar_meaning"]

Text = Callable[[Any], bytes]

VARIABLE_SCALE_DECIMAL: Final = "io.debezium.data.VariableScaleDecimal"
STRUCTURES: Final[Mapping[str, str]] = {
    VARIABLE_SCALE_DECIMAL: "numeric",
    "io.debezium.data.geometry.Point": "point",
    "io.debezium.data.geometry.Geometry": "geometry",
    "io.debezium.data.geometry.Geography": "geography",
    "io.debezium.data.DoubleVector": "vector",
    "io.debezium.data.FloatVector": "halfvec",
    "io.debezium.data.SparseDoubleVector": "sparsevec",
}
"""Records and arrays of Debezium's that are one value of Postgres's."""


@dataclass(eq=False, slots=True)
class Node:
    """One type of a writer schema.

    ``text`` makes the canonical text of a value as Avro holds it (text as UTF-8 bytes); ``None`` for the types that are
    read into JSON. ``kind`` is the name of the type for `cdc.codec.canonical.from_postgres`. ``bare`` values stand in
    JSON without quotes, if finite. ``whole`` is a record or an array that is one value of Postgres's, such as a point.
    """

    type: str
    name: str = ""
    connect_name: str = ""
    kind: str = "text"
    text: Text | None = None
    bare: bool = False
    fields: list[tuple[str, Node]] = field(default_factory=list)
    branches: list[Node] = field(default_factory=list)
    symbols: tuple[bytes, ...] = ()
    size: int = 0
    items: Node | None = None
    """Of arrays the elements, of maps the values."""

    @property
    def whole(self) -> bool:
        return self.connect_name in STRUCTURES and self.type in ("record", "array")


def parse_schema(text: str) -> Node:
    """Read a schema. `DataError` when it is not one."""
    try:
        return _Parser().node(json.loads(text), "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"cannot read the Avro schema {text[:120]!r}: {error!r}") from error


_PRIMITIVES: Final[Mapping[str, tuple[str, Text | None, bool]]] = {
    "null": ("text", None, False),
    "boolean": ("bool", values.bool_text, True),
    "int": ("int4", values.int_text, True),
    "long": ("int8", values.int_text, True),
    "float": ("float4", float4_text, True),
    "double": ("float8", float8_text, True),
    "bytes": ("bytea", values.base64_text, False),
    "string": ("text", values.same_text, False),
}

_CONNECT: Final[Mapping[tuple[str, str], tuple[str, Text]]] = {
    ("io.debezium.time.Date", "int"): ("date", values.date_text),
    ("io.debezium.time.Time", "int"): ("time", values.milli_time_text),
    ("io.debezium.time.MicroTime", "long"): ("time", values.time_text),
    ("io.debezium.time.NanoTime", "long"): ("time", values.nano_time_text),
    ("io.debezium.time.Timestamp", "long"): ("timestamp", values.milli_timestamp_text),
    ("io.debezium.time.MicroTimestamp", "long"): ("timestamp", values.micro_timestamp_text),
    ("io.debezium.time.NanoTimestamp", "long"): ("timestamp", values.nano_timestamp_text),
    ("io.debezium.time.ZonedTimestamp", "string"): ("timestamptz", values.zoned_timestamp_text),
    ("io.debezium.time.ZonedTime", "string"): ("timetz", values.zoned_time_text),
    ("io.debezium.time.IsoDate", "string"): ("date", values.iso_date_text),
    ("io.debezium.time.IsoTime", "string"): ("time", values.iso_time_text),
    ("io.debezium.time.IsoTimestamp", "string"): ("timestamp", values.iso_timestamp_text),
    ("io.debezium.time.MicroDuration", "long"): ("interval", values.duration_text),
    ("io.debezium.time.NanoDuration", "long"): ("interval", values.nano_duration_text),
    ("io.debezium.time.Interval", "string"): ("interval", values.interval_text),
    ("io.debezium.data.Json", "string"): ("json", values.same_text),
    ("io.debezium.data.Uuid", "string"): ("uuid", values.same_text),
    ("io.debezium.data.Xml", "string"): ("xml", values.same_text),
    ("io.debezium.data.Ltree", "string"): ("ltree", values.same_text),
    ("io.debezium.data.Tsvector", "string"): ("tsvector", values.same_text),
    # Debezium writes Postgres's date, time and timestamp so with time.precision.mode=connect: no zone
    ("org.apache.kafka.connect.data.Date", "int"): ("date", values.date_text),
    ("org.apache.kafka.connect.data.Time", "int"): ("time", values.milli_time_text),
    ("org.apache.kafka.connect.data.Timestamp", "long"): ("timestamp", values.milli_timestamp_text),
}

_LOGICAL: Final[Mapping[tuple[str, str], tuple[str, Text]]] = {
    ("date", "int"): ("date", values.date_text),
    ("time-millis", "int"): ("time", values.milli_time_text),
    ("time-micros", "long"): ("time", values.time_text),
    ("timestamp-millis", "long"): ("timestamptz", lambda ms: values.instant_text(ms * 1000)),
    ("timestamp-micros", "long"): ("timestamptz", values.instant_text),
    ("local-timestamp-millis", "long"): ("timestamp", lambda ms: values.timestamp_text(ms * 1000)),
    ("local-timestamp-micros", "long"): ("timestamp", values.timestamp_text),
}

_DECIMAL: Final = "org.apache.kafka.connect.data.Decimal"
_BITS: Final = "io.debezium.data.Bits"


class Meaning(NamedTuple):
    """What a primitive is: `Node` says what the parts are."""

    kind: str
    text: Text | None
    bare: bool


def scalar_meaning(avro: str, connect_name: str, parameters: Mapping[str, Any], logical: str = "") -> Meaning:
    """The meaning of an Avro primitive by its Connect name, else by Avro's ``logicalType``; ``parameters`` are the
    ``scale`` of decimals and the ``length`` of bits. `KeyError` or `ValueError` where these are not there."""
    kind, text, bare = _PRIMITIVES[avro]
    if (connect_name, avro) in _CONNECT:
        kind, text = _CONNECT[connect_name, avro]
        bare = False
    elif connect_name == _DECIMAL or (not connect_name and logical == "decimal" and avro == "bytes"):
        kind, text, bare = "numeric", values.decimal_text(int(parameters.get("scale", 0))), True
    elif connect_name == _BITS:
        kind, text = "bit", partial(values.bits_text, length=int(parameters["length"]))
    elif not connect_name and (logical, avro) in _LOGICAL:
        kind, text = _LOGICAL[logical, avro]
        bare = False
    return Meaning(kind, text, bare)


class _Parser:
    def __init__(self) -> None:
        self._named: dict[str, Node] = {}

    def node(self, schema: Any, namespace: str) -> Node:
        if isinstance(schema, str):
            return self._reference(schema, {}, namespace)
        if isinstance(schema, list):
            return Node("union", branches=[self.node(branch, namespace) for branch in schema])
        kind = schema["type"]
        if not isinstance(kind, str):
            return self.node(kind, namespace)
        if kind == "array":
            items = self.node(schema["items"], namespace)
            element = next((branch for branch in items.branches if branch.type != "null"), items)
            name = _connect_name(schema)
            return Node("array", connect_name=name, kind=STRUCTURES.get(name, f"{element.kind}[]"), items=items)
        if kind == "map":
            values_ = self.node(schema["values"], namespace)
            return Node("map", connect_name=_connect_name(schema), kind="hstore", items=values_)
        if kind in ("record", "error", "enum", "fixed"):
            return self._define(kind, schema, namespace)
        return self._reference(kind, schema, namespace)

    def _reference(self, name: str, schema: Mapping[str, Any], namespace: str) -> Node:
        if name not in _PRIMITIVES:
            known = self._named.get(f"{namespace}.{name}") if "." not in name and namespace else None
            return known or self._named[name]
        connect_name = _connect_name(schema)
        meaning = scalar_meaning(name, connect_name, _parameters(schema), schema.get("logicalType", ""))
        return Node(name, connect_name=connect_name, kind=meaning.kind, text=meaning.text, bare=meaning.bare)

    def _define(self, kind: str, schema: Mapping[str, Any], namespace: str) -> Node:
        name = schema["name"]
        if "." in name:
            namespace = name.rpartition(".")[0]
        else:
            namespace = schema.get("namespace", namespace)
            name = f"{namespace}.{name}" if namespace else name
        node = Node("record" if kind == "error" else kind, name=name, connect_name=_connect_name(schema))
        self._named[name] = node
        if kind == "enum":
            node.symbols = tuple(symbol.encode() for symbol in schema["symbols"])
        elif kind == "fixed":
            node.size = int(schema["size"])
            if schema.get("logicalType") == "decimal":
                node.kind, node.text, node.bare = (
                    "numeric",
                    values.decimal_text(int(_parameters(schema).get("scale", 0))),
                    True,
                )
            else:
                node.kind, node.text = "bytea", values.base64_text
        else:
            node.fields = [(field["name"], self.node(field["type"], namespace)) for field in schema["fields"]]
            node.kind = STRUCTURES.get(node.connect_name, "text")
            node.bare = node.connect_name == VARIABLE_SCALE_DECIMAL
        return node


def _connect_name(schema: Mapping[str, Any]) -> str:
    return str(schema.get("connect.name", ""))


def _parameters(schema: Mapping[str, Any]) -> dict[str, Any]:
    scale = {"scale": schema["scale"]} if "scale" in schema else {}
    return scale | (schema.get("connect.parameters") or {})
