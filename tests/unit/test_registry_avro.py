"""Avro schemas as the registry compares and stores them. The expected texts are those of Apache Avro for Java 1.12."""

from __future__ import annotations

import json
from typing import Any

import fastavro.schema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.registry.avro import parse, resolve
from cdc.registry.errors import InvalidSchema


def text(schema: Any, **options: Any) -> str:
    return parse(json.dumps(schema), **options).text


def record(*fields: Any, **attributes: Any) -> dict[str, Any]:
    return {"type": "record", "name": "R", **attributes, "fields": list(fields)}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string"}, '"string"'),
        ({"z": 1, "type": "string", "a": "b"}, '{"type":"string","z":1,"a":"b"}'),
        (
            {
                "fields": [],
                "connect.name": "n.R",
                "name": "n.R",
                "doc": "d",
                "aliases": ["n.Q", "m.Q"],
                "type": "record",
            },
            '{"type":"record","name":"R","namespace":"n","doc":"d","fields":[],"connect.name":"n.R","aliases":["Q","m.Q"]}',
        ),
        (
            record({"default": None, "type": ["null", "int"], "name": "a", "order": "ignore", "x": [1], "doc": "é"}),
            '{"type":"record","name":"R","fields":[{"name":"a","type":["null","int"],"doc":"é","default":null,'
            '"order":"ignore","x":[1]}]}',
        ),
        (
            record(
                {"name": "a", "type": {"type": "enum", "name": "m.E", "symbols": ["x"], "default": "x"}},
                {"name": "b", "type": "m.E"},
                {"name": "c", "type": {"type": "fixed", "name": "long", "size": 2}},
                {"name": "d", "type": "n.long"},
                namespace="n",
            ),
            '{"type":"record","name":"R","namespace":"n","fields":[{"name":"a","type":{"type":"enum","name":"E",'
            '"namespace":"m","symbols":["x"],"default":"x"}},{"name":"b","type":"m.E"},{"name":"c","type":{"type":'
            '"fixed","name":"long","size":2}},{"name":"d","type":"n.long"}]}',
        ),
        (
            record(
                {"name": "a", "type": "double", "default": "1.25"},
                {"name": "b", "type": "double", "default": 1e10},
                {"name": "c", "type": "float", "default": 12345678.9},
                {"name": "d", "type": "float", "default": 0.0001},
                {"name": "e", "type": "double", "default": "NaN"},
                {"name": "f", "type": "double", "default": -2},
            ),
            '{"type":"record","name":"R","fields":[{"name":"a","type":"double","default":1.25},'
            '{"name":"b","type":"double","default":1.0E10},{"name":"c","type":"float","default":1.23456789E7},'
            '{"name":"d","type":"float","default":1.0E-4},{"name":"e","type":"double","default":"NaN"},'
            '{"name":"f","type":"double","default":-2}]}',
        ),
        (
            record({"name": "next", "type": ["null", "R"]}, namespace="n"),
            '{"type":"record","name":"R","namespace":"n","fields":[{"name":"next","type":["null","R"]}]}',
        ),
    ],
)
def test_the_text_is_the_one_that_avro_prints(schema: Any, expected: str) -> None:
    assert text(schema) == expected


def test_white_space_and_order_do_not_matter_but_attributes_do() -> None:
    one = '{"type": "record", "name": "R", "connect.name": "x",  "fields": []}'
    assert parse(one).text == parse('{"name":"R","fields":[],"type":"record","connect.name":"x"}').text
    assert parse(one).text != parse('{"name":"R","fields":[],"type":"record","connect.name":"y"}').text


def test_a_type_name_without_quotes_is_a_schema() -> None:
    assert parse("string").text == '"string"'


def test_types_of_references_are_known_and_left_out() -> None:
    reference = '{"type":"record","name":"n.Address","fields":[{"name":"street","type":"string"}]}'
    user = '{"type":"record","name":"n.User","fields":[{"name":"home","type":"Address"}]}'
    found = parse(user, [reference])
    assert found.text == '{"type":"record","name":"User","namespace":"n","fields":[{"name":"home","type":"Address"}]}'
    assert found.root.fields[0].type.fields[0].name == "street"
    whole = json.loads(resolve(user, [reference]))
    assert whole["fields"][0]["type"]["fields"] == [{"name": "street", "type": "string"}]


