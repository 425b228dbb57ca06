"""Reading the rows that are there: chunks by key range, beside the running stream.

A `ChunkReader` reads in a thread of its own. Each chunk is read in one REPEATABLE READ transaction together with
``pg_current_snapshot()``; after it a logical message is committed, and when the stream delivers that message every
transaction the chunk could see has been streamed: there the chunk is emitted (EXACTNESS.md H8, H9). These messages
are the only thing written to the database; where nothing may be written, the LSN takes their place
(`cdc.postgres.watermarks`).

A table that is read again while it is streamed begins with a message too (`Begun`): only when the stream has delivered
it, it has passed whatever made the reading necessary, and the first chunk is read.

A table without key cannot be read in ranges: it is read in the one snapshot that a temporary slot exported, and the
stream tells only what committed after that slot's consistent point (H10).
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final

import psycopg
from psycopg import sql

from cdc.errors import CdcError, FatalError
from cdc.postgres.catalog import TableInfo, qualified
from cdc.postgres.connection import Connection, connect, translate
from cdc.postgres.copytext import parse_row
from cdc.postgres.progress import SnapshotProgress
from cdc.postgres.stream import ReplicationStream
from cdc.postgres.touched import DatabaseSnapshot
from cdc.postgres.watermarks import running_before, wal_reached
from cdc.record import RawRow

__all__ = ["CHUNK_BYTES", "MARKER_PREFIX", "Begun", "Chunk", "ChunkReader", "Exported"]

MARKER_PREFIX: Final = "cdc.snapshot"
"""Prefix of the logical messages that mark chunks in the stream; never told downstream."""
CHUNK_BYTES: Final = 8 << 20
"""A chunk ends at this size even before it has its number of rows."""


Describe = Callable[[Connection, int], TableInfo | None]
"""The table with this OID as it is captured, seen by the connection's transaction."""


@dataclass(slots=True)
class Exported:
    """A snapshot exported by a temporary slot: alive as long as ``holder`` is open."""

    name: str
    consistent_point: int
    holder: ReplicationStream


@dataclass(slots=True)
class Chunk:
    """Rows of one table as one database snapshot saw them. ``after`` is the key of its last row."""

    token: str
    table: TableInfo
    rows: list[RawRow]
    snapshot: DatabaseSnapshot
    after: list[str | None] | None
    first: bool
    last: bool
    final: bool = False
    """Whether no table after this one has a row."""
    at: int = 0
    """Without messages: the LSN that the stream must have passed."""


@dataclass(slots=True)
class Begun:
    """The stream has passed the beginning of reading a table again. Its chunks are read after `go`."""

    token: str
    oid: int
    at: int = 0
    _go: threading.Event = field(default_factory=threading.Event)

    def go(self) -> None:
        self._go.set()

    def wait(self, seconds: float) -> bool:
        return self._go.wait(seconds)


@dataclass(frozen=True, slots=True)
class _Request:
    progress: SnapshotProgress
    key: tuple[str, ...]
    exported: Exported | None
    again: bool = False


class _TableGone(FatalError):
    """The table cannot be read any more; others can."""


