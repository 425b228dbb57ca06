"""Deleting the keys of a topic that no row has any more, beside the running stream (EXACTNESS.md H11, H14).

A source asks for it with a `cdc.plugin.Sweep` once it has told all rows of a table anew. The topic is read from its
beginning; a key whose last record is older than that telling is a ghost, whatever its bytes mean. While the last few
records are read nothing is written, so that no row can come back between the look and its delete. Nothing of this is
stored: after a crash the source asks again, and what was deleted already is not found any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import structlog
from confluent_kafka import Message

from cdc.errors import DataError, TableError
from cdc.kafka.scan import KeyScan
from cdc.plugin import Converter, Sweep
from cdc.record import HEADER_POSITION, HEADER_SOURCE, RowChange, Transaction

__all__ = ["Ghosts", "Output"]

_log = structlog.get_logger(__name__)

INDEX: Final = 1 << 31
"""Of the first record after a change message: no message makes so many."""


class Output(Protocol):
    """What the source task's loop does for a sweep."""

    def scattered(self, sweep: Sweep) -> bool: ...

    def partitions(self, sweep: Sweep) -> int: ...

    def truncate_key(self, sweep: Sweep, partition: int) -> bytes | None: ...

    def place(self) -> tuple[Transaction, int, int]: ...

    def prepare(self, sweep: Sweep) -> None: ...

    def refuse(self, sweep: Sweep, error: TableError) -> None: ...

    def write(self, sweep: Sweep, change: RowChange, key: bytes | None, partition: int, now_us: int) -> None: ...

    def commit(self) -> None: ...

    def full(self) -> bool: ...

    def renewed(self, sweep: Sweep) -> None: ...

    def swept(self, sweep: Sweep, declined: str = "") -> None: ...

    def pump(self) -> None: ...


class Ghosts:
    """The sweeps of one source task, one after the other."""

    def __init__(self, worker: Mapping[str, str], source: bytes, keys: Converter, output: Output) -> None:
        self._worker = worker
        self._source = source
        self._keys = keys
        self._output = output
        self._waiting: list[Sweep] = []
        self._scan: KeyScan | None = None
        self.declined = 0
        """Sweeps that were not done."""

    def ask(self, sweeps: list[Sweep]) -> None:
        """Take what a source asks for."""
        self._waiting += sweeps

    @property
    def busy(self) -> bool:
        return bool(self._waiting)

    def step(self) -> None:
        """Go on with the first sweep; waits only for its last few records."""
        sweep = self._waiting[0]
        topic = sweep.shape.topic
        if self._scan is None:
            if self._output.scattered(sweep):
                self._decline(sweep)
                return
            try:
                self._output.prepare(sweep)
            except TableError as error:
                del self._waiting[0]
                self._output.refuse(sweep, error)
                return
            partitions = self._output.partitions(sweep)
            keys = [self._output.truncate_key(sweep, partition) for partition in range(partitions)]
            barriers = [key for key in keys if key is not None]
            self._scan = KeyScan(self._worker, topic, partitions, self._is_old(sweep), barriers)
            self._scan.start()
        if not self._scan.near():
            return
        self._output.commit()
        self._scan.finish(self._output.pump)
        count = self._delete(sweep, self._scan)
        self._scan.close()
        self._scan = None
        del self._waiting[0]
        if sweep.renew:
            self._renew(sweep, count)
        self._output.swept(sweep)
        self._output.commit()
        _log.info("deleted the keys of a topic that no row has any more", topic=topic, keys=count)

    def _decline(self, sweep: Sweep) -> None:
        """Transforms may have sent a table's records to any topic, and other tables' to the same one."""
        del self._waiting[0]
        what = (
            f"keys that no row of {sweep.shape.schema}.{sweep.shape.table} has any more are not looked for, because "
            "transforms decide which topic and key a record gets. Remedy: remove what is too much in the sinks (cdc "
            "verify shows it)"
        )
        if sweep.renew:
            self._output.refuse(sweep, TableError(what + "; or start the topic anew"))
            return
        _log.error(what)
        self.declined += 1
        self._output.swept(sweep, what)

    def close(self) -> None:
        if self._scan is not None:
            self._scan.close()
            self._scan = None

    def _is_old(self, sweep: Sweep) -> Callable[[Message], bool]:
        since, source = sweep.since, self._source
        if sweep.renew:
            return lambda _message: True

        def is_old(message: Message) -> bool:
            # Every record of a source task carries both headers; one without is of a time before it, or of Debezium's.
            headers = dict(message.headers() or ())
            return headers.get(HEADER_SOURCE) != source or (headers.get(HEADER_POSITION) or b"") < since  # type: ignore[operator]

        return is_old

    def _delete(self, sweep: Sweep, scan: KeyScan) -> int:
        """A delete, where the key's bytes tell its columns, and a tombstone for each key that was found."""
        output, shape = self._output, sweep.shape
        tx, lsn, ordinal = output.place()
        now_us = time.time_ns() // 1000
        index = INDEX
        count = 0
        for partition, key in scan.found():
            row = None if sweep.renew else self._keys.key_row(shape, key)
            if row is not None:
                change = RowChange(shape, "d", row, row, None, tx, lsn, ordinal, index)
                try:
                    output.write(sweep, change, key, partition, now_us)
                    index += 1
                except DataError:
                    row = None  # a key of another type than the table's of now: the tombstone tells enough
            output.write(sweep, RowChange(shape, "", row, None, None, tx, lsn, ordinal, index), key, partition, now_us)
            index += 1
            count += 1
            if output.full():
                output.commit()
        return count

    def _renew(self, sweep: Sweep, count: int) -> None:
        """All keys are gone, durably: now the keys may be others.

        The old key of a row and its new one are in different partitions: a sink could apply the tombstone of the one
        after the row of the other. A truncate is a barrier for all partitions (H16).
        """
        output, shape = self._output, sweep.shape
        output.commit()
        tx, lsn, ordinal = output.place()
        change = RowChange(shape, "t", None, None, None, tx, lsn, ordinal, INDEX + 2 * count, broadcast=True)
        now_us = time.time_ns() // 1000
        for partition in range(output.partitions(sweep)):
            output.write(sweep, change, output.truncate_key(sweep, partition), partition, now_us)
        output.renewed(sweep)
