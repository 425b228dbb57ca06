"""Schema resolution: literal pairs, and the promise that what is called readable is read by fastavro."""

from __future__ import annotations

import io
import json
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.registry.avro import parse
from cdc.registry.compatibility import Level, can_read, check


def record(*fields: Any, name: str = "R", **attributes: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, **attributes, "fields": list(fields)}


def field(kind: Any, name: str = "a", **attributes: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, **attributes}


def enum(*symbols: str, **attributes: Any) -> dict[str, Any]:
    return {"type": "enum", "name": "E", "symbols": list(symbols), **attributes}


def fixed(size: int, name: str = "F") -> dict[str, Any]:
    return {"type": "fixed", "name": name, "size": size}


def kinds(reader: Any, writer: Any) -> list[tuple[str, str]]:
    found = can_read(parse(json.dumps(reader)).root, parse(json.dumps(writer)).root)
    return [(reason.kind, reason.path) for reason in found]


_PROMOTED = {"int": {"long", "float", "double"}, "long": {"float", "double"}, "float": {"double"}}
_PROMOTED |= {"string": {"bytes"}, "bytes": {"string"}}
_PRIMITIVES = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"]


@pytest.mark.parametrize("reader", _PRIMITIVES)
@pytest.mark.parametrize("writer", _PRIMITIVES)
def test_primitives_are_promoted_as_the_specification_says(reader: str, writer: str) -> None:
    readable = reader == writer or reader in _PROMOTED.get(writer, set())
    assert (kinds(reader, writer) == []) is readable


@pytest.mark.parametrize(
    ("reader", "writer"),
    [
        (record(), record(field("int"))),
        (record(field("int", default=1)), record()),
        (record(field(["null", "int"], default=None)), record()),
        (record(field("int", "b", aliases=["a"])), record(field("int"))),
        (record(field("long")), record(field("int"))),
        (record(field(["null", "long"])), record(field("int"))),
        (record(field(["null", "int"])), record(field(["int", "null"]))),
        (record(name="new.R"), record(name="old.R")),
        (record(name="S", aliases=["R"]), record()),
        (enum("a", "b"), enum("a")),
        (enum("a", default="a"), enum("a", "b")),
        (fixed(4), fixed(4)),
        ({"type": "array", "items": "long"}, {"type": "array", "items": "int"}),
        ({"type": "map", "values": "double"}, {"type": "map", "values": "float"}),
        ("int", ["int"]),
        ({"type": "int", "logicalType": "date"}, "int"),
        (record(field(["null", "R"], "next")), record(field(["null", "R"], "next"))),
    ],
)
def test_a_reader_that_can_read(reader: Any, writer: Any) -> None:
    assert kinds(reader, writer) == []


@pytest.mark.parametrize(
    ("reader", "writer", "reasons"),
    [
        (record(field("int")), record(), [("READER_FIELD_MISSING_DEFAULT_VALUE", "/fields/0")]),
        (record(field(enum("a", default="a"))), record(), [("READER_FIELD_MISSING_DEFAULT_VALUE", "/fields/0")]),
        (record(field("int")), record(field("long")), [("TYPE_MISMATCH", "/fields/0/type")]),
        (record(field("int")), record(field(["null", "int"])), [("TYPE_MISMATCH", "/fields/0/type/0")]),
        (record(name="S"), record(), [("NAME_MISMATCH", "/name")]),
        (enum("a"), enum("a", "c", "b"), [("MISSING_ENUM_SYMBOLS", "/symbols")]),
        (fixed(4), fixed(8), [("FIXED_SIZE_MISMATCH", "/size")]),
        (["null", "int"], ["null", "int", "string"], [("MISSING_UNION_BRANCH", "/2")]),
        (["null", "int"], "string", [("MISSING_UNION_BRANCH", "/")]),
        ("int", record(), [("TYPE_MISMATCH", "/")]),
        (
            {"type": "array", "items": {"type": "map", "values": "int"}},
            {"type": "array", "items": {"type": "map", "values": "string"}},
            [("TYPE_MISMATCH", "/items/values")],
        ),
        (
            record(field("int"), field("int", "b")),
            record(field("string")),
            [("TYPE_MISMATCH", "/fields/0/type"), ("READER_FIELD_MISSING_DEFAULT_VALUE", "/fields/1")],
        ),
    ],
)
def test_a_reader_that_cannot_read_and_where(reader: Any, writer: Any, reasons: list[tuple[str, str]]) -> None:
    assert kinds(reader, writer) == reasons