class ChunkReader:
    """Reads one table after the other, one chunk ahead of the stream.

    A chunk is ready before its message can reach the stream, so `take` never waits. Errors of the thread are raised by
    `raise_error`.
    """

    def __init__(
        self,
        conninfo: dict[str, str],
        name: str,
        rows: int,
        run: str,
        describe: Describe,
        again_per_second: int,
        *,
        silent: bool = False,
    ) -> None:
        self._conninfo = conninfo
        self._name = name
        self._rows = rows
        self._run_id = run
        self._describe = describe
        self._again_per_second = again_per_second
        self._silent = silent
        self._head: Chunk | Begun | None = None
        self._number = 0
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._ready: queue.Queue[Chunk | Begun] = queue.Queue(maxsize=2)
        self._lost: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
        self._cancelled: set[int] = set()
        self._ahead: list[SnapshotProgress] = []
        self._error: CdcError | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="snapshot", daemon=True)

    def start(self) -> None:
        """Begin to read, if it has not begun."""
        if self._thread.ident is None:
            self._thread.start()

    def expect(self, tables: Sequence[SnapshotProgress]) -> None:
        """Say which tables are to be requested together: so it is known which row is the last of all."""
        self._ahead += tables

    def request(self, progress: SnapshotProgress, key: tuple[str, ...], exported: Exported | None) -> None:
        """Read the table from where ``progress`` stands to its end, by ``key`` or in the exported snapshot."""
        self._cancelled.discard(progress.oid)
        if not any(other is progress for other in self._ahead):
            self._ahead.append(progress)
        self._requests.put(_Request(progress, key, exported))

    def request_again(self, progress: SnapshotProgress) -> None:
        """Read a table from its beginning, by its present key, from a point in the stream on that `Begun` marks."""
        self._cancelled.discard(progress.oid)
        self._requests.put(_Request(progress, (), None, again=True))

    def cancel(self, oid: int) -> None:
        """Read no more of this table. Chunks that were read may still come."""
        self._cancelled.add(oid)

    def lost(self) -> tuple[int, str] | None:
        """A table that could not be read to its end, and why, once."""
        try:
            return self._lost.get_nowait()
        except queue.Empty:
            return None

    def take(self, token: str) -> Chunk | Begun | None:
        """The chunk that ``token`` marks; ``None`` when the token is of another run."""
        if not token.startswith(self._run_id + "/"):
            return None
        chunk = self._ready.get_nowait()
        if chunk.token != token:
            raise FatalError(f"the stream told the snapshot marker {token}, expected {chunk.token}")
        return chunk

    @property
    def awaited(self) -> bool:
        """Without messages: whether something waits for the stream to reach its LSN."""
        return self._head is not None or not self._ready.empty()

    def reached(self, lsn: int) -> Chunk | Begun | None:
        """Without messages: the next that the stream has reached, which has passed all up to ``lsn``."""
        if self._head is None:
            try:
                self._head = self._ready.get_nowait()
            except queue.Empty:
                return None
        if self._head.at > lsn:
            return None
        head, self._head = self._head, None
        return head

    def raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        self._stopping.set()
        self._requests.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        elif self._thread.ident is None:
            self._release_requests()

    # -- the thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        connections: list[Connection] = []
        try:
            for _ in range(2):
                connections.append(connect(self._conninfo, self._name))
            reading, marking = connections
            # A marker must be flushed, for the walsender to read it, but wait for no standby.
            marking.execute("set synchronous_commit = local")
            while (request := self._requests.get()) is not None:
                if self._stopping.is_set():
                    self._requests.put(request)  # to be released with the others
                    break
                if not request.again:
                    self._ahead.remove(request.progress)
                try:
                    if request.exported is not None:
                        self._read_exported(reading, marking, request, request.exported)
                    elif not request.again or self._begin(marking, request):
                        self._read_ranges(reading, marking, request)
                except _TableGone as error:
                    self._lost.put((request.progress.oid, str(error)))
        except psycopg.Error as error:
            self._error = translate(error, "reading a snapshot")
        except CdcError as error:
            self._error = error
        finally:
            for connection in connections:
                connection.close()
            self._release_requests()

    def _release_requests(self) -> None:
        """Close the exported snapshots of tables that are not going to be read: they hold back vacuum."""
        while not self._requests.empty():
            request = self._requests.get()
            if request is not None and request.exported is not None:
                request.exported.holder.close()

    def _begin(self, marking: Connection, request: _Request) -> bool:
        """Have the beginning marked in the stream; whether the table is to be read when it has passed there."""
        self._number += 1
        begun = Begun(f"{self._run_id}/{self._number}", request.progress.oid)
        self._mark(marking, begun)
        while not self._stopping.is_set() and request.progress.oid not in self._cancelled:
            if begun.wait(0.2):
                return True
        return False

    def _read_ranges(self, reading: Connection, marking: Connection, request: _Request) -> None:
        after = request.progress.after
        first = request.progress.rows == 0
        last = False
        key = request.key
        # Also when reading goes on after a crash: what was streamed before may still wait for a standby (H9).
        self._await_writers(reading, request.progress.oid)
        while not last and not self._stopping.is_set() and request.progress.oid not in self._cancelled:
            begun_at = time.monotonic()
            reading.execute("begin transaction isolation level repeatable read read only")
            try:
                _lock(reading, request.progress)
                snapshot, table = _described(reading, request.progress, self._describe)
                names = [column.name for column in table.columns]
                if request.again and not key and table.ordered:
                    key = table.key
                if not key or not set(key) <= set(names):
                    raise _TableGone(f"the key of {table.full_name} changed while its rows were being read")
                places = [names.index(name) for name in key]
                types = [table.columns[place].type_name for place in places]
                rows: list[RawRow] = []
                more = True
                if first:
                    # A table of one chunk needs no order: its rows come as they lie, as everybody reads them.
                    query = _select(table) + sql.SQL(" limit {}").format(sql.Literal(self._rows + 1))
                    rows, more = _first_rows(reading, query, len(names), self._rows)
                if more:
                    query = _range(table, key, types, after, self._rows + 1)
                    rows, more = _first_rows(reading, query, len(names), self._rows)
            finally:
                reading.execute("rollback")
            last = not more
            if rows:
                after = [_text(rows[-1][place]) for place in places]
            final = last and not request.again and self._is_final(reading)
            self._put(marking, table, rows, snapshot, after, first=first, last=last, final=final)
            first = False
            if request.again:
                # Beside the application's own work, which did not ask for this.
                self._stopping.wait(len(rows) / self._again_per_second - (time.monotonic() - begun_at))

    def _await_writers(self, reading: Connection, oid: int) -> None:
        """Wait for the transactions that write to the table now.

        What they wrote before the table joined the publication is not told by the stream, so that the first chunk must
        see it. Those that begin later write into a published table.
        """
        query = sql.SQL(
            "select virtualtransaction from pg_locks where locktype = 'relation' and granted"
            " and relation in (select {0} union all select relid::oid from pg_partition_tree({0}))"
            " and database = (select oid from pg_database where datname = current_database())"
            " and mode in ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')"
        ).format(sql.Literal(oid))
        writers = set(reading.execute(query).fetchall())
        running = running_before(reading, None)
        pause = 0.01
        # Other sessions' transactions: nothing signals their end but the catalog.
        while (writers or running is not None) and not self._stopping.wait(pause):
            writers &= set(reading.execute(query).fetchall())
            running = running if running is None else running_before(reading, running)
            pause = min(pause * 2, 1.0)

    def _read_exported(self, reading: Connection, marking: Connection, request: _Request, exported: Exported) -> None:
        reading.execute("begin transaction isolation level repeatable read read only")
        try:
            reading.execute(sql.SQL("set transaction snapshot {}").format(sql.Literal(exported.name)))
            snapshot, table = _described(reading, request.progress, self._describe)
            exported.holder.close()
            pending: list[RawRow] = []
            size = 0
            first = True
            for line in _copy(reading, _select(table)):
                if len(pending) >= self._rows or size >= CHUNK_BYTES:
                    self._put(marking, table, pending, snapshot, None, first=first, last=False)
                    pending, size, first = [], 0, False
                    if self._stopping.is_set():
                        return
                pending.append(parse_row(line[:-1], len(table.columns)))
                size += len(line)
            final = self._is_final(reading)
            self._put(marking, table, pending, snapshot, None, first=first, last=True, final=final)
        finally:
            exported.holder.close()
            reading.execute("rollback")

    def _is_final(self, reading: Connection) -> bool:
        """Whether the tables that are still to be read are empty now: readers are told that the end is reached."""
        for progress in self._ahead:
            table = qualified(progress.schema, progress.name)
            try:
                row = reading.execute(sql.SQL("select exists (select from {})").format(table)).fetchone()
            except psycopg.errors.UndefinedTable:
                return False  # said with its remedy when its turn comes
            if row is None or row[0]:
                return False
        return True

    def _put(
        self,
        marking: Connection,
        table: TableInfo,
        rows: list[RawRow],
        snapshot: DatabaseSnapshot,
        after: list[str | None] | None,
        *,
        first: bool,
        last: bool,
        final: bool = False,
    ) -> None:
        self._number += 1
        self._mark(marking, Chunk(f"{self._run_id}/{self._number}", table, rows, snapshot, after, first, last, final))

    def _mark(self, marking: Connection, ready: Chunk | Begun) -> None:
        if self._silent:
            ready.at = wal_reached(marking)
        while not self._stopping.is_set():
            try:
                self._ready.put(ready, timeout=0.2)
            except queue.Full:
                continue
            if self._silent:
                return
            # Only now: whoever sees the marker finds the chunk.
            marking.execute(
                sql.SQL("select pg_logical_emit_message(true, {}, {})").format(
                    sql.Literal(MARKER_PREFIX), sql.Literal(ready.token)
                )
            )
            return


