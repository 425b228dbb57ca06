"""The table of types, docs/types.md: made from the code, so that it is what the bridge does.

``python -m cdc.operate.type_table > docs/types.md`` writes it again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any, Final

from cdc.codec.canonical import from_postgres
from cdc.codec.connect_avro import avro_schema
from cdc.postgres.pg_type import PgType, canonical_type
from cdc.postgres.types import TypeMapping, TypeModes, resolve
from cdc.reader import parse
from cdc.record import Schema

__all__ = ["documented", "mappings", "render"]


@dataclass(frozen=True, slots=True)
class _Row:
    """Types with one mapping. ``names`` are those of ``pg_type``, ``example`` is Postgres's text of a value of the
    first of them, ``shown`` how the first is written with its modifier."""

    names: tuple[str, ...]
    example: str
    typmod: int = -1
    shown: str = ""


_OIDS: Final[Mapping[str, int]] = {
    **{"bool": 16, "bytea": 17, "char": 18, "name": 19, "int8": 20, "int2": 21, "int2vector": 22, "int4": 23},
    **{"regproc": 24, "text": 25, "oid": 26, "tid": 27, "xid": 28, "cid": 29, "oidvector": 30, "json": 114},
    **{"xml": 142, "point": 600, "lseg": 601, "path": 602, "box": 603, "polygon": 604, "line": 628, "cidr": 650},
    **{"float4": 700, "float8": 701, "circle": 718, "macaddr8": 774, "money": 790, "macaddr": 829, "inet": 869},
    **{"bpchar": 1042, "varchar": 1043, "date": 1082, "time": 1083, "timestamp": 1114, "timestamptz": 1184},
    **{"interval": 1186, "timetz": 1266, "bit": 1560, "varbit": 1562, "numeric": 1700, "uuid": 2950},
    **{"tsvector": 3614, "jsonb": 3802, "int4range": 3904, "numrange": 3906, "tsrange": 3908, "tstzrange": 3910},
    **{"daterange": 3912, "int8range": 3926, "_int4": 1007, "_text": 1009},
}
"""OIDs of the built-in types whose mapping goes by them; all others are given one here, which stands for any."""
_NUMERIC: Final = (10 << 16 | 2) + 4

_NUMBERS: Final = (
    _Row(("int2",), "-7"),
    _Row(("int4",), "-7"),
    _Row(("int8",), "-7"),
    _Row(("oid",), "4294967295"),
    _Row(("float4",), "1.5"),
    _Row(("float8",), "1e+300"),
    _Row(("numeric",), "1.50", _NUMERIC, "numeric(10,2)"),
    _Row(("numeric",), "1.50"),
    _Row(("money",), "-$1,234.50"),
    _Row(("bool",), "t"),
)
_TEXTS: Final = (
    _Row(("text", "varchar", "bpchar", "name", "citext"), "é"),
    _Row(("char",), "c", shown='"char"'),
    _Row(("uuid",), "123e4567-e89b-12d3-a456-426614174000"),
    _Row(("json", "jsonb"), '{"a": 1.50}'),
    _Row(("xml",), "<a/>"),
    _Row(("tsvector",), "'a':1 'b':2"),
    _Row(("ltree",), "a.b"),
    _Row(("hstore",), '"a"=>"1", "b"=>NULL'),
    _Row(("mood",), "happy", shown="an enum"),
)
_BYTES: Final = (
    _Row(("bytea",), "\\x00ff"),
    _Row(("bit", "varbit"), "1", 1, "bit(1)"),
    _Row(("bit", "varbit"), "00000101", 8, "bit(8)"),
    _Row(("varbit", "bit"), "101"),
)
_TIMES: Final = (
    _Row(("date",), "2026-01-31"),
    _Row(("time",), "12:00:00.5", 3, "time(3)"),
    _Row(("time",), "12:00:00.5"),
    _Row(("timetz",), "12:00:00.5+02"),
    _Row(("timestamp",), "2026-01-31 12:00:00.123", 3, "timestamp(3)"),
    _Row(("timestamp",), "2026-01-31 12:00:00.123456"),
    _Row(("timestamptz",), "2026-01-31 12:00:00.5+00"),
    _Row(("interval",), "1 year 2 mons -3 days 04:05:06.7"),
)
_STRUCTURES: Final = (
    _Row(("point",), "(1.5,2)"),
    _Row(("geometry",), "0101000000000000000000F03F0000000000000040"),
    _Row(("geography",), "0101000020E6100000000000000000F03F0000000000000040"),
    _Row(("vector",), "[1,2.5]"),
    _Row(("halfvec",), "[1,2.5]"),
    _Row(("sparsevec",), "{1:1.5,3:2}/5"),
    _Row(("_int4",), "{1,NULL}", shown="an array, here int4[]"),
    _Row(("_text",), '{a,"b c"}', shown="an array, here text[]"),
    _Row(("pair",), '(1,"a b")', shown="a composite (a int4, b text), and arrays of it"),
)
_AS_TEXT: Final = (
    _Row(("inet", "cidr", "macaddr", "macaddr8"), "192.168.1.5/24"),
    _Row(("line", "lseg", "box", "path", "polygon", "circle"), "{1,-1,0}"),
    _Row(("int4range", "int8range", "numrange", "tsrange", "tstzrange", "daterange", "a range of your own"), "[1,5)"),
    _Row(
        (
            *("int4multirange", "int8multirange", "nummultirange", "tsmultirange", "tstzmultirange", "datemultirange"),
            "its multirange",
        ),
        "{[1,3),[5,7)}",
    ),
    _Row(("tsquery",), "'a' & 'b'"),
    _Row(("jsonpath",), '$."a"[*]'),
    _Row(("pg_lsn",), "16/B374D848"),
    _Row(("xid", "xid8", "cid"), "123"),
    _Row(("tid",), "(0,1)"),
    _Row(("pg_snapshot", "txid_snapshot"), "10:20:10,14"),
    _Row(
        (
            *("regclass", "regproc", "regprocedure", "regoper", "regoperator", "regtype", "regrole", "regnamespace"),
            *("regconfig", "regdictionary", "regcollation", "regdatabase"),
        ),
        "pg_class",
    ),
    _Row(("refcursor",), "a cursor"),
    _Row(("aclitem",), "pg_monitor=r/pg_monitor"),
    _Row(("int2vector", "oidvector"), "1 2"),
    _Row(("lquery", "ltxtquery"), "*.a"),
    _Row(("cube",), "(1, 2),(3, 4)"),
    _Row(("seg",), "1.5 .. 2"),
    _Row(("query_int",), "1 & 2"),
    _Row(("isbn", "isbn13", "ismn", "ismn13", "issn", "issn13", "upc", "ean13"), "0-901690-54-6"),
    _Row(("box2d", "box3d"), "BOX(1 2,3 4)"),
    _Row(("spheroid",), 'SPHEROID("GRS_1980",6378137,298.257222101)'),
    _Row(("raster",), "its bytes in upper-case hexadecimal, as printed"),
    _Row(("any other base type",), "its text"),
)
_INTERNAL: Final = (
    *("pg_node_tree", "pg_ndistinct", "pg_dependencies", "pg_mcv_list"),
    *("pg_brin_bloom_summary", "pg_brin_minmax_multi_summary"),
    *("box2df", "gidx"),
    *("gtsvector", "ghstore", "gtrgm", "ltree_gist", "intbig_gkey"),
    *("gbtreekey2", "gbtreekey4", "gbtreekey8", "gbtreekey16", "gbtreekey32", "gbtreekey_var"),
)
_SECTIONS: Final = {
    "numbers": _NUMBERS,
    "texts": _TEXTS,
    "bytes": _BYTES,
    "times": _TIMES,
    "structures": _STRUCTURES,
    "as_text": (*_AS_TEXT, _Row(_INTERNAL, "its text")),
}
_MODES: Final[tuple[tuple[str, str, tuple[str, ...], tuple[_Row, ...]], ...]] = (
    ("decimal.handling.mode", "decimal", ("string", "double"), (_NUMBERS[6], _NUMBERS[8])),
    (
        "time.precision.mode",
        "time",
        ("adaptive_time_microseconds", "microseconds", "nanoseconds", "connect", "isostring"),
        (_TIMES[0], _TIMES[1], _TIMES[2], _TIMES[4], _TIMES[5]),
    ),
    ("binary.handling.mode", "binary", ("base64", "base64-url-safe", "hex"), (_BYTES[0],)),
    ("interval.handling.mode", "interval", ("string",), (_TIMES[7],)),
    ("hstore.handling.mode", "hstore", ("map",), (_TEXTS[7],)),
)


def _catalog() -> dict[int, PgType]:
    names = dict.fromkeys(name for rows in _SECTIONS.values() for row in rows for name in row.names)
    types = {}
    for stand_in, name in enumerate(names, 90_000):
        oid = _OIDS.get(name, stand_in)
        own = name in {"mood", "pair"} or oid == stand_in
        types[oid] = PgType(oid, name, "public" if own else "pg_catalog", "b")
    by_name = {type_.name: oid for oid, type_ in types.items()}
    mood, pair = by_name["mood"], by_name["pair"]
    types[mood] = replace(types[mood], typtype="e", labels=("sad", "happy"))
    types[pair] = replace(types[pair], typtype="c", attributes=(("a", 23, -1), ("b", 25, -1)))
    for array, element in (("_int4", "int4"), ("_text", "text")):
        types[_OIDS[array]] = replace(types[_OIDS[array]], element=_OIDS[element])
    return types


_TYPES: Final = _catalog()
_BY_NAME: Final = {type_.name: oid for oid, type_ in _TYPES.items()}


def documented() -> frozenset[str]:
    """The names of ``pg_type`` that have a row."""
    return frozenset(name for name in _BY_NAME if " " not in name and name not in {"mood", "pair"})


def mappings() -> Iterator[tuple[str, list[TypeMapping]]]:
    """Each row, by its first type, and the mappings of its types, which are one and the same."""
    for rows in _SECTIONS.values():
        for row in rows:
            yield row.names[0], [resolve(_BY_NAME[name], row.typmod, _TYPES, TypeModes()) for name in row.names]


def render() -> str:
    """The page."""
    text = files("cdc.operate").joinpath("types.md").read_text(encoding="utf-8")
    for name, rows in _SECTIONS.items():
        text = text.replace(f"<<{name}>>", _table(_HEAD, (_cells(row, TypeModes()) for row in rows)))
    return text.replace("<<modes>>", _table(("setting", *_HEAD[:3]), _mode_rows()))


_HEAD: Final = ("Postgres", "Connect schema", "Avro", "example", "in Redis", "cdc.reader")


def _mode_rows() -> Iterator[tuple[str, ...]]:
    for setting, field, values, rows in _MODES:
        for value in values:
            for row in rows:
                modes: dict[str, Any] = {field: value}
                yield f"`{setting}={value}`", *_cells(row, TypeModes(**modes))[:3]


def _cells(row: _Row, modes: TypeModes) -> tuple[str, ...]:
    oid = _BY_NAME[row.names[0]]
    schema = resolve(oid, row.typmod, _TYPES, modes).schema
    shown = ", ".join(f"`{name}`" if " " not in name else name for name in row.names)
    if row.shown:
        shown = row.shown if " " in row.shown else f"`{row.shown}`"
    type_ = canonical_type(oid, row.typmod, _TYPES)
    canonical = from_postgres(type_, row.example.encode()) or b""
    value = type(parse(canonical, row.names[0] if type_ == "text" else type_)).__name__
    mapped = (_connect(schema), _avro(schema), row.example, canonical.decode(), value)
    return shown, *(f"`{cell}`" for cell in mapped)


def _connect(schema: Schema) -> str:
    told = schema.type
    if schema.type == "array" and schema.values:
        told = f"array<{_connect(schema.values)}>"
    elif schema.type == "map" and schema.keys and schema.values:
        told = f"map<{_connect(schema.keys)}, {_connect(schema.values)}>"
    elif schema.type == "struct":
        told = "struct{" + ", ".join(f"{field.name} {_connect(field.schema)}" for field in schema.fields) + "}"
    name = f" {schema.name}" if schema.name else ""
    parameters = ", ".join(f"{key}={value}" for key, value in schema.parameters)
    optional = "?" if schema.optional else ""
    return f"{told}{optional}{name}" + (f" ({parameters})" if parameters else "")


def _avro(schema: Schema) -> str:
    return _short(avro_schema(replace(schema, optional=False), logical_types=True))


def _short(form: Any) -> str:
    """An Avro schema without what ``connect.*`` says."""
    if isinstance(form, str):
        return form
    if isinstance(form, list):
        return "[" + ", ".join(map(_short, form)) + "]"
    match form["type"]:
        case "array":
            return f"array<{_short(form['items'])}>"
        case "map":
            return f"map<{_short(form['values'])}>"
        case "record":
            return f"record {form['name']}{{" + ", ".join(field["name"] for field in form["fields"]) + "}"
    details = [str(form[key]) for key in ("precision", "scale") if key in form]
    logical = form.get("logicalType", "")
    return str(form["type"]) + (f" {logical}" if logical else "") + (f"({','.join(details)})" if details else "")


def _table(head: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [tuple(head), *rows]
    lines.insert(1, ("---",) * len(lines[0]))
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(render())