_V1 = record(field("int"))
_V2 = record(field("int"), field("int", "b", default=0))
_V3_ADDS = record(field("int"), field("int", "c"))
_V3_DROPS_A = record(field("int", "b", default=0))


@pytest.mark.parametrize(
    ("level", "new", "previous", "allowed"),
    [
        ("NONE", "string", [_V1], True),
        ("BACKWARD", _V2, [_V1], True),
        ("BACKWARD", _V3_ADDS, [_V1], False),
        ("BACKWARD", _V3_DROPS_A, [_V1, _V2], True),
        ("FORWARD", _V3_ADDS, [_V1], True),
        ("FORWARD", _V3_DROPS_A, [_V1], False),
        ("FULL", _V2, [_V1], True),
        ("FULL", _V3_ADDS, [_V1], False),
        ("FULL", _V3_DROPS_A, [_V1], False),
        # c becomes readable in v2 only: v1 data has none and v3 has no default for it.
        ("BACKWARD", _V3_ADDS, [_V1, record(field("int"), field("int", "c", default=0))], True),
        ("BACKWARD_TRANSITIVE", _V3_ADDS, [_V1, record(field("int"), field("int", "c", default=0))], False),
        ("FORWARD_TRANSITIVE", _V3_DROPS_A, [_V1, _V3_DROPS_A], False),
        ("FORWARD", _V3_DROPS_A, [_V1, _V3_DROPS_A], True),
        ("FULL_TRANSITIVE", _V2, [_V1, _V2, _V1], True),
        ("BACKWARD", _V3_ADDS, [], True),
    ],
)
def test_levels_look_in_their_direction_and_as_far_back_as_they_say(
    level: str, new: Any, previous: list[Any], allowed: bool
) -> None:
    schemas = [(i + 1, parse(json.dumps(schema))) for i, schema in enumerate(previous)]
    problems = check(Level(level), parse(json.dumps(new)), schemas)
    assert (problems == []) is allowed


def test_problems_are_told_as_confluent_tells_them() -> None:
    problems = check(Level.FULL, parse(json.dumps(_V3_ADDS)), [(4, parse(json.dumps(_V1)))])
    assert problems == [
        "{errorType:'READER_FIELD_MISSING_DEFAULT_VALUE', description:'The field 'c' at path '/fields/1' of the new"
        " schema has no default value and is missing in the old schema', additionalInfo:'c'}",
        "{oldSchemaVersion: 4}",
        "{oldSchema: '" + parse(json.dumps(_V1)).text + "'}",
        "{compatibility: 'FULL'}",
    ]


# -- against fastavro ---------------------------------------------------------------------------------

_WRITTEN: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32, allow_nan=False),
    "double": st.floats(allow_nan=False),
    "bytes": st.text(max_size=5).map(str.encode),
    "string": st.text(max_size=5),
}
_DEFAULTS = {
    "null": None,
    "boolean": True,
    "int": 1,
    "long": 2,
    "float": 0.5,
    "double": 1.5,
    "bytes": "x",
    "string": "y",
}
_names = st.sampled_from(["f", "g", "h"])


@st.composite
def _schemas(draw: st.DrawFn, depth: int = 2, taken: frozenset[str] = frozenset()) -> Any:
    """A schema; named types are called by their depth, so that no name is taken twice."""
    shape = draw(
        st.sampled_from(["primitive"] * 3 + (["array", "map", "union", "record", "enum", "fixed"] * (depth > 0)))
    )
    if shape == "array":
        return {"type": "array", "items": draw(_schemas(depth - 1))}
    if shape == "map":
        return {"type": "map", "values": draw(_schemas(depth - 1))}
    if shape == "union":
        return draw(st.lists(st.sampled_from(_PRIMITIVES), min_size=1, max_size=3, unique=True))
    if shape == "enum":
        symbols = draw(st.lists(st.sampled_from(["x", "y", "z"]), min_size=1, max_size=3, unique=True))
        return {"type": "enum", "name": f"E{depth}", "symbols": symbols} | draw(
            st.sampled_from([{}, {"default": symbols[0]}])
        )
    if shape == "fixed":
        return {"type": "fixed", "name": f"F{depth}", "size": draw(st.integers(1, 2))}
    if shape == "record":
        return draw(_records(depth))
    return draw(st.sampled_from(_PRIMITIVES))


