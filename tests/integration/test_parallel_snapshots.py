"""Tables read side by side, on real servers, without Kafka: markers, memory, resumption."""

from __future__ import annotations

import threading

import pytest

from cdc.postgres import readings, snapshot
from cdc.postgres.chunks import Begun, Chunk
from cdc.postgres.connection import Connection
from tests.fix_servers import Database
from tests.integration.test_adhoc_snapshots import MakeTail, fill, went_back
from tests.integration.test_source_task import Tail, table_rows, tail

pytestmark = pytest.mark.integration

__all__ = ["tail"]

TABLES = ("a", "b", "c", "d")


def markers(source: Tail) -> list[tuple[str, str | None]]:
    """Table and marker of the records whose marker says more than that they are of a snapshot."""
    return [(c.shape.table, c.marker) for c in source.changes if c.marker != "true"]


def test_two_tables_at_a_time_are_read_side_by_side(
    database: Database, tail: MakeTail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "READY_BYTES", 2000)
    for name in TABLES:
        fill(database, 500, name)
    source = tail(snapshot_fetch_size=20, snapshot_max_threads=2).start()
    assert source.task is not None
    reader = source.task._snapshots.readings.reader
    assert reader is not None
    while not source.snapshot_done():
        before = len(source.changes)
        source.until(lambda before=before: len(source.changes) > before or source.snapshot_done())
        assert reader._bytes <= 2000, "more was ready than there is room for"
    told = [c.shape.table for c in source.changes]
    assert {table: told.count(table) for table in TABLES} == dict.fromkeys(TABLES, 500)
    first = {table: told.index(table) for table in TABLES}
    end = {table: len(told) - told[::-1].index(table) for table in TABLES}
    together = [{other for other in TABLES if first[other] < place < end[other]} for place in range(len(told))]
    assert max(map(len, together)) == 2
    assert markers(source)[0][1] == "first"
    assert markers(source)[-1][1] == "last"
    assert source.changes[-1].marker == "last"
    assert sorted(marker for _, marker in markers(source) if marker) == sorted(
        ["first", *["first_in_data_collection"] * 3, *["last_in_data_collection"] * 3, "last"]
    )


@pytest.mark.parametrize("threads", [1, 3])
def test_the_last_row_of_all_is_told_once_though_tables_are_empty(database18: Database, threads: int) -> None:
    for name, rows in zip(TABLES, (0, 30, 1, 0), strict=True):
        fill(database18, rows, name)
    source = Tail(database18, snapshot_fetch_size=10, snapshot_max_threads=threads).start().snapshot()
    source.stop()
    assert [marker for _, marker in markers(source)].count("last") == 1
    assert source.changes[-1].marker == "last"
    if threads == 1:
        assert markers(source) == [
            ("b", "first"),
            ("b", "last_in_data_collection"),
            ("c", "last"),
        ]


@pytest.mark.parametrize("rule", [True, False], ids=["", "without the rule"])
def test_a_chunk_that_comes_late_brings_no_older_row_back(
    database18: Database, monkeypatch: pytest.MonkeyPatch, rule: bool
) -> None:
    """Chunks of another table that were read later, and are told earlier, must not make the changes be forgotten."""
    monkeypatch.setattr(snapshot, "READY_BYTES", 1)
    if not rule:
        monkeypatch.setattr(readings, "oldest", lambda seen: max(filter(None, seen), key=lambda s: s.xmin))
    held, release = threading.Event(), threading.Event()
    mark = snapshot.ChunkReader._mark

    def late(self: snapshot.ChunkReader, marking: Connection, ready: Chunk | Begun) -> None:
        if isinstance(ready, Chunk) and ready.table.name == "a" and ready.first:
            held.set()
            release.wait(30)
        mark(self, marking, ready)

    monkeypatch.setattr(snapshot.ChunkReader, "_mark", late)
    fill(database18, 30, "a")
    fill(database18, 500, "b")
    source = Tail(database18, snapshot_fetch_size=20, snapshot_max_threads=2).start()
    try:
        assert held.wait(30)
        database18.execute("update a set v = '1' where id = 5")
        source.until(lambda: len(source.rows("b")) == 500 and any(c.op == "u" for c in source.changes))
        release.set()
        source.snapshot()
        assert went_back(source, "a") == ([] if rule else [b"5"])
    finally:
        release.set()
        source.stop()


def test_after_a_crash_no_thread_reads_again_what_it_had_told(
    database: Database, tail: MakeTail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "READY_BYTES", 1)
    for name in TABLES:
        fill(database, 200, name)
    source = tail(snapshot_fetch_size=10, snapshot_max_threads=2).start()
    for least in (60, 200, 500):
        source.until(lambda least=least: len(source.changes) >= least)
        source.crash()
        source.start()
    source.snapshot()
    told = [(c.shape.table, c.after[0]) for c in source.changes if c.op == "r" and c.after]
    assert len(told) == len(set(told)) == 800
    for name in TABLES:
        assert source.rows(name) == table_rows(database, name)
