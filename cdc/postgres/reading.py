"""Which tables are read, beside the stream: asked for, read, emitted at their place in it, swept of ghosts.

`Snapshots` stands between the stream (`cdc.postgres.changes.Decoder`), the reader of chunks, and `Evolution`, which
decides what is read again. One thread owns it, the task's; only the `ChunkReader` reads in one of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from cdc.errors import CdcError, RetriableError
from cdc.plugin import Sweep, TaskContext
from cdc.postgres.captured import is_hidden_otherwise, read_captured, selection_of
from cdc.postgres.catalog import TableInfo, table_bytes
from cdc.postgres.catalog_view import NamedTable
from cdc.postgres.changes import Decoder
from cdc.postgres.config import PostgresConfig
from cdc.postgres.evolution import Evolution
from cdc.postgres.progress import SnapshotProgress
from cdc.postgres.server import Server
from cdc.postgres.slot_creation import CreationWait
from cdc.postgres.snapshot import Begun, Chunk, ChunkReader, Exported
from cdc.postgres.tables import TableRegistry
from cdc.postgres.touched import TouchLog
from cdc.postgres.watch import CatalogView
from cdc.record import RowChange, Transaction

__all__ = ["Snapshots"]

PATIENT_BYTES: Final = 1 << 30
"""Tables with keys are read before tables without up to this size."""


class Snapshots:
    """The reading of one task. It is the `cdc.postgres.evolution.Actions` of its ``evolution``.

    ``sweeps`` is where sweeps are asked for; ``publish`` adds tables to the publication. ``evolution`` and ``decoder``
    are those of the stream, given before `plan`.
    """

    evolution: Evolution
    decoder: Decoder

    def __init__(
        self,
        config: PostgresConfig,
        context: TaskContext,
        name: str,
        tables: TableRegistry,
        touched: TouchLog,
        server: Server,
        ask: Callable[[Sweep], None],
        publish: Callable[[Mapping[int, TableInfo]], None],
    ) -> None:
        self._config = config
        self._context = context
        self._name = name
        self._tables = tables
        self._touched = touched
        self._server = server
        self._connection = server.connection
        self._ask_runtime = ask
        self.publish = publish
        self.reader: ChunkReader | None = None
        """There is one from the first table on that is to be read."""
        self.silent = False
        """Whether nothing may be written: chunks are placed by `reached`."""
        self._begun: dict[int, Begun] = {}
        """Tables whose old keys are being deleted, before they are read again."""
        self._renew: set[int] = set()
        self._sweeps: dict[int, Sweep] = {}
        self._wanted: set[int] = set()
        self._hidden: dict[int, dict[str, str]] = {}

    def stop(self) -> None:
        """Stop reading."""
        if self.reader is not None:
            self.reader.stop()

    def look(self) -> None:
        """Raise what the reader failed of, and find tables that went away under it."""
        if self.reader is not None:
            self.reader.raise_error()
            while (lost := self.reader.lost()) is not None:
                self.evolution.lost(*lost)

    # -- what is to be read ----------------------------------------------------------------------------

    def plan(
        self,
        stored_tables: Mapping[str, Any],
        tables: Sequence[TableInfo],
        view: CatalogView,
        gaps: set[int],
        since: str = "",
    ) -> None:
        """Ask for what is not read yet, or not as it is now; ``gaps`` are tables whose changes were not all told.

        ``since`` is a position before all that the stream will tell and behind all that was ever told, if what was told
        does not count: then every table is read from its beginning, and keys that are older are removed (H11).
        """
        config = self._config
        mode = config.snapshot_mode
        evolution = self.evolution
        wanted = []
        again = []
        for table in tables:
            stored = stored_tables.get(table.full_name)
            now = view.tables.get(table.oid)
            progress = SnapshotProgress(table.oid, table.schema, table.name)
            progress.fingerprint = None if now is None else now.fingerprint
            if stored is not None and not (mode == "always" and stored.get("snapshot") == "done"):
                progress.restore(stored)
            hidden = self._hidden[table.oid] = selection_of(table, config.selection)
            anew = bool(since) and not progress.failed  # a failed table is read again once it is mended
            if anew and stored is not None:
                progress.start_over(since if table.key else "", None if now is None else now.fingerprint)
            elif anew:
                progress.since = since if table.key else ""
            if stored is None or anew:
                progress.selection = hidden
                # Stored before the first row is told: the fingerprint must be as old as that.
                progress.done = mode == "no_data" or not config.reads_rows(table.schema, table.name)
                if progress.done:
                    progress.since = ""
                evolution.dirty.add(table.oid)
            evolution.tables[table.oid] = progress
            if table.ordered and not anew:
                gap = stored is not None and (table.oid in gaps or self._starts_over(stored, progress, now))
                then = progress.selection
                # Rows that were told with other columns or masks are told again: what is hidden now is to go.
                if gap or (then is not None and is_hidden_otherwise(table, then, hidden)):
                    again.append((progress, gap))
                    continue
            elif not table.ordered and not progress.done:
                progress.rows, progress.after = 0, None
            if not progress.done:
                wanted.append(table)
        chosen = {table.full_name for table in tables}
        for name, stored in stored_tables.items():
            if name not in chosen and stored.get("snapshot") != "stopped":
                self._context.report("stopped", name)
                evolution.left[name] = {**stored, "snapshot": "stopped"}
        if wanted:
            # By name, unless that takes long: the exported snapshots of tables without key hold back vacuum till then.
            keyed = table_bytes(self._connection(), [table.oid for table in wanted if table.ordered])
            wanted.sort(key=lambda table: (keyed > PATIENT_BYTES and table.ordered, table.schema, table.name))
            self._reading().expect([evolution.tables[table.oid] for table in wanted])
        self._wanted = {table.oid for table in wanted}
        for number, table in enumerate(wanted):
            exported = None
            if table.ordered:
                self._touched.tables.add(table.oid)
            else:
                # Of this life alone: a slot of the last one goes only when its session has ended.
                slot = f"cdc_snapshot_{os.getpid()}_{time.time_ns() // 1000}_{number}"
                wait = CreationWait(slot, self._connection, self._context.stopping, self._context.report)
                holder = self._server.stream()
                try:
                    point, name = holder.export_snapshot(slot, wait)
                except CdcError:
                    holder.close()
                    raise
                wait.over()
                exported = Exported(name, point, holder)
                self.decoder.from_lsn[table.oid] = point
            self._reading(start=False).request(evolution.tables[table.oid], table.key, exported)
        for progress, gap in again:
            if progress.failed:
                self.decoder.hold(progress.oid)  # the first look finds whether it is mended
            else:
                progress.done = True
                evolution.begin(progress, sweep=gap)
        if self.reader is not None:
            # Not before all are asked for: the last row of all tables is told as such.
            self.reader.start()

    def _starts_over(self, stored: Mapping[str, Any], progress: SnapshotProgress, now: NamedTable | None) -> bool:
        """Whether nothing of what was read of the table before counts."""
        if stored["snapshot"] in {"failed", "stopped"} or stored.get("oid", progress.oid) != progress.oid:
            return True
        then = progress.fingerprint
        return not progress.done and now is not None and then is not None and now.fingerprint.key != then.key

    def _reading(self, *, start: bool = True) -> ChunkReader:
        """The reader of snapshots, made when it is needed first."""
        if self.reader is None:
            config = self._config
            run = f"{config.name}/{os.getpid()}/{time.time_ns()}"
            self.reader = ChunkReader(
                self._server.conninfo(),
                self._name,
                config.snapshot_fetch_size,
                run,
                lambda connection, oid: read_captured(connection, config, oid),
                config.schema_resnapshot_max_rows_per_second,
                silent=self.silent,
            )
        if start:
            self.reader.start()
        self._context.report("phase", "snapshot")
        return self.reader

    # -- what evolution asks for (`cdc.postgres.evolution.Actions`) ------------------------------------

    def hold(self, oid: int) -> None:
        self.decoder.hold(oid)
        self._stop_reading(oid)

    def leave(self, oid: int) -> None:
        self._stop_reading(oid)

    def read(self, progress: SnapshotProgress, table: TableInfo) -> None:
        self.decoder.release(progress.oid)
        self._touched.tables.add(progress.oid)
        self._reading().request(progress, table.key, None)

    def read_again(self, progress: SnapshotProgress) -> None:
        self._reading().request_again(progress)

    def _stop_reading(self, oid: int) -> None:
        self._touched.tables.discard(oid)
        if self.reader is not None:
            self.reader.cancel(oid)

    def key_changed(self, progress: SnapshotProgress) -> None:
        if self._config.schema_key_change_handling_mode == "renew":
            self._renew.add(progress.oid)
            self.evolution.begin(progress, sweep=True)

    def forget(self, progress: SnapshotProgress) -> Sweep | None:
        """The table was refused: the sweep that was asked for, if any, which must not happen.

        Its rows were not written: all that the topic holds of them would count as ghosts.
        """
        return self._sweeps.pop(progress.oid, None)

    # -- what is read ----------------------------------------------------------------------------------

    def marked(self, content: bytes, tx: Transaction, lsn: int, ordinal: int) -> Sequence[RowChange]:
        """The stream is at a marker: the records of its chunk, if it is one."""
        if self.reader is None:
            return ()
        ready = self.reader.take(content.decode("utf-8", "replace"))
        if isinstance(ready, Begun):
            self._begin(ready, tx, ordinal)
            return ()
        return () if ready is None else self._emit(ready, tx, lsn, ordinal)

    @property
    def awaited(self) -> bool:
        """Without messages: whether something waits for the stream to come further."""
        return self.reader is not None and self.reader.awaited

    def reached(self, lsn: int, place: Callable[[], tuple[Transaction, int, int]]) -> Sequence[RowChange]:
        """Without messages: the stream rests, and has passed all up to ``lsn``. The records of a chunk, if one may go.

        ``place`` makes a place for them.
        """
        ready = None if self.reader is None else self.reader.reached(lsn)
        if ready is None:
            return ()
        tx, at, ordinal = place()
        if isinstance(ready, Begun):
            self._begin(ready, tx, ordinal)
            return ()
        return self._emit(ready, tx, at, ordinal)

    def _begin(self, begun: Begun, tx: Transaction, ordinal: int) -> None:
        """The stream has passed the point from which a table is read again."""
        position = tx.position_prefix + b"%08x.%08x" % (ordinal, 0)
        progress = self.evolution.begun(begun.oid, position.decode())
        if progress is None:
            return
        progress.selection = self._hidden.get(progress.oid, progress.selection)
        self._begun[progress.oid] = begun
        if progress.oid not in self._renew:
            self._resume(progress)
            return
        info = read_captured(self._connection(), self._config, progress.oid)
        if info is not None:
            self._ask(Sweep(self._tables.from_catalog(info).shape, position, renew=True), progress)

    def _resume(self, progress: SnapshotProgress) -> None:
        """Tell the table's changes, and read its rows."""
        self._renew.discard(progress.oid)
        self.evolution.mended(progress)
        self.decoder.release(progress.oid)
        self._touched.tables.add(progress.oid)
        begun = self._begun.pop(progress.oid, None)
        if begun is not None:
            begun.go()

    def _ask(self, sweep: Sweep, progress: SnapshotProgress) -> None:
        self._sweeps[progress.oid] = sweep
        self._ask_runtime(sweep)

    def _emit(self, chunk: Chunk, tx: Transaction, lsn: int, ordinal: int) -> list[RowChange]:
        """The rows of a chunk as records of its marker, without those that the stream has told newer."""
        progress = self.evolution.tables.get(chunk.table.oid)
        if progress is None or progress.failed or progress.full_name != chunk.table.full_name:
            return []  # it was left, or stopped, since the chunk was read
        table = self._tables.from_catalog(chunk.table)
        shape = table.shape
        # A table that is not read in ranges of its key is read in one exported snapshot (H10).
        newer = self._touched.newer(chunk.snapshot, table.oid) if chunk.table.ordered else set()
        if newer is None:
            raise RetriableError(
                f"rows of {chunk.table.full_name} changed in ways that cannot be told one by one while a chunk of its "
                "snapshot was being read: reading the chunk again"
            )
        rows = chunk.rows
        out: list[RowChange] = []
        key = shape.key
        for row in rows:
            if newer and tuple(row[i] for i in key) in newer:
                continue
            table.masked(row)
            out.append(RowChange(shape, "r", row, None, row, tx, lsn, ordinal, len(out), marker="true"))
        if out:
            begun = any(other.rows for other in self.evolution.tables.values() if other.oid in self._wanted)
            if chunk.first:
                out[0].marker = "first_in_data_collection" if begun else "first"
            if chunk.last and (len(out) > 1 or begun):
                out[-1].marker = "last_in_data_collection"
            if chunk.final:
                out[-1].marker = "last"
        self._touched.forget(chunk.snapshot)
        progress.after = chunk.after
        progress.rows += len(rows)
        self.evolution.dirty.add(table.oid)
        if chunk.last:
            self._touched.tables.discard(table.oid)
            if progress.since:
                self._ask(Sweep(shape, progress.since.encode()), progress)
            else:
                self._done(progress)
        return out

    def _done(self, progress: SnapshotProgress) -> None:
        """All rows of the table are told, and nothing else is in its topic."""
        progress.done = True
        self.evolution.dirty.add(progress.oid)
        if not self._touched.tables:
            self._touched.clear()
        if all(other.done or other.failed for other in self.evolution.tables.values()):
            self._context.report("phase", "streaming")

    def swept(self, sweep: Sweep) -> None:
        """A sweep is done, and durable with all before it."""
        oid = next((oid for oid, asked in self._sweeps.items() if asked is sweep), 0)
        progress = self.evolution.tables.get(oid)
        self._sweeps.pop(oid, None)
        if progress is None or (progress.failed and not sweep.renew):
            return
        if sweep.renew:
            self._resume(progress)
        else:
            progress.since = ""
            self._done(progress)
