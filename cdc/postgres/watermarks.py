"""Where chunks stand in the stream if nothing may be written: by the LSN that the WAL had reached when they were read.

A standby cannot write logical messages, and some roles must not. Whatever a chunk's snapshot saw was committed at or
below the LSN that is asked for after it: once the stream has delivered all up to there, the chunk may be told, as after
a message (EXACTNESS.md H8, H9). On a standby a transaction becomes visible a moment before the LSN passes it (while the
files of dropped tables are being removed): such a change may be seen early in a chunk, and follows in its place.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg

from cdc.errors import FatalError
from cdc.postgres.connection import Connection, translate

__all__ = ["last_record_end", "running_before", "wal_reached"]

_PAGE: Final = 8192
"""Of the WAL: XLOG_BLCKSZ."""

_REACHED: Final = """
select pg_is_in_recovery(), pg_size_bytes(current_setting('wal_segment_size')),
  (case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_insert_lsn() end - '0/0')::bigint
"""
_RUNNING: Final = """
select pg_is_in_recovery(), pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
  pg_snapshot_xmax(pg_current_snapshot())::text::bigint
"""


def wal_reached(connection: Connection) -> int:
    """The LSN at or below which all that is visible now was committed, and which the stream is sure to reach."""
    standby, segment, lsn = _row(connection, _REACHED, "asking how far the WAL has come")
    return int(lsn) if standby else last_record_end(int(lsn), int(segment))


def last_record_end(insert: int, segment: int) -> int:
    """Where the last record ends, given where the next one begins: a page's header may be between, and is flushed only
    with the next record."""
    header = 40 if insert - insert % _PAGE == insert - insert % segment else 24
    return insert - header if insert % _PAGE == header else insert


def running_before(connection: Connection, limit: int | None) -> int | None:
    """On a standby, which does not show who holds a table's locks on its primary: the transaction id that all which run
    now are below, until every one below ``limit`` has ended; then ``None``, and on a primary."""
    standby, oldest, following = _row(connection, _RUNNING, "asking which transactions run")
    if not standby or int(oldest) >= (int(following) if limit is None else limit):
        return None
    return int(following) if limit is None else limit


def _row(connection: Connection, query: str, doing: str) -> tuple[Any, ...]:
    try:
        row = connection.execute(query.encode()).fetchone()
    except psycopg.Error as error:
        raise translate(error, doing) from None
    if row is None or any(value is None for value in row):
        raise FatalError(f"{doing}: the server answered NULL")
    return row
