"""Which keys a topic holds, and how old the last record of each is: what finding ghosts needs (EXACTNESS.md H11).

Keys are bytes here. Whoever compares them needs to know nothing of converters, masks and transforms: all of them make
the same bytes of the same row.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final

from confluent_kafka import Message

from cdc.errors import CdcError
from cdc.kafka.reader import TopicReader

__all__ = ["KeyScan"]

_SLICE_S: Final = 0.2
_BATCH: Final = 2000
_NEAR: Final = 20_000
"""Records behind the end of the topic that `KeyScan.finish` may be left to read while the source waits."""
_CACHE_KB: Final = 32 << 10


class KeyScan:
    """Reads a topic, read-committed, and keeps the keys whose last record ``is_old`` says is old and has a value.

    A record whose key is one of ``barriers`` (a truncate's) makes all keys before it in its partition not count. Keys
    are kept in a temporary file, so that memory is bounded. A thread reads ahead from `start` to near the end; then
    `finish`, called while nothing writes to the topic, reads the rest.
    """

    def __init__(
        self,
        worker: Mapping[str, str],
        topic: str,
        partitions: int,
        is_old: Callable[[Message], bool],
        barriers: Collection[bytes] = (),
    ) -> None:
        self.topic = topic
        self._partitions = partitions
        self._is_old = is_old
        self._barriers = frozenset(barriers)
        # SQLite's temporary database: a file that the system removes with the process, however it ends.
        self._keys = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._keys.execute(f"pragma cache_size = -{_CACHE_KB}")
        self._keys.execute("create table old (partition int, key blob, primary key (partition, key)) without rowid")
        self._reader = TopicReader(worker, topic, "scan")
        # A commit is known before its markers are written: until then what is committed ends before the topic does.
        self._asking = TopicReader(worker, topic, "scan", committed=False)
        self._error: CdcError | None = None
        self._stopping = threading.Event()
        self._near = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scan", daemon=True)

    def start(self) -> None:
        """Begin to read ahead."""
        self._thread.start()

    def near(self) -> bool:
        """Whether `finish` would take but a moment. Raises what stopped the thread."""
        if self._error is not None:
            raise self._error
        return self._near.is_set()

    def finish(self, pump: Callable[[], None]) -> None:
        """Read to the end of the topic. ``pump`` is called while it waits."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        self._reader.expect(self._ends(pump))
        while self._reader.left:
            pump()
            self._take(self._reader.fetch(_BATCH, _SLICE_S))

    def found(self) -> Iterator[tuple[int, bytes]]:
        """Partition and key of all that is left. Nothing may be read meanwhile."""
        yield from self._keys.execute("select partition, key from old order by partition, key")

    def close(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._reader.close()
        self._asking.close()
        self._keys.close()

    # -- reading ------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._reader.go(dict.fromkeys(range(self._partitions)))
            while not self._stopping.is_set():
                self._reader.expect(self._ends(lambda: None))
                if self._reader.behind <= _NEAR:
                    break
                while self._reader.behind > _NEAR and not self._stopping.is_set():
                    self._take(self._reader.fetch(_BATCH, _SLICE_S))
            self._near.set()
        except CdcError as error:
            self._error = error

    def _ends(self, pump: Callable[[], None]) -> dict[int, int]:
        """Behind the last record of each partition that has any."""
        ends = {}
        for partition in range(self._partitions):
            pump()
            low, high = self._asking.bounds([partition])[partition]
            if high > low:
                ends[partition] = high
        return ends

    def _take(self, messages: list[Message]) -> None:
        execute = self._keys.execute
        execute("begin")
        for message in messages:
            partition = message.partition() or 0
            key = message.key()
            if key is None:
                continue
            if key in self._barriers:
                execute("delete from old where partition = ?", [partition])
            elif message.value() is not None and self._is_old(message):
                execute("insert or ignore into old values (?, ?)", [partition, key])
            else:
                execute("delete from old where partition = ? and key = ?", [partition, key])
        execute("commit")
