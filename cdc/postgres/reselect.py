"""Unchanged TOAST: read the values again (EXACTNESS.md H13).

The WAL of an UPDATE does not carry a large value that it left alone. The value is read from the table, as it is now: at
least as new as the record, because the reading snapshot must see the record's transaction (else it is taken again). A
row that is gone has no value to read: its columns are named unknown, and a delete or a newer record follows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import psycopg
from psycopg import sql

from cdc.errors import RetriableError
from cdc.postgres.catalog import TableInfo, qualified
from cdc.postgres.changes import Reselect
from cdc.postgres.connection import Connection, translate
from cdc.postgres.touched import DatabaseSnapshot

__all__ = ["reselect"]

BATCH: int = 500


def reselect(
    pending: Sequence[Reselect],
    connection: Callable[[], Connection],
    infos: Mapping[int, TableInfo],
    keep_alive: Callable[[], None],
    stopping: Callable[[], bool],
) -> None:
    """Fill in the unchanged columns of all ``pending`` changes, or name them unknown."""
    groups: dict[tuple[int, tuple[int, ...]], list[Reselect]] = {}
    for item in pending:
        groups.setdefault((id(item.table), tuple(item.columns)), []).append(item)
    for group in groups.values():
        info = infos.get(group[0].table.oid)
        for start in range(0, len(group), BATCH):
            batch = group[start : start + BATCH]
            keep_alive()
            found = _read(batch, connection(), info, keep_alive, stopping) if info and batch[0].table.shape.key else {}
            _apply(batch, found)


def _read(
    batch: list[Reselect],
    connection: Connection,
    info: TableInfo,
    keep_alive: Callable[[], None],
    stopping: Callable[[], bool],
) -> dict[tuple[bytes, ...], list[bytes | None]]:
    """Key → values of the wanted columns, in a snapshot that sees every transaction of the batch."""
    shape = batch[0].table.shape
    key = [shape.columns[i].name for i in shape.key]
    wanted = [shape.columns[i].name for i in batch[0].columns]
    types = {column.name: column.type_name for column in info.columns}
    if any(name not in types for name in (*key, *wanted)):
        return {}  # dropped or renamed since: there is no such value any more
    keys = {tuple(item.change.after[i] for i in shape.key) for item in batch if item.change.after is not None}
    values = sql.SQL(", ").join(
        sql.SQL("({})").format(
            sql.SQL(", ").join(
                sql.SQL("{}::{}").format(sql.Literal(value.decode()), sql.SQL(types[name]))
                for value, name in zip(row, key, strict=True)
            )
        )
        for row in keys
    )
    columns = sql.SQL(", ").join(sql.Identifier(name) for name in (*key, *wanted))
    query = sql.SQL("select {} from only {} where ({}) in ({})").format(
        columns,
        qualified(info.schema, info.name),
        sql.SQL(", ").join(sql.Identifier(name) for name in key),
        values,
    )
    xids = {item.change.tx.xid for item in batch if item.change.tx.xid is not None}
    pause = 0.001
    while True:
        try:
            visible = connection.execute("select pg_current_snapshot()::text").fetchone()
            # The snapshot of the next statement is taken later, so it sees at least as much.
            seen = visible is not None and all(DatabaseSnapshot.parse(visible[0]).sees(xid) for xid in xids)
            result = connection.execute(query).pgresult if seen else None
        except psycopg.Error as error:
            if error.sqlstate in {"42703", "42P01"}:
                return {}  # the column or table went away between the catalog's answer and this statement
            raise translate(error, f"reading unchanged TOAST values of {info.full_name} again") from None
        if result is not None:
            width = len(key)
            return {
                tuple(result.get_value(row, i) or b"" for i in range(width)): [
                    result.get_value(row, width + i) for i in range(len(wanted))
                ]
                for row in range(result.ntuples)
            }
        if stopping():
            raise RetriableError("asked to stop while waiting for a streamed transaction to become visible")
        keep_alive()
        # It is committed in the WAL but not yet visible: it waits for a synchronous standby. Nothing signals the end.
        time.sleep(pause)
        pause = min(pause * 2, 0.5)


def _apply(batch: list[Reselect], found: Mapping[tuple[bytes, ...], list[bytes | None]]) -> None:
    for item in batch:
        row = item.change.after
        if row is None:
            continue
        values = found.get(tuple(row[i] for i in item.table.shape.key))
        if values is None:
            item.change.unknown = [item.table.shape.columns[i].name for i in item.columns]
        else:
            for place, value in zip(item.columns, values, strict=True):
                row[place] = value
