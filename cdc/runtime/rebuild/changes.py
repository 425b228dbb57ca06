"""From the records of a topic to the changes that the sink makes of them, each by itself and in order.

The sink's own assembler does it, so that a rebuild takes for a replay, a delete or a key what the sink takes for one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from confluent_kafka import Message

from cdc.errors import FatalError, RetriableError
from cdc.mirror.assembly import Assembler
from cdc.mirror.fold import PUT, Op
from cdc.mirror.mending import Record
from cdc.mirror.partitions import Standing
from cdc.mirror.rows import placeholders
from cdc.mirror.store import Partition
from cdc.mirror.tables import Tables
from cdc.runtime.sink_records import SinkRecords

__all__ = ["Changes", "Read"]

_WINDOW: Final = 1 << 30
_PAUSE_S: Final = 0.2


class Read(NamedTuple):
    """Changes of one partition, in order; ``truncate`` is the offset of the truncate behind them."""

    partition: int
    changes: list[tuple[bytes, Op]]
    records: Sequence[Record] = ()
    """Which record makes each change."""
    truncate: int | None = None
    rejected: tuple[tuple[bytes, Op], ...] = ()
    """Records that the sink passes over, as changes by which nobody may go: what has become of their rows is not known
    here (a dead letter may have been replayed)."""


class _Sequence(dict[bytes, Any]):
    """What an assembler gathers changes in, one by one: nothing is ever found in it to fold with."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[bytes, Any]] = []

    def get(self, _key: bytes, _default: Any = None) -> Any:
        return None

    def __setitem__(self, key: bytes, made: Any) -> None:
        self.made.append((key, made))


class Changes:
    """Reads the records of one topic, from any offset on. For one thread."""

    def __init__(
        self,
        settings: Any,
        worker: Mapping[str, str],
        topic: str,
        partitions: int,
        tables: Tables,
        stopping: Callable[[], bool],
    ) -> None:
        self._records = SinkRecords(settings, worker, settings.metadata)
        self._partitions = [Partition(topic, number) for number in range(partitions)]
        self._stopping = stopping
        self._assembler = Assembler(
            settings.name,
            self._records.reader,
            settings.template,
            ttl=settings.redis_ttl,
            max_records=_WINDOW,
            max_bytes=_WINDOW,
            not_known=placeholders(settings.unavailable_value_placeholder),
            tolerant=settings.errors_tolerance == "all",
            versions=True,
            collect=_Sequence,
        )
        self._assembler.assign({part: Standing(None, None, partitions) for part in self._partitions}, tables)

    def close(self) -> None:
        self._records.close()

    def of(self, messages: list[Message]) -> Iterator[Read]:
        """The changes of these records, which come behind those of the last call.

        Waits for a schema registry that is away. `FatalError` for a record that cannot be mirrored.
        """
        left = self._records.routed(messages)
        while left:
            rest = self._assembler.add(left)
            yield from self._taken()
            arrivals = self._assembler.arrivals()
            for arrival in arrivals:
                yield Read(arrival.partition.number, [], truncate=arrival.offset)
            if arrivals:
                # What came behind a truncate was passed over.
                self._assembler.release([arrival.partition for arrival in arrivals])
                passed = {arrival.partition.number: arrival.offset for arrival in arrivals}
                behind = [m for m in left if m.partition() in passed and (m.offset() or 0) > passed[m.partition()]]
                rest = behind + [m for m in rest if m.partition() not in passed]
            if (fault := self._assembler.fault) is not None:
                raise FatalError(
                    f"{fault.partition} offset {fault.offset}: {fault.error}. The sink cannot mirror this record "
                    "either. Remedy: correct or remove it, then run the rebuild again: it goes on where it is"
                ) from fault.error
            if (waiting := self._assembler.waiting) is not None:
                self._wait(waiting)
            left = rest

    def _taken(self) -> Iterator[Read]:
        rejected: dict[int, list[tuple[bytes, Op]]] = {}
        for message, _, _ in self._assembler.take_rejected():
            if key := self._assembler.row_key(message):
                op: Op = (PUT, [], (), message.partition(), message.offset())
                rejected.setdefault(message.partition(), []).append((key, op))
        batch = self._assembler.finish()
        by_partition: dict[int, tuple[list[tuple[bytes, Op]], list[Record]]] = {}
        if isinstance(batch.ops, _Sequence) and isinstance(batch.versions, _Sequence):
            for (key, op), (_, (source, position)) in zip(batch.ops.made, batch.versions.made, strict=True):
                changes, records = by_partition.setdefault(op[3], ([], []))
                changes.append((key, op))
                records.append(Record(source, position, op[3], op[4]))
        for number in by_partition.keys() | rejected.keys():
            changes, records = by_partition.get(number, ([], []))
            yield Read(number, changes, records, rejected=tuple(rejected.get(number, ())))

    def _wait(self, error: RetriableError) -> None:
        if self._stopping():
            raise error
        time.sleep(_PAUSE_S)
