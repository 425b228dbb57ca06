"""Unchanged TOAST: read the values again (EXACTNESS.md H13).

The WAL of an UPDATE does not carry a large value that it left alone. The value is read from the table, as it is now: at
least as new as the record, because the reading snapshot must see the record's transaction (else it is taken again), and
never of a commit that a crash of Postgres could undo. A row that is gone has no value to read: its columns are named
unknown, and a delete or a newer record follows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import psycopg
from psycopg import sql
from psycopg.pq.abc import PGresult

from cdc.errors import RetriableError
from cdc.postgres.captured_table import CapturedTable, Reselect
from cdc.postgres.catalog import TableInfo
from cdc.postgres.connection import Connection, translate
from cdc.postgres.fingerprint import Fingerprint
from cdc.postgres.touched import DatabaseSnapshot
from cdc.postgres.watermarks import last_record_end

__all__ = ["reselect"]

BATCH: Final = 500
_ATTRIBUTES: Final = (
    "(select string_agg(format('%s %s', a.attnum, a.attname), E'\\x01') from pg_attribute a"
    " where a.attrelid = {} and a.attnum > 0 and not a.attisdropped)"
)
_LOCK_TIMEOUT: Final = "set lock_timeout = '100ms'"


def reselect(
    pending: Sequence[Reselect],
    connection: Callable[[], Connection],
    infos: Mapping[int, TableInfo],
    keep_alive: Callable[[], None],
    stopping: Callable[[], bool],
    fingerprint_of: Callable[[int], Fingerprint | None] = lambda _oid: None,
) -> None:
    """Fill in the unchanged columns of all ``pending`` changes, or name them unknown.

    ``fingerprint_of`` tells which column a name meant in the rows told so far: one that means another now is unknown,
    until the table is read again because of that (EXACTNESS.md H12).
    """
    groups: dict[tuple[int, tuple[int, ...]], list[Reselect]] = {}
    for item in pending:
        groups.setdefault((id(item.table), tuple(item.columns)), []).append(item)
    for group in groups.values():
        oid = group[0].table.oid
        info, then = infos.get(oid), fingerprint_of(oid)
        for start in range(0, len(group), BATCH):
            batch = group[start : start + BATCH]
            keep_alive()
            places = () if info is None else _identity(batch[0].table, info)
            found = {}
            if info is not None and places:
                found = _read(batch, places, connection(), info, then, keep_alive, stopping)
            _apply(batch, places, found)


def _identity(table: CapturedTable, info: TableInfo) -> tuple[int, ...]:
    """The places of columns that tell a row from all others; none where there are no such columns.

    These are the record key's, unless somebody chose a key that rows can share.
    """
    places = {table.name(place): place for place in range(len(table.shape.columns)) if place not in table.masks}
    key = [table.name(place) for place in table.shape.key]
    unique = [index.columns for index in info.unique]
    if info.primary_key and not info.deferrable:
        unique.insert(0, info.primary_key)
    if any(set(columns) <= set(key) for columns in unique):
        return table.shape.key
    columns = next((columns for columns in unique if places.keys() >= set(columns)), ())
    return tuple(places[name] for name in columns)


def _values(item: Reselect, places: Sequence[int]) -> tuple[bytes, ...] | None:
    """The values of these columns; ``None`` when one is not known."""
    row = item.change.after or ()
    values = tuple(value for value in (row[place] for place in places) if isinstance(value, bytes))
    return values if len(values) == len(places) else None


def _read(
    batch: list[Reselect],
    places: Sequence[int],
    connection: Connection,
    info: TableInfo,
    then: Fingerprint | None,
    keep_alive: Callable[[], None],
    stopping: Callable[[], bool],
) -> dict[tuple[bytes, ...], list[bytes | None]]:
    """Values at ``places`` → values of the wanted columns, in a snapshot that sees every transaction of the batch."""
    table = batch[0].table
    key = [table.name(i) for i in places]
    wanted = [table.name(i) for i in batch[0].columns]
    types = {column.name: column.type_name for column in info.columns}
    if any(name not in types for name in (*key, *wanted)):
        return {}  # dropped or renamed since: there is no such value any more
    changes = {values: item for item in batch if (values := _values(item, places)) is not None}
    if not changes:
        return {}
    rows = sql.SQL(", ").join(
        sql.SQL("({})").format(
            sql.SQL(", ").join(
                sql.SQL("{}::{}").format(sql.Literal(value.decode()), sql.SQL(types[name]))
                for value, name in zip(values, key, strict=True)
            )
        )
        for values in changes
    )
    columns = sql.SQL(", ").join(sql.Identifier(name) for name in (*key, *wanted))
    # By now the name may be another table's.
    own = "t.tableoid = {0}" if info.kind == "r" else "t.tableoid in (select relid from pg_partition_tree({0}))"
    query = sql.SQL("select {}, {}, {} from {} t where {} and ({}) in ({})").format(
        columns,
        sql.SQL(_ATTRIBUTES).format(sql.Literal(info.oid)),
        sql.SQL("xmin" if info.kind == "r" else "null"),
        info.source,
        sql.SQL(own).format(sql.Literal(info.oid)),
        sql.SQL(", ").join(sql.Identifier(name) for name in key),
        rows,
    )
    xids = {item.change.tx.xid for item in batch if item.change.tx.xid is not None}
    wait = _Pauses(keep_alive, stopping)
    try:
        result = _rows(connection, query, xids, wait)
        width = len(key)
        found = {}
        durable = True
        for row in range(result.ntuples):
            texts = [result.get_value(row, i) for i in range(width + len(wanted) + 2)]
            if row == 0 and not _same_columns(then, (*key, *wanted), texts[-2] or b""):
                return {}
            place = tuple(text or b"" for text in texts[:width])
            found[place] = texts[width:-2]
            writer = changes[place].change.tx.xid if place in changes else None
            durable &= texts[-1] is not None and writer is not None and int(texts[-1]) == writer
        if not durable:
            _await_flush(connection, wait)
    except psycopg.Error as error:
        if error.sqlstate in {"42703", "42P01"}:
            return {}  # the column or table went away between the catalog's answer and this statement
        raise translate(error, f"reading unchanged TOAST values of {info.full_name} again") from None
    return found


def _rows(connection: Connection, query: sql.Composed, xids: set[int], wait: Callable[[], None]) -> PGresult:
    """The answer to ``query``, in a snapshot that sees these transactions.

    A table that somebody keeps locked is waited for in short pieces, so that the stream is kept alive meanwhile.
    """
    connection.execute(_LOCK_TIMEOUT)
    try:
        while True:
            visible = connection.execute("select pg_current_snapshot()::text").fetchone()
            # The snapshot of the next statement is taken later, so it sees at least as much.
            if visible is not None and all(DatabaseSnapshot.parse(visible[0]).sees(xid) for xid in xids):
                try:
                    result = connection.execute(query).pgresult
                except psycopg.errors.LockNotAvailable:
                    wait()
                    continue
                if result is None:
                    raise RuntimeError("a SELECT without a result")
                return result
            # It is committed in the WAL but not yet visible: it waits for a synchronous standby.
            wait()
    finally:
        if not connection.closed:
            connection.execute("reset lock_timeout")


def _same_columns(then: Fingerprint | None, names: Sequence[str], now: bytes) -> bool:
    """Whether each name still means the column that it meant, or one that was added since."""
    if then is None:
        return True
    numbers = {name: int(number) for number, name in (part.split(" ", 1) for part in now.decode().split("\x01"))}
    before = {attribute.name: attribute.number for attribute in then.columns}
    last = max(before.values(), default=0)
    return all(numbers[name] == before[name] if name in before else numbers[name] > last for name in names)


def _await_flush(connection: Connection, wait: Callable[[], None]) -> None:
    """Wait until nothing that a session can see now would be lost if Postgres crashed.

    Commits with synchronous_commit off are visible before they are on disk, and what is lost in a crash must not have
    been told. A row as its streamed transaction left it needs no wait: only what is on disk is streamed.
    """
    row = connection.execute(
        "select (pg_current_wal_insert_lsn() - '0/0')::bigint, pg_size_bytes(current_setting('wal_segment_size'))"
        " where not pg_is_in_recovery()"
    ).fetchone()
    if row is None:
        return  # a standby shows what it has received, which its primary has on disk
    target = last_record_end(row[0], row[1])
    flushed = "select (pg_current_wal_flush_lsn() - '0/0')::bigint"
    while (found := connection.execute(flushed).fetchone()) is not None and found[0] < target:
        wait()


class _Pauses:
    """Waits a little, longer each time, with the source kept alive. Of what it waits for nothing signals the end."""

    def __init__(self, keep_alive: Callable[[], None], stopping: Callable[[], bool]) -> None:
        self._keep_alive = keep_alive
        self._stopping = stopping
        self._pause = 0.001

    def __call__(self) -> None:
        if self._stopping():
            raise RetriableError("asked to stop while waiting for a commit to become visible and durable")
        self._keep_alive()
        time.sleep(self._pause)
        self._pause = min(self._pause * 2, 0.5)


def _apply(batch: list[Reselect], places: Sequence[int], found: Mapping[tuple[bytes, ...], list[bytes | None]]) -> None:
    for item in batch:
        row = item.change.after
        if row is None:
            continue
        place = _values(item, places)
        values = None if place is None else found.get(place)
        if values is None:
            item.change.unknown = [item.table.shape.columns[i].name for i in item.columns]
        else:
            for at, value in zip(item.columns, values, strict=True):
                mask = item.table.masks.get(at)
                row[at] = value if mask is None or value is None else mask(value)
