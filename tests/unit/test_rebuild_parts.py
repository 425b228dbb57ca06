"""The parts of a rebuild that need no server: last records by key, and what makes a row the one it must be."""

from __future__ import annotations

from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.mirror.fold import DELETE, PATCH, PUT, REPLACE, Op
from cdc.mirror.mending import Change, extra, mended
from cdc.runtime.rebuild.last import Last, LastRecords

KEYS = [b"a", b"b", b"c"]


def op(verb: int, offset: int, partition: int = 0) -> Op:
    return verb, [b"v", b"%d" % offset], (), partition, offset


steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([PUT, PATCH, DELETE, REPLACE]), st.sampled_from(KEYS), st.integers(0, 1)),
        st.tuples(st.just(-1), st.none(), st.integers(0, 1)),  # a truncate
        st.tuples(st.just(-2), st.none(), st.integers(0, 1)),  # the end of a batch
    ),
    max_size=40,
)


@given(steps)
def test_the_last_record_of_each_key_is_kept_whatever_the_batches(history: list[tuple[int, bytes | None, int]]) -> None:
    expected: dict[tuple[bytes, int], Last] = {}
    truncated: dict[int, int] = {}
    waiting: dict[int, list[tuple[bytes, Op]]] = {0: [], 1: []}
    with closing(LastRecords()) as last:
        for offset, (verb, key, part) in enumerate(history):
            if key is None:
                last.take(part, waiting[part])
                waiting[part] = []
                if verb == -1:
                    last.truncate(part, offset)
                    truncated[part] = offset
                    expected = {place: known for place, known in expected.items() if place[1] != part}
                continue
            waiting[part].append((key, op(verb, offset, part)))
            before = expected.get((key, part))
            partial = verb == PATCH and before is not None and before.there
            since = before.since if partial and before is not None else offset
            expected[key, part] = Last(part, offset, since, verb != DELETE)
        for part in (0, 1):
            last.take(part, waiting[part])
        found = last.find(KEYS)
        assert {(key, one.partition): one for key, every in found.items() for one in every} == expected
        assert last.truncated == truncated
        assert last.count() == len({key for (key, _), one in expected.items() if one.there})


def test_keys_that_are_not_asked_for_are_not_kept() -> None:
    with closing(LastRecords(only=[b"a"])) as last:
        last.take(0, [(b"a", op(PUT, 1)), (b"b", op(PUT, 2))])
        assert list(last.find(KEYS)) == [b"a"]


def test_rows_that_are_begun_are_kept_until_their_end() -> None:
    with closing(LastRecords()) as last:
        change = (PUT, [b"name", b"\xff\x00"], (b"gone",), 0, 7)
        last.begin(0, {b"a": change}, {b"a": 5})
        last.begin(1, {b"a": op(PUT, 3)}, {b"a": 3})
        assert last.begun(0, [b"a", b"b"]) == {b"a": change}
        assert (last.open_since(0), last.open_since(1), last.open_since(2)) == (5, 3, None)
        last.end(0, [b"a"])
        assert last.begun(0, [b"a"]) == {}
        assert last.open_since(0) is None


ROW = {b"id": b"1", b"name": b"x", b"extra": b"?"}


@pytest.mark.parametrize(
    ("change", "row", "expected"),
    [
        ((PUT, [b"id", b"1", b"name", b"x"], ()), None, Change(b"k", [b"id", b"1", b"name", b"x"])),
        ((PUT, [b"id", b"1", b"name", b"x"], ()), {b"id": b"1", b"name": b"x"}, None),
        ((PUT, [b"id", b"1", b"name", b"y"], ()), ROW, Change(b"k", [b"name", b"y"], [b"extra"])),
        ((REPLACE, [b"id", b"1"], ()), ROW, Change(b"k", [], [b"name", b"extra"])),
        ((PATCH, [b"id", b"1"], ()), ROW, Change(b"k", [], [b"extra"])),
        ((PATCH, [b"id", b"2"], (b"name",)), ROW, Change(b"k", [b"id", b"2"], [b"name", b"extra"])),
        ((PATCH, [b"id", b"1"], ()), {b"id": b"1", b"name": b"kept"}, None),
        ((DELETE, [], ()), ROW, Change(b"k", delete=True)),
        ((DELETE, [], ()), None, None),
    ],
)
def test_a_row_becomes_what_its_last_record_says(
    change: tuple[int, list[bytes], tuple[bytes, ...]], row: dict[bytes, bytes] | None, expected: Change | None
) -> None:
    assert mended(b"k", (*change, 0, 1), row, {b"id", b"name"}) == expected


def test_fields_that_are_no_columns_go() -> None:
    assert extra(b"k", ROW, {b"id", b"name"}) == Change(b"k", remove=[b"extra"])
    assert extra(b"k", ROW, {b"id", b"name", b"extra"}) is None
