"""Which columns were the key when a row was written, told by what is known before and after."""

from __future__ import annotations

import pytest

from cdc.errors import TableError
from cdc.postgres.keys_in_time import KnownKey, key_of
from cdc.postgres.pgoutput import Relation, RelationColumn

INT, TEXT = 23, 25


def relation(identity: str, *columns: tuple[str, int, bool]) -> Relation:
    told = tuple(RelationColumn(name, type_oid, -1, flagged) for name, type_oid, flagged in columns)
    return Relation(16400, "public", "t", identity, told)


def test_flags_tell_the_key_and_what_is_known_its_order() -> None:
    known = [KnownKey((("a", INT), ("b", TEXT)), ("b", "a"))]
    assert key_of(relation("d", ("a", INT, True), ("b", TEXT, True)), known) == ("b", "a")
    assert key_of(relation("d", ("a", INT, True), ("c", TEXT, False)), known) == ("a",)


def test_a_full_identity_takes_the_key_of_the_moment_that_has_its_columns() -> None:
    then, now = KnownKey((("k", INT), ("id", INT)), ("k",)), KnownKey((("x", INT), ("k", INT)), ("x",))
    assert key_of(relation("f", ("k", INT, True), ("id", INT, True)), [then, now]) == ("k",)
    assert key_of(relation("f", ("x", INT, True), ("k", INT, True)), [then, now]) == ("x",)


def test_a_version_between_has_the_key_that_both_ends_have() -> None:
    then, now = KnownKey((("id", INT), ("a", TEXT)), ("id",)), KnownKey((("id", INT), ("c", TEXT)), ("id",))
    assert key_of(relation("f", ("id", INT, True), ("b", TEXT, True)), [then, now]) == ("id",)


@pytest.mark.parametrize(
    ("then", "now"),
    [
        (KnownKey((("k", INT), ("v", TEXT)), ("k",)), KnownKey((("x", INT), ("v", TEXT)), ("x",))),
        (KnownKey((("a", INT), ("b", INT)), ("a",)), KnownKey((("a", INT), ("b", INT)), ("b",))),
    ],
    ids=["renamed twice", "another constraint"],
)
def test_a_key_that_is_not_known_is_never_guessed(then: KnownKey, now: KnownKey) -> None:
    told = [("y", INT, True)] if then.columns[0][0] == "k" else [("a", INT, True), ("b", INT, True)]
    with pytest.raises(TableError, match=r"public\.t at the time of the change is not known.*FULL"):
        key_of(relation("f", *told), [then, now])


def test_a_table_without_key_has_none() -> None:
    known = [KnownKey((("v", INT),), ())]
    assert key_of(relation("f", ("v", INT, True)), [*known, *known]) == ()
    assert key_of(relation("d", ("v", INT, False)), known) == ()
