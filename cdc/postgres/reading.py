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
from cdc.postgres.adhoc import AdHocs
from cdc.postgres.captured import read_captured
from cdc.postgres.catalog import TableInfo, table_bytes
from cdc.postgres.changes import Decoder
from cdc.postgres.chunk_records import chunk_records
from cdc.postgres.chunks import Begun, Chunk, Exported, Reading
from cdc.postgres.config import PostgresConfig
from cdc.postgres.evolution import Evolution
from cdc.postgres.planning import take_up
from cdc.postgres.progress import AdHoc, SnapshotProgress
from cdc.postgres.readings import Readings
from cdc.postgres.server import Server
from cdc.postgres.slot_creation import CreationWait
from cdc.postgres.tables import TableRegistry
from cdc.postgres.touched import TouchLog
from cdc.postgres.watch import CatalogView
from cdc.record import RowChange, RowShape, Transaction

__all__ = ["Snapshots"]

PATIENT_BYTES: Final = 1 << 30
"""Tables with keys are read before tables without up to this size."""
CHUNK_ATTEMPTS: Final = 5
"""How often a chunk that a signal asked for is read before its snapshot fails."""


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
        self.readings = Readings(config, name, server, touched)
        self.adhocs = AdHocs(self, context.report)
        """What signals asked for."""
        self._renew: set[int] = set()
        """Tables whose old keys are to be deleted before they are read again."""
        self._sweeps: dict[int, Sweep] = {}
        self._adhoc_sweeps: dict[int, AdHoc] = {}
        self._retries: dict[int, int] = {}
        self._wanted: set[int] = set()
        self._hidden: dict[int, dict[str, str]] = {}

    def stop(self) -> None:
        """Stop reading."""
        self.readings.stop()

    def look(self) -> None:
        """Raise what the reader failed of, and find tables that went away under it."""
        reader = self.readings.reader
        if reader is not None:
            reader.raise_error()
            while (lost := reader.lost()) is not None:
                self._lost(*lost)

    def _lost(self, reading: Reading, reason: str) -> None:
        if not self.readings.is_present(reading):
            return
        self.readings.leave(reading.oid)
        progress = self.evolution.tables.get(reading.oid)
        if reading.adhoc is None:
            self.evolution.lost(reading.oid, reason)
        elif progress is not None:
            self.readings.unwatch(reading.oid)
            self.adhocs.failed(progress, reading.adhoc, reason)

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
        config, evolution = self._config, self.evolution
        wanted = []
        again = []
        for table in tables:
            stored, now = stored_tables.get(table.full_name), view.tables.get(table.oid)
            found = take_up(table, stored, now, config, gap=table.oid in gaps, since=since)
            progress = evolution.tables[table.oid] = found.progress
            self._hidden[table.oid] = found.hidden
            if found.fresh:
                evolution.dirty.add(table.oid)
            if found.again:
                again.append((progress, found.gap))
            elif not progress.done:
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
            readings = {table.oid: self._first_reading(table) for table in wanted}
            self.readings.expect(list(readings.values()))
        self._wanted = {table.oid for table in wanted}
        for number, table in enumerate(wanted):
            if table.ordered:
                self.readings.watch(table.oid)
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
                readings[table.oid].exported = Exported(name, point, holder)
                self.decoder.from_lsn[table.oid] = point
            self._request(readings[table.oid], start=False)
        for progress, gap in again:
            if progress.failed:  # the first look finds whether it is mended
                if not progress.queued:
                    self.decoder.hold(progress.oid)
            else:
                progress.done = True
                evolution.begin(progress, sweep=gap)
        # Not before all are asked for: the last row of all tables is told as such.
        self.readings.start()
        for progress in evolution.tables.values():
            self.adhocs.go_on(progress)

    def _first_reading(self, table: TableInfo) -> Reading:
        """What is left to read of a table that was never read to its end."""
        progress = self.evolution.tables[table.oid]
        first = progress.rows == 0
        # What is swept afterwards is read whole: else rows that are there would count as gone.
        statement = "" if progress.since else self._config.snapshot_statements.get(table.full_name, "")
        return Reading(table.oid, table.schema, table.name, table.key, progress.after, first, statement=statement)

    def _request(self, reading: Reading, *, start: bool = True) -> None:
        self.readings.request(reading, start=start)
        if reading.adhoc is None:
            self._context.report("phase", "snapshot")

    # -- what evolution asks for (`cdc.postgres.evolution.Actions`) ------------------------------------

    def hold(self, oid: int) -> None:
        self.decoder.hold(oid)
        self._leave(oid, "the table is not told any more")

    def renew(self, oid: int) -> None:
        self.decoder.renew(oid)

    def leave(self, oid: int) -> None:
        self._leave(oid, "the table is not captured any more")

    def read(self, progress: SnapshotProgress, table: TableInfo) -> None:
        self.decoder.release(progress.oid)
        self.readings.watch(progress.oid)
        self._request(self._first_reading(table))

    def read_again(self, progress: SnapshotProgress) -> None:
        if self.under_way(progress.oid) is not None:
            self.stop_reading(progress.oid)
        self.adhocs.superseded(progress)
        pace = self._config.schema_resnapshot_max_rows_per_second
        self._request(Reading(progress.oid, progress.schema, progress.name, marked=True, rows_per_second=pace))

    def _leave(self, oid: int, why: str) -> None:
        progress = self.evolution.tables.get(oid)
        if progress is not None:
            self.adhocs.drop(progress, "FAILED", f"{why}: {progress.failed}" if progress.failed else why)
        self.stop_reading(oid)

    # -- what signals ask for (`cdc.postgres.adhoc.Host`) ----------------------------------------------

    def idle(self, oid: int) -> bool:
        return self.readings.of(oid) is None and oid not in self._sweeps

    def under_way(self, oid: int) -> AdHoc | None:
        reading = self.readings.of(oid)
        return self._adhoc_sweeps.get(oid) if reading is None else reading.adhoc

    def start_reading(self, reading: Reading) -> None:
        if not reading.marked:
            self.readings.watch(reading.oid)
        self._request(reading)

    def stop_reading(self, oid: int) -> None:
        self.readings.end(oid)
        if self._adhoc_sweeps.pop(oid, None) is not None:
            self._sweeps.pop(oid, None)

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
        reader = self.readings.reader
        if reader is None:
            return ()
        ready = reader.take(content.decode("utf-8", "replace"))
        if isinstance(ready, Begun):
            self._begin(ready, tx, ordinal)
            return ()
        return () if ready is None else self._emit(ready, tx, lsn, ordinal)

    @property
    def awaited(self) -> bool:
        """Without messages: whether something waits for the stream to come further."""
        readings = self.readings
        return readings.silent and readings.reader is not None and readings.reader.awaited

    def reached(self, lsn: int, place: Callable[[], tuple[Transaction, int, int]]) -> Sequence[RowChange]:
        """Without messages: the stream rests, and has passed all up to ``lsn``. The records of a chunk, if one may go.

        ``place`` makes a place for them.
        """
        reader = self.readings.reader
        ready = None if reader is None else reader.reached(lsn)
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
        reading = begun.reading
        if not self.readings.is_present(reading):
            return
        if reading.adhoc is not None:
            reading.adhoc.since = position.decode()
            self.evolution.dirty.add(reading.oid)
            self.readings.watch(reading.oid)
            reading.go()
            return
        progress = self.evolution.begun(reading.oid, position.decode())
        if progress is None:
            return
        progress.selection = self._hidden.get(progress.oid, progress.selection)
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
        self.readings.watch(progress.oid)
        reading = self.readings.of(progress.oid)
        if reading is not None:
            reading.go()

    def _ask(self, sweep: Sweep, progress: SnapshotProgress) -> None:
        self._sweeps[progress.oid] = sweep
        self._ask_runtime(sweep)

    def _emit(self, chunk: Chunk, tx: Transaction, lsn: int, ordinal: int) -> list[RowChange]:
        """The rows of a chunk as records of its marker, without those that the stream has told newer."""
        reading = chunk.reading
        progress = self.evolution.tables.get(chunk.table.oid)
        if progress is None or progress.failed or progress.full_name != chunk.table.full_name:
            return []  # it was left, or stopped, since the chunk was read
        if not self.readings.is_present(reading):
            return []  # it is read in another way by now, or not at all
        table = self._tables.from_catalog(chunk.table)
        # A table that is not read in ranges of its key is read in one exported snapshot (H10).
        newer = self._touched.newer(chunk.snapshot, table.oid) if chunk.table.ordered else set()
        if newer is None and reading.adhoc is not None:
            self._read_chunk_again(progress, reading.adhoc)
            return []
        if newer is None:
            raise RetriableError(
                f"rows of {chunk.table.full_name} changed in ways that cannot be told one by one while a chunk of its "
                "snapshot was being read: reading the chunk again"
            )
        begun = any(other.rows for other in self.evolution.tables.values() if other.oid in self._wanted)
        out = chunk_records(chunk, table, newer, tx, lsn, ordinal, begun=begun)
        self.readings.told(chunk)
        adhoc = reading.adhoc
        self._retries.pop(progress.oid, None)
        target = progress if adhoc is None else adhoc
        target.after = chunk.after
        target.rows += len(chunk.rows)
        self.evolution.dirty.add(table.oid)
        if chunk.last:
            self.readings.end(progress.oid)
            self._read_whole(progress, adhoc, table.shape)
        return out

    def _read_chunk_again(self, progress: SnapshotProgress, adhoc: AdHoc) -> None:
        """Rows changed in ways that cannot be told one by one while the chunk was being read (TRUNCATE, too many)."""
        self.stop_reading(progress.oid)
        self._retries[progress.oid] = attempts = self._retries.get(progress.oid, 0) + 1
        if attempts < CHUNK_ATTEMPTS:
            self.adhocs.go_on(progress)
            return
        del self._retries[progress.oid]
        self.adhocs.failed(
            progress,
            adhoc,
            f"so many rows of {progress.full_name} changed each time while one chunk was being read that they could "
            "not be told apart. Remedy: lower snapshot.fetch.size, or make an index for the condition",
        )

    def _read_whole(self, progress: SnapshotProgress, adhoc: AdHoc | None, shape: RowShape) -> None:
        """All rows of a table are told; what must not be in its topic any more goes next, if that was asked for."""
        if adhoc is not None and adhoc.sweep:
            self._adhoc_sweeps[progress.oid] = adhoc
            self._ask(Sweep(shape, adhoc.since.encode()), progress)
        elif adhoc is not None:
            self.adhocs.ended(progress, adhoc)
        elif progress.since:
            self._ask(Sweep(shape, progress.since.encode()), progress)
        else:
            self._done(progress)

    def _done(self, progress: SnapshotProgress) -> None:
        """All rows of the table are told, and nothing else is in its topic."""
        progress.done = True
        self.evolution.dirty.add(progress.oid)
        if all(other.done or other.failed for other in self.evolution.tables.values()):
            self._context.report("phase", "streaming")
        self.adhocs.go_on(progress)

    def swept(self, sweep: Sweep, declined: str = "") -> None:
        """A sweep is done, and durable with all before it; or it was declined, for a reason."""
        oid = next((oid for oid, asked in self._sweeps.items() if asked is sweep), 0)
        progress = self.evolution.tables.get(oid)
        self._sweeps.pop(oid, None)
        adhoc = self._adhoc_sweeps.pop(oid, None)
        if progress is None or (progress.failed and not sweep.renew):
            return
        if sweep.renew:
            self._resume(progress)
        elif adhoc is not None and declined:
            self.adhocs.failed(progress, adhoc, f"all rows are told, but {declined}")
        elif adhoc is not None:
            self.adhocs.ended(progress, adhoc)
        else:
            progress.since = ""
            self._done(progress)
