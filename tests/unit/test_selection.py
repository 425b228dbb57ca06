"""Lists, key rules and masks: Debezium's forms, and what they must never do."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cdc.postgres.captured import table_warnings
from cdc.postgres.config import PostgresConfig
from cdc.postgres.masks import hashed, masked_mapping, stars, truncated
from cdc.postgres.types import TypeModes, resolve
from cdc.postgres.watermarks import last_record_end

GOLDEN = Path(__file__).parents[1] / "golden"
SETTINGS = {
    "name": "s",
    "connector.class": "postgres",
    "database.user": "u",
    "database.dbname": "d",
    "topic.prefix": "t",
}


def config(**settings: str) -> PostgresConfig:
    return PostgresConfig.model_validate({**SETTINGS, **settings})


@pytest.mark.parametrize(
    ("settings", "chosen"),
    [
        ({}, ["public.a", "public.A", "other.b", "public.ab"]),
        ({"table.include.list": "public.a"}, ["public.a", "public.A"]),
        ({"table.include.list": "(?-i:public.a)"}, ["public.a"]),
        ({"table.include.list": "public.a, OTHER[.].*"}, ["public.a", "public.A", "other.b"]),
        ({"table.exclude.list": "public.a"}, ["other.b", "public.ab"]),
        ({"schema.include.list": "pub.*", "table.exclude.list": ".*b"}, ["public.a", "public.A"]),
        ({"schema.exclude.list": "public"}, ["other.b"]),
        ({"table.include.list": r"public.a{1\,2}b?"}, ["public.a", "public.A", "public.ab"]),
    ],
)
def test_lists_choose_whole_names_whatever_their_case(settings: dict[str, str], chosen: list[str]) -> None:
    names = ["public.a", "public.A", "other.b", "public.ab", "pg_catalog.pg_class"]
    made = config(**settings)
    assert [name for name in names if made.captures(*name.split("."))] == chosen


def test_columns_are_chosen_by_their_full_names() -> None:
    selection = config(**{"column.exclude.list": "public.people.secret,public.(.*).internal_.*"}).selection
    columns = ["id", "name", "secret", "internal_a"]
    assert [c for c in columns if selection.column("public", "people", c)] == ["id", "name"]
    assert [c for c in columns if selection.column("public", "other", c)] == ["id", "name", "secret"]


def test_key_rules_take_expressions_and_keep_the_order_of_the_table() -> None:
    selection = config(**{"message.key.columns": "public.mk:c,b;(.*).mk2:(.*)_key;"}).selection
    assert selection.key("public", "mk", ["id", "b", "c"]) == ("b", "c")
    assert selection.key("x", "mk2", ["id", "one_key", "two_key"]) == ("one_key", "two_key")
    assert selection.key("public", "other", ["id"]) is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"message.key.columns": "public.t"}, "is not <schema>.<table>:<column>,<column>"),
        ({"column.exclude.list": "("}, "is not a regular expression"),
        ({"column.mask.with.x.chars": "a"}, "found 'x' for the number"),
        ({"column.mask.hash.SHA-257.with.salt.s": "a"}, "'SHA-257' is not a hash algorithm"),
    ],
)
def test_what_is_no_rule_is_said(settings: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        config(**settings)


def golden_masks() -> list[Any]:
    cases = []
    originals = {1: "secret", 2: "", 4: "żółw"}
    for line in (GOLDEN / "column_mask" / "records.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        row = (record["value"] or {}).get("after")
        if row and row["id"] in originals:
            cases.append((originals[row["id"]], row))
    return cases


def test_masks_are_debeziums_to_the_byte() -> None:
    made = config(**json.loads((GOLDEN / "column_mask" / "connector.json").read_text(encoding="utf-8"))).selection
    cases = golden_masks()
    assert len(cases) == 3
    for original, row in cases:
        for column, type_oid, typmod in (
            ("masked", 25, -1),
            ("gone", 25, -1),
            ("hashed", 25, -1),
            ("hashed2", 1043, 24),
        ):
            mask = made.mask("public", "m", column)
            assert mask is not None
            _, apply = masked_mapping(mask, resolve(type_oid, typmod, {}, TypeModes()), type_oid, typmod)
            assert apply is not None
            assert apply(original.encode()).decode() == row[column]
        assert made.mask("public", "m", "plain") is None
    cut = truncated(4).make(0)
    assert [cut(text.encode()).decode() for text in ("abcdefgh", "abc", "żółwie", "aaa😀")] == [
        "abcd",
        "abc",
        "żółw",
        "aaa",
    ]


@given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=("Cs",))))
def test_a_hash_is_of_the_salt_and_the_text_alone(text: str) -> None:
    apply = hashed("SHA-256", "salt", 2).make(64)
    assert apply(text.encode()) == hashlib.sha256(b"salt" + text.encode()).hexdigest().encode()
    first = hashed("SHA-256", "salt", 1).make(64)
    assert len(first(text.encode())) == 64


def test_java_writes_long_texts_and_pairs_in_its_own_way() -> None:
    first = hashed("MD5", "", 1).make(32)
    pair = b"\xac\xed\x00\x05t\x00\x06\xed\xa0\xbd\xed\xb8\x80"
    assert first("😀".encode()) == hashlib.md5(pair).hexdigest().encode()
    long = b"\xac\xed\x00\x05|" + (70_000).to_bytes(8, "big") + b"x" * 70_000
    assert first(b"x" * 70_000) == hashlib.md5(long).hexdigest().encode()


@pytest.mark.parametrize("type_oid", [23, 1700, 2950, 3802, 1009, 17, 1184])
def test_a_column_of_any_type_is_hidden_and_its_schema_tells_nothing(type_oid: int) -> None:
    mapping, apply = masked_mapping(stars(3), resolve(type_oid, -1, {}, TypeModes()), type_oid, -1)
    assert (mapping.schema.type, mapping.kind, mapping.has_default) == ("string", "text", False)
    assert mapping.schema.name is None
    assert apply is not None
    assert apply(b"secret") == b"***"


def test_of_several_rules_the_one_that_hides_most_holds() -> None:
    selection = config(
        **{
            "column.truncate.to.2.chars": "a.b.c",
            "column.mask.hash.SHA-256.with.salt.s": "a.b.c,a.b.d",
            "column.mask.with.4.chars": "a.b.c",
        }
    ).selection
    masks = [selection.mask("a", "b", column) for column in "cd"]
    assert [mask.rule for mask in masks if mask] == ["column.mask.with.4.chars", "column.mask.hash.SHA-256"]


@pytest.mark.parametrize(
    ("insert", "end"),
    [
        (0x1500, 0x1500),
        (0x4000 + 24, 0x4000),  # only the next page's header is behind the last record
        (0x4000 + 40, 0x4000 + 40),  # a record that went on from the page before
        (0x3000000 + 40, 0x3000000),  # a segment's first page has a longer header
        (0x3000000 + 24, 0x3000000 + 24),
    ],
)
def test_the_end_of_the_last_record_is_before_a_page_header(insert: int, end: int) -> None:
    assert last_record_end(insert, 16 << 20) == end


def test_operations_that_are_left_out_although_they_remove_rows_are_told() -> None:
    assert not table_warnings([], config())
    (warning,) = table_warnings([], config(**{"skipped.operations": "c,t"}))
    assert "leaves out t: rows that TRUNCATE removes stay" in warning
    # Debezium's default, under its name
    debezium = config(**{"connector.class": "io.debezium.connector.postgresql.PostgresConnector"})
    assert table_warnings([], debezium) == [warning]
