"""A registry's log in memory, for tests without a broker. Several stores may share one."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from cdc.registry.errors import RegistryUnavailable
from cdc.registry.records import Record
from cdc.registry.store import LogReader, SchemaStore


class MemoryTopic:
    """What the stores share."""

    def __init__(self, records: Sequence[Record] = ()) -> None:
        self.records = list(records)
        self.changed = threading.Condition()
        self.stores: list[SchemaStore] = []
        self.refuse = False

    def store(self, *, timeout: float = 10.0) -> SchemaStore:
        """A started store on this topic."""
        store = SchemaStore(MemoryLog(self), timeout=timeout, start_timeout=timeout)
        store.start()
        self.stores.append(store)
        return store

    def close(self) -> None:
        for store in self.stores:
            store.close()


class MemoryLog:
    """One store's view of a topic."""

    def __init__(self, topic: MemoryTopic) -> None:
        self._topic = topic
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self, reader: LogReader) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, args=(reader,), daemon=True)
            self._thread.start()

    def end(self) -> int:
        with self._topic.changed:
            self._require_working()
            return len(self._topic.records)

    def append(self, records: Sequence[Record]) -> int:
        with self._topic.changed:
            self._require_working()
            self._topic.records += records
            self._topic.changed.notify_all()
            return len(self._topic.records) - 1

    def close(self) -> None:
        with self._topic.changed:
            self._stopping = True
            self._topic.changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _require_working(self) -> None:
        if self._topic.refuse:
            raise RegistryUnavailable("the broker is away")

    def _follow(self, reader: LogReader) -> None:
        position = 0
        while True:
            with self._topic.changed:
                while not self._stopping and len(self._topic.records) <= position:
                    self._topic.changed.wait()
                if self._stopping:
                    return
                new = self._topic.records[position:]
            for offset, record in enumerate(new, position):
                reader.record(offset, record.key, record.value)
            position += len(new)
            reader.reached(position)
