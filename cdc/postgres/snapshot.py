"""Reading the rows that are there: chunks by key range, beside the running stream.

A `ChunkReader` reads in threads of its own, one table in each. Each chunk is read in one REPEATABLE READ transaction
together with ``pg_current_snapshot()``; after it a logical message is committed, and when the stream delivers that
message every transaction the chunk could see has been streamed: there the chunk is emitted (EXACTNESS.md H8, H9). These
messages are the only thing written to the database; where nothing may be written, the LSN takes their place
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
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

import psycopg
import structlog
from psycopg import sql

from cdc.errors import FatalError
from cdc.postgres.catalog import TableInfo
from cdc.postgres.chunk_sql import (
    CHUNK_BYTES,
    Describe,
    TableGone,
    check_condition,
    check_files,
    check_statement,
    copy_lines,
    described,
    first_rows,
    has_rows,
    key_text,
    lock_table,
    select_range,
    select_rows,
    source_of,
    writers,
)
from cdc.postgres.chunks import Begun, Chunk, Exported, Reading
from cdc.postgres.connection import Connection, connect, translate
from cdc.postgres.copytext import parse_row
from cdc.postgres.watermarks import running_before, wal_reached
from cdc.record import RawRow

__all__ = ["MARKER_PREFIX", "READY_BYTES", "ChunkReader"]

MARKER_PREFIX: Final = "cdc.snapshot"
"""Prefix of the logical messages that mark chunks in the stream; never told downstream."""
READY_BYTES: Final = 2 * CHUNK_BYTES
"""Chunks that were read and wait for the stream to reach them, of all threads together; each thread has one more."""
TELL_S: Final = 5.0
"""After so long it is said what a table's reading waits for."""
_WAIT_S: Final = 0.2
_log = structlog.get_logger(__name__)