def _lock(connection: Connection, progress: SnapshotProgress) -> None:
    """Hold the table against DDL, before the snapshot is taken.

    TRUNCATE and the rewriting forms of ALTER TABLE are not MVCC-safe: to a snapshot that is older than their commit the
    table is empty, and a chunk that waited for their lock would take it for read to its end.
    """
    table = qualified(progress.schema, progress.name)
    try:
        # Without ONLY: partitions are locked too, and so are other heirs, which does no harm.
        connection.execute(sql.SQL("lock table {} in access share mode").format(table))
    except psycopg.errors.UndefinedTable:
        raise _gone(progress) from None


def _gone(progress: SnapshotProgress) -> FatalError:
    return _TableGone(
        f"the table {progress.schema}.{progress.name} was dropped or renamed while its rows were being read. "
        "Remedy: remove it from table.include.list"
    )


def _described(
    connection: Connection, progress: SnapshotProgress, describe: Describe
) -> tuple[DatabaseSnapshot, TableInfo]:
    """The running transaction's snapshot and the table as it sees it."""
    row = connection.execute("select pg_current_snapshot()::text, pg_is_in_recovery()").fetchone()
    table = describe(connection, progress.oid)
    if table is None or row is None:
        raise _gone(progress)
    return DatabaseSnapshot.parse(row[0], standby=row[1]), table


