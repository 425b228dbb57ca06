"""The source task: one replication stream, and beside it the reading of tables (`cdc.postgres.reading`).

One thread, the caller's, owns everything here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog

from cdc.errors import FatalError, GapError, KeyChanged, RetriableError, TableError
from cdc.plugin import SourceTask, Sweep, TaskContext
from cdc.postgres import preparation
from cdc.postgres.captured import (
    table_findings,
    table_warnings,
)
from cdc.postgres.captured_table import CapturedTable
from cdc.postgres.catalog import TableInfo
from cdc.postgres.changes import Decoder
from cdc.postgres.choice import chosen_tables, set_identities
from cdc.postgres.config import PostgresConfig
from cdc.postgres.connection import application_name
from cdc.postgres.evolution import Evolution
from cdc.postgres.fingerprint import Fingerprint
from cdc.postgres.headers import context_headers
from cdc.postgres.heartbeat import Heartbeat
from cdc.postgres.messages import Messages
from cdc.postgres.partitions import Partitions
from cdc.postgres.pgoutput import LogicalMessage, Relation, format_lsn
from cdc.postgres.position import MARK_PREFIX, Reset, StoredPosition, Tracker
from cdc.postgres.progress import SnapshotProgress
from cdc.postgres.publication import all_tables_warnings, ensure_publication
from cdc.postgres.reading import Snapshots
from cdc.postgres.reselect import reselect
from cdc.postgres.server import Server
from cdc.postgres.signal_table import SignalTable, find_signal_table
from cdc.postgres.silence import Silence
from cdc.postgres.slot_keeper import SlotKeeper
from cdc.postgres.snapshot import MARKER_PREFIX
from cdc.postgres.standby_checks import failover_findings, feedback_findings
from cdc.postgres.stream import PublicationMissing, ReplicationStream
from cdc.postgres.tables import TableRegistry, require
from cdc.postgres.touched import TouchLog
from cdc.postgres.transactions import TransactionMonitor
from cdc.postgres.unavailable import mark_unknown
from cdc.postgres.watch import CatalogWatch, look
from cdc.record import ConnectRecord, Position, RowChange, RowShape, Transaction

__all__ = ["PostgresSourceTask"]

_log = structlog.get_logger(__name__)

READ_BYTES: Final = 256 << 10
"""Bytes of the stream decoded in one poll."""
SILENT_POLL_S: Final = 0.02
"""Longest wait for the stream while chunks are read that nothing in it announces."""
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
        self._server = Server(config, self._name)
        self._partitions = Partitions(config.name, config.topic_prefix)
        self._stream: ReplicationStream | None = None
        self._messages = Messages(config)
        self._heartbeat = Heartbeat(config, self._server.connect)
        self._touched = TouchLog()
        self._tables = TableRegistry(config, self._server.connection)
        self._watch: CatalogWatch | None = None
        self._snapshots = Snapshots(
            config,
            context,
            self._name,
            self._tables,
            self._touched,
            self._server,
            self._sweep,
            self._publish,
        )
        self._evolution: Evolution
        self._decoder: Decoder
        self._tracker: Tracker
        self._first_offset = False
        self._given_up: Reset | None = None
        self._timeline = self._epoch = 0
        self._status_at = 0.0
        self._acknowledged = 0
        self._silence = Silence(config.wal_receiver_timeout_ms / 1000)

    # -- start --------------------------------------------------------------------------------------

    def start(self, offsets: Mapping[str, Any]) -> None:
        config = self._config
        connection = self._server.connection()
        settings = preparation.settings_of(connection)
        require(preparation.server_findings(settings, config, standby=self._server.standby))
        sender_timeout = int(settings.get("wal_sender_timeout", "60000")) / 1000
        if sender_timeout > 0:
            self.keep_alive_interval = min(config.status_update_interval_ms / 1000, sender_timeout / 3)
        else:
            self.keep_alive_interval = config.status_update_interval_ms / 1000
        stored_tables = self._partitions.tables(offsets)
        chosen = chosen_tables(connection, config, stored_tables)
        version = connection.info.server_version
        # A table that was told before and cannot be any more must not stop the others: the first look finds it.
        new = [table for table in chosen.tables if table.full_name not in stored_tables]
        signals, faults = find_signal_table(connection, config)
        require(chosen.findings + table_findings(new, config, version) + faults)

        stored, reset = self._stored(offsets)
        self._stream = stream = self._server.stream()
        system = stream.identify()
        keeper = SlotKeeper(config, self._server, sender_timeout, self._context.stopping, self._context.report)
        told = {t.oid: stored_tables[t.full_name] for t in chosen.tables if t.full_name in stored_tables}
        published = list(chosen.tables)
        if signals is not None and signals.oid not in {table.oid for table in published}:
            published.append(signals)

        def prepared() -> set[int]:
            keeper.verify(stream, system, stored, reset)
            set_identities(connection, chosen.alterations)
            # After a reset every table is read again.
            return ensure_publication(connection, config, published, stored, told if reset is None else {})

        try:
            gaps = prepared()
        except GapError as error:
            if config.snapshot_mode != "when_needed" or stored is None:
                raise
            given_up = Reset(preparation.next_epoch(stored.epoch), stored.lsn)
            _log.warning("every table is read again, because snapshot.mode is when_needed", gap=str(error))
            stored, reset = None, given_up
            gaps = prepared()
        view = look(connection, config, None)
        warnings = table_warnings(chosen.tables, config, version)
        warnings += [str(finding) for finding in feedback_findings(settings, standby=self._server.standby)]
        warnings += [
            str(finding) for finding in failover_findings(connection, config, settings, standby=self._server.standby)
        ]
        for warning in warnings + all_tables_warnings(connection, config, chosen):
            _log.warning(warning, connector=config.name)
        begin = keeper.take(stream, stored)
        self._first_offset = stored is None
        position = preparation.begin_at(stored, reset, begin, preparation.origin_of(system, config))
        self._timeline, self._epoch = int(system["timeline"]), position.epoch
        self._tracker = Tracker(position, time.monotonic())
        self._acknowledged = position.lsn if stored is not None else 0
        self._evolution = Evolution(config, self._snapshots, self._context.report, set(stored_tables), version)
        self._tables.fingerprint_of = self._fingerprint
        self._tables.on_doubt = self._evolution.untold
        self._tables.on_columns = self._evolution.telling
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
        self._snapshots.evolution, self._snapshots.decoder = self._evolution, self._decoder
        self._snapshots.readings.silent = config.read_only or self._server.standby
        if self._snapshots.readings.silent:
            self._decoder.at_rest = self._at_rest
        since = "" if reset is None else Position(position.epoch, begin - 1, 0, 0).text().decode()
        if signals is not None:
            self._decoder.signals = SignalTable(signals, self._snapshots.adhocs.signal)
        self._snapshots.adhocs.restore(offsets.get(self._partitions.outcomes))
        self._snapshots.plan(stored_tables, chosen.tables, view, gaps, since)
        self._evolution.look(view)
        stream.start(config.slot, position.lsn, config.publication, config.publish_origin)
        self._watch = CatalogWatch(config, self._server)
        self._tables.on_relation = self._watch.wake
        self._watch.start(view)
        self._context.report("stream", {"slot": config.slot, "from": format_lsn(position.lsn), "epoch": position.epoch})

    def _stored(self, offsets: Mapping[str, Any]) -> tuple[StoredPosition | None, Reset | None]:
        value = offsets.get(self._partitions.stream)
        if value is None:
            return None, None
        reset = Reset.from_json(value)
        return (None, reset) if reset is not None else (StoredPosition.from_json(value), None)

    def _fingerprint(self, oid: int) -> Fingerprint | None:
        progress = self._evolution.tables.get(oid)
        return None if progress is None else progress.fingerprint

    def captured(self, relation: Relation) -> CapturedTable | None:
        """As `cdc.postgres.changes.Tables`: a table that cannot be told stops, and the others do not."""
        try:
            return self._tables.captured(relation)
        except TableError as error:
            self._evolution.fail(relation.oid, str(error))
            return None

    # -- what the runtime answers ---------------------------------------------------------------------

    def _progress(self, shape: RowShape) -> SnapshotProgress | None:
        tables = self._evolution.tables.values()
        return next((p for p in tables if (p.schema, p.name) == (shape.schema, shape.table)), None)

    def refuse(self, shape: RowShape, error: TableError, *, queued: bool = False) -> None:
        progress = self._progress(shape)
        if progress is None or (progress.failed and progress.queued == queued):
            if not queued:
                # Left under this name, and stored as such: if it comes back, it is read again.
                _log.warning("changes of a table are left out", table=f"{shape.schema}.{shape.table}", cause=str(error))
            return
        self._evolution.fail(progress.oid, str(error), queued=queued)
        dropped = self._snapshots.forget(progress)
        self.sweeps = [sweep for sweep in self.sweeps if sweep is not dropped]
        if isinstance(error, KeyChanged):
            self._snapshots.key_changed(progress)

    def signal(self, payload: bytes, place: str) -> None:
        self._snapshots.adhocs.message(payload, place)

    def accepted(self, shape: RowShape) -> None:
        progress = self._progress(shape)
        if progress is not None:
            self._evolution.accepted(progress)

    def swept(self, sweep: Sweep, declined: str = "") -> None:
        self._snapshots.swept(sweep, declined)

    def place(self) -> tuple[Transaction, int, int]:
        if (
            self._snapshots.readings.silent
            and not self._decoder.in_transaction
            and self._tracker.resting_at is not None
        ):
            return self._place_at_rest()
        tx, ordinal = self._decoder.place()
        return tx, tx.commit_lsn, ordinal

    def _place_at_rest(self) -> tuple[Transaction, int, int]:
        """A place between the last transaction and the next (`Tracker.place`)."""
        lsn, ordinal = self._tracker.place()
        last = self._tracker.last_commit_lsn
        return Transaction(self._epoch, lsn, time.time_ns() // 1000, None, last), lsn, ordinal

    def _at_rest(self) -> Sequence[RowChange]:
        lsn = self._tracker.resting_at
        return () if lsn is None else self._snapshots.reached(lsn, self._place_at_rest)

    # -- the loop -----------------------------------------------------------------------------------

    def poll(self, timeout: float) -> Sequence[RowChange | ConnectRecord]:
        stream = self._running()
        if self._given_up is not None:
            return ()
        self._snapshots.look()
        if self._watch is not None and (view := self._watch.take()) is not None:
            self._evolution.look(view)
        decoder = self._decoder
        wait = self._heartbeat.wait
        timeout = min(timeout, self.keep_alive_interval if wait is None else wait)
        changes: list[RowChange | ConnectRecord] = []
        if self._snapshots.readings.silent and self._snapshots.readings.reader is not None:
            if not decoder.in_transaction:
                changes += self._at_rest()
            timeout = 0.0 if changes else min(timeout, SILENT_POLL_S)
        try:
            frames = stream.read(min(timeout, self.keep_alive_interval), READ_BYTES)
        except PublicationMissing as error:
            self._give_up(preparation.publication_gap(error, self._config, self._tracker.durable))
            return changes
        if self._silence.ask(time.monotonic(), heard=bool(frames)):
            self._send_status(reply=True)
        if frames:
            changes += decoder.feed(frames)
        elif not changes and self._snapshots.awaited and time.monotonic() - self._status_at >= ACK_SECONDS:
            self._send_status(reply=True)  # how far is the stream?
        if decoder.reselects:
            pending, decoder.reselects = decoder.reselects, []
            mode = self._config.toast_handling_mode
            if mode == "reselect":
                stopping, infos = self._context.stopping, self._tables.infos
                reselect(pending, self._server.connection, infos, self.keep_alive, stopping, self._fingerprint)
            else:
                mark_unknown(pending, self._config.placeholder if mode == "placeholder" else None)
        changes += self._heartbeat.records()
        if changes:
            self._tracker.told()
        if decoder.reply_requested:
            decoder.reply_requested = False
            self._send_status()
        else:
            self.keep_alive()
        return changes

    def _give_up(self, gap: GapError) -> None:
        """The stream cannot go on. By its mode the task begins anew, once that is stored (`committed`)."""
        if self._config.snapshot_mode != "when_needed":
            raise gap
        _log.warning("every table is read again, because snapshot.mode is when_needed", gap=str(gap))
        self._given_up = Reset(preparation.next_epoch(self._epoch), self._tracker.durable)

    def offsets(self) -> Mapping[str, Any]:
        if self._given_up is not None:
            return {self._partitions.stream: self._given_up.to_json()}
        evolution, adhocs = self._evolution, self._snapshots.adhocs
        fresh = evolution.dirty or evolution.left or adhocs.dirty or self._first_offset
        if not (fresh or self._tracker.due(time.monotonic())):
            return {}
        self._server.verify_timeline(self._timeline)
        # The position comes last: without transactions, what was done with its records must not be stored after it.
        values: dict[str, Any] = {self._partitions.table(name): value for name, value in evolution.left.items()}
        for oid in evolution.dirty:
            progress = evolution.tables[oid]
            values[self._partitions.table(progress.full_name)] = progress.to_json()
        if adhocs.dirty:
            values[self._partitions.outcomes] = adhocs.to_json()
        values[self._partitions.stream] = self._tracker.offer().to_json()
        return values

    def committed(self) -> None:
        if self._given_up is not None:
            raise RetriableError("every table is read again: starting anew")
        self._evolution.dirty.clear()
        self._evolution.left.clear()
        self._snapshots.adhocs.dirty = False
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
        self._snapshots.stop()
        if self._stream is not None:
            try:
                if self._tracker_started():
                    self._send_status()
            except (RetriableError, FatalError):
                # The server is gone: it will be told after the next start.
                self._context.report("stream", {"lost": "before the last acknowledgement"})
            self._stream.close()
        self._server.close()
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
            (p.done and not p.adhoc) or p.failed for p in self._evolution.tables.values()
        )

    def _message(
        self, message: LogicalMessage, tx: Transaction, lsn: int, ordinal: int
    ) -> Sequence[RowChange | ConnectRecord]:
        if message.prefix == MARK_PREFIX:
            self._tracker.asked()
        if message.prefix == MARKER_PREFIX and self._snapshots.readings.reader is not None:
            return self._snapshots.marked(message.content, tx, lsn, ordinal)
        record = self._messages.record(message, tx, ordinal)
        return () if record is None else (record,)

    def _sweep(self, sweep: Sweep) -> None:
        self.sweeps.append(sweep)  # the runtime takes the list away and leaves another

    def _publish(self, tables: Mapping[int, TableInfo]) -> None:
        if self._watch is not None:
            self._watch.publish(tables)

    def _send_status(self, *, reply: bool = False) -> None:
        self._running().send_status(self._tracker.received, self._tracker.durable, self._tracker.durable, reply=reply)
        self._acknowledged = self._tracker.durable
        self._status_at = time.monotonic()

    def _running(self) -> ReplicationStream:
        if self._stream is None:
            raise FatalError("the source task was used before it was started")
        return self._stream

    def _tracker_started(self) -> bool:
        return hasattr(self, "_tracker")