def test_normalizing_sorts_what_has_no_order() -> None:
    schema = record(
        {"name": "a", "type": {"type": "bytes", "z": 1, "scale": 2, "logicalType": "decimal", "precision": 5, "c": 3}},
        aliases=["Z", "B"],
        doc="",
    )
    assert text(schema, normalize=True) == (
        '{"type":"record","name":"R","fields":[{"name":"a","type":{"type":"bytes","logicalType":"decimal",'
        '"precision":5,"scale":2,"c":3,"z":1}}],"aliases":["B","Z"]}'
    )


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ({"type": "recrod", "name": "R"}, "not a defined name"),
        ({"name": "R"}, 'no "type"'),
        (7, "a type is a name"),
        (record({"type": "int"}), 'object with a "name"'),
        (record({"name": "a"}), 'no "type"'),
        (record({"name": "a", "type": "int"}, {"name": "a", "type": "int"}), "twice"),
        (record({"name": "a b", "type": "int"}), "not an Avro name"),
        ({"type": "record", "name": "R"}, '"fields"'),
        ({"type": "record", "name": "int", "fields": []}, "primitive"),
        ({"type": "enum", "name": "E", "symbols": ["a", "a"]}, "twice"),
        ({"type": "enum", "name": "E", "symbols": ["a"], "default": "b"}, "not one of its symbols"),
        ({"type": "enum", "name": "E", "symbols": "a"}, '"symbols"'),
        ({"type": "fixed", "name": "F", "size": True}, '"size"'),
        ({"type": "array"}, '"items"'),
        (["int", ["null"]], "may not hold a union"),
        (["int", "int"], "twice"),
        (record({"name": "a", "type": "int", "default": "1"}), "not a valid default"),
        (record({"name": "a", "type": "int", "default": 2**31}), "not a valid default"),
        (record({"name": "a", "type": ["null", "double"], "default": "NaN"}), "not a valid default"),
        (record({"name": "a", "type": "double", "default": "much"}), "not a default"),
        (record({"name": "a", "type": "int", "order": "up"}), '"order"'),
        (record({"name": "a", "type": "int", "aliases": "b"}), '"aliases"'),
        ([record(), record()], "defined twice"),
    ],
)
def test_an_invalid_schema_is_refused_with_its_place(schema: Any, complaint: str) -> None:
    with pytest.raises(InvalidSchema, match=complaint):
        text(schema)


@pytest.mark.parametrize("broken", ["{", '{"type":"double","x":NaN}', '"a', "", "[" * 100_000])
def test_what_is_not_json_is_refused(broken: str) -> None:
    with pytest.raises(InvalidSchema):
        parse(broken)


def test_what_nests_too_deeply_is_refused() -> None:
    deep = '{"type":"array","items":' * 900 + '"int"' + "}" * 900
    with pytest.raises(InvalidSchema, match="nested too deeply"):
        parse(deep)


def test_a_schema_that_a_registry_holds_is_read_leniently() -> None:
    schema = record({"name": "a b", "type": "int", "default": "1"})
    assert parse(json.dumps(schema), strict=False).root.fields[0].name == "a b"


@pytest.mark.parametrize(
    ("kind", "default", "valid"),
    [
        ("null", None, True),
        ("null", 0, False),
        ("boolean", True, True),
        ("boolean", 1, False),
        ("int", True, False),
        ("long", 2**62, True),
        ("long", 1.0, False),
        ("float", 1, True),
        ("bytes", "\u00ff", True),
        ({"type": "array", "items": "int"}, [1, 2], True),
        ({"type": "array", "items": "int"}, [1, "2"], False),
        ({"type": "map", "values": "int"}, {"a": 1}, True),
        ({"type": "map", "values": "int"}, [1], False),
        ({"type": "enum", "name": "E", "symbols": ["a"]}, "a", True),
        ({"type": "enum", "name": "E", "symbols": ["a"]}, "b", False),
        (["null", "int"], None, True),
        (["null", "int"], 1, True),
        (["null", "int"], "1", False),
        (record({"name": "x", "type": "int", "default": 1}, name="Inner"), {}, True),
        (record({"name": "x", "type": "int"}, name="Inner"), {}, False),
    ],
)
def test_defaults_belong_to_their_type(kind: Any, default: Any, valid: bool) -> None:
    schema = record({"name": "a", "type": kind, "default": default}, name="Outer")
    if valid:
        assert parse(json.dumps(schema)).root.fields[0].default == default
    else:
        with pytest.raises(InvalidSchema):
            text(schema)


_json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["connect.name", "x", "logicalType", "é"]), _json_values), st.text())
def test_the_canonical_text_is_a_fixed_point_and_means_the_same(props: dict[str, Any], doc: str) -> None:
    schema = record({"name": "a", "type": {**props, "type": "bytes"}, "doc": doc}, doc=doc)
    found = parse(json.dumps(schema)).text
    assert parse(found).text == found
    again = json.loads(found)
    assert again["doc"] == doc
    assert again["fields"][0]["type"] == ({"type": "bytes", **props} if props else "bytes")


@given(_json_values)
def test_no_json_value_breaks_the_parser(value: Any) -> None:
    raw = json.dumps(value)
    try:
        found = parse(raw)
    except InvalidSchema:
        return
    fastavro.schema.parse_schema(json.loads(found.text))
