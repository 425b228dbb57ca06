"""Folding a batch: the sum of a key's changes has the effect of all of them in order (A1, A2, A4, A8, H23)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cdc.mirror.fold import DELETE, PATCH, PUT, REPLACE, Op, fold

COLUMNS = [b"a", b"b", b"c", b"d"]
Hash = dict[bytes, bytes] | None


def apply(state: Hash, op: Op) -> Hash:
    """What Redis does with one change."""
    verb, fields, absent = op[:3]
    if verb == DELETE:
        return None
    row = {} if verb == REPLACE or state is None else dict(state)
    row.update(zip(fields[::2], fields[1::2], strict=True))
    for name in absent:
        row.pop(name, None)
    return row or None


@st.composite
def ops(draw: st.DrawFn) -> Op:
    verb = draw(st.sampled_from([PUT, PUT, PATCH, DELETE]))
    if verb == DELETE:
        return (DELETE, [], (), 0, draw(st.integers(0, 99)))
    known = COLUMNS if verb == PUT else draw(st.lists(st.sampled_from(COLUMNS[1:]), unique=True)) + COLUMNS[:1]
    present = [name for name in known if name == b"a" or draw(st.booleans())]
    fields = [part for name in present for part in (name, draw(st.sampled_from([b"", b"1", b"2"])))]
    return (verb, fields, tuple(name for name in known if name not in present), 0, draw(st.integers(0, 99)))


@given(st.lists(ops(), min_size=1, max_size=7), st.none() | st.dictionaries(st.sampled_from(COLUMNS), st.just(b"old")))
def test_the_sum_has_the_effect_of_all_changes_in_order(changes: list[Op], state: Hash) -> None:
    expected = state or None
    total: Op | None = None
    for change in changes:
        expected = apply(expected, change)
        total = change if total is None else fold(total, change)
    assert total is not None
    assert apply(state or None, total) == expected
    assert total[4] == changes[-1][4]


@given(st.lists(ops(), min_size=2, max_size=7))
def test_a_key_is_removed_before_it_is_set_only_if_it_was_deleted(changes: list[Op]) -> None:
    total = changes[0]
    for change in changes[1:]:
        total = fold(total, change)
    assert total[0] != REPLACE or any(change[0] == DELETE for change in changes)


def test_a1_insert_and_tombstone_in_one_batch_leave_nothing() -> None:
    put: Op = (PUT, [b"a", b"1"], (), 0, 1)
    delete: Op = (DELETE, [], (), 0, 2)
    assert fold(put, delete) == delete


def test_a2_tombstone_and_insert_in_one_batch_leave_the_new_row() -> None:
    total = fold((DELETE, [], (), 0, 1), (PUT, [b"a", b"1"], (b"b",), 0, 2))
    assert total == (REPLACE, [b"a", b"1"], (b"b",), 0, 2)


def test_a_patch_onto_a_row_of_the_same_batch_is_the_whole_row() -> None:
    total = fold((PUT, [b"a", b"1", b"b", b"x"], (b"c",), 0, 1), (PATCH, [b"a", b"2", b"c", b"y"], (b"d",), 0, 2))
    assert total[0] == PUT
    assert dict(zip(total[1][::2], total[1][1::2], strict=True)) == {b"a": b"2", b"b": b"x", b"c": b"y"}
    assert total[2] == (b"d",)
