"""The source task: one replication stream, beside it the snapshots of tables that are not read yet.

One thread, the caller's, owns everything here but the `ChunkReader`'s reading.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog

from cdc.errors import FatalError, Finding, KeyChanged, RetriableError, TableError
from cdc.plugin import SourceTask, Sweep, TaskContext
from cdc.postgres import preparation
from cdc.postgres.captured import (
    is_hidden_otherwise,
    read_captured,
    selection_of,
    table_findings,
    table_warnings,
)
from cdc.postgres.catalog import TableInfo, table_bytes
from cdc.postgres.catalog_view import NamedTable
from cdc.postgres.changes import CapturedTable, Decoder
from cdc.postgres.choice import chosen_tables, set_identities
from cdc.postgres.config import PostgresConfig
from cdc.postgres.connection import Connection, application_name, connect
from cdc.postgres.evolution import Evolution
from cdc.postgres.fingerprint import Fingerprint
from cdc.postgres.headers import context_headers
from cdc.postgres.heartbeat import Heartbeat
from cdc.postgres.messages import Messages
from cdc.postgres.pgoutput import LogicalMessage, Relation, format_lsn
from cdc.postgres.position import MARK_PREFIX, StoredPosition, Tracker
from cdc.postgres.progress import SnapshotProgress
from cdc.postgres.publication import all_tables_warnings, ensure_publication
from cdc.postgres.reselect import reselect
from cdc.postgres.snapshot import MARKER_PREFIX, Begun, Chunk, ChunkReader, Exported
from cdc.postgres.stream import ReplicationStream
from cdc.postgres.tables import TableRegistry, require
from cdc.postgres.touched import TouchLog
from cdc.postgres.transactions import TransactionMonitor
from cdc.postgres.unavailable import mark_unknown
from cdc.postgres.watch import CatalogView, CatalogWatch, look
from cdc.record import ConnectRecord, RowChange, RowShape, Transaction

__all__ = ["PostgresSourceTask"]

_log = structlog.get_logger(__name__)

ORIGIN_SINCE: Final = 160000
"""START_REPLICATION takes the option origin."""
READ_BYTES: Final = 256 << 10
"""Bytes of the stream decoded in one poll."""
PATIENT_BYTES: Final = 1 << 30
"""Tables with keys are read before tables without up to this size."""
ACK_SECONDS: Final = 0.1
"""Shortest time between two acknowledgements while data flows."""


class PostgresSourceTask(SourceTask):
    """Streams one slot. See `cdc.plugin.SourceTask` for the contract, EXACTNESS.md H1 to H5 for the rules."""

    def __init__(self, config: PostgresConfig, context: TaskContext) -> None:
        super().__init__()
        self._config = config
        self._context = context
        self.source_id = config.slot
        self.headers = context_headers(config, context.task) if config.extended_headers_enabled else ()
        self._name = application_name(config.name, context.worker)
        self._partition = json.dumps([config.name, {"server": config.topic_prefix}], separators=(",", ":"))
        self._catalog: Connection | None = None
        self._stream: ReplicationStream | None = None
        self._reader: ChunkReader | None = None
        self._messages = Messages(config)
        self._heartbeat = Heartbeat(config, lambda: connect(config.conninfo(), self._name))
        self._touched = TouchLog()
        self._tables = TableRegistry(config, self._connection)
        self._watch: CatalogWatch | None = None
        self._begun: dict[int, Begun] = {}
        """Tables whose old keys are being deleted, before they are read again."""
        self._renew: set[int] = set()
        self._sweeps: dict[int, Sweep] = {}
        self._wanted: set[int] = set()
        self._hidden: dict[int, dict[str, str]] = {}
        self._evolution: Evolution
        self._decoder: Decoder
        self._tracker: Tracker
        self._first_offset = False
        self._status_at = 0.0
        self._acknowledged = 0

    # -- start --------------------------------------------------------------------------------------

    def start(self, offsets: Mapping[str, Any]) -> None:
        config = self._config
        connection = self._connection()
        settings = preparation.settings_of(connection)
        require(preparation.server_findings(settings))
        sender_timeout = int(settings.get("wal_sender_timeout", "60000")) / 1000
        if sender_timeout > 0:
            self.keep_alive_interval = min(config.status_update_interval_ms / 1000, sender_timeout / 3)
        else:
            self.keep_alive_interval = config.status_update_interval_ms / 1000
        stored_tables = self._stored_tables(offsets)
        chosen = chosen_tables(connection, config, stored_tables)
        version = connection.info.server_version
        # A table that was told before and cannot be any more must not stop the others: the first look finds it.
        new = [table for table in chosen.tables if table.full_name not in stored_tables]
        require(chosen.findings + table_findings(new, config, version) + _origin_findings(config, version))

        stored = self._stored(offsets)
        self._stream = stream = ReplicationStream(config.conninfo(), self._name)
        system = stream.identify()
        slot = preparation.slot_of(connection, config)
        preparation.verify_slot(slot, config, stored)
        if stored is not None:
            preparation.verify_position(stored, system, stream.timeline_history, config)
        told = {t.oid: stored_tables[t.full_name] for t in chosen.tables if t.full_name in stored_tables}
        set_identities(connection, chosen.alterations)
        gaps = ensure_publication(connection, config, chosen.tables, stored, told)
        view = look(connection, config, None)
        warnings = table_warnings(chosen.tables, config, version)
        for warning in warnings + all_tables_warnings(connection, config, chosen):
            _log.warning(warning, connector=config.name)
        if slot is None:
            begin = stream.create_slot(config.slot)
        else:
            preparation.wait_for_slot(
                lambda: preparation.slot_of(self._connection(), config),
                config.slot,
                sender_timeout,
                self._context.stopping,
                self._tell_waiting,
            )
            begin = slot.confirmed_flush_lsn or slot.restart_lsn or 0
        position = self._position(stored, system, begin)
        self._tracker = Tracker(position, time.monotonic())
        self._acknowledged = position.lsn if stored is not None else 0
        self._evolution = Evolution(config, self, self._context.report, set(stored_tables), version)
        self._tables.fingerprint_of = self._fingerprint
        self._decoder = Decoder(
            self,
            self._tracker,
            self._touched,
            position.epoch,
            position.open,
            tombstones=config.tombstones_on_delete,
            skipped=config.skipped,
            skip_unchanged=config.skip_messages_without_change,
            on_message=self._message,
            monitor=TransactionMonitor(config.topic_named(config.topic_transaction))
            if config.provide_transaction_metadata
            else None,
        )
        self._evolution.saw(view)
        self._plan_snapshots(stored_tables, chosen.tables, view, gaps)
        self._evolution.look(view)
        stream.start(config.slot, position.lsn, config.publication, config.publish_origin)
        self._watch = CatalogWatch(config, self._name)
        self._tables.on_relation = self._watch.wake
        self._watch.start(view)
        self._context.report("stream", {"slot": config.slot, "from": format_lsn(position.lsn), "epoch": position.epoch})

    def _stored(self, offsets: Mapping[str, Any]) -> StoredPosition | None:
        value = offsets.get(self._partition)
        return None if value is None else StoredPosition.from_json(value)

    def _position(self, stored: StoredPosition | None, system: Mapping[str, Any], begin: int) -> StoredPosition:
        origin = preparation.origin_of(system, self._config)
        if stored is None:
            self._first_offset = True
            return StoredPosition(preparation.next_epoch(0), begin, None, None, origin)
        same = all(stored.origin.get(key) == origin[key] for key in ("system_identifier", "timeline", "slot"))
        epoch = stored.epoch if same else preparation.next_epoch(stored.epoch)
        return StoredPosition(epoch, stored.lsn, stored.open, stored.last_commit_lsn, origin)

    def _stored_tables(self, offsets: Mapping[str, Any]) -> dict[str, Any]:
        """What is stored of tables, by full name."""
        found = {}
        for partition, value in offsets.items():
            owner, parts = json.loads(partition)
            if owner == self._config.name and parts.get("server") == self._config.topic_prefix and "table" in parts:
                found[parts["table"]] = value
        return found

    def _plan_snapshots(
        self, stored_tables: Mapping[str, Any], tables: Sequence[TableInfo], view: CatalogView, gaps: set[int]
    ) -> None:
        config = self._config
        mode = config.snapshot_mode
        evolution = self._evolution
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
            if stored is None:
                progress.selection = hidden
                # Stored before the first row is told: the fingerprint must be as old as that.
                progress.done = mode == "no_data" or not config.reads_rows(table.schema, table.name)
                evolution.dirty.add(table.oid)
            evolution.tables[table.oid] = progress
            if table.ordered:
                gap = stored is not None and (table.oid in gaps or self._starts_over(stored, progress, now))
                then = progress.selection
                # Rows that were told with other columns or masks are told again: what is hidden now is to go.
                if gap or (then is not None and is_hidden_otherwise(table, then, hidden)):
                    again.append((progress, gap))
                    continue
            elif not progress.done:
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
                holder = ReplicationStream(self._config.conninfo(), self._name)
                point, name = holder.export_snapshot(f"cdc_snapshot_{os.getpid()}_{number}")
                exported = Exported(name, point, holder)
                self._decoder.from_lsn[table.oid] = point
            self._reading(start=False).request(evolution.tables[table.oid], table.key, exported)
        for progress, gap in again:
            if progress.failed:
                self._decoder.hold(progress.oid)  # the first look finds whether it is mended
            else:
                progress.done = True
                evolution.begin(progress, sweep=gap)
        if self._reader is not None:
            # Not before all are asked for: the last row of all tables is told as such.
            self._reader.start()

    def _starts_over(self, stored: Mapping[str, Any], progress: SnapshotProgress, now: NamedTable | None) -> bool:
        """Whether nothing of what was read of the table before counts."""
        if stored["snapshot"] in {"failed", "stopped"} or stored.get("oid", progress.oid) != progress.oid:
            return True
        then = progress.fingerprint
        return not progress.done and now is not None and then is not None and now.fingerprint.key != then.key

    def _reading(self, *, start: bool = True) -> ChunkReader:
        """The reader of snapshots, made when it is needed first."""
        if self._reader is None:
            config = self._config
            run = f"{config.name}/{os.getpid()}/{time.time_ns()}"
            self._reader = ChunkReader(
                config.conninfo(),
                self._name,
                config.snapshot_fetch_size,
                run,
                lambda connection, oid: read_captured(connection, config, oid),
                config.schema_resnapshot_max_rows_per_second,
            )
        if start:
            self._reader.start()
        self._context.report("phase", "snapshot")
        return self._reader

    def _fingerprint(self, oid: int) -> Fingerprint | None:
        progress = self._evolution.tables.get(oid)
        return None if progress is None else progress.fingerprint

    # -- what evolution asks for (`cdc.postgres.evolution.Actions`) ------------------------------------

    def hold(self, oid: int) -> None:
        self._decoder.hold(oid)
        self._stop_reading(oid)

    def leave(self, oid: int) -> None:
        self._stop_reading(oid)

    def read(self, progress: SnapshotProgress, table: TableInfo) -> None:
        self._decoder.release(progress.oid)
        self._touched.tables.add(progress.oid)
        self._reading().request(progress, table.key, None)

    def read_again(self, progress: SnapshotProgress) -> None:
        self._reading().request_again(progress)

    def publish(self, tables: Mapping[int, TableInfo]) -> None:
        if self._watch is not None:
            self._watch.publish(tables)

    def _stop_reading(self, oid: int) -> None:
        self._touched.tables.discard(oid)
        if self._reader is not None:
            self._reader.cancel(oid)

    def captured(self, relation: Relation) -> CapturedTable | None:
        """As `cdc.postgres.changes.Tables`: a table that cannot be told stops, and the others do not."""
        try:
            return self._tables.captured(relation)
        except TableError as error:
            self._evolution.fail(relation.oid, str(error))
            return None

    # -- what the runtime answers ---------------------------------------------------------------------

    def refuse(self, shape: RowShape, error: TableError) -> None:
        progress = next(
            (p for p in self._evolution.tables.values() if (p.schema, p.name) == (shape.schema, shape.table)), None
        )
        if progress is None or progress.failed:
            # Left under this name, and stored as such: if it comes back, it is read again.
            _log.warning("changes of a table are left out", table=f"{shape.schema}.{shape.table}", cause=str(error))
            return
        self._evolution.fail(progress.oid, str(error))
        # Its rows were not written: all that the topic holds of them would count as ghosts.
        dropped = self._sweeps.pop(progress.oid, None)
        self.sweeps = [sweep for sweep in self.sweeps if sweep is not dropped]
        if isinstance(error, KeyChanged):
            self.key_changed(progress)

    def key_changed(self, progress: SnapshotProgress) -> None:
        if self._config.schema_key_change_handling_mode == "renew":
            self._renew.add(progress.oid)
            self._evolution.begin(progress, sweep=True)

    def place(self) -> tuple[Transaction, int, int]:
        tx, ordinal = self._decoder.place()
        return tx, tx.commit_lsn, ordinal

    def swept(self, sweep: Sweep) -> None:
        oid = next((oid for oid, asked in self._sweeps.items() if asked is sweep), 0)
        progress = self._evolution.tables.get(oid)
        self._sweeps.pop(oid, None)
        if progress is None or (progress.failed and not sweep.renew):
            return
        if sweep.renew:
            self._resume(progress)
        else:
            progress.since = ""
            self._done(progress)

    # -- the loop -----------------------------------------------------------------------------------

    def poll(self, timeout: float) -> Sequence[RowChange | ConnectRecord]:
        stream = self._running()
        if self._reader is not None:
            self._reader.raise_error()
            while (lost := self._reader.lost()) is not None:
                self._evolution.lost(*lost)
        if self._watch is not None and (view := self._watch.take()) is not None:
            self._evolution.look(view)
        decoder = self._decoder
        wait = self._heartbeat.wait
        timeout = min(timeout, self.keep_alive_interval if wait is None else wait)
        frames = stream.read(min(timeout, self.keep_alive_interval), READ_BYTES)
        changes = decoder.feed(frames) if frames else []
        if decoder.reselects:
            pending, decoder.reselects = decoder.reselects, []
            mode = self._config.toast_handling_mode
            if mode == "reselect":
                stopping, infos = self._context.stopping, self._tables.infos
                reselect(pending, self._connection, infos, self.keep_alive, stopping, self._fingerprint)
            else:
                mark_unknown(pending, self._config.placeholder if mode == "placeholder" else None)
        if beats := self._heartbeat.records():
            changes += beats
            self._tracker.told()
        if decoder.reply_requested:
            decoder.reply_requested = False
            self._send_status()
        else:
            self.keep_alive()
        return changes

    def offsets(self) -> Mapping[str, Any]:
        evolution = self._evolution
        if not (evolution.dirty or evolution.left or self._first_offset or self._tracker.due(time.monotonic())):
            return {}
        values: dict[str, Any] = {self._partition: self._tracker.offer().to_json()}
        for name, value in evolution.left.items():
            values[self._table_partition(name)] = value
        for oid in evolution.dirty:
            progress = evolution.tables[oid]
            values[self._table_partition(progress.full_name)] = progress.to_json()
        return values

    def committed(self) -> None:
        self._evolution.dirty.clear()
        self._evolution.left.clear()
        self._first_offset = False
        self._tracker.stored(time.monotonic())
        if self._tracker.durable > self._acknowledged and time.monotonic() - self._status_at >= ACK_SECONDS:
            self._send_status()

    def keep_alive(self) -> None:
        elapsed = time.monotonic() - self._status_at
        behind = self._tracker.durable > self._acknowledged
        if elapsed >= self.keep_alive_interval or (behind and elapsed >= ACK_SECONDS):
            self._send_status()

    def stop(self) -> None:
        if self._watch is not None:
            self._watch.stop()
        if self._reader is not None:
            self._reader.stop()
        if self._stream is not None:
            try:
                if self._tracker_started():
                    self._send_status()
            except (RetriableError, FatalError):
                # The server is gone: it will be told after the next start.
                self._context.report("stream", {"lost": "before the last acknowledgement"})
            self._stream.close()
        if self._catalog is not None:
            self._catalog.close()
        self._heartbeat.close()

    # -- parts --------------------------------------------------------------------------------------

    def metrics(self) -> dict[str, float]:
        """Figures of the stream for the supervisor."""
        tables = self._evolution.tables.values()
        return {
            "changes": self._decoder.changes,
            "transactions": self._decoder.commits,
            "snapshot_rows": sum(progress.rows for progress in tables),
            "snapshot_tables_left": sum(not (progress.done or progress.failed) for progress in tables),
            "tables_failed": sum(bool(progress.failed) for progress in tables),
            "flushed_lsn": self._tracker.durable,
            "received_lsn": self._tracker.received,
        }

    @property
    def finished(self) -> bool:
        """Whether there is nothing more to do (snapshot mode ``initial_only``)."""
        return self._config.snapshot_mode == "initial_only" and all(
            p.done or p.failed for p in self._evolution.tables.values()
        )

    def _message(
        self, message: LogicalMessage, tx: Transaction, lsn: int, ordinal: int
    ) -> Sequence[RowChange | ConnectRecord]:
        if message.prefix == MARK_PREFIX:
            self._tracker.asked()
        if message.prefix != MARKER_PREFIX or self._reader is None:
            record = self._messages.record(message, tx, ordinal)
            return () if record is None else (record,)
        ready = self._reader.take(message.content.decode("utf-8", "replace"))
        if isinstance(ready, Begun):
            self._begin(ready, tx, ordinal)
            return []
        return [] if ready is None else self._emit(ready, tx, lsn, ordinal)

    def _begin(self, begun: Begun, tx: Transaction, ordinal: int) -> None:
        """The stream has passed the point from which a table is read again."""
        position = tx.position_prefix + b"%08x.%08x" % (ordinal, 0)
        progress = self._evolution.begun(begun.oid, position.decode())
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
        self._evolution.mended(progress)
        self._decoder.release(progress.oid)
        self._touched.tables.add(progress.oid)
        begun = self._begun.pop(progress.oid, None)
        if begun is not None:
            begun.go()

    def _ask(self, sweep: Sweep, progress: SnapshotProgress) -> None:
        self._sweeps[progress.oid] = sweep
        self.sweeps.append(sweep)

    def _emit(self, chunk: Chunk, tx: Transaction, lsn: int, ordinal: int) -> list[RowChange]:
        """The rows of a chunk as records of its marker, without those that the stream has told newer."""
        progress = self._evolution.tables.get(chunk.table.oid)
        if progress is None or progress.failed or progress.full_name != chunk.table.full_name:
            return []  # it was left, or stopped, since the chunk was read
        table: CapturedTable = self._tables.from_catalog(chunk.table)
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
            begun = any(other.rows for other in self._evolution.tables.values() if other.oid in self._wanted)
            if chunk.first:
                out[0].marker = "first_in_data_collection" if begun else "first"
            if chunk.last and (len(out) > 1 or begun):
                out[-1].marker = "last_in_data_collection"
            if chunk.final:
                out[-1].marker = "last"
        self._touched.forget(chunk.snapshot)
        progress.after = chunk.after
        progress.rows += len(rows)
        self._evolution.dirty.add(table.oid)
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
        self._evolution.dirty.add(progress.oid)
        if not self._touched.tables:
            self._touched.clear()
        if all(other.done or other.failed for other in self._evolution.tables.values()):
            self._context.report("phase", "streaming")

    def _tell_waiting(self, what: str) -> None:
        if what:
            _log.warning("waiting", cause=what)
        self._context.report("waiting", what)

    def _send_status(self) -> None:
        self._running().send_status(self._tracker.received, self._tracker.durable, self._tracker.durable)
        self._acknowledged = self._tracker.durable
        self._status_at = time.monotonic()

    def _running(self) -> ReplicationStream:
        if self._stream is None:
            raise FatalError("the source task was used before it was started")
        return self._stream

    def _tracker_started(self) -> bool:
        return hasattr(self, "_tracker")

    def _connection(self) -> Connection:
        if self._catalog is None or self._catalog.closed:
            self._catalog = connect(self._config.conninfo(), self._name)
        return self._catalog

    def _table_partition(self, full_name: str) -> str:
        parts = {"server": self._config.topic_prefix, "table": full_name}
        return json.dumps([self._config.name, parts], separators=(",", ":"))


def _origin_findings(config: PostgresConfig, server_version: int) -> list[Finding]:
    if config.publish_origin == "any" or server_version >= ORIGIN_SINCE:
        return []
    return [Finding("publish.origin=none needs Postgres 16", key="publish.origin", remedy="Set it to any, or upgrade")]
