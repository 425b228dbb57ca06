"""Postgres type → Connect schema and kind of text, under Debezium's modes.

A new type is a new entry in a table here, and a kind in `cdc.codec.values` if none fits. A type without entry is
text: its Postgres text in a plain string, never left out.

Differs from Debezium, on purpose (it would spoil the value, or plain Avro readers would refuse the schema):

* ``numeric(p, -s)`` is a decimal of scale 0 and precision p + s, ``numeric(p, s)`` with s > p has precision s;
* arrays of all types are arrays of their elements' schema; hstore elements are JSON texts in both modes;
* composites, and arrays of them, are JSON text, which Debezium leaves out;
* ``name`` is text in the stream too; a domain over an enum or an array is what it is over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from cdc.codec.defaults import constant_default
from cdc.postgres.pg_type import PgType, canonical_type, has_row
from cdc.record import NO_DEFAULT, Field, Schema

__all__ = ["PgType", "TypeMapping", "TypeModes", "default_value", "resolve"]


@dataclass(frozen=True, slots=True)
class TypeModes:
    """Debezium's settings that choose between forms, with its values and defaults.

    ``decimal.handling.mode``, ``time.precision.mode``, ``binary.handling.mode``, ``hstore.handling.mode``,
    ``interval.handling.mode``, ``money.fraction.digits``.
    """

    decimal: str = "precise"
    time: str = "adaptive"
    binary: str = "bytes"
    hstore: str = "json"
    interval: str = "numeric"
    money_fraction_digits: int = 2


@dataclass(frozen=True, slots=True)
class TypeMapping:
    """What a column of some type becomes: a schema (not optional, without default) and how its text is read.

    ``has_default`` tells whether Debezium writes column defaults of this type into schemas.
    """

    schema: Schema
    kind: str
    params: tuple[Any, ...] = ()
    has_default: bool = False


_Rule = Callable[[int, TypeModes], TypeMapping]
"""(type modifier, modes) → mapping"""

_TEXT: Final = TypeMapping(Schema("string"), "text")
_DECIMAL: Final = "org.apache.kafka.connect.data.Decimal"
_JSON_TEXT: Final = Schema("string", name="io.debezium.data.Json", version=1)
_VARIABLE_DECIMAL: Final = Schema(
    "struct",
    name="io.debezium.data.VariableScaleDecimal",
    version=1,
    doc="Variable scaled decimal",
    fields=(Field("scale", Schema("int32")), Field("value", Schema("bytes"))),
)
_POINT: Final = Schema(
    "struct",
    name="io.debezium.data.geometry.Point",
    version=1,
    doc="Geometry (POINT)",
    fields=(
        Field("x", Schema("float64")),
        Field("y", Schema("float64")),
        Field("wkb", Schema("bytes", optional=True)),
        Field("srid", Schema("int32", optional=True)),
    ),
)
_SPARSE_VECTOR: Final = Schema(
    "struct",
    name="io.debezium.data.SparseDoubleVector",
    version=1,
    doc="Sparse double vector",
    fields=(
        Field("dimensions", Schema("int16")),
        Field("vector", Schema("map", keys=Schema("int16"), values=Schema("float64"))),
    ),
)


def resolve(oid: int, typmod: int, catalog: Mapping[int, PgType], modes: TypeModes) -> TypeMapping:
    """The mapping of type ``oid`` with ``typmod`` (-1 for none).

    ``catalog`` has the types that are not built in, and the parts they are made of; a type it lacks is text.
    """
    rule = _BUILT_IN.get(oid)
    if rule is not None:
        return rule(typmod, modes)
    element = _ARRAYS.get(oid)
    if element is not None:
        return _array_of(resolve(element, typmod, catalog, modes))
    pg_type = catalog.get(oid)
    if pg_type is None:
        return _TEXT
    if pg_type.typtype == "d":
        # Debezium knows no defaults of domains; the modifier is the nearest domain's that has one.
        base_typmod = pg_type.base_typmod if pg_type.base_typmod != -1 else typmod
        return replace(resolve(pg_type.base, base_typmod, catalog, modes), has_default=False)
    if pg_type.typtype == "e":
        return _enum(pg_type)
    if has_row(type_ := canonical_type(oid, typmod, catalog)):
        return TypeMapping(_JSON_TEXT, "composite", (type_,))
    if pg_type.element:
        element_type = catalog.get(pg_type.element)
        element_modes = replace(modes, hstore="json")  # each element is one text, as all arrays' in the canonical form
        delimiter = element_type.delimiter if element_type else ","
        return _array_of(resolve(pg_type.element, typmod, catalog, element_modes), delimiter)
    if pg_type.typtype != "b":
        return _TEXT
    return _hstore(modes) if pg_type.name == "hstore" else _BY_NAME.get(pg_type.name, _TEXT)


def default_value(expression: str, mapping: TypeMapping) -> Any:
    """The default for a column's schema, in Connect's JSON form, or `NO_DEFAULT` (see `constant_default`)."""
    if not mapping.has_default:
        return NO_DEFAULT
    return constant_default(expression, mapping.schema, mapping.kind, mapping.params)


def _array_of(element: TypeMapping, delimiter: str = ",") -> TypeMapping:
    optional = element.schema.name != "io.debezium.data.Enum"  # Debezium's elements of enum arrays are required
    schema = Schema("array", values=replace(element.schema, optional=optional))
    params = (element.kind, element.params, optional)
    return TypeMapping(schema, "array", params if delimiter == "," else (*params, delimiter))


def _hstore(modes: TypeModes) -> TypeMapping:
    if modes.hstore == "map":
        schema = Schema("map", keys=Schema("string"), values=Schema("string", optional=True))
        return TypeMapping(schema, "hstore_map")
    return TypeMapping(_JSON_TEXT, "hstore_json")


def _enum(pg_type: PgType) -> TypeMapping:
    allowed = (("allowed", ",".join(pg_type.labels)),)
    schema = Schema("string", name="io.debezium.data.Enum", version=1, parameters=allowed)
    return TypeMapping(schema, "text", has_default=True)


def _plain(type_: str, kind: str, name: str | None = None, *, default: bool = True) -> TypeMapping:
    return TypeMapping(Schema(type_, name=name, version=1 if name else None), kind, has_default=default)


def _fixed(mapping: TypeMapping) -> _Rule:
    return lambda _typmod, _modes: mapping


def _numeric(typmod: int, modes: TypeModes) -> TypeMapping:
    if modes.decimal == "string":
        return _plain("string", "numeric_text")
    if modes.decimal == "double":
        return _plain("float64", "numeric_double")
    if typmod < 4:
        return TypeMapping(_VARIABLE_DECIMAL, "variable_decimal")
    precision = (typmod - 4) >> 16 & 0xFFFF
    scale = ((typmod - 4 & 0x7FF) ^ 1024) - 1024
    if scale < 0:
        precision, scale = precision - scale, 0
    parameters = (("scale", str(scale)), ("connect.decimal.precision", str(max(precision, scale))))
    schema = Schema("bytes", name=_DECIMAL, version=1, parameters=parameters)
    return TypeMapping(schema, "decimal", (scale,), has_default=True)


def _money(_typmod: int, modes: TypeModes) -> TypeMapping:
    digits = modes.money_fraction_digits
    if modes.decimal == "string":
        return TypeMapping(Schema("string"), "money_text", (digits,))
    if modes.decimal == "double":
        return TypeMapping(Schema("float64"), "money_double", (digits,))
    return TypeMapping(
        Schema("bytes", name=_DECIMAL, version=1, parameters=(("scale", str(digits)),)), "money", (digits,)
    )


def _bytea(_typmod: int, modes: TypeModes) -> TypeMapping:
    if modes.binary == "bytes":
        return TypeMapping(Schema("bytes"), "bytes")
    return TypeMapping(Schema("string"), "bytes_text", (modes.binary,))


def _bits(typmod: int, varying: bool) -> TypeMapping:
    if typmod == 1:
        return _plain("boolean", "bit")
    length = typmod if typmod > 0 else 2**31 - 1
    schema = Schema("bytes", name="io.debezium.data.Bits", version=1, parameters=(("length", str(length)),))
    return TypeMapping(schema, "bits", (length, varying or typmod < 1), has_default=True)


def _date(_typmod: int, modes: TypeModes) -> TypeMapping:
    if modes.time == "isostring":
        return _plain("string", "iso_date", "io.debezium.time.IsoDate")
    name = "org.apache.kafka.connect.data.Date" if modes.time == "connect" else "io.debezium.time.Date"
    return _plain("int32", "date", name)


def _timed(type_: str, kind: str, name: str, unit: str) -> TypeMapping:
    return replace(_plain(type_, kind, name), params=(unit,))


def _time(typmod: int, modes: TypeModes) -> TypeMapping:
    match modes.time:
        case "isostring":
            return _plain("string", "iso_time", "io.debezium.time.IsoTime")
        case "connect":
            return _timed("int32", "time", "org.apache.kafka.connect.data.Time", "ms")
        case "nanoseconds":
            return _timed("int64", "time", "io.debezium.time.NanoTime", "ns")
        case "adaptive" if 0 <= typmod <= 3:
            return _timed("int32", "time", "io.debezium.time.Time", "ms")
    return _timed("int64", "time", "io.debezium.time.MicroTime", "us")


def _timestamp(typmod: int, modes: TypeModes) -> TypeMapping:
    match modes.time:
        case "isostring":
            return _plain("string", "iso_timestamp", "io.debezium.time.IsoTimestamp")
        case "connect":
            return _timed("int64", "timestamp", "org.apache.kafka.connect.data.Timestamp", "ms")
        case "nanoseconds":
            return _timed("int64", "timestamp", "io.debezium.time.NanoTimestamp", "ns")
        case "adaptive" | "adaptive_time_microseconds" if 0 <= typmod <= 3:
            return _timed("int64", "timestamp", "io.debezium.time.Timestamp", "ms")
    return _timed("int64", "timestamp", "io.debezium.time.MicroTimestamp", "us")


def _timestamptz(typmod: int, _modes: TypeModes) -> TypeMapping:
    mapping = _plain("string", "zoned_timestamp", "io.debezium.time.ZonedTimestamp")
    return replace(mapping, params=(typmod if typmod >= 0 else 6,))


def _interval(_typmod: int, modes: TypeModes) -> TypeMapping:
    if modes.interval == "string":
        return _plain("string", "interval_iso", "io.debezium.time.Interval")
    return _plain("int64", "interval_us", "io.debezium.time.MicroDuration")


_STRING: Final = _fixed(_plain("string", "text"))
_BARE_STRING: Final = _fixed(_TEXT)
_JSON: Final = _fixed(_plain("string", "text", "io.debezium.data.Json"))

_BUILT_IN: Final[dict[int, _Rule]] = {
    16: _fixed(_plain("boolean", "boolean")),
    17: _bytea,
    18: _fixed(TypeMapping(Schema("string"), "char")),
    19: _BARE_STRING,  # name
    20: _fixed(_plain("int64", "int64")),
    21: _fixed(_plain("int16", "int16")),
    22: _BARE_STRING,  # int2vector: no array in its text
    23: _fixed(_plain("int32", "int32")),
    25: _STRING,  # text
    26: _fixed(_plain("int64", "oid", default=False)),
    30: _BARE_STRING,  # oidvector
    114: _JSON,
    142: _fixed(_plain("string", "text", "io.debezium.data.Xml")),
    600: _fixed(TypeMapping(_POINT, "point")),
    650: _BARE_STRING,  # cidr
    700: _fixed(_plain("float32", "float32")),
    701: _fixed(_plain("float64", "float64")),
    774: _BARE_STRING,  # macaddr8
    790: _money,
    829: _BARE_STRING,  # macaddr
    869: _BARE_STRING,  # inet
    1042: _STRING,  # bpchar
    1043: _STRING,  # varchar
    1082: _date,
    1083: _time,
    1114: _timestamp,
    1184: _timestamptz,
    1186: _interval,
    1266: _fixed(_plain("string", "zoned_time", "io.debezium.time.ZonedTime", default=False)),
    1560: lambda typmod, _modes: _bits(typmod, varying=False),
    1562: lambda typmod, _modes: _bits(typmod, varying=True),
    1700: _numeric,
    2950: _fixed(_plain("string", "uuid", "io.debezium.data.Uuid")),
    3614: _fixed(_plain("string", "text", "io.debezium.data.Tsvector", default=False)),
    3802: _JSON,
    3904: _BARE_STRING,  # int4range
    3906: _BARE_STRING,  # numrange
    3908: _BARE_STRING,  # tsrange
    3910: _BARE_STRING,  # tstzrange
    3912: _BARE_STRING,  # daterange
    3926: _BARE_STRING,  # int8range
}
"""OID (fixed for ever in Postgres's catalog) → rule."""

_ARRAYS: Final = {
    143: 142,
    199: 114,
    651: 650,
    775: 774,
    791: 790,
    1000: 16,
    1001: 17,
    1002: 18,
    1017: 600,
    1003: 19,
    1005: 21,
    1007: 23,
    1009: 25,
    1014: 1042,
    1015: 1043,
    1016: 20,
    1021: 700,
    1022: 701,
    1028: 26,
    1040: 829,
    1041: 869,
    1115: 1114,
    1182: 1082,
    1183: 1083,
    1185: 1184,
    1187: 1186,
    1231: 1700,
    1270: 1266,
    1561: 1560,
    1563: 1562,
    2951: 2950,
    3643: 3614,
    3807: 3802,
    3905: 3904,
    3907: 3906,
    3909: 3908,
    3911: 3910,
    3913: 3912,
    3927: 3926,
}
"""OID of a built-in array → OID of its elements."""

_GEOMETRY_FIELDS: Final = (Field("wkb", Schema("bytes")), Field("srid", Schema("int32", optional=True)))


def _geometry(name: str) -> TypeMapping:
    schema = Schema("struct", name=f"io.debezium.data.geometry.{name}", version=1, doc=name, fields=_GEOMETRY_FIELDS)
    return TypeMapping(schema, "geometry")


def _vector(element: str, name: str, width: int) -> TypeMapping:
    schema = Schema("array", name=f"io.debezium.data.{name}", version=1, values=Schema(element))
    return TypeMapping(schema, "vector", (width,))


_BY_NAME: Final = {
    "citext": _TEXT,
    "ltree": TypeMapping(Schema("string", name="io.debezium.data.Ltree", version=1), "text"),
    "vector": _vector("float64", "DoubleVector", 64),
    "halfvec": _vector("float32", "FloatVector", 32),
    "sparsevec": TypeMapping(_SPARSE_VECTOR, "sparse_vector"),
    "geometry": _geometry("Geometry"),
    "geography": _geometry("Geography"),
}
"""Base types of extensions, whose OIDs differ from database to database."""
