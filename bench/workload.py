"""The rows and operations that are measured: those of Sequin's benchmark, 300 operations a transaction.

A third each are inserts, updates and deletes; rows have 9 columns and are about ``size`` bytes of text, of which the
padding does not compress.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from typing import Final

import psycopg

from bench.servers import Connection

__all__ = ["TABLE", "Workload"]

TABLE: Final = "benchmark_records"
GROUP: Final = 100
"""Operations of one kind in a transaction."""
_BASE_BYTES: Final = 124
"""Of a row's text, all but the padding."""

_CREATE: Final = f"""
create table {TABLE} (
    id bigint primary key,
    string_field text,
    numeric_field numeric,
    timestamp_field timestamptz,
    json_field jsonb,
    extra_col_0 text,
    extra_col_1 text,
    inserted_at timestamp,
    updated_at timestamp
)
"""
_VALUES: Final = """
    select id, 'string ' || id, round((id %% 100000)::numeric / 100, 2), clock_timestamp(),
           jsonb_build_object('id', id, 'tags', 'abc'), left(pad, %(half)s), substr(pad, %(half)s + 1),
           clock_timestamp()::timestamp, clock_timestamp()::timestamp
    from unnest(%(ids)s::bigint[], %(pads)s::text[]) as new (id, pad)
"""
_INSERT: Final = f"insert into {TABLE} {_VALUES}"
_UPDATE: Final = f"""
    update {TABLE} t set numeric_field = t.numeric_field + 1, extra_col_0 = left(pad, %(half)s),
        extra_col_1 = substr(pad, %(half)s + 1), updated_at = clock_timestamp()::timestamp
    from unnest(%(ids)s::bigint[], %(pads)s::text[]) as new (id, pad) where t.id = new.id
"""
_DELETE: Final = f"delete from {TABLE} where id = any(%(ids)s::bigint[])"


@dataclass(frozen=True, slots=True)
class Generated:
    """What was done. ``lsn`` is a place in the WAL within the last transaction: who has passed it has passed all."""

    changes: int
    deletes: int
    lsn: str


class Workload:
    """The table, as a window of ids: inserts go in front of it, deletes take from its end, updates are anywhere."""

    def __init__(self, connection: Connection, size: int, seed: int = 1) -> None:
        self._connection = connection
        self._padding = max(size - _BASE_BYTES, 2)
        self._random = random.Random(seed)
        self._low = self._high = 1

    def create(self) -> None:
        """Make the table, empty."""
        self._connection.execute(_CREATE)

    def fill(self, rows: int) -> None:
        """Insert rows, many in a transaction."""
        while rows > 0:
            count = min(rows, 5_000)
            with self._connection.transaction():
                self._insert(count)
            rows -= count

    def generate(self, changes: int) -> Generated:
        """Mixed operations, at least so many. The window must hold more rows than half a transaction touches."""
        done = 0
        lsn = ""
        self._connection.execute("set synchronous_commit = off")
        try:
            while done < changes:
                with self._connection.transaction():
                    self._insert(GROUP)
                    self._change(_UPDATE, self._random.sample(range(self._low + GROUP, self._high), GROUP))
                    self._change(_DELETE, list(range(self._low, self._low + GROUP)))
                    self._low += GROUP
                    row = self._connection.execute("select pg_current_wal_insert_lsn()::text").fetchone()
                lsn = row[0] if row else ""
                done += 3 * GROUP
        finally:
            self._connection.execute("reset synchronous_commit")
        # The walsender reads what is flushed; this flushes all before it.
        self._connection.execute("select pg_logical_emit_message(true, 'bench.end', '')")
        return Generated(done, done // 3, lsn)

    def _insert(self, count: int) -> None:
        self._change(_INSERT, list(range(self._high, self._high + count)))
        self._high += count

    def _change(self, statement: str, ids: list[int]) -> None:
        pads = None if statement is _DELETE else [self._pad() for _ in ids]
        done = self._connection.execute(
            statement.encode(), {"ids": ids, "pads": pads, "half": self._padding // 2} if pads else {"ids": ids}
        )
        if done.rowcount != len(ids):
            raise psycopg.DataError(f"{done.rowcount} rows were changed where {len(ids)} should have been")

    def _pad(self) -> str:
        return os.urandom(self._padding // 2 + 1).hex()[: self._padding]
