"""Which rows of a chunk are older than what the stream has told (EXACTNESS.md H8, H9)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cdc.postgres.touched import DatabaseSnapshot, TouchLog, oldest

TABLE = 16384


def test_a_snapshot_is_parsed_as_postgres_prints_it() -> None:
    assert DatabaseSnapshot.parse("10:20:12,15") == DatabaseSnapshot(10, 20, frozenset({12, 15}))
    assert DatabaseSnapshot.parse("10:10:") == DatabaseSnapshot(10, 10, frozenset())


def test_what_a_snapshot_sees() -> None:
    snapshot = DatabaseSnapshot.parse("10:20:12,15")
    assert [xid for xid in range(8, 23) if snapshot.sees(xid)] == [8, 9, 10, 11, 13, 14, 16, 17, 18, 19]


@given(st.integers(2**32, 2**40), st.integers(-(2**30), 2**30))
def test_a_32_bit_xid_is_taken_for_the_nearest_64_bit_one(xmax: int, distance: int) -> None:
    snapshot = DatabaseSnapshot(xmax, xmax, frozenset())
    assert snapshot.full_xid((xmax + distance) & 0xFFFFFFFF) == xmax + distance


def test_a_commit_that_waits_for_a_standby_is_newer_than_the_chunk() -> None:
    """Streamed already, not visible yet: the row that the snapshot read is the older one (H9)."""
    log = TouchLog()
    log.begin(12)
    log.touch(TABLE, (b"1",))
    log.begin(13)
    log.touch(TABLE, (b"2",))
    assert log.newer(DatabaseSnapshot.parse("12:14:12"), TABLE) == {(b"1",)}


def test_what_every_later_snapshot_sees_is_forgotten() -> None:
    log = TouchLog()
    for xid in (10, 11, 12):
        log.begin(xid)
        log.touch(TABLE, (str(xid).encode(),))
    log.forget(DatabaseSnapshot.parse("12:13:"))
    assert log.newer(DatabaseSnapshot.parse("5:6:"), TABLE) == {(b"12",)}


def test_a_truncate_makes_the_chunk_be_read_again() -> None:
    log = TouchLog()
    log.begin(30)
    log.touch(TABLE, (b"1",))
    log.touch_all(TABLE)
    assert log.newer(DatabaseSnapshot.parse("20:20:"), TABLE) is None
    assert log.newer(DatabaseSnapshot.parse("20:20:"), TABLE + 1) == set()


def test_beyond_its_bound_a_transaction_counts_as_touching_everything() -> None:
    log = TouchLog(most_keys=3)
    log.begin(30)
    for number in range(5):
        log.touch(TABLE, (str(number).encode(),))
    assert log.newer(DatabaseSnapshot.parse("20:20:"), TABLE) is None
    log.forget(DatabaseSnapshot.parse("40:40:"))
    log.begin(41)
    log.touch(TABLE, (b"1",))
    assert log.newer(DatabaseSnapshot.parse("40:40:"), TABLE) == {(b"1",)}


def test_the_oldest_snapshot_is_the_one_that_sees_least() -> None:
    old, new = DatabaseSnapshot(5, 9, frozenset({5})), DatabaseSnapshot(7, 8, frozenset())
    assert oldest([new, old]) is old
    assert oldest([new]) is new
    assert oldest([new, None, old]) is None, "a chunk that is being read may see less than any"
    assert oldest([]) is None
