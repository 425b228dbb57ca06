"""Python values from canonical texts: what an application does with a hash."""

from __future__ import annotations

import doctest
import ipaddress
import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc import reader
from cdc.codec.canonical import from_postgres
from cdc.reader import ArrayOf, CanonicalType, Interval, Range, RowOf

PAIR = RowOf((("x", "int4"), ("of", "numeric[]"), ("ok", "bool")))


def test_the_examples_of_the_documentation() -> None:
    assert doctest.testmod(reader).failed == 0


@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [
        ("smallint", "-7", -7),
        ("xid8", "18446744073709551615", 18446744073709551615),
        ("numeric(10,3)", "1.500", Decimal("1.500")),
        ("numeric", "Infinity", Decimal("Infinity")),
        ("numeric", "9" * 9000, Decimal("9" * 9000)),
        ("money", "-1.50", Decimal("-1.50")),
        ("real", "1e-45", 1e-45),
        ("double precision", "-Infinity", float("-inf")),
        ("boolean", "true", True),
        ("bit(1)", "false", False),
        ("bit(3)", "010", "010"),
        ("bytea", "AP8=", b"\x00\xff"),
        ("date", "2026-01-31", date(2026, 1, 31)),
        ("date", "0044-03-15 BC", "0044-03-15 BC"),
        ("date", "10000-01-01", "10000-01-01"),
        ("time(3) without time zone", "12:00:00.5", time(12, 0, 0, 500000)),
        ("time", "24:00:00", "24:00:00"),
        ("timetz", "10:00:00Z", time(10, tzinfo=UTC)),
        ("timestamp", "2026-01-31T12:00:00.123456", datetime(2026, 1, 31, 12, 0, 0, 123456)),
        ("timestamp", "-infinity", "-infinity"),
        ("timestamptz", "2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("timestamptz", "12345-01-01 00:00:00+00", "12345-01-01 00:00:00+00"),
        ("interval", "P1Y2M-3DT4H-5M6.7S", Interval(14, -3, (4 * 60 - 5) * 60_000_000 + 6_700_000)),
        ("interval", "PT0S", Interval(0, 0, 0)),
        ("interval", "PT-0.5S", Interval(0, 0, -500_000)),
        ("uuid", "123e4567-e89b-12d3-a456-426614174000", UUID("123e4567-e89b-12d3-a456-426614174000")),
        ("jsonb", '{"a": [1.50, null, 10000000000000000000000]}', {"a": [Decimal("1.50"), None, 10**22]}),
        ("inet", "10.0.0.1", ipaddress.ip_address("10.0.0.1")),
        ("inet", "10.0.0.1/8", ipaddress.ip_interface("10.0.0.1/8")),
        ("cidr", "10.0.0.0/8", ipaddress.ip_network("10.0.0.0/8")),
        ("int4range", "[1,5)", Range(1, 5)),
        ("int4range", "empty", Range(None, None, "")),
        ("tsrange", '["2026-01-31 12:00:00",infinity]', Range(datetime(2026, 1, 31, 12), "infinity", "[]")),
        ("int4multirange", "{[1,3),[5,)}", [Range(1, 3), Range(5, None)]),
        ("int4multirange", "{}", []),
        ("point", "(1.5,-0)", (1.5, -0.0)),
        ("hstore", '{"a":"1","b":null}', {"a": "1", "b": None}),
        ("vector", "[1,2.5]", [1.0, 2.5]),
        ("geometry", "0101", b"\x01\x01"),
        ("box", "(1,1),(0,0)", "(1,1),(0,0)"),
        ("text", "[1]", "[1]"),
        ("mood", "sad", "sad"),
        ("int4[]", "[1,null]", [1, None]),
        ("_int8", "[]", []),
        ("numeric(5,1)[]", '[[1.50,"NaN"],[null,2]]', [[Decimal("1.50"), Decimal("NaN")], [None, Decimal(2)]]),
        ("text[]", '["NULL","",null,"[1]"]', ["NULL", "", None, "[1]"]),
        ("bool[]", "[true,null]", [True, None]),
        ("jsonb[]", '["[1]",null]', [[1], None]),
        ("int4[]", "[0:1]={1,2}", "[0:1]={1,2}"),
        (PAIR, '{"x":1,"of":[1.50],"ok":false}', {"x": 1, "of": [Decimal("1.50")], "ok": False}),
        (PAIR, '{"x":null,"of":"[0:0]={1}","ok":null}', {"x": None, "of": "[0:0]={1}", "ok": None}),
        (PAIR, "(1,,,)", "(1,,,)"),
        (ArrayOf(PAIR), '[{"x":1,"of":null,"ok":true},null]', [{"x": 1, "of": None, "ok": True}, None]),
    ],
)  # fmt: skip
def test_the_value_of(type_: CanonicalType, text: str, value: Any) -> None:
    assert repr(reader.parse(text.encode(), type_)) == repr(value)  # by text: NaN equals nothing, 1 equals True


