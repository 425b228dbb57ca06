"""Canonical texts of key columns, back to what Postgres reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.codec.canonical import ArrayOf, CanonicalType, RowOf, from_postgres
from cdc.operate.verify.keys import postgres_text
from cdc.operate.verify.modes import mirrored_type
from cdc.postgres.config import PostgresConfig
from cdc.postgres.pg_type import PgType, canonical_type


@pytest.mark.parametrize("mode", ["bytes", "base64", "base64-url-safe", "hex"])
@given(st.binary(max_size=30))
def test_bytea_comes_back(mode: str, value: bytes) -> None:
    text = "\\x" + value.hex()
    type_ = mirrored_type("bytea", _source(binary_handling_mode=mode))
    canonical = from_postgres(type_, text.encode())
    assert canonical is not None
    assert postgres_text(type_, canonical) == text


def _source(**settings: str) -> PostgresConfig:
    return PostgresConfig.model_validate(
        {"name": "s", "connector.class": "postgres", "database.user": "u", "database.dbname": "d", "topic.prefix": "t"}
        | {name.replace("_", "."): value for name, value in settings.items()}
    )


def test_numbers_that_are_text_in_records_are_strings_in_arrays() -> None:
    source = _source(decimal_handling_mode="string")
    assert mirrored_type("numeric", source) == "numeric"
    assert from_postgres(mirrored_type(ArrayOf("numeric"), source), b"{1.50,NaN}") == b'["1.50","NaN"]'
    assert from_postgres(mirrored_type(ArrayOf("money"), source), b"{$1.50}") == b'["1.50"]'
    assert mirrored_type(ArrayOf("money"), _source()) == ArrayOf("money")


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20))
def test_text_is_itself(value: str) -> None:
    assert postgres_text("text", value.encode()) == value


@pytest.mark.parametrize(
    ("type_name", "canonical", "text"),
    [
        ("int4[]", b"[1,null,-3]", '{"1",NULL,"-3"}'),
        ("numeric[]", b'[1.500,"NaN"]', '{"1.500","NaN"}'),
        ("bool[]", b"[true,false]", '{"true","false"}'),
        ("text[]", rb'[["a\"b","c\\d"]]', r'{{"a\"b","c\\d"}}'),
        ("bytea[]", b'["AP8="]', r'{"\\x00ff"}'),
        ("int4[]", b"[0:1]={1,2}", "[0:1]={1,2}"),
    ],
)
def test_arrays_become_literals(type_name: str, canonical: bytes, text: str) -> None:
    assert postgres_text(type_name, canonical) == text


PAIR = RowOf((("a", "int4"), ("b c", "text"), ("c", "int4[]")))


@pytest.mark.parametrize(
    ("type_", "text"),
    [
        (PAIR, '("1","a ""b"" \\\\","{1,2}")'),
        (PAIR, '(,,"[0:1]={1,2}")'),
        (RowOf((("inner", PAIR), ("raw", "bytea"))), r'("(1,,""{{1},{2}}"")","\\x00")'),
        (RowOf(()), "()"),
        (ArrayOf(PAIR), r'{"(1,,)",NULL}'),
        (ArrayOf("box", ";"), '{"(1,1),(0,0)";"(2,2),(1,1)"}'),
        (ArrayOf(ArrayOf("int4")), '{"{1,2}",NULL}'),
        ("hstore", r'"a"=>"\"\\", "b"=>NULL'),
    ],
)
def test_keys_of_several_parts_come_back(type_: CanonicalType, text: str) -> None:
    canonical = from_postgres(type_, text.encode())
    assert canonical is not None
    assert from_postgres(type_, postgres_text(type_, canonical).encode()) == canonical


@pytest.mark.parametrize(
    ("type_name", "canonical"),
    [("bytea", b"no base64!"), ("text", b"\xff"), ("text", b"a\0b"), ("int4[]", b'[{"a":1}]')],
)
def test_what_is_no_canonical_text_is_refused(type_name: str, canonical: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whose words they are depends on the type
        postgres_text(type_name, canonical)


def test_types_are_named_by_what_they_are_made_of() -> None:
    types = {
        16: PgType(16, "bool", "pg_catalog", "b"),
        1560: PgType(1560, "bit", "pg_catalog", "b"),
        1016: PgType(1016, "_int8", "pg_catalog", "b", element=20),
        20: PgType(20, "int8", "pg_catalog", "b"),
        90001: PgType(90001, "flag", "public", "d", base=16),
        90002: PgType(90002, "_flag", "public", "b", element=90001),
        90003: PgType(90003, "bool", "elsewhere", "e", labels=("t", "f")),
        90004: PgType(90004, "one", "public", "d", base=1560, base_typmod=1),
    }
    types |= {
        90005: PgType(90005, "pair", "public", "c", attributes=(("a", 1560, 1), ("b", 1016, -1))),
        603: PgType(603, "box", "pg_catalog", "b", delimiter=";"),
        1020: PgType(1020, "_box", "pg_catalog", "b", element=603),
        90006: PgType(90006, "hstore", "ext", "b"),
        90007: PgType(90007, "hstore", "public", "e", labels=("a",)),
    }
    names = {oid: canonical_type(oid, -1, types) for oid in types}
    assert names == {
        16: "bool",
        1560: "bit",
        1016: ArrayOf("int8"),
        20: "int8",
        90001: "bool",
        90002: ArrayOf("bool"),
        90003: "text",
        90004: "bit(1)",
        90005: RowOf((("a", "bit(1)"), ("b", ArrayOf("int8")))),
        603: "box",
        1020: ArrayOf("box", ";"),
        90006: "hstore",
        90007: "text",
    }
    assert canonical_type(1560, 1, types) == "bit(1)"
    assert canonical_type(4711, -1, types) == "text"
