"""The text of Kafka's JSON converter, and what is read from it."""

from __future__ import annotations

import json
import math
import struct
from decimal import Decimal
from typing import Any

import pytest
from connect_strategies import DECIMAL, pairs, unscaled
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.codec.json_reader import load, reader
from cdc.codec.json_reader import unscaled as from_number
from cdc.codec.json_writer import any_text, double_text, single_text, string_text, writer
from cdc.record import Field, Schema


@pytest.mark.parametrize(
    ("value", "text"),
    [
        # as Double.toString has it since JDK 19
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (0.001, "0.001"),
        (0.0001, "1.0E-4"),
        (9999999.0, "9999999.0"),
        (1e7, "1.0E7"),
        (1e23, "1.0E23"),
        (2e-323, "2.0E-323"),
        (5e-324, "4.9E-324"),
        (1.7976931348623157e308, "1.7976931348623157E308"),
        (-1.5e-7, "-1.5E-7"),
        (math.nan, '"NaN"'),
        (math.inf, '"Infinity"'),
        (-math.inf, '"-Infinity"'),
    ],
)
def test_doubles_as_java_prints_them(value: float, text: str) -> None:
    assert double_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1, "0.1"), (1e10, "1.0E10"), (3.4028235e38, "3.4028235E38"), (1.4e-45, "1.4E-45"), (2.0**24, "1.6777216E7")],
)
def test_singles_as_java_prints_them(value: float, text: str) -> None:
    assert single_text(struct.unpack("f", struct.pack("f", value))[0]) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_double_reads_back(value: float) -> None:
    assert struct.pack("d", float(double_text(value))) == struct.pack("d", value)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_every_single_reads_back(value: float) -> None:
    assert struct.pack("f", float(single_text(value))) == struct.pack("f", value)


def test_strings_as_jackson_writes_them() -> None:
    assert string_text('a\x1f\\u001f"\n\b\u2028é😀\x7f/') == '"a\\u001F\\\\u001f\\"\\n\\b\u2028é😀\x7f/"'


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_every_string_reads_back(value: str) -> None:
    assert json.loads(string_text(value)) == value


@given(pairs(), st.booleans())
@settings(max_examples=200)
def test_random_values_come_back(pair: tuple[Schema, Any], numeric: bool) -> None:
    schema, value = pair
    text = writer(schema, numeric=numeric)(value)
    form, end = load(text)
    assert end == len(text)
    assert reader(schema)(form) == value


def _decimal(scale: int) -> Schema:
    return Schema("bytes", name=DECIMAL, version=1, parameters=(("scale", str(scale)),))


@pytest.mark.parametrize(
    ("number", "scale", "text"),
    [(12345, 2, "123.45"), (-5, 3, "-0.005"), (1, 8, "1E-8"), (0, 2, "0.00"), (10**30, 0, "1" + "0" * 30)],
)
def test_decimals_as_numbers(number: int, scale: int, text: str) -> None:
    assert writer(_decimal(scale), numeric=True)(unscaled(number)) == text


@pytest.mark.parametrize("digits", [4300, 5000, 131072])
def test_decimals_of_any_length(digits: int) -> None:
    value = unscaled(10**digits - 1)
    text = writer(_decimal(3), numeric=True)(value)
    assert text == "9" * (digits - 3) + ".999"
    assert reader(_decimal(3))(load(text)[0]) == value
    assert load("[" + "9" * digits + "]")[0] == [10**digits - 1]


def test_no_digit_of_a_decimal_is_dropped() -> None:
    assert from_number(Decimal("1.50"), 1) == unscaled(15)
    with pytest.raises(ValueError, match="more than 1 digits"):
        from_number(Decimal("1.25"), 1)


def test_values_without_schema() -> None:
    value = {"a": [1, 2.5, None, True, "x"], "b": b"\x01", "c": Decimal("1.50"), "d": {1: 2}}
    assert any_text(value) == '{"a":[1,2.5,null,true,"x"],"b":"AQ==","c":1.50,"d":[[1,2]]}'
    with pytest.raises(ValueError, match="object"):
        any_text(object())


@pytest.mark.parametrize(
    ("schema", "text", "told"),
    [
        (Schema("int8"), "128", "128 is no int8"),
        (Schema("int32"), "true", "True is no int32"),
        (Schema("int32"), "1.5", "no int32"),
        (Schema("int32"), "null", "requires a value"),
        (Schema("boolean"), "1", "no boolean"),
        (Schema("string"), "1", "no string"),
        (Schema("bytes"), '"*"', "base64"),
        (Schema("float32"), "1e39", "no float of 32 bits"),
        (Schema("float64"), '"1"', "no number"),
        (Schema("array", values=Schema("int8")), "{}", "no array"),
        (Schema("map", keys=Schema("int8"), values=Schema("int8")), '{"1":1}', "is an array"),
        (Schema("map", keys=Schema("int8"), values=Schema("int8")), "[[1]]", "no pair"),
        (Schema("struct", fields=(Field("a", Schema("string")),)), '{"a":{}}', "a: .* is no string"),
        (Schema("struct", fields=(Field("a", Schema("string")),)), "[]", "no object"),
    ],
)
def test_what_is_not_of_the_schema_is_refused(schema: Schema, text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        reader(schema)(load(text)[0])


@pytest.mark.parametrize("text", ["NaN", "{", "", "[1,]", "[" * 100_000])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        load(text)


def test_a_null_and_a_default() -> None:
    optional = Schema("int32", optional=True, default=7)
    assert reader(optional)(None) is None
    assert reader(optional, replace_null=True)(None) == 7
    assert reader(Schema("int32", default=7))(None) == 7
    assert writer(optional)(None) == "null"
    assert writer(optional, default=lambda schema: schema.default)(None) == "7"
