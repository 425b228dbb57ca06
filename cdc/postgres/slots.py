"""Replication slots as the server shows them, and how far the server's WAL has come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from cdc.errors import FatalError
from cdc.postgres.connection import Connection, translate
from cdc.postgres.pgoutput import format_lsn, parse_lsn

__all__ = ["SlotInfo", "drop_slot", "gap_text", "read_slot", "sized", "wal_now"]

# Columns of newer versions are read through JSON: conflicting is of 16, the rest of 17.
_SLOT = """
select s.slot_name, s.plugin, s.slot_type, s.database, s.active_pid, s.restart_lsn::text, s.confirmed_flush_lsn::text,
       s.wal_status,
       case when a.backend_start is not null then format(
           'pid %s from %s, application_name %s, connected since %s', a.pid,
           coalesce(host(a.client_addr), 'a local socket'), quote_literal(a.application_name),
           date_trunc('second', a.backend_start))
         when s.active_pid is not null then format(
           'pid %s, application_name %s (of another role: pg_read_all_stats shows more)', s.active_pid,
           quote_literal(coalesce(a.application_name, '')))
         else '' end,
       extract(epoch from clock_timestamp() - a.backend_start)::float8,
       s.safe_wal_size, to_jsonb(s) ->> 'invalidation_reason',
       coalesce((to_jsonb(s) ->> 'conflicting')::boolean, false),
       coalesce((to_jsonb(s) ->> 'failover')::boolean, false), coalesce((to_jsonb(s) ->> 'synced')::boolean, false),
       to_jsonb(s) ->> 'inactive_since', s.active
from pg_replication_slots s left join pg_stat_activity a on a.pid = s.active_pid
where s.slot_name = {slot}
"""

_WAL_NOW = """
select case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end::text
"""


@dataclass(frozen=True, slots=True)
class SlotInfo:
    """A row of ``pg_replication_slots``, with who holds it. LSNs are integers, ``None`` where NULL.

    What the server's version does not have is ``None``, or false.
    """

    name: str
    plugin: str | None
    slot_type: str
    database: str | None
    active_pid: int | None
    restart_lsn: int | None
    confirmed_flush_lsn: int | None
    wal_status: str | None
    holder: str = ""
    holder_seconds: float | None = None
    """How long the holder's session has been there."""
    safe_wal_size: int | None = None
    invalidation_reason: str | None = None
    conflicting: bool = False
    failover: bool = False
    synced: bool = False
    """Whether a standby keeps it in step with its primary's: nobody can read it there before the promotion."""
    inactive_since: str | None = None
    active: bool = False

    @property
    def lost(self) -> bool:
        """Whether the server has invalidated it: it can never be read again."""
        return self.wal_status == "lost" or self.invalidation_reason is not None

    @property
    def lost_because(self) -> str:
        """Why it was invalidated, and what keeps that from happening again."""
        reason = self.invalidation_reason or ("rows_removed" if self.conflicting else "wal_removed")
        return _REASONS.get(reason, f"the server gives {reason} as the reason")


_REASONS = {
    "wal_removed": "it kept more WAL than max_slot_wal_keep_size allows; raise that, or keep the connector running",
    "rows_removed": "this standby had to remove rows that it still needed; set hot_standby_feedback = on and a "
    "primary_slot_name on the standby",
    "wal_level_insufficient": "the primary's wal_level was set below logical; set it to logical",
    "idle_timeout": "nobody read it for idle_replication_slot_timeout; raise that, or keep the connector running",
}


def read_slot(connection: Connection, slot: str) -> SlotInfo | None:
    """The slot, or ``None`` when there is none of that name."""
    row = _one(connection, sql.SQL(_SLOT).format(slot=sql.Literal(slot)), f"reading the slot {slot}")
    if row is None:
        return None
    return SlotInfo(
        name=row[0],
        plugin=row[1],
        slot_type=row[2],
        database=row[3],
        active_pid=row[4],
        restart_lsn=None if row[5] is None else parse_lsn(row[5]),
        confirmed_flush_lsn=None if row[6] is None else parse_lsn(row[6]),
        wal_status=row[7],
        holder=row[8],
        holder_seconds=row[9],
        safe_wal_size=row[10],
        invalidation_reason=row[11],
        conflicting=row[12],
        failover=row[13],
        synced=row[14],
        inactive_since=row[15],
        active=row[16],
    )


def drop_slot(connection: Connection, slot: str) -> None:
    """Drop the slot. `cdc.errors.RetriableError` while somebody holds it."""
    _one(connection, sql.SQL("select pg_drop_replication_slot({})").format(sql.Literal(slot)), f"dropping slot {slot}")


def wal_now(connection: Connection) -> int:
    """Where the server's WAL ends; on a standby, how far that has replayed it."""
    row = _one(connection, sql.SQL(_WAL_NOW), "asking where the WAL ends")
    if row is None or row[0] is None:
        raise FatalError("asking where the WAL ends: the server answered NULL")
    return parse_lsn(row[0])


def sized(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(size) < 1024 or unit == "GB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"


def gap_text(start: int, end: int | None) -> str:
    """A stretch of the WAL by its ends and its size."""
    if end is None or end <= start:
        return f"after {format_lsn(start)}"
    return f"from {format_lsn(start)} to {format_lsn(end)} ({sized(end - start)} of WAL)"


def _one(connection: Connection, query: sql.SQL | sql.Composed, doing: str) -> tuple[Any, ...] | None:
    try:
        return connection.execute(query).fetchone()
    except psycopg.Error as error:
        raise translate(error, doing) from None
