"""What two looks at a table's catalog entries tell of its rows."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from cdc.postgres.fingerprint import Attribute, Difference, Fingerprint, difference
from cdc.postgres.told_columns import ToldColumns

ID = Attribute(1, "id", 23, -1, 100, False, "")
V = Attribute(2, "v", 25, -1, 100, False, "")
N = Attribute(3, "n", 1043, 14, 100, False, "")
BASE = Fingerprint(
    oid=16400,
    persistence="p",
    identity="d",
    key=(1,),
    columns=(ID, V, N),
    files={16400: 16400},
    labels={5: "sad", 6: "ok"},
    published=("16500 x", "t t t t f 90"),
    named=90,
    joined={16420: 90},
    composites={16430: "1 a 23 -1, 2 b 23 -1"},
    types={5: "90", 6: "90", 16430: "2 90 90"},
)
REWRITTEN = {16400: 16450}


def test_it_survives_being_stored() -> None:
    partitioned = replace(BASE, files={16401: 1, 16402: 2}, all_tables=True)
    for fingerprint in (BASE, partitioned):
        assert Fingerprint.from_json(json.loads(json.dumps(fingerprint.to_json()))) == fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"files": REWRITTEN},
        {"identity": "f"},
        {"columns": (ID, V, N, Attribute(4, "c", 25, -1, 101, False, ""))},
        {"columns": (ID, replace(V, version=101), N)},
        {"columns": (ID, V, replace(N, typmod=24, version=101))},
        {"columns": (ID, V, replace(N, type_oid=25, typmod=-1, version=101))},
        {"columns": (replace(ID, version=101), V, N)},
        {"labels": {5: "sad", 6: "ok", 7: "new"}, "types": {**BASE.types, 7: "91"}},
    ],
    ids=[
        "nothing",
        "VACUUM FULL, CLUSTER or TRUNCATE",
        "replica identity",
        "ADD COLUMN without default",
        "SET NOT NULL, SET STATISTICS",
        "varchar widened",
        "varchar to text",
        "default of the key",
        "ADD VALUE",
    ],
)
def test_what_leaves_rows_alone_is_no_reason_to_read_them_again(change: dict[str, Any]) -> None:
    assert difference(BASE, replace(BASE, **change)) == Difference()


@pytest.mark.parametrize(
    ("change", "reason", "vanished"),
    [
        ({"oid": 16401, "files": {16401: 16401}}, "made anew", True),
        ({"published": ("16501 x", "t t t t f 90")}, "publication", True),
        ({"published": ("16500 y", "t t t t f 90")}, "publication", True),
        ({"published": ("16500 x", "t f t t f 91")}, "publication", True),
        ({"persistence": "u"}, "unlogged", True),
        ({"columns": (ID, N)}, "column v was dropped", False),
        ({"columns": (ID, replace(V, name="w", version=101), N)}, "v was renamed to w", False),
        ({"columns": (ID, V, N, Attribute(4, "c", 25, -1, 101, True, ""))}, "c was added with a value", False),
        (
            {"columns": (ID, V, N, Attribute(4, "c", 25, -1, 101, False, "")), "files": REWRITTEN},
            "c was added with a value",
            False,
        ),
        (
            {"columns": (ID, replace(V, type_oid=20, version=101), N), "files": REWRITTEN},
            "v changed its type",
            False,
        ),
        ({"columns": (ID, replace(V, type_oid=26, version=101), N)}, "v changed its type", False),
        ({"columns": (ID, replace(V, version=101), N), "files": REWRITTEN}, "values of column v", False),
        ({"columns": (replace(ID, version=101), V, N), "files": REWRITTEN}, "values of column id", True),
        ({"columns": (ID, replace(V, generated="s"), N)}, "generated", False),
        ({"labels": {5: "sad", 6: "fine"}}, "'ok' to 'fine'", True),
        ({"key": (2,)}, "primary key changed", True),
        ({"files": {16400: 16400, 16410: 16410}}, "1 partition was attached", False),
        ({"all_tables": True, "files": REWRITTEN}, "unlogged meanwhile", True),
        ({"named": 91}, "another name, schema or owner", True),
        ({"joined": {16420: 91}}, "1 partition was detached and attached again", True),
        ({"composites": {16430: "2 b 23 -1"}}, "composite type", True),
        ({"types": {5: "90", 6: "91", 16430: "2 90 90"}}, "other names for a time", True),
        ({"types": {5: "90", 6: "90", 16430: "3 90 90"}}, "other names for a time", True),
    ],
)
def test_what_changes_rows_in_silence_is_named(change: dict[str, Any], reason: str, vanished: bool) -> None:
    found = difference(BASE, replace(BASE, **change))
    assert any(reason in text for text in found.reasons), found
    assert found.vanished == vanished


def test_a_partition_that_goes_takes_rows_with_it() -> None:
    old = replace(BASE, files={16410: 1, 16411: 2})
    found = difference(old, replace(old, files={16410: 1}))
    assert found == Difference(("1 partition was detached or dropped",), vanished=True)


def test_swapped_names_are_two_renames() -> None:
    swapped = (ID, replace(V, name="n", version=101), replace(N, name="v", version=101))
    assert difference(BASE, replace(BASE, columns=swapped)).reasons == (
        "column v was renamed to n",
        "column n was renamed to v",
    )


def test_a_truncate_of_a_partition_told_as_its_root_is_not_published() -> None:
    old = replace(BASE, files={16410: 1, 16411: 2}, rooted=True)
    found = difference(old, replace(old, files={16410: 1, 16411: 3}))
    assert found.vanished
    assert "perhaps truncated alone" in found.reasons[0]
    # A column of the whole table that changes in the same look hides nothing.
    altered = (ID, replace(V, name="w", version=101), N)
    assert difference(old, replace(old, files={16410: 1, 16411: 3}, columns=altered)).vanished
    apart = replace(old, rooted=False)
    assert not difference(apart, replace(apart, files={16410: 1, 16411: 3}))


def test_what_an_older_offset_does_not_tell_is_no_difference() -> None:
    stored = BASE.to_json()
    for name in ("rooted", "named", "joined", "composites", "types"):
        del stored[name]
    assert not difference(Fingerprint.from_json(stored), replace(BASE, rooted=True))


def test_columns_that_were_undone_are_found_at_the_second_look() -> None:
    """The first may have begun before there were such columns. Those of now, and those of the fingerprint, are none."""
    told = ToldColumns()
    told.telling(1, ("id", "v"), BASE)
    told.telling(1, ("id", "v", "n", "new"), BASE)
    added = replace(BASE, columns=(ID, V, N, replace(N, number=4, name="new")))
    assert not told.undone(1, BASE)
    told.accepted(1, BASE)
    assert not told.undone(1, added)
    assert told.undone(1, BASE) == ("id", "v", "n", "new")
    assert not told.undone(1, BASE)
    told.telling(1, ("id", "n", "v"), BASE)
    told.forget(1)
    assert not told.undone(1, BASE)
    assert not told.undone(1, BASE)
