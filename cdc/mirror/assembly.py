"""From consumed records to batches: replays dropped, keys made, rows decoded, changes folded. No I/O but schemas.

The loop in `Assembler.add` runs once for every record of every topic, which is why it is one loop, why changes are
tuples, and why plans and key makers are looked up by the bytes in front of a payload.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from cdc.errors import CdcError, DataError, RetriableError
from cdc.mirror.fold import DELETE, PUT, Op, Ops, fold
from cdc.mirror.keys import Template
from cdc.mirror.partitions import Faulty, Message, PartitionState, Standing, as_text
from cdc.mirror.plans import Plans, Reader
from cdc.mirror.rows import exactly, keyed, patch, unavailable
from cdc.mirror.store import Arrival, Batch, Partition, Previous, Refusal
from cdc.mirror.tables import Tables
from cdc.record import HEADER_POSITION, HEADER_SOURCE, HEADER_TEXT, HEADER_UNKNOWN

__all__ = ["KEY_CONVERTER", "TASK_PUT", "VALUE_CONVERTER", "Assembler", "Counts", "Fault", "Refused", "Rejected"]

_POSITION_SIZE: Final = 43
"""Of the text of a `cdc.record.Position`."""
_MISSING: Final[Any] = object()
VALUE_CONVERTER: Final = "VALUE_CONVERTER"
KEY_CONVERTER: Final = "KEY_CONVERTER"
TASK_PUT: Final = "TASK_PUT"
_Message = TypeVar("_Message", bound=Message)


class Fault(NamedTuple):
    """A record that cannot be mirrored. Everything before it in its partition is in a batch."""

    partition: Partition
    offset: int
    error: DataError


class Rejected(NamedTuple):
    """A record that is not mirrored while its partition goes on: `VALUE_CONVERTER`, `KEY_CONVERTER` or `TASK_PUT` of
    Kafka Connect is the ``stage`` at which it failed."""

    message: Message
    stage: str
    error: DataError


class Refused(DataError):
    """The store would not apply this one change, though it applied its neighbours."""


@dataclass(slots=True)
class Counts:
    """What became of records since the assembler was made."""

    records: int = 0
    deletes: int = 0
    replays: int = 0
    """Dropped because their position had been applied (EXACTNESS.md H18)."""
    foreign: int = 0
    """Not about rows: heartbeats, messages, transaction metadata."""
    keyless: Counter[str] = field(default_factory=Counter)
    """Rows of tables without key, by topic."""
    rejected: int = 0
    """Could not be decoded or mapped, or were refused by the store (EXACTNESS.md H21)."""


class Assembler:
    """Takes records in the order of their partitions, gives batches. For one thread."""

    def __init__(
        self,
        connector: str,
        reader: Reader,
        template: Callable[[str], Template],
        *,
        ttl: int | None = None,
        max_records: int = 1000,
        max_bytes: int = 4 << 20,
        not_known: Set[bytes] = frozenset(),
        tolerant: bool = False,
        versions: bool = False,
        collect: Callable[[], dict[bytes, Any]] = dict,
    ) -> None:
        """``not_known`` are texts that stand for values not known, in records without our headers. A ``tolerant`` one
        passes over a record that is at fault, into `take_rejected`; else its partition ends there, at `fault`.
        ``versions`` is whether batches have them. ``collect`` makes what a batch's changes, and its versions, are
        gathered in."""
        self._tolerant = tolerant
        self._collect = collect
        self._not_known = not_known
        self._plans_for = partial(Plans, connector, reader, template, ttl)
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._plans = self._plans_for(Tables())
        self._states: dict[tuple[str, int], PartitionState] = {}
        self._sources: list[Partition] = []
        self._ops: Ops = collect()
        self._versions: dict[bytes, tuple[bytes, bytes]] | None = collect() if versions else None
        self._size = 0
        self._count = 0
        self._arrivals: list[Arrival] = []
        self._rejected: list[Rejected] = []
        self._again: list[Message] = []
        self.counts = Counts()
        self.fault: Fault | None = None
        """The first record that cannot be mirrored."""
        self.waiting: RetriableError | None = None
        """Why the last `add` stopped early, if a schema could not be had."""

    # --- partitions --------------------------------------------------------------------------------------

    def assign(self, standings: Mapping[Partition, Standing], tables: Tables) -> None:
        """Begin anew with these partitions, at what the store holds; forget all that was not written."""
        self._plans = self._plans_for(tables)
        self._sources = list(standings)
        self._states = {
            partition: PartitionState(index, partition, standing, self._plans.of(partition.topic))
            for index, (partition, standing) in enumerate(standings.items())
        }
        self._ops = self._collect()
        self._versions = None if self._versions is None else self._collect()
        self._size = self._count = 0
        self._arrivals = []
        self._rejected = []
        self._again = []
        self.fault = None

    def begins(self) -> dict[Partition, int | None]:
        """The offset to read each partition from now; ``None`` is its beginning."""
        return {state.partition: state.next if state.known else None for state in self._states.values()}

    # --- records -----------------------------------------------------------------------------------------

    def add(self, messages: Iterable[_Message], *, unbounded: bool = False) -> list[_Message]:
        """Take records; what is left when the batch is full, or when a schema cannot be had (`waiting`).

        Records of partitions that are not ours, or before where ours began, are passed over.
        """
        self.waiting = None
        states, ops, counts, not_known = self._states, self._ops, self.counts, self._not_known
        versions = self._versions
        most = self._max_records
        most_bytes = self._max_bytes
        remaining = iter(messages)
        for message in remaining:
            state = states.get((message.topic(), message.partition()))
            if state is None or state.closed:
                continue
            offset = message.offset()
            if offset < state.next:
                continue
            try:
                if state.redo_until is not None:
                    if offset < state.redo_until:
                        state.redo.append(message)
                        continue
                    if not self._apply_again(state):
                        continue
                source = position = unknown = exact = b""
                for name, content in message.headers() or ():
                    if name == HEADER_SOURCE:
                        source = content or b""
                    elif name == HEADER_POSITION:
                        position = content or b""
                    elif name == HEADER_UNKNOWN:
                        unknown = content or b""
                    elif name == HEADER_TEXT:
                        exact = content or b""
                if state.begin is None:
                    state.begin = Previous(offset, state.positions())
                if source and position:
                    if len(position) != _POSITION_SIZE:
                        _refuse(f"the header {HEADER_POSITION} is no position: {position[:60]!r}")
                    if position <= state.applied.get(source, b""):
                        counts.replays += 1
                        state.next = offset + 1
                        state.last = message
                        self._count += 1
                        continue
                else:
                    source = b""
                value = message.value()
                op: Op | None = None
                if value is None:
                    op = (DELETE, [], (), state.index, offset)
                else:
                    self._size += len(value)
                    plans = state.plans
                    reader = plans.values.get(value[:5], _MISSING)
                    if reader is _MISSING:
                        reader = self._plans.value(plans, value)
                    if reader is None:
                        counts.foreign += 1
                    else:
                        fields, nulls = reader[0](value, 5)
                        if fields is not None:
                            if exact:
                                fields, nulls = exactly(fields, nulls, exact, self._plans.kinds(value))
                            op = (PUT, fields, nulls + reader[1] if reader[1] else nulls, state.index, offset)
                            if unknown:
                                op = patch(op, unknown)
                            elif not source and not not_known.isdisjoint(fields):
                                op = unavailable(op, not_known)
                        elif nulls == b"d":
                            op = (DELETE, [], (), state.index, offset)
                        elif nulls == b"t":
                            self._hold(state, offset, source, position)
                            continue
                        elif nulls == b"m":
                            counts.foreign += 1
                        else:
                            _refuse(f"a change of kind {nulls!r} without a row")
                if op is not None:
                    key = message.key()
                    if key is None:
                        counts.keyless[message.topic()] += 1
                    else:
                        maker = state.plans.keys.get(key[:5]) or self._plans.key(state.plans, key)
                        parts = maker[0](key, 5)
                        row = maker[1](parts)
                        if op[0] == DELETE:
                            counts.deletes += 1
                        elif not op[1]:
                            op = keyed(op, maker[2], parts)
                        older = ops.get(row)
                        ops[row] = op if older is None else fold(older, op)
                        if versions is not None:
                            versions[row] = (source, position)
                        state.dirty = True
            except RetriableError as error:
                self.waiting = error
                return [message, *remaining]
            except DataError as error:
                if not self._tolerant:
                    if self.fault is None:
                        self.fault = Fault(state.partition, offset, error)
                    state.closed = True
                    continue
                self._reject(message, self._stage(state, message), error)
                if len(position) != _POSITION_SIZE:
                    source = b""
            if source:
                state.applied[source] = position
            state.next = offset + 1
            state.last = message
            self._count += 1
            if not unbounded and (self._count >= most or self._size >= most_bytes):
                break
        return list(remaining)

    def end_reached(self, partition: Partition, offset: int) -> None:
        """There is no record of the partition below ``offset`` any more. After a `RetriableError` say it again."""
        state = self._states.get(partition)
        if state is not None and not state.closed and state.redo_until is not None and offset >= state.redo_until:
            self._apply_again(state)

    def _apply_again(self, state: PartitionState) -> bool:
        """Take the records of the partition's last batch, whose outcome nobody saw, as one (`StoredOffset`).

        All or nothing: half of it would show older values than are there. False if the partition is at a fault.
        """
        for place, message in enumerate(state.redo):
            try:  # all schemas before the first record: the batch must not end in between
                self._plans.fetch(message.value(), message.key)
            except DataError as error:
                if self._tolerant:
                    state.redo[place] = Faulty(message, error)
                    continue
                self.fault = self.fault or Fault(state.partition, message.offset(), error)
                state.closed = True
                return False
        again, until = state.redo, state.redo_until or 0
        state.redo, state.redo_until = [], None
        self._again += again
        if state.begin is None:
            state.begin = Previous(state.next, state.positions())
        self.add(again, unbounded=True)
        if not state.closed:
            state.next = max(state.next, until)
        return not state.closed

    def _hold(self, state: PartitionState, offset: int, source: bytes, position: bytes) -> None:
        """The partition stands at a truncate."""
        if not source:
            if not state.alone:
                raise DataError(
                    "a truncate without position in a topic of several partitions has no order among the rows of the "
                    "other partitions. Let the source leave out truncates (skipped.operations=t) or write one partition"
                )
            position = b"%020d" % offset
        state.held = Arrival(state.partition, as_text(source), as_text(position), offset)
        state.closed = True
        self._arrivals.append(state.held)

    def healed(self, topic: str, since: int) -> None:
        """Say with the next batch that the topic's table has no ghosts any more (`cdc.mirror.tables.TableEntry`)."""
        self._plans.healed(topic, since)

    # --- records at fault --------------------------------------------------------------------------------

    def _reject(self, message: Message, stage: str, error: DataError) -> None:
        self.counts.rejected += 1
        self._rejected.append(Rejected(message, stage, error))

    def take_rejected(self) -> list[Rejected]:
        """Records passed over since the last call. They belong to the next batch: kept before it is written."""
        rejected, self._rejected = self._rejected, []
        return rejected

    def take_again(self) -> list[Message]:
        """Records of earlier batches that are in the next one again."""
        again, self._again = self._again, []
        return again

    def refused(self, refusals: Sequence[Refusal], messages: Iterable[Message]) -> list[Rejected]:
        """The records of a batch behind the changes that the store refused.

        All of them that touch the same row, because the last one need not have all of it.
        """
        by_row = {refusal.key: refusal for refusal in refusals}
        found = []
        for message in messages:
            state = self._states.get((message.topic(), message.partition()))
            refusal = None if state is None else by_row.get(self.row_key(message))
            if refusal is not None:
                self.counts.rejected += 1
                key = refusal.key.decode("utf-8", "replace")
                error = Refused(f"the store refuses the key {key!r}: {refusal.reason}")
                found.append(Rejected(message, TASK_PUT, error))
        return found

    def row_key(self, message: Message) -> bytes:
        """The key of the row that a record of our partitions is about; empty if it is about none."""
        state = self._states[message.topic(), message.partition()]
        try:
            key = message.key()
            if key is None:
                return b""
            maker = state.plans.keys.get(key[:5]) or self._plans.key(state.plans, key)
            return maker[1](maker[0](key, 5))
        except DataError:
            return b""  # rejected for that before

    def _stage(self, state: PartitionState, message: Message) -> str:
        """Which part of a record at fault is: found by trying, so that good records pay nothing for it."""
        try:
            value = message.value()
            if value is not None and (reader := self._plans.value(state.plans, value)) is not None:
                reader[0](value, 5)
        except CdcError:
            return VALUE_CONVERTER
        try:
            key = message.key()
            if key is not None:
                self._plans.key(state.plans, key)[0](key, 5)
        except CdcError:
            return KEY_CONVERTER
        return TASK_PUT

    # --- batches -----------------------------------------------------------------------------------------

    def finish(self) -> Batch:
        """The batch of all that was taken since the last one; false in a boolean context if that is nothing."""
        batch = Batch(ops=self._ops, sources=self._sources, entries=self._plans.take_entries(), versions=self._versions)
        for state in self._states.values():
            if state.begin is not None:
                batch.offsets[state.partition] = state.offset(state.begin if state.dirty else None)
                state.begin, state.dirty = None, False
        self.counts.records += self._count
        self._ops = self._collect()
        self._versions = None if self._versions is None else self._collect()
        self._size = self._count = 0
        return batch

    def arrivals(self) -> list[Arrival]:
        """Partitions that came to a truncate since the last call. Tell the store once their batch is settled."""
        found, self._arrivals = self._arrivals, []
        return found

    def release(self, partitions: Sequence[Partition]) -> tuple[Batch, dict[Partition, int]]:
        """Let partitions pass the truncate that they stand at: the batch that stores it, and where to read on."""
        batch = Batch(sources=self._sources)
        for partition in partitions:
            state = self._states[partition]
            if state.held is not None:
                state.next = state.held.offset + 1
                if state.held.source:
                    state.applied[state.held.source.encode()] = state.held.position.encode()
                state.held, state.closed = None, False
                batch.offsets[partition] = state.offset(None)
                batch.released.append(partition)
                self.counts.records += 1
        return batch, {partition: self._states[partition].next for partition in batch.released}


def _refuse(message: str) -> None:
    raise DataError(message)