class ChunkReader:
    """Reads tables, each a few chunks ahead of the stream, at most ``threads`` of them side by side.

    A chunk is ready before its message can reach the stream, so `take` never waits. Errors of the threads are raised by
    `raise_error`.
    """

    def __init__(
        self,
        conninfo: dict[str, str],
        name: str,
        rows: int,
        run: str,
        describe: Describe,
        threads: int,
        *,
        silent: bool = False,
    ) -> None:
        self._conninfo = conninfo
        self._name = name
        self._rows = rows
        self._run_id = run
        self._describe = describe
        self._silent = silent
        self._requests: queue.SimpleQueue[Reading | None] = queue.SimpleQueue()
        self._room = threading.Condition()
        """Guards what is ready, its bytes and the number of the last token."""
        self._ready: dict[str, Chunk | Begun] = {}
        self._bytes = 0
        self._number = 0
        self._ending = threading.Lock()
        """Guards the tables that are counted, so that no two are the last."""
        self._ahead: list[Reading] = []
        self._open: set[Reading] = set()
        self._lost: queue.SimpleQueue[tuple[Reading, str]] = queue.SimpleQueue()
        self._error: Exception | None = None
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name=f"snapshot-{number}", daemon=True) for number in range(threads)
        ]

    def start(self) -> None:
        """Begin to read, if it has not begun."""
        for thread in self._threads:
            if thread.ident is None:
                thread.start()

    def expect(self, readings: Sequence[Reading]) -> None:
        """Say which tables are to be requested together: so it is known which row is the last of all."""
        with self._ending:
            for reading in readings:
                reading.counted = True
                self._ahead.append(reading)

    def request(self, reading: Reading) -> None:
        """Read a table, in its turn."""
        self._requests.put(reading)

    def lost(self) -> tuple[Reading, str] | None:
        """A table that could not be read to its end, and why, once."""
        try:
            return self._lost.get_nowait()
        except queue.Empty:
            return None

    def take(self, token: str) -> Chunk | Begun | None:
        """The chunk that ``token`` marks; ``None`` when the token is of another run."""
        if not token.startswith(self._run_id + "/"):
            return None
        with self._room:
            ready = self._remove(token)
        if ready is None:
            raise FatalError(f"the stream told the snapshot marker {token}, and no chunk waits for it")
        return ready

    @property
    def awaited(self) -> bool:
        """Without messages: whether something waits for the stream to reach its LSN."""
        return bool(self._ready)

    def reached(self, lsn: int) -> Chunk | Begun | None:
        """Without messages: the next that the stream has reached, which has passed all up to ``lsn``."""
        with self._room:
            # Chunks of one table are in their order here, and their LSNs rise.
            token = next((token for token, ready in self._ready.items() if ready.at <= lsn), "")
            return self._remove(token) if token else None

    def _remove(self, token: str) -> Chunk | Begun | None:
        ready = self._ready.pop(token, None)
        if ready is not None:
            self._bytes -= ready.size
            self._room.notify_all()
        return ready

    def raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        self._stopping.set()
        for _ in self._threads:
            self._requests.put(None)
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=10)
        self._release_requests()

    # -- the threads --------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while (reading := self._requests.get()) is not None:
                if self._stopping.is_set():
                    self._requests.put(reading)  # to be released with the others
                    break
                # Connections are not kept while there is nothing to read, which may be for months.
                with ExitStack() as stack:
                    reading_from = stack.enter_context(connect(self._conninfo, self._name))
                    marking = stack.enter_context(connect(self._conninfo, self._name))
                    # A marker must be flushed, for the walsender to read it, but wait for no standby.
                    marking.execute("set synchronous_commit = local")
                    while reading is not None:
                        self._read(reading_from, marking, reading)
                        reading = self._next()
        except psycopg.Error as error:
            self._error = translate(error, "reading a snapshot")
        except Exception as error:  # noqa: BLE001 - the task's thread raises it
            self._error = error
        finally:
            self._release_requests()

    def _next(self) -> Reading | None:
        """What is to be read and can be at once."""
        if self._stopping.is_set():
            return None
        try:
            reading = self._requests.get_nowait()
        except queue.Empty:
            return None
        if reading is None:
            self._requests.put(None)  # asked to stop: `_run` shall see it
        return reading

    def _release_requests(self) -> None:
        """Close the exported snapshots of tables that are not going to be read: they hold back vacuum."""
        if self._error is None and not self._stopping.is_set():
            return
        while True:
            try:
                reading = self._requests.get_nowait()
            except queue.Empty:
                break
            if reading is not None and reading.exported is not None:
                reading.exported.holder.close()
        for _ in self._threads:
            self._requests.put(None)

    def _read(self, connection: Connection, marking: Connection, reading: Reading) -> None:
        if reading.counted:
            with self._ending:
                self._ahead.remove(reading)
                self._open.add(reading)
        try:
            if reading.exported is not None:
                self._read_exported(connection, marking, reading, reading.exported)
            elif not reading.marked or self._begin(marking, reading):
                self._read_ranges(connection, marking, reading)
        except TableGone as error:
            self._lost.put((reading, str(error)))
        except FatalError as error:
            if reading.adhoc is None:
                raise
            self._lost.put((reading, str(error)))
        except psycopg.Error as error:
            cause = translate(error, f"reading {reading.full_name}")
            if reading.adhoc is None or not isinstance(cause, FatalError):
                raise cause from None
            self._lost.put((reading, str(cause)))
        finally:
            with self._ending:
                self._open.discard(reading)

    def _stopped(self, reading: Reading) -> bool:
        return self._stopping.is_set() or reading.cancelled

    def _begin(self, marking: Connection, reading: Reading) -> bool:
        """Have the beginning marked in the stream; whether the table is to be read when it has passed there."""
        self._mark(marking, Begun(self._token(), reading))
        while not self._stopped(reading):
            if reading.wait(_WAIT_S):
                return True
        return False

    def _read_ranges(self, connection: Connection, marking: Connection, reading: Reading) -> None:
        after, first, key = reading.after, reading.first, reading.key
        last = False
        where = "" if reading.adhoc is None else reading.adhoc.where
        # An operator's SQL, which is looked at before the first chunk is read with it.
        conditions = [sql.SQL("(\n") + sql.SQL(where) + sql.SQL("\n)")] if where else []
        checked = False
        # Also when reading goes on after a crash: what was streamed before may still wait for a standby (H9).
        self._await_writers(connection, reading)
        while not last and not self._stopped(reading):
            begun_at = time.monotonic()
            reading.started = True
            connection.execute("begin transaction isolation level repeatable read read only")
            try:
                lock_table(connection, reading.schema, reading.name)
                snapshot, table = described(connection, reading.oid, reading.full_name, self._describe)
                names = [column.name for column in table.columns]
                if not key and table.ordered:  # it is the table's of now; what depends on another one was cancelled
                    key = table.key
                if not key or not set(key) <= set(names):
                    raise TableGone(f"the key of {table.full_name} changed while its rows were being read")
                if not checked:
                    self._check(connection, table, reading)
                    checked = True
                source = source_of(table, reading.statement)
                rows: list[RawRow] = []
                size = 0
                more = True
                if first:
                    # A table of one chunk needs no order: its rows come as they lie, as everybody reads them.
                    limit = sql.SQL(" limit {}").format(sql.Literal(self._rows + 1))
                    query = select_rows(table, *conditions, source=source) + limit
                    rows, size, more = first_rows(connection, query, len(names), self._rows)
                if more:
                    query = select_range(table, key, after, self._rows + 1, *conditions, source=source)
                    rows, size, more = first_rows(connection, query, len(names), self._rows)
            finally:
                if not connection.closed:
                    connection.execute("rollback")
            last = not more
            if rows:
                places = [names.index(name) for name in key]
                after = [key_text(rows[-1][place]) for place in places]
            chunk = Chunk(self._token(), reading, table, rows, size, snapshot, after, first, last)
            self._put(connection, marking, chunk)
            first = False
            if reading.rows_per_second and not last:
                # Beside the application's own work, which did not ask for this.
                reading.pause(len(rows) / reading.rows_per_second - (time.monotonic() - begun_at))

    def _check(self, connection: Connection, table: TableInfo, reading: Reading) -> None:
        """Look at an operator's SQL before rows are read with it."""
        if reading.adhoc is not None and reading.adhoc.where:
            check_condition(connection, table, reading.adhoc.where)
        if reading.statement:
            try:
                check_statement(connection, table, reading.statement)
            except psycopg.Error as error:
                key = f"snapshot.select.statement.overrides.{reading.full_name}"
                raise translate(error, f"preparing the statement of {key}") from None

    def _await_writers(self, connection: Connection, reading: Reading) -> None:
        """Wait for the transactions that write to the table now.

        What they wrote before the table joined the publication is not told by the stream, so that the first chunk must
        see it. Those that begin later write into a published table.
        """
        waited_for = writers(connection, reading.oid)
        running = running_before(connection, None)
        pause = 0.01
        told = False
        begun_at = time.monotonic()
        # Other sessions' transactions: nothing signals their end but the catalog.
        while (waited_for or running is not None) and not self._stopped(reading) and not self._stopping.wait(pause):
            now = writers(connection, reading.oid)
            waited_for = {transaction: pid for transaction, pid in waited_for.items() if transaction in now}
            running = running if running is None else running_before(connection, running)
            pause = min(pause * 2, 1.0)
            if not told and time.monotonic() - begun_at >= TELL_S:
                told = True
                _log.warning(
                    "rows are not read before the transactions that write to the table have ended",
                    table=reading.full_name,
                    pids=sorted(set(waited_for.values())),
                )

    def _read_exported(self, connection: Connection, marking: Connection, reading: Reading, exported: Exported) -> None:
        connection.execute("begin transaction isolation level repeatable read read only")
        try:
            lock_table(connection, reading.schema, reading.name)
            connection.execute(sql.SQL("set transaction snapshot {}").format(sql.Literal(exported.name)))
            snapshot, table = described(connection, reading.oid, reading.full_name, self._describe)
            exported.holder.close()
            check_files(connection, table)
            rows: list[RawRow] = []
            size = 0
            first = True
            self._check(connection, table, reading)
            query = select_rows(table, source=source_of(table, reading.statement))
            for line in copy_lines(connection, query):
                if len(rows) >= self._rows or size >= CHUNK_BYTES:
                    chunk = Chunk(self._token(), reading, table, rows, size, snapshot, None, first, last=False)
                    self._put(connection, marking, chunk)
                    rows, size, first = [], 0, False
                    if self._stopped(reading):
                        return
                rows.append(parse_row(line[:-1], len(table.columns)))
                size += len(line)
            self._put(
                connection, marking, Chunk(self._token(), reading, table, rows, size, snapshot, None, first, last=True)
            )
        finally:
            exported.holder.close()
            if not connection.closed:
                connection.execute("rollback")

    def _put(self, connection: Connection, marking: Connection, chunk: Chunk) -> None:
        chunk.reading.found |= bool(chunk.rows)
        if not (chunk.last and chunk.reading.counted):
            self._mark(marking, chunk)
            return
        with self._ending:  # whoever ends after this one finds it ended, and its marker stands before their own
            chunk.final = self._is_final(connection, chunk.reading)
            self._mark(marking, chunk)
            self._open.discard(chunk.reading)

    def _is_final(self, connection: Connection, reading: Reading) -> bool:
        """Whether no other table has a row to come: readers are told that the end is reached."""
        others = [*self._ahead, *(self._open - {reading})]
        # Whoever has read rows and is not at the end will have more: the last chunk of a table is not empty then.
        return not any(other.found or has_rows(connection, other.schema, other.name) for other in others)

    def _token(self) -> str:
        with self._room:
            self._number += 1
            return f"{self._run_id}/{self._number}"

    def _mark(self, marking: Connection, ready: Chunk | Begun) -> None:
        if self._silent:
            ready.at = wal_reached(marking)
        with self._room:
            while self._bytes and self._bytes + ready.size > READY_BYTES:
                if self._stopped(ready.reading):
                    return
                self._room.wait(_WAIT_S)
            self._ready[ready.token] = ready
            self._bytes += ready.size
        if self._silent:
            return
        # Only now: whoever sees the marker finds the chunk.
        marking.execute(
            sql.SQL("select pg_logical_emit_message(true, {}, {})").format(
                sql.Literal(MARKER_PREFIX), sql.Literal(ready.token)
            )
        )
