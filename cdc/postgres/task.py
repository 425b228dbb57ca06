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

from cdc.errors import FatalError, Finding, RetriableError
from cdc.plugin import SourceTask, TaskContext
from cdc.postgres import preparation
from cdc.postgres.captured import read_captured, table_findings, table_warnings
from cdc.postgres.catalog import TableInfo, table_bytes
from cdc.postgres.changes import CapturedTable, Decoder
from cdc.postgres.choice import chosen_tables, set_identities
from cdc.postgres.config import PostgresConfig
from cdc.postgres.connection import Connection, application_name, connect
from cdc.postgres.headers import context_headers
from cdc.postgres.pgoutput import LogicalMessage, format_lsn
from cdc.postgres.position import MARK_PREFIX, StoredPosition, Tracker
from cdc.postgres.publication import ensure_publication
from cdc.postgres.reselect import reselect
from cdc.postgres.snapshot import MARKER_PREFIX, Chunk, ChunkReader, Exported, SnapshotProgress
from cdc.postgres.stream import ReplicationStream
from cdc.postgres.tables import TableRegistry, require
from cdc.postgres.touched import TouchLog
from cdc.postgres.unavailable import mark_unknown
from cdc.record import RowChange, Transaction

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
        self._config = config
        self._context = context
        self.source_id = config.slot
        self.headers = context_headers(config, context.task) if config.extended_headers_enabled else ()
        self._name = application_name(config.name, context.worker)
        self._partition = json.dumps([config.name, {"server": config.topic_prefix}], separators=(",", ":"))
        self._catalog: Connection | None = None
        self._stream: ReplicationStream | None = None
        self._reader: ChunkReader | None = None
        self._touched = TouchLog()
        self._tables = TableRegistry(config, self._connection)
        self._progress: dict[int, SnapshotProgress] = {}
        self._dirty: set[int] = set()
        self._wanted: set[int] = set()
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
        chosen = chosen_tables(connection, config)
        version = connection.info.server_version
        require(chosen.findings + table_findings(chosen.tables, config, version) + _origin_findings(config, version))

        stored = self._stored(offsets)
        self._stream = stream = ReplicationStream(config.conninfo(), self._name)
        system = stream.identify()
        slot = preparation.slot_of(connection, config)
        preparation.verify_slot(slot, config, stored)
        if stored is not None:
            preparation.verify_position(stored, system, stream.timeline_history, config)
        told = {table.oid: offsets.get(self._table_partition(table.schema, table.name)) for table in chosen.tables}
        set_identities(connection, chosen.alterations)
        ensure_publication(
            connection, config, chosen.tables, stored, {oid: offset for oid, offset in told.items() if offset}
        )
        for warning in table_warnings(chosen.tables, config, version):
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
        self._decoder = Decoder(
            self._tables,
            self._tracker,
            self._touched,
            position.epoch,
            position.open,
            tombstones=config.tombstones_on_delete,
            skipped=config.skipped,
            skip_unchanged=config.skip_messages_without_change,
            on_message=self._message,
        )
        self._plan_snapshots(offsets, chosen.tables)
        stream.start(config.slot, position.lsn, config.publication, config.publish_origin)
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

    def _plan_snapshots(self, offsets: Mapping[str, Any], tables: Sequence[TableInfo]) -> None:
        config = self._config
        mode = config.snapshot_mode
        wanted = []
        for table in tables:
            stored = offsets.get(self._table_partition(table.schema, table.name))
            progress = SnapshotProgress(table.oid, table.schema, table.name)
            if stored is not None and not (mode == "always" and stored.get("snapshot") == "done"):
                progress.done = stored["snapshot"] == "done"
                progress.rows = int(stored["rows"])
                progress.after = stored["after"]
            if stored is None and (mode == "no_data" or not config.reads_rows(table.schema, table.name)):
                progress.done = True
                self._dirty.add(table.oid)
            if not table.ordered and not progress.done:
                progress.rows, progress.after = 0, None
            self._progress[table.oid] = progress
            if not progress.done:
                wanted.append(table)
        if not wanted:
            return
        # By name, unless that takes long: the exported snapshots of tables without key hold back vacuum till then.
        keyed = table_bytes(self._connection(), [table.oid for table in wanted if table.ordered])
        wanted.sort(key=lambda table: (keyed > PATIENT_BYTES and table.ordered, table.schema, table.name))
        run = f"{self._config.name}/{os.getpid()}/{time.time_ns()}"
        self._wanted = {table.oid for table in wanted}
        reader = ChunkReader(
            self._config.conninfo(),
            self._name,
            self._config.snapshot_fetch_size,
            run,
            lambda connection, oid: read_captured(connection, config, oid),
        )
        for number, table in enumerate(wanted):
            exported = None
            if table.ordered:
                self._touched.tables.add(table.oid)
            else:
                holder = ReplicationStream(self._config.conninfo(), self._name)
                point, name = holder.export_snapshot(f"cdc_snapshot_{os.getpid()}_{number}")
                exported = Exported(name, point, holder)
                self._decoder.from_lsn[table.oid] = point
            reader.request(self._progress[table.oid], table.key, exported)
        reader.start()
        self._reader = reader
        self._context.report("phase", "snapshot")

    # -- the loop -----------------------------------------------------------------------------------

    def poll(self, timeout: float) -> Sequence[RowChange]:
        stream = self._running()
        if self._reader is not None:
            self._reader.raise_error()
        decoder = self._decoder
        frames = stream.read(min(timeout, self.keep_alive_interval), READ_BYTES)
        changes = decoder.feed(frames) if frames else []
        if decoder.reselects:
            pending, decoder.reselects = decoder.reselects, []
            mode = self._config.toast_handling_mode
            if mode == "reselect":
                reselect(pending, self._connection, self._tables.infos, self.keep_alive, self._context.stopping)
            else:
                mark_unknown(pending, self._config.placeholder if mode == "placeholder" else None)
        if decoder.reply_requested:
            decoder.reply_requested = False
            self._send_status()
        else:
            self.keep_alive()
        return changes

    def offsets(self) -> Mapping[str, Any]:
        if not (self._dirty or self._first_offset or self._tracker.due(time.monotonic())):
            return {}
        values: dict[str, Any] = {self._partition: self._tracker.offer().to_json()}
        for oid in self._dirty:
            progress = self._progress[oid]
            values[self._table_partition(progress.schema, progress.name)] = progress.to_json()
        return values

    def committed(self) -> None:
        self._dirty.clear()
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

    # -- parts --------------------------------------------------------------------------------------

    def metrics(self) -> dict[str, float]:
        """Figures of the stream for the supervisor."""
        return {
            "changes": self._decoder.changes,
            "transactions": self._decoder.commits,
            "snapshot_rows": sum(progress.rows for progress in self._progress.values()),
            "snapshot_tables_left": sum(not progress.done for progress in self._progress.values()),
            "flushed_lsn": self._tracker.durable,
            "received_lsn": self._tracker.received,
        }

    @property
    def finished(self) -> bool:
        """Whether there is nothing more to do (snapshot mode ``initial_only``)."""
        return self._config.snapshot_mode == "initial_only" and all(p.done for p in self._progress.values())

    def _message(self, message: LogicalMessage, tx: Transaction, lsn: int, ordinal: int) -> list[RowChange]:
        if message.prefix == MARK_PREFIX:
            self._tracker.asked()
        if message.prefix != MARKER_PREFIX or self._reader is None:
            return []
        chunk = self._reader.take(message.content.decode("utf-8", "replace"))
        return [] if chunk is None else self._emit(chunk, tx, lsn, ordinal)

    def _emit(self, chunk: Chunk, tx: Transaction, lsn: int, ordinal: int) -> list[RowChange]:
        """The rows of a chunk as records of its marker, without those that the stream has told newer."""
        table: CapturedTable = self._tables.from_catalog(chunk.table)
        shape = table.shape
        progress = self._progress[chunk.table.oid]
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
            begun = any(other.rows for other in self._progress.values() if other.oid in self._wanted)
            if chunk.first:
                out[0].marker = "first_in_data_collection" if begun else "first"
            if chunk.last and (len(out) > 1 or begun):
                out[-1].marker = "last_in_data_collection"
            if chunk.final:
                out[-1].marker = "last"
        self._touched.forget(chunk.snapshot)
        progress.after = chunk.after
        progress.rows += len(rows)
        progress.done = chunk.last
        self._dirty.add(chunk.table.oid)
        if chunk.last:
            self._touched.tables.discard(table.oid)
            if all(other.done for other in self._progress.values()):
                self._touched.clear()
                self._context.report("phase", "streaming")
        return out

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

    def _table_partition(self, schema: str, name: str) -> str:
        parts = {"server": self._config.topic_prefix, "table": f"{schema}.{name}"}
        return json.dumps([self._config.name, parts], separators=(",", ":"))


def _origin_findings(config: PostgresConfig, server_version: int) -> list[Finding]:
    if config.publish_origin == "any" or server_version >= ORIGIN_SINCE:
        return []
    return [Finding("publish.origin=none needs Postgres 16", key="publish.origin", remedy="Set it to any, or upgrade")]
