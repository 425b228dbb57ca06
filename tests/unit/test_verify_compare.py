"""One row against one hash, and the report of what differs."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.operate.verify.compare import (
    FieldDifference,
    NotAHash,
    differences,
    digest,
    drift,
    expected_hash,
    shortened,
)
from cdc.operate.verify.report import SHOWN_DRIFTS, NotCompared, Report, TableReport

HASHES = st.dictionaries(st.binary(max_size=6), st.binary(max_size=6), max_size=4)


def test_null_is_an_absent_field_and_values_are_canonical() -> None:
    columns = [(b"id", "int8"), (b"vip", "bool"), (b"at", "timestamptz"), (b"note", "text")]
    assert expected_hash(columns, [b"7", b"t", b"2026-01-31 12:00:00+00", None]) == {
        b"id": b"7",
        b"vip": b"true",
        b"at": b"2026-01-31T12:00:00Z",
    }


@given(HASHES, HASHES)
def test_digests_are_equal_exactly_for_equal_hashes(one: dict[bytes, bytes], other: dict[bytes, bytes]) -> None:
    assert (digest(one) == digest(other)) == (one == other)
    assert digest(one) == digest(dict(reversed(one.items())))


def test_digests_tell_absence_emptiness_and_other_types_apart() -> None:
    assert len({digest(None), digest({}), digest(NotAHash("string")), digest({b"": b""})}) == 4


@given(HASHES, HASHES)
def test_there_are_differences_exactly_between_unequal_hashes(
    one: dict[bytes, bytes], other: dict[bytes, bytes]
) -> None:
    names = {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}
    assert len(differences(one, other)) == len(names)


def test_a_difference_shows_both_values_and_what_is_absent() -> None:
    assert differences({b"a": b"1", b"b": b"2"}, {b"a": b"9", b"x": b"\xff"}) == [
        FieldDifference("a", "1", "9"),
        FieldDifference("b", "2", None),
        FieldDifference("x", None, "\\xff"),
    ]


def test_long_values_are_shown_where_they_differ() -> None:
    [told] = differences({b"d": b"x" * 5000 + b"old" + b"y" * 5000}, {b"d": b"x" * 5000 + b"new" + b"y" * 5000})
    assert told.expected is not None
    assert told.found is not None
    assert "old" in told.expected
    assert "new" in told.found
    assert max(len(told.expected), len(told.found)) < 100


@given(st.binary(max_size=400), st.integers(0, 400))
def test_whatever_is_shown_is_short_and_printable(value: bytes, around: int) -> None:
    text = shortened(value, 40, around)
    assert text.isprintable()
    assert len(text) <= 40 * 10 + 20


def test_kinds_of_drift() -> None:
    assert drift(b"t:1", {b"id": b"1"}, None).kind == "missing"
    assert drift(b"t:1", None, {b"id": b"1"}).kind == "ghost"
    other = drift(b"t:1", {b"id": b"1"}, NotAHash("another type of value"))
    assert (other.kind, other.fields[0].found) == ("different", "another type of value")
    many = drift(b"t:1", {b"%d" % n: b"1" for n in range(20)}, {})
    assert (len(many.fields), many.more_fields) == (8, 12)


def report(**counts: int) -> Report:
    table = TableReport("cache", "shop", "public.t", "shop.public.t", **counts)
    return Report(tables=[table], not_compared=[NotCompared("shop", "public.log", "no primary key")], seconds=1.5)


@pytest.mark.parametrize(
    ("counts", "status"),
    [({}, 0), ({"missing": 1}, 1), ({"ghost": 1, "undecided": 1}, 1), ({"undecided": 1}, 3), ({"foreign": 2}, 0)],
)
def test_the_exit_status_says_whether_all_is_equal(counts: dict[str, int], status: int) -> None:
    assert report(**counts).exit_status == status
    assert report(**counts).equal == (status == 0)


def test_a_report_names_what_differs_and_what_was_not_compared() -> None:
    told = report(rows=3, fields=12, keys=3)
    told.tables[0].add(b"t:1", drift(b"t:1", {b"name": b"Ada"}, {b"name": b"Bob"}))
    told.tables[0].add_undecided("t:2", "the sink is behind")
    text = told.as_text()
    for part in ("different: t:1", "name: 'Ada' in Postgres, 'Bob' in Redis", "the sink is behind", "3 rows"):
        assert part in text
    assert "public.log: not mirrored: no primary key" in text
    value = json.loads(told.as_json())
    assert (value["equal"], value["differing"], value["undecided"]) == (False, 1, 1)
    assert value["tables"][0]["drifts"][0]["fields"][0] == {"field": "name", "expected": "Ada", "found": "Bob"}


def test_many_differences_are_counted_and_a_few_are_named() -> None:
    told = report()
    for number in range(SHOWN_DRIFTS + 5):
        told.tables[0].add(b"t:%d" % number, drift(b"t:%d" % number, {}, None))
    assert told.tables[0].missing == SHOWN_DRIFTS + 5
    assert len(told.tables[0].drifts) == SHOWN_DRIFTS
    assert "and 5 more keys" in told.as_text()


def test_where_rows_expire_a_row_without_a_hash_is_no_difference() -> None:
    table = TableReport("cache", "shop", "public.t", "shop.public.t", ttl=60)
    table.add(b"t:1", drift(b"t:1", {}, None))
    table.add(b"t:2", drift(b"t:2", None, {}))
    assert (table.expired, table.missing, table.ghost) == (1, 0, 1)
