"""Which partitions are told to stand still."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from cdc.kafka.stalls import StallWatch

PART = ("t", 1)


def watch_behind(seconds: int, *, drained: bool = True, moving: bool = False) -> list[int]:
    """The seconds at which a partition was told that is behind its end all the time, looked at once a second."""
    watch = StallWatch(10)
    told = []
    for now in range(seconds):
        if drained:
            watch.drained()
        if watch.look(now, {PART: 1000}, {PART: now if moving else 7}):
            told.append(now)
    return told


def test_a_partition_that_stands_still_is_told_and_told_again_less_and_less_often() -> None:
    assert watch_behind(10) == []
    assert watch_behind(100) == [10, 31, 72]
    waits = watch_behind(3000)
    assert [after - before for before, after in itertools.pairwise(waits)][-3:] == [321] * 3


def test_a_partition_that_moves_is_not_told() -> None:
    assert watch_behind(100, moving=True) == []


def test_a_partition_behind_a_queue_that_never_ends_is_not_told() -> None:
    assert watch_behind(100, drained=False) == []


def test_a_partition_at_its_end_is_not_told_and_what_was_in_vain_is_forgotten() -> None:
    watch = StallWatch(10)
    for now in range(0, 30, 5):
        watch.drained()
        assert not watch.look(now, {PART: 7}, {PART: 7})
    assert not watch.look(30, {PART: 9}, {PART: 7})
    watch.drained()
    assert watch.look(40, {PART: 9}, {PART: 7}) == {PART: (7, 9)}
    assert watch.in_vain(PART) == 1
    assert not watch.look(41, {PART: 9}, {PART: 9})
    assert watch.in_vain(PART) == 0


def test_an_end_that_is_not_known_and_a_pause_begin_the_wait_anew() -> None:
    watch = StallWatch(10)
    assert not watch.look(0, {PART: 9}, {PART: 7})
    watch.drained()
    assert not watch.look(5, {}, {PART: 7})  # the broker did not answer
    assert not watch.look(11, {PART: 9}, {PART: 7})
    watch.forget([PART])
    watch.drained()
    assert not watch.look(22, {PART: 9}, {PART: 7})
    watch.drained()
    assert watch.look(32, {PART: 9}, {PART: 7})


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans()), max_size=60))
def test_only_what_is_behind_is_ever_told(steps: list[tuple[int, int, bool]]) -> None:
    watch = StallWatch(4)
    for now, (end, at, drained) in enumerate(steps):
        if drained:
            watch.drained()
        told = watch.look(now, {PART: end}, {PART: at})
        assert not told or (told == {PART: (at, end)} and at < end)