@pytest.mark.parametrize(
    ("type_", "text"),
    [
        ("int4", "1_0"), ("int4", "١"), ("int4", ""), ("bool", "t"), ("date", "31.1.2026"), ("uuid", "x"),
        ("numeric", "1,5"), ("interval", "1 day"), ("int4range", "[1,5"), ("int4[]", "[1"), ("jsonb", "{"),
        ("bytea", "\\x00"), ("point", "1,2"), ("vector", "1,2"), (PAIR, "[1"),
    ],
)  # fmt: skip
def test_a_text_that_is_none_of_the_type_is_refused(type_: CanonicalType, text: str) -> None:
    with pytest.raises(ValueError, match="not the canonical text"):
        reader.parse(text, type_)


def test_a_row_has_all_its_columns_and_the_fields_that_nobody_named() -> None:
    fields = {b"id": b"1", "name": "é", b"new": b"x"}
    types: dict[str, CanonicalType] = {"gone": "date", "id": "int4", "name": "text"}
    assert reader.read(fields, types) == {"gone": None, "id": 1, "name": "é", "new": "x"}
    assert list(reader.read(fields, types) or {}) == ["gone", "id", "name", "new"]
    assert reader.read({}, types) is None
    with pytest.raises(ValueError, match="column 'id'"):
        reader.read({b"id": b"one"}, types)


def test_types_come_from_the_schema_of_the_topic() -> None:
    numeric = {
        "type": "bytes", "connect.name": "org.apache.kafka.connect.data.Decimal", "connect.parameters": {"scale": "2"}
    }  # fmt: skip
    fields = [
        {"name": "id", "type": "long"},
        {"name": "at", "type": ["null", {"type": "string", "connect.name": "io.debezium.time.ZonedTimestamp"}]},
        {"name": "u", "type": {"type": "string", "connect.name": "io.debezium.data.Uuid"}},
        {"name": "of", "type": {"type": "array", "items": ["null", numeric]}},
    ]
    types = reader.column_types(json.dumps({"type": "record", "name": "Value", "fields": fields}))
    assert types == {"id": "int8", "at": "timestamptz", "u": "uuid", "of": "numeric[]"}
    row = reader.read({"id": "1", "at": "2026-01-31T12:00:00Z", "of": "[1.50]"}, types)
    assert row == {"id": 1, "at": datetime(2026, 1, 31, 12, tzinfo=UTC), "u": None, "of": [Decimal("1.50")]}


_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=10)


@given(st.lists(_TEXT | st.none(), max_size=5))
def test_texts_in_arrays_come_back(items: list[str | None]) -> None:
    literal = "{" + ",".join("NULL" if item is None else _quote(item) for item in items) + "}"
    assert reader.parse(from_postgres("text[]", literal.encode()) or b"", "text[]") == items


@given(_TEXT | st.none(), st.integers() | st.none(), st.lists(_TEXT, max_size=3))
def test_composites_come_back(name: str | None, number: int | None, texts: list[str]) -> None:
    array = "{" + ",".join(map(_quote, texts)) + "}"
    fields = ["" if name is None else _quote(name), "" if number is None else str(number), _quote(array)]
    row = RowOf((("name", "text"), ("né \"'", "int8"), ("texts", "text[]")))
    canonical = from_postgres(row, f"({','.join(fields)})".encode())
    assert reader.parse(canonical or b"", row) == {"name": name, "né \"'": number, "texts": texts}


@given(st.dictionaries(_TEXT, _TEXT | st.none(), max_size=4))
def test_hstores_come_back(pairs: dict[str, str | None]) -> None:
    literal = ", ".join(f"{_quote(key)}=>{'NULL' if item is None else _quote(item)}" for key, item in pairs.items())
    assert reader.parse(from_postgres("hstore", literal.encode()) or b"", "hstore") == pairs


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
