"""How far the bridge has come, as its parts themselves say: Postgres, the source's slot, Kafka, the sink's offsets."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

import psycopg
from psycopg import sql

from cdc.errors import FatalError
from cdc.operate.verify.kafka import TopicEnds
from cdc.postgres.connection import Connection, translate
from cdc.postgres.pgoutput import format_lsn, parse_lsn
from cdc.postgres.position import MARK_PREFIX
from cdc.postgres.slots import read_slot

__all__ = ["BridgeProgress"]

POLL_S: Final = 0.05
SETTLE_S: Final = 1.0
"""Longest time between a commit's flush, when a walsender may send it, and its becoming visible, unless it waits for
a synchronous standby. Really microseconds."""

SinkOffset = Callable[[int], int]
"""Partition → the offset of its first record that the sink has not applied."""


class BridgeProgress:
    """The progress of one source and one sink over one topic (`cdc.operate.verify.judge.Progress`)."""

    def __init__(self, connection: Connection, slot: str, topic: str, ends: TopicEnds, sink_offset: SinkOffset) -> None:
        self._connection = connection
        self._slot = slot
        self._topic = topic
        self._ends = ends
        self._sink_offset = sink_offset

    def mark(self) -> int:
        """See `cdc.operate.verify.judge.Progress`.

        A committed message instead of the WAL's current end: its commit flushes all before it, the stream is sure to
        reach it, on an idle database too, and the source acknowledges it at once. It is all that a comparison writes.
        """
        doing = "marking a position in the WAL"
        # A standby writes no message: there the source comes to what is replayed, and says so within 10 seconds.
        replayed = self._query(
            sql.SQL("select pg_last_wal_replay_lsn()::text where pg_is_in_recovery()"), "asking how far the standby is"
        )
        if replayed:
            return parse_lsn(replayed[0][0])
        row = self._query(
            sql.SQL("select pg_logical_emit_message(true, {}, '')::text").format(sql.Literal(MARK_PREFIX)), doing
        )
        return parse_lsn(row[0][0])

    def wait_applied(self, mark: int, deadline: float) -> str:
        """See `cdc.operate.verify.judge.Progress`.

        The slot's confirmed position is durable in Kafka (EXACTNESS.md H3), so once it has passed ``mark`` the topic
        has every earlier change, and the sink has applied them once its offsets have passed the topic's present ends.
        """
        while True:
            slot = read_slot(self._connection, self._slot)
            if slot is None:
                return f"the replication slot {self._slot} does not exist: has the source connector never run?"
            if (slot.confirmed_flush_lsn or 0) >= mark:
                break
            if time.monotonic() > deadline:
                held = "is connected" if slot.active_pid else "is not running"
                return (
                    f"the source, which {held}, has confirmed {format_lsn(slot.confirmed_flush_lsn or 0)} on slot "
                    f"{self._slot}, not yet {format_lsn(mark)}"
                )
            time.sleep(POLL_S)
        ends = self._ends.read(deadline)
        while behind := self._behind(ends):
            if time.monotonic() > deadline:
                partition, (at, end) = next(iter(behind.items()))
                return (
                    f"the sink has applied partition {partition} of {self._topic} up to offset {at} of {end}: "
                    "it is behind, or not running"
                )
            time.sleep(POLL_S)
        return ""

    def wait_visible(self, deadline: float) -> str:
        """See `cdc.operate.verify.judge.Progress`."""
        running = self._running()
        begun = time.monotonic()
        while running:
            if time.monotonic() - begun >= SETTLE_S:
                running &= self._awaiting_standby()
                if not running:
                    break
            if time.monotonic() > deadline:
                return (
                    f"{len(running)} transactions wait for a synchronous standby: their changes are in the stream, and "
                    "not visible yet"
                )
            time.sleep(POLL_S)
            running &= self._running()
        return ""

    def _behind(self, ends: Mapping[int, int]) -> dict[int, tuple[int, int]]:
        """Partition → where the sink is and where it must be."""
        places = {partition: (self._sink_offset(partition), end) for partition, end in ends.items()}
        return {
            partition: (at, end)
            for partition, (at, end) in places.items()
            if at < end and self._ends.has_records(partition, at, end)
        }

    def _running(self) -> set[int]:
        """The transactions that a snapshot taken now does not see though they have begun; 32 bits of their ids."""
        rows = self._query(
            sql.SQL("select (pg_snapshot_xip(pg_current_snapshot())::text)::numeric % 4294967296"),
            "reading the running transactions",
        )
        return {int(row[0]) for row in rows}

    def _awaiting_standby(self) -> set[int]:
        """Those that may have committed and wait for a synchronous standby; all whose state we may not see."""
        rows = self._query(
            sql.SQL(
                "select x from ("
                " select backend_xid::text from pg_stat_activity"
                " where wait_event = 'SyncRep' or (state is null and wait_event is null)"
                " union all select transaction::text from pg_prepared_xacts) waiting (x)"
                " where x is not null and current_setting('synchronous_standby_names') <> ''"
            ),
            "reading who waits for a standby",
        )
        return {int(row[0]) for row in rows}

    def _query(self, query: sql.SQL | sql.Composed, doing: str) -> list[tuple[str, ...]]:
        try:
            rows = self._connection.execute(query).fetchall()
        except psycopg.Error as error:
            raise translate(error, doing) from None
        if any(value is None for row in rows for value in row):
            raise FatalError(f"{doing}: the server answered NULL")
        return rows
