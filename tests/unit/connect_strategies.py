"""Random Connect schemas, and native values of them."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from cdc.codec.connect_json import value_to_json
from cdc.record import NO_DEFAULT, Field, Schema

DECIMAL = "org.apache.kafka.connect.data.Decimal"
CONNECTS_OWN = {
    "org.apache.kafka.connect.data.Date": "int32",
    "org.apache.kafka.connect.data.Time": "int32",
    "org.apache.kafka.connect.data.Timestamp": "int64",
}
DEBEZIUMS = {
    "io.debezium.time.Date": "int32",
    "io.debezium.time.MicroTime": "int64",
    "io.debezium.time.MicroTimestamp": "int64",
    "io.debezium.time.ZonedTimestamp": "string",
    "io.debezium.data.Uuid": "string",
    "io.debezium.data.Json": "string",
}
INTEGERS = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}
SCALARS = (*INTEGERS, "float32", "float64", "boolean", "string", "bytes")

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
names = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True)


def _single(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def values(schema: Schema) -> st.SearchStrategy[Any]:
    """Native values of a schema."""
    if schema.optional:
        return st.none() | values(replace(schema, optional=False))
    match schema.type:
        case "string":
            return texts
        case "boolean":
            return st.booleans()
        case "bytes" if schema.name == DECIMAL:
            return st.integers(-(10**25), 10**25).map(unscaled)
        case "bytes":
            return st.binary(max_size=12)
        case "float32":
            return st.floats(width=32, allow_nan=False)
        case "float64":
            return st.floats(allow_nan=False)
        case "array":
            assert schema.values
            return st.lists(values(schema.values), max_size=3)
        case "map":
            assert schema.keys
            assert schema.values
            return st.dictionaries(values(schema.keys), values(schema.values), max_size=3)
        case "struct":
            return st.fixed_dictionaries({field.name: values(field.schema) for field in schema.fields})
    bits = INTEGERS[schema.type]
    if schema.name == "org.apache.kafka.connect.data.Time":
        return st.integers(0, 86_399_999)
    if schema.name == "org.apache.kafka.connect.data.Timestamp":
        return st.integers(-(2**45), 2**45)
    if schema.name == "org.apache.kafka.connect.data.Date":
        return st.integers(-700_000, 2_000_000)
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def unscaled(number: int) -> bytes:
    """As Java's BigInteger has it: the fewest bytes."""
    bits = number.bit_length() if number >= 0 else (number + 1).bit_length()
    return number.to_bytes(bits // 8 + 1, "big", signed=True)


@st.composite
def scalars(draw: st.DrawFn) -> Schema:
    kind = draw(st.sampled_from(("plain", "decimal", "connect", "debezium")))
    if kind == "plain":
        return Schema(draw(st.sampled_from(SCALARS)))
    if kind == "decimal":
        scale = draw(st.integers(0, 12))
        precision = draw(st.none() | st.integers(13, 38))
        known = () if precision is None else (("connect.decimal.precision", str(precision)),)
        return Schema("bytes", name=DECIMAL, version=1, parameters=(("scale", str(scale)), *known))
    table = CONNECTS_OWN if kind == "connect" else DEBEZIUMS
    name = draw(st.sampled_from(sorted(table)))
    return Schema(table[name], name=name, version=1)


@st.composite
def schemas(draw: st.DrawFn, depth: int = 2, *, any_keys: bool = True) -> Schema:
    """A schema, whose structs all have names of their own."""
    counter = [0]

    def one(depth: int) -> Schema:
        kind = draw(st.sampled_from(("scalar", "scalar", "array", "map", "struct"))) if depth else "scalar"
        if kind == "scalar":
            schema = draw(scalars())
        elif kind == "array":
            schema = Schema("array", values=one(depth - 1))
        elif kind == "map":
            keys = draw(st.sampled_from(("string", "int32", "int64", "boolean"))) if any_keys else "string"
            schema = Schema("map", keys=Schema(keys), values=one(depth - 1))
            if keys != "string":
                counter[0] += 1
                schema = replace(schema, name=f"drawn.Map{counter[0]}")
        else:
            return of_fields(depth)
        schema = replace(schema, optional=draw(st.booleans()))
        if schema.type in SCALARS and draw(st.integers(0, 4)) == 0:
            value = draw(values(replace(schema, optional=False)))
            schema = replace(schema, default=value_to_json(schema, value))
        return schema

    def of_fields(depth: int, *, optional: bool | None = None) -> Schema:
        counter[0] += 1
        name = f"drawn.Struct{counter[0]}"
        labels = draw(st.lists(names, min_size=1, max_size=4, unique_by=str.lower))
        fields = tuple(Field(label, one(depth - 1)) for label in labels)
        return Schema(
            "struct",
            optional=draw(st.booleans()) if optional is None else optional,
            name=name,
            version=draw(st.none() | st.integers(1, 3)),
            doc=draw(st.none() | texts),
            fields=fields,
        )

    return of_fields(depth, optional=False)


@st.composite
def pairs(draw: st.DrawFn, **options: Any) -> tuple[Schema, Any]:
    """A struct's schema, and a value of it."""
    schema = draw(schemas(**options))
    return schema, draw(values(schema))


def without_defaults(schema: Schema) -> Schema:
    """The same without what only describes: for forms that have no place for it."""
    return replace(
        schema,
        default=NO_DEFAULT,
        doc=None,
        fields=tuple(Field(field.name, without_defaults(field.schema)) for field in schema.fields),
        keys=schema.keys and without_defaults(schema.keys),
        values=schema.values and without_defaults(schema.values),
    )
