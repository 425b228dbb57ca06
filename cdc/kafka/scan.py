"""Which keys a topic holds, and how old the last record of each is: what finding ghosts needs (EXACTNESS.md H11).

Keys are bytes here. Whoever compares them needs to know nothing of converters, masks and transforms: all of them make
the same bytes of the same row.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from cdc.errors import CdcError, RetriableError
from cdc.kafka.clients import Refusal, made
from cdc.kafka.settings import client_settings, translate

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
        settings: dict[str, Any] = {
            **client_settings(worker, "consumer"),
            "group.id": f"cdc-scan-{topic}",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "queued.max.messages.kbytes": 16 << 10,
            "fetch.wait.max.ms": 50,
        }
        self._refusal = Refusal()
        self._consumer = made(Consumer, settings, self._refusal)
        # A commit is known before its markers are written: until then what is committed ends before the topic does.
        self._asking = made(Consumer, {**settings, "isolation.level": "read_uncommitted"}, self._refusal)
        self._positions = dict.fromkeys(range(partitions), 0)
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
        ends = self._ends(pump)
        while any(self._positions[partition] < end for partition, end in ends.items()):
            pump()
            self._take(self._consume())
            for part in self._consumer.position([TopicPartition(self.topic, partition) for partition in ends]):
                # Markers and aborted records are passed without a word.
                self._positions[part.partition] = max(self._positions[part.partition], part.offset)

    def found(self) -> Iterator[tuple[int, bytes]]:
        """Partition and key of all that is left. Nothing may be read meanwhile."""
        yield from self._keys.execute("select partition, key from old order by partition, key")

    def close(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._consumer.close()
        self._asking.close()
        self._keys.close()

    # -- reading ------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._consumer.assign(
                [TopicPartition(self.topic, partition, OFFSET_BEGINNING) for partition in range(self._partitions)]
            )
            while not self._stopping.is_set():
                ends = self._ends(lambda: None)
                while (
                    left := sum(max(0, end - self._positions[partition]) for partition, end in ends.items())
                ) > _NEAR and not self._stopping.is_set():
                    self._take(self._consume())
                ends = self._ends(lambda: None)
                left = sum(max(0, end - self._positions[partition]) for partition, end in ends.items())
                if left <= _NEAR:
                    break
            self._near.set()
        except KafkaException as error:
            self._error = translate(error, f"reading the keys of {self.topic}")
        except CdcError as error:
            self._error = error

    def _ends(self, pump: Callable[[], None]) -> dict[int, int]:
        """Behind the last record of each partition that has any."""
        ends = {}
        try:
            for partition in range(self._partitions):
                pump()
                found = self._asking.get_watermark_offsets(TopicPartition(self.topic, partition), timeout=5)
                if found is None:
                    raise RetriableError(f"asking for the end of {self.topic}[{partition}]: no answer")
                low, high = found
                if high > low:
                    ends[partition] = high
        except KafkaException as error:
            self._refusal.check(self._asking)
            raise translate(error, f"asking for the ends of {self.topic}") from None
        return ends

    def _consume(self) -> list[Message]:
        try:
            return self._consumer.consume(_BATCH, _SLICE_S)
        except KafkaException as error:
            raise translate(error, f"reading the keys of {self.topic}") from None

    def _take(self, messages: list[Message]) -> None:
        execute = self._keys.execute
        execute("begin")
        for message in messages:
            error = message.error()
            partition = message.partition() or 0
            if error is not None:
                if error.code() != KafkaError._PARTITION_EOF:
                    raise translate(error, f"reading the keys of {self.topic}")
                # Behind markers of transactions, which are no records.
                self._positions[partition] = max(self._positions[partition], message.offset() or 0)
                continue
            self._positions[partition] = (message.offset() or 0) + 1
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
