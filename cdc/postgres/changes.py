"""Frames of the stream → records with positions. No I/O but for `Tables`, asked once per Relation message.

Order is the stream's. A change message makes one record, or several with rising record index: a delete and its
tombstone; delete, tombstone and create for a change of the key; one per table for a TRUNCATE.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from cdc.postgres.captured_table import CapturedTable, Reselect, check_end, check_width, fill
from cdc.postgres.headers import NEW_KEY, OLD_KEY, key_header
from cdc.postgres.pgoutput import (
    BEGIN,
    COMMIT,
    DELETE,
    INSERT,
    KEEPALIVE,
    MESSAGE,
    ORIGIN,
    POSTGRES_EPOCH_US,
    RELATION,
    STREAM_ABORT,
    TRUNCATE,
    TYPE,
    UPDATE,
    XLOG_DATA,
    LogicalMessage,
    ProtocolError,
    Relation,
    read_begin,
    read_commit,
    read_keepalive,
    read_message,
    read_relation,
    read_truncate,
    read_tuple,
)
from cdc.postgres.position import CONTROL_PREFIX, OpenTransaction, Tracker
from cdc.postgres.signal_table import SignalTable
from cdc.postgres.touched import TouchLog
from cdc.postgres.transactions import TransactionMonitor
from cdc.record import UNCHANGED, ConnectRecord, RawRow, RowChange, Transaction

__all__ = ["Decoder", "Tables"]

_OLD: Final = ord("O")
_KEY: Final = ord("K")
_NEW: Final = ord("N")
_ROW_SIZE: Final = 31
"""Bytes of a frame with a row message up to its first tuple."""


class Tables(Protocol):
    """Knows the tables."""

    def captured(self, relation: Relation) -> CapturedTable | None:
        """The table in this version; ``None`` when it is not to be captured."""


class Decoder:
    """Turns frames into `RowChange` records and keeps the `Tracker` and `TouchLog` up to date.

    ``resume`` is how far the open transaction had come when the stored offset was written: what it covers is dropped.
    """

    def __init__(
        self,
        tables: Tables,
        tracker: Tracker,
        touched: TouchLog,
        epoch: int,
        resume: OpenTransaction | None,
        *,
        tombstones: bool = True,
        skipped: frozenset[str] = frozenset(),
        skip_unchanged: bool = False,
        on_message: Callable[[LogicalMessage, Transaction, int, int], Sequence[RowChange | ConnectRecord]]
        | None = None,
        monitor: TransactionMonitor | None = None,
    ) -> None:
        self._tables = tables
        self._tracker = tracker
        self._touched = touched
        self._watched = touched.tables
        self._epoch = epoch
        self._resume = resume
        self._tombstones = tombstones
        self._skipped = skipped
        self._skip_unchanged = skip_unchanged
        self._on_message = on_message
        self._monitor = monitor
        self._numbered = 0
        self._relations: dict[int, CapturedTable | None] = {}
        self._told: dict[int, Relation] = {}
        self._held: set[int] = set()
        self._tx: Transaction | None = None
        self._last: Transaction | None = None
        self._ordinal = 0
        self._control = 0
        self._resume_ordinal = 0
        self.reselects: list[Reselect] = []
        """Changes of the last `feed` that must be read again, in order; the caller takes them."""
        self.signals: SignalTable | None = None
        """The table of signals, whose rows are acted on; whether they are told is for the lists."""
        self.from_lsn: dict[int, int] = {}
        """Tables without key: changes of transactions that committed before are part of the snapshot (H10)."""
        self.at_rest: Callable[[], Sequence[RowChange]] | None = None
        """Asked whenever no transaction is open, for records to be told there."""
        self.reply_requested = False
        self.changes = 0
        """Row changes seen in captured tables, for the rate."""
        self.commits = 0

    @property
    def in_transaction(self) -> bool:
        return self._tx is not None

    def hold(self, oid: int) -> None:
        """Leave out the changes of this table, until `release`."""
        self._held.add(oid)
        if oid in self._relations:
            self._relate(oid, None)

    def release(self, oid: int) -> None:
        """Tell the changes of this table again."""
        if oid in self._held:
            self._held.remove(oid)
            self.renew(oid)

    def renew(self, oid: int) -> None:
        """Tell the changes of this table by its types as they are now: when they change, no Relation message comes."""
        if oid in self._told and oid not in self._held:
            self._relate(oid, self._tables.captured(self._told[oid]))

    def _relate(self, oid: int, table: CapturedTable | None) -> None:
        if self.signals is not None and oid == self.signals.oid:
            self.signals.take(table)
            table = None
        self._relations[oid] = table

    def place(self) -> tuple[Transaction, int]:
        """The transaction of the last change message, and its ordinal."""
        if self._last is None:
            raise ProtocolError("there was no change message yet")
        return self._last, self._ordinal

    def feed(self, frames: list[bytes]) -> list[RowChange | ConnectRecord]:
        """The records of these frames, in order. `ProtocolError` stops the stream."""
        out: list[RowChange | ConnectRecord] = []
        self._numbered = 0
        for frame in frames:
            kind = frame[0] if frame else 0
            if kind == XLOG_DATA:
                if len(frame) < 26:
                    raise ProtocolError(f"an XLogData message of {len(frame)} bytes is too short")
                tag = frame[25]
                if tag == INSERT:
                    self._insert(frame, out)
                elif tag == UPDATE:
                    self._update(frame, out)
                elif tag == DELETE:
                    self._delete(frame, out)
                else:
                    self._other(tag, frame, out)
            elif kind == KEEPALIVE:
                keepalive = read_keepalive(frame)
                if keepalive.reply_requested:
                    self.reply_requested = True
                if self._tx is None:
                    self._tracker.idle(keepalive.wal_end)
                    if self.at_rest is not None:
                        self._rest(out)
            else:
                raise ProtocolError(f"the replication stream has a message of unknown kind {chr(kind)!r}")
        tx = self._tx
        if tx is not None and self._ordinal > self._resume_ordinal:
            if self._monitor is not None and self._ordinal > self._control:
                self._monitor.tell(out, self._numbered, tx)
            counts = None if self._monitor is None else self._monitor.counts
            self._tracker.reached(tx.commit_lsn, self._ordinal, counts)
        if out:
            self._tracker.told()
        return out

    # -- rows ---------------------------------------------------------------------------------------

    def _row(self, frame: bytes) -> tuple[CapturedTable, Transaction] | None:
        """Count the change message; its table and transaction, or ``None`` when it is not to be told."""
        tx = self._tx
        if tx is None:
            raise ProtocolError("a row message came outside a transaction")
        if len(frame) < _ROW_SIZE:
            raise ProtocolError(f"a row message of {len(frame)} bytes is too short")
        self._ordinal += 1
        if self._ordinal <= self._resume_ordinal:
            return None
        oid = int.from_bytes(frame[26:30], "big")
        try:
            table = self._relations[oid]
        except KeyError:
            raise ProtocolError(f"a row message names relation {oid}, of which no Relation message came") from None
        if table is None:
            table = None if self.signals is None else self.signals.row(oid, frame, tx, self._ordinal)
            if table is None:
                return None
        self.changes += 1
        if self.from_lsn and tx.commit_lsn < self.from_lsn.get(oid, 0):
            return None
        return table, tx

    def _insert(self, frame: bytes, out: list[RowChange | ConnectRecord]) -> None:
        found = self._row(frame)
        if found is None:
            return
        table, tx = found
        row, end, unchanged = read_tuple(frame, 31)
        check_end(frame, end, table)
        check_width(row, table)
        if not table.whole:
            row = table.captured(row)
        if "c" in self._skipped:
            return
        if table.oid in self._watched:
            self._touch(table, row)
        lsn = int.from_bytes(frame[1:9], "big")
        change = RowChange(table.shape, "c", row, None, row, tx, lsn, self._ordinal, 0)
        out.append(change)
        if unchanged:  # an UPDATE that brought the row into the publication's row filter is told as an INSERT
            self._reselect(table, change)

    def _update(self, frame: bytes, out: list[RowChange | ConnectRecord]) -> None:
        found = self._row(frame)
        if found is None:
            return
        table, tx = found
        tag = frame[30]
        old: RawRow | None = None
        pos = 31
        if tag != _NEW:
            old, pos, _ = read_tuple(frame, 31)
            check_width(old, table)
            pos += 1
        row, end, unchanged = read_tuple(frame, pos)
        check_end(frame, end, table)
        check_width(row, table)
        if not table.whole:
            row = table.captured(row)
            old = None if old is None else table.captured(old)
        if unchanged and old is not None:
            unchanged = fill(row, old, table.shape.key if tag == _KEY else None)
        shape = table.shape
        lsn = int.from_bytes(frame[1:9], "big")
        moved = old is not None and any(old[i] != row[i] for i in shape.key)
        if "u" in self._skipped or (self._skip_unchanged and tag == _OLD and row == old):
            return  # not touched either: the row of a chunk beside it is the only one that is told
        if table.oid in self._watched:
            self._touch(table, row)
            if moved and old is not None:
                self._touch(table, old)
        ordinal = self._ordinal
        before = old if tag == _OLD else None
        if moved and old is not None:
            gone = [RowChange(shape, "d", old, old, None, tx, lsn, ordinal, 0)]
            if self._tombstones:
                gone.append(RowChange(shape, "", old, None, None, tx, lsn, ordinal, 1))
            change = RowChange(shape, "c", row, None, row, tx, lsn, ordinal, len(gone))
            change.headers = (key_header(OLD_KEY, gone[0]),)
            header = key_header(NEW_KEY, change)
            for record in gone:
                record.headers = (header,)
            out += gone
        else:
            change = RowChange(shape, "u", row, before, row, tx, lsn, ordinal, 0)
        out.append(change)
        if unchanged:
            self._reselect(table, change)

    def _reselect(self, table: CapturedTable, change: RowChange) -> None:
        columns = [i for i, value in enumerate(change.after or ()) if value is UNCHANGED]
        if columns:
            self.reselects.append(Reselect(table, change, columns))

    def _delete(self, frame: bytes, out: list[RowChange | ConnectRecord]) -> None:
        found = self._row(frame)
        if found is None:
            return
        table, tx = found
        old, end, _ = read_tuple(frame, 31)
        check_end(frame, end, table)
        check_width(old, table)
        if not table.whole:
            old = table.captured(old)
        if "d" in self._skipped:
            return
        if table.oid in self._watched:
            self._touch(table, old)
        lsn = int.from_bytes(frame[1:9], "big")
        shape = table.shape
        out.append(RowChange(shape, "d", old, old, None, tx, lsn, self._ordinal, 0))
        if self._tombstones:
            # Of a table without key too, as Debezium does: a record of nothing.
            out.append(RowChange(shape, "", old, None, None, tx, lsn, self._ordinal, 1))

    def _touch(self, table: CapturedTable, row: RawRow) -> None:
        self._touched.touch(table.oid, tuple(row[i] for i in table.shape.key))

    def _rest(self, out: list[RowChange | ConnectRecord]) -> None:
        if self.at_rest is not None:
            out.extend(self.at_rest())
            self._numbered = len(out)

    # -- everything else ----------------------------------------------------------------------------

    def _other(self, tag: int, frame: bytes, out: list[RowChange | ConnectRecord]) -> None:
        payload = frame[25:]
        if tag == BEGIN:
            begin = read_begin(payload)
            self._tx = Transaction(
                self._epoch, begin.commit_lsn, begin.commit_us, begin.xid, self._tracker.last_commit_lsn
            )
            self._last = self._tx
            self._ordinal = self._control = 0
            self._touched.begin(begin.xid)
            resume, self._resume = self._resume, None
            self._resume_ordinal = 0
            if resume is not None and begin.commit_lsn == resume.commit_lsn:
                self._resume_ordinal = resume.ordinal
            elif resume is not None and begin.commit_lsn < resume.commit_lsn:
                self._resume = resume  # a transaction without changes for us came before it
            if self._monitor is not None:
                resumed = resume if resume is not None and self._resume is None else None
                self._monitor.begin(self._tx, resumed.counts if resumed and self._resume_ordinal else None)
        elif tag == COMMIT:
            commit = read_commit(payload)
            if self._tx is None or self._tx.commit_lsn != commit.commit_lsn:
                raise ProtocolError("a Commit came that does not belong to the open transaction")
            ours = 0 < self._ordinal == self._control
            if self._monitor is not None and not ours:
                self._monitor.tell(out, self._numbered, self._tx)
                out.append(self._monitor.end(self._tx, self._ordinal))
            self._numbered = len(out)
            self._tracker.committed(commit.commit_lsn, commit.end_lsn, ours=ours)
            self._tx = None
            self.commits += 1
            if self.at_rest is not None:
                self._rest(out)
        elif tag == RELATION:
            relation = read_relation(payload)
            self._told[relation.oid] = relation
            if self.signals is not None:
                self.signals.related(relation)
            self._relations[relation.oid] = None
            if relation.oid not in self._held:
                self._relate(relation.oid, self._tables.captured(relation))
        elif tag == TRUNCATE:
            self._truncate(frame, payload, out)
        elif tag == MESSAGE:
            self._message(frame, payload, out)
        elif tag not in (ORIGIN, TYPE, STREAM_ABORT):
            # Postgres 18 can send a Stream Abort of a transaction that was never streamed: there is nothing to undo.
            raise ProtocolError(
                f"the server sent a message of kind {chr(tag)!r}, which protocol version 1 does not have. "
                "Is a proxy between, or an output plugin other than pgoutput?"
            )

    def _truncate(self, frame: bytes, payload: bytes, out: list[RowChange | ConnectRecord]) -> None:
        tx = self._tx
        if tx is None:
            raise ProtocolError("a Truncate came outside a transaction")
        self._ordinal += 1
        if self._ordinal <= self._resume_ordinal:
            return
        lsn = int.from_bytes(frame[1:9], "big")
        index = 0
        for oid in read_truncate(payload).relations:
            table = self._relations.get(oid)
            if table is None:
                continue
            if oid in self._watched:
                self._touched.touch_all(oid)
            if "t" in self._skipped or tx.commit_lsn < self.from_lsn.get(oid, 0):
                continue
            out.append(RowChange(table.shape, "t", None, None, None, tx, lsn, self._ordinal, index, broadcast=True))
            index += 1

    def _message(self, frame: bytes, payload: bytes, out: list[RowChange | ConnectRecord]) -> None:
        message = read_message(payload)
        if self._tx is None or not message.transactional:
            self._lone_message(message, frame, out)
            return
        self._ordinal += 1
        self._control += message.prefix.startswith(CONTROL_PREFIX)
        if self._ordinal > self._resume_ordinal and self._on_message is not None:
            out.extend(self._on_message(message, self._tx, int.from_bytes(frame[1:9], "big"), self._ordinal))

    def _lone_message(self, message: LogicalMessage, frame: bytes, out: list[RowChange | ConnectRecord]) -> None:
        """One that was written outside of any transaction: servers send it between two, at its place in the WAL.

        Inside of one it is told at the place of the message before it, so that positions do not fall.
        """
        if self._on_message is not None and self._tx is not None:
            if self._ordinal >= self._resume_ordinal:
                out.extend(self._on_message(message, self._tx, message.lsn, self._ordinal))
            return
        sent_us = int.from_bytes(frame[17:25], "big", signed=True) + POSTGRES_EPOCH_US
        tx = Transaction(self._epoch, message.lsn, sent_us, None, self._tracker.last_commit_lsn)
        if self._on_message is not None:
            out.extend(self._on_message(message, tx, message.lsn, 0))
        if self._tx is None:
            self._tracker.passed(message.lsn)
            self._numbered = len(out)
