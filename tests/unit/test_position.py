"""What is stored and what may be acknowledged (EXACTNESS.md H1 to H3)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cdc.errors import FatalError
from cdc.postgres.position import IDLE_BYTES, IDLE_SECONDS, OpenTransaction, StoredPosition, Tracker
from cdc.record import Position

START = StoredPosition(7, 1000, None, None, {"slot": "s"})

u32 = st.integers(0, 2**32 - 1)


@given(st.lists(st.tuples(u32, st.integers(0, 2**64 - 1), u32, u32), min_size=2, max_size=20))
def test_the_text_of_positions_sorts_as_the_positions_do(raw: list[tuple[int, int, int, int]]) -> None:
    positions = [Position(*parts) for parts in raw]
    assert [Position.parse(text) for text in sorted(p.text() for p in positions)] == sorted(positions)


@pytest.mark.parametrize("text", [b"", b"1.2.3.4", b"0" * 43, b"0000000g.0000000000000000.00000000.00000000"])
def test_what_is_not_a_position_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a position|invalid literal"):
        Position.parse(text)


@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.none()
    | st.builds(
        OpenTransaction,
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**32 - 1),
        st.none() | st.dictionaries(st.text(), st.integers(0, 2**32)),
    ),
    st.one_of(st.none(), st.integers(0, 2**64 - 1)),
)
def test_a_stored_position_comes_back_from_json(
    epoch: int, lsn: int, unfinished: OpenTransaction | None, last: int | None
) -> None:
    position = StoredPosition(epoch, lsn, unfinished, last, {"slot": "s", "timeline": 1})
    assert StoredPosition.from_json(json.loads(json.dumps(position.to_json()))) == position


@pytest.mark.parametrize("value", [{}, {"version": 2}, {"version": 1, "epoch": "x"}, {"version": 1, "lsn": 3}])
def test_a_foreign_offset_is_refused_with_a_remedy(value: dict[str, object]) -> None:
    with pytest.raises(FatalError, match="offset"):
        StoredPosition.from_json(value)


def test_idle_progress_is_stored_before_it_is_acknowledged() -> None:
    tracker = Tracker(START, now=0.0)
    tracker.idle(2000)
    assert not tracker.due(IDLE_SECONDS - 1)
    assert tracker.due(IDLE_SECONDS)
    assert tracker.durable == 1000
    assert tracker.offer().lsn == 2000
    assert tracker.durable == 1000
    tracker.stored(now=10.0)
    assert tracker.durable == 2000
    assert not tracker.due(10.0 + IDLE_SECONDS)


def test_much_idle_wal_is_stored_at_once() -> None:
    tracker = Tracker(START, now=0.0)
    tracker.idle(1000 + IDLE_BYTES)
    assert tracker.due(0.0)


def test_a_keepalive_inside_an_open_transaction_moves_nothing() -> None:
    tracker = Tracker(START, now=0.0)
    tracker.told()
    tracker.reached(1500, 3)
    tracker.idle(9000)
    offered = tracker.offer()
    assert (offered.lsn, offered.open) == (1000, OpenTransaction(1500, 3))
    tracker.stored(0.0)
    assert tracker.durable == 1000
    tracker.committed(1500, 1600)
    assert tracker.offer().lsn == 1600


class TrackerMachine(RuleBasedStateMachine):
    """Whatever happens, the acknowledged LSN never falls and never passes what was stored."""

    def __init__(self) -> None:
        super().__init__()
        self.tracker = Tracker(START, now=0.0)
        self.stored_lsn = START.lsn
        self.wal = START.lsn
        self.commit: int | None = None
        self.offered: int | None = None
        self.last_durable = START.lsn

    @rule(step=st.integers(1, 100))
    def begin_or_change(self, step: int) -> None:
        if self.commit is None:
            self.wal += step
            self.commit = self.wal
        self.tracker.told()
        self.tracker.reached(self.commit, step)

    @rule(step=st.integers(1, 100))
    def commits(self, step: int) -> None:
        if self.commit is not None:
            self.wal = self.commit + step
            self.tracker.committed(self.commit, self.wal)
            self.commit = None

    @rule(step=st.integers(0, 100))
    def keepalive(self, step: int) -> None:
        self.tracker.idle(self.wal + step)
        if self.commit is None:
            self.wal += step

    @rule()
    def offer(self) -> None:
        self.offered = self.tracker.offer().lsn

    @rule()
    def store(self) -> None:
        if self.offered is not None:
            self.stored_lsn = max(self.stored_lsn, self.offered)
            self.offered = None
        self.tracker.stored(0.0)

    @invariant()
    def acknowledges_only_what_is_stored(self) -> None:
        assert self.last_durable <= self.tracker.durable <= self.stored_lsn
        self.last_durable = self.tracker.durable


TestTracker = TrackerMachine.TestCase


def test_places_at_rest_lie_between_the_transactions_around_them_and_outlive_a_restart() -> None:
    tracker = Tracker(StoredPosition(1, 100, None, None, {}), 0.0)
    tracker.committed(150, 200)
    assert tracker.resting_at == 200
    assert [tracker.place(), tracker.place()] == [(199, 1), (199, 2)]
    again = Tracker(StoredPosition.from_json(tracker.offer().to_json()), 0.0)
    assert again.place() == (199, 3)
    again.idle(300)
    assert again.place() == (299, 1)
    again.passed(400)  # a message outside of transactions, told at 400 with ordinal 0
    assert again.place() == (400, 1)
    again.reached(500, 1)
    assert again.resting_at is None
    again.idle(600)
    again.committed(500, 510)
    assert again.place() == (509, 1)
