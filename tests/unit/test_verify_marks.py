"""A mark in the stream: its position is stored at once, though nothing else happens."""

from __future__ import annotations

from cdc.postgres.position import StoredPosition, Tracker


def test_a_mark_makes_the_end_of_its_transaction_due_at_once() -> None:
    tracker = Tracker(StoredPosition(1, 100, None, None, {}), now=0.0)
    tracker.committed(110, 120)
    assert not tracker.due(0.0)
    tracker.asked()
    assert not tracker.due(0.0)
    tracker.committed(130, 140)
    assert tracker.due(0.0)
    assert tracker.offer().lsn == 140
    tracker.stored(0.0)
    assert tracker.durable == 140
    tracker.committed(150, 160)
    assert not tracker.due(0.0)