@st.composite
def _records(draw: st.DrawFn, depth: int = 2) -> Any:
    names = draw(st.lists(_names, max_size=3, unique=True))
    fields = []
    for i, name in enumerate(names):
        kind = draw(st.sampled_from(_PRIMITIVES)) if i else draw(_schemas(depth - 1))
        fields.append({"name": name, "type": kind})
    return {"type": "record", "name": f"R{depth}", "fields": fields}


@st.composite
def _evolved(draw: st.DrawFn, schema: Any) -> Any:
    """A near copy: types promoted or changed, unions widened and reordered, fields added, dropped, with defaults."""
    if isinstance(schema, str):
        change = draw(st.sampled_from(["keep", "keep", "other", "nullable"]))
        if change == "other":
            return draw(st.sampled_from(_PRIMITIVES))
        return ["null", schema] if change == "nullable" and schema != "null" else schema
    if isinstance(schema, list):
        extra = [kind for kind in draw(st.lists(st.sampled_from(_PRIMITIVES), max_size=1)) if kind not in schema]
        return draw(st.permutations(schema)) + extra
    copy = dict(schema)
    if "items" in copy:
        copy["items"] = draw(_evolved(copy["items"]))
    if "values" in copy:
        copy["values"] = draw(_evolved(copy["values"]))
    if "symbols" in copy:
        copy["symbols"] = draw(st.lists(st.sampled_from(["x", "y", "z"]), min_size=1, max_size=3, unique=True))
        copy.pop("default", None)
        copy |= draw(st.sampled_from([{}, {"default": copy["symbols"][0]}]))
    if "size" in copy:
        copy["size"] = draw(st.integers(1, 2))
    if "fields" in copy:
        kept = [f for f in copy["fields"] if draw(st.integers(0, 3))]
        copy["fields"] = [{**f, "type": draw(_evolved(f["type"]))} for f in kept]
        for name in draw(st.lists(_names, max_size=1)):
            if name not in {f["name"] for f in copy["fields"]}:
                kind = draw(st.sampled_from(_PRIMITIVES))
                default = {"default": _DEFAULTS[kind]} if draw(st.booleans()) else {}
                copy["fields"].append({"name": name, "type": kind, **default})
    return copy


def _data(schema: Any) -> st.SearchStrategy[Any]:
    if isinstance(schema, str):
        return _WRITTEN[schema]
    if isinstance(schema, list):
        return st.one_of([st.tuples(st.just(kind), _WRITTEN[kind]) for kind in schema])
    match schema["type"]:
        case "array":
            return st.lists(_data(schema["items"]), max_size=2)
        case "map":
            return st.dictionaries(st.text(max_size=2), _data(schema["values"]), max_size=2)
        case "enum":
            return st.sampled_from(schema["symbols"])
        case "fixed":
            return st.binary(min_size=schema["size"], max_size=schema["size"])
        case _:
            return st.fixed_dictionaries({f["name"]: _data(f["type"]) for f in schema["fields"]})


@settings(max_examples=400)
@given(st.data())
def test_what_is_called_readable_fastavro_reads(data: st.DataObject) -> None:
    writer = data.draw(_records())
    reader = data.draw(_evolved(writer))
    if kinds(reader, writer):
        return
    written = io.BytesIO()
    fastavro.schemaless_writer(written, fastavro.parse_schema(writer), data.draw(_data(writer)))
    written.seek(0)
    found = fastavro.schemaless_reader(written, fastavro.parse_schema(writer), fastavro.parse_schema(reader))
    assert isinstance(found, dict)
    assert set(found) == {f["name"] for f in reader["fields"]}


@settings(max_examples=200)
@given(st.data())
def test_a_field_without_default_that_nobody_wrote_fastavro_refuses_too(data: st.DataObject) -> None:
    writer = data.draw(_records())
    reader = {**writer, "fields": [*writer["fields"], {"name": "new", "type": "int"}]}
    assert kinds(reader, writer) == [("READER_FIELD_MISSING_DEFAULT_VALUE", f"/fields/{len(writer['fields'])}")]
    written = io.BytesIO()
    fastavro.schemaless_writer(written, fastavro.parse_schema(writer), data.draw(_data(writer)))
    written.seek(0)
    with pytest.raises(fastavro.read.SchemaResolutionError):
        fastavro.schemaless_reader(written, fastavro.parse_schema(writer), fastavro.parse_schema(reader))


@settings(max_examples=300)
@given(st.data())
def test_every_schema_can_follow_itself(data: st.DataObject) -> None:
    schema = parse(json.dumps(data.draw(_schemas())))
    assert check(Level.FULL_TRANSITIVE, schema, [(1, schema)]) == []