def _select(table: TableInfo, *conditions: sql.Composable) -> sql.Composed:
    """All rows that the publication tells of and that fulfil the conditions."""
    published = [] if table.row_filter is None else [sql.SQL("({})").format(sql.SQL(table.row_filter))]
    where = sql.SQL(" and ").join([*published, *conditions])
    return sql.SQL("select {} from {}{}{}").format(
        sql.SQL(", ").join(sql.Identifier(column.name) for column in table.columns),
        table.source,
        sql.SQL(" where " if published or conditions else ""),
        where,
    )


def _range(
    table: TableInfo, key: tuple[str, ...], types: list[str], after: list[str | None] | None, limit: int
) -> sql.Composed:
    columns = sql.SQL(", ").join(sql.Identifier(name) for name in key)
    beyond = []
    if after is not None:
        # format_type() has quoted the type's name already.
        values = sql.SQL(", ").join(
            sql.SQL("{}::{}").format(sql.Literal(value), sql.SQL(type_name))
            for value, type_name in zip(after, types, strict=True)
        )
        beyond.append(sql.SQL("({}) > ({})").format(columns, values))
    return _select(table, *beyond) + sql.SQL(" order by {} limit {}").format(columns, sql.Literal(limit))


def _first_rows(connection: Connection, query: sql.Composed, width: int, limit: int) -> tuple[list[RawRow], bool]:
    """At most ``limit`` rows and about `CHUNK_BYTES`; whether there are more."""
    rows: list[RawRow] = []
    size = 0
    with closing(_copy(connection, query)) as lines:
        for line in lines:
            if len(rows) >= limit or size >= CHUNK_BYTES:
                return rows, True
            rows.append(parse_row(line[:-1], width))
            size += len(line)
    return rows, False


def _copy(connection: Connection, query: sql.Composed) -> Generator[bytes, None, None]:
    """The lines of a COPY. Closed early, the COPY is cancelled (psycopg does so on any exception)."""
    with connection.cursor() as cursor, cursor.copy(sql.SQL("copy ({}) to stdout").format(query)) as copy:
        for data in copy:
            yield bytes(data)


def _text(value: object) -> str | None:
    return value.decode() if isinstance(value, bytes) else None
