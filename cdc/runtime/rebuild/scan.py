"""A topic read from its beginning, and from there on as far as the sink has come."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from cdc.errors import RetriableError
from cdc.kafka.reader import TopicReader
from cdc.mirror.fold import Op
from cdc.mirror.tables import Tables
from cdc.runtime.rebuild.changes import Changes
from cdc.runtime.rebuild.last import LastRecords

__all__ = ["Scan"]

_BATCH: Final = 2000
_SLICE_S: Final = 0.1


def _offset(change: tuple[bytes, Op]) -> int:
    return change[1][4]


class Scan:
    """Knows the last record of each key, among all records that the sink can have applied. For one thread."""

    def __init__(
        self,
        settings: Any,
        worker: Mapping[str, str],
        topic: str,
        partitions: int,
        tables: Tables,
        stopping: Callable[[], bool],
        only: Collection[bytes] | None = None,
    ) -> None:
        self.last = LastRecords(only)
        self._stopping = stopping
        self._partitions = range(partitions)
        self._reader = TopicReader(worker, topic, "rebuild")
        self._changes = Changes(settings, worker, topic, partitions, tables, stopping)
        self._reader.go(dict.fromkeys(range(partitions)))
        self.read = 0
        """Records read so far."""

    def reach(self, places: Mapping[int, int], told: Callable[[], None] = lambda: None) -> None:
        """Read all records below these offsets, by partition, and perhaps some behind them.

        ``told`` is called now and then. `RetriableError` when asked to stop.
        """
        self._reader.expect(places)
        while self._reader.left:
            if self._stopping():
                raise RetriableError("asked to stop")
            messages = self._reader.fetch(_BATCH, _SLICE_S)
            self.read += len(messages)
            for read in self._changes.of(messages):
                changes = read.changes
                if read.rejected:  # nothing is written from them, and so nothing of their rows
                    changes = sorted((*changes, *read.rejected), key=_offset)
                self.last.take(read.partition, changes)
                if read.truncate is not None:
                    self.last.truncate(read.partition, read.truncate)
            told()

    def ends(self) -> dict[int, int]:
        """Where the partitions end now."""
        return {number: high for number, (_, high) in self._reader.bounds(self._partitions).items()}

    def left(self, places: Mapping[int, int]) -> int:
        """Offsets still to pass before `reach` is done."""
        return sum(max(0, place - self._reader.positions[partition]) for partition, place in places.items())

    def close(self) -> None:
        """Never raises."""
        self._reader.close()
        self._changes.close()
        self.last.close()
