"""The Redis store: the seam of `cdc.mirror.store` over two connections.

One connection writes, under the guard. Another one, opened when it is first needed, does what has keys of its own to
watch: truncates and the removal of expiry.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from cdc.errors import CdcError
from cdc.mirror.store import (
    Arrival,
    Batch,
    Capabilities,
    GuardLost,
    Partition,
    Refusal,
    StoredOffset,
)
from cdc.mirror.tables import TableEntry, Tables
from cdc.redis.barrier import Barrier
from cdc.redis.connection import Wire
from cdc.redis.fence import TABLES, Fence, table_field
from cdc.redis.server import refuse_unfit
from cdc.redis.sweep import Sweep
from cdc.redis.writer import Writer

__all__ = ["RedisStore"]

_PAGES: Final = 8
"""Pages of keys looked at in one `RedisStore.advance`."""


class RedisStore:
    """Rows as hashes, offsets beside them (`cdc.mirror.store.Store`)."""

    def __init__(
        self,
        connector: str,
        connect: Callable[[], Wire],
        capabilities: Capabilities,
        ttl: int | None,
    ) -> None:
        self.capabilities = capabilities
        self._connector = connector
        self._connect = connect
        self._ttl = ttl
        self._wire: Wire | None = None
        self._fence: Fence | None = None
        self._writer: Writer | None = None
        self._control: Wire | None = None
        self._barriers: dict[str, Barrier] = {}
        self._expiring: list[tuple[TableEntry, Sweep]] = []

    def take(self, partitions: Collection[Partition]) -> Mapping[Partition, StoredOffset]:
        if self._writer is not None and self._writer.pending:
            self.close()
        self._writer = self._fence = None
        self._barriers.clear()
        wire = self._wire
        if wire is None:
            wire = self._connect()
            refuse_unfit(wire)
            self._wire = wire
        with self._closing():
            self._fence = Fence(wire, self._connector, partitions)
        self._writer = Writer(wire, self._fence, self._connector, self._ttl)
        self._expiring = self._still_expiring(self._fence.tables)
        return self._fence.offsets()

    def tables(self) -> Tables:
        return self._guarded()[1].tables

    def write(self, batch: Batch) -> None:
        with self._closing():
            self._guarded()[0].write(batch)

    def settle(self) -> Sequence[Refusal]:
        with self._closing():
            return self._guarded()[0].settle()

    def confirm(self) -> None:
        _, fence = self._guarded()
        offsets = {
            partition: replace(offset, previous=None)
            for partition, offset in fence.offsets().items()
            if offset.previous is not None
        }
        if offsets:
            self.write(Batch(offsets=offsets))
            self.settle()

    def verify(self) -> None:
        with self._closing():
            writer, fence = self._guarded()
            fence.verify(writer.wire)

    def _guarded(self) -> tuple[Writer, Fence]:
        if self._writer is None or self._fence is None:
            raise GuardLost("no guard is in place")
        return self._writer, self._fence

    @contextmanager
    def _closing(self) -> Iterator[None]:
        """After any error nothing is written before the next `take`."""
        try:
            yield
        except GuardLost:
            self._writer = self._fence = None
            raise
        except CdcError:
            self.close()
            raise

    # --- truncates and expiry ----------------------------------------------------------------------------

    def arrive(self, arrivals: Iterable[Arrival], partitions: Mapping[str, int]) -> None:
        for arrival in arrivals:
            topic = arrival.partition.topic
            barrier = self._barriers.get(topic)
            with self._closing():
                if barrier is None:
                    barrier = self._barriers[topic] = Barrier(self._second(), self._connector, topic, partitions[topic])
                barrier.arrive(arrival)

    def advance(self) -> Sequence[Partition]:
        released: list[Partition] = []
        with self._closing():
            for topic, barrier in list(self._barriers.items()):
                released += barrier.advance()
                if barrier.empty:
                    del self._barriers[topic]
            if self._expiring:
                self._persist(*self._expiring[0])
        return released

    def _still_expiring(self, tables: Tables) -> list[tuple[TableEntry, Sweep]]:
        """Tables whose rows were written with an expiry that is no longer configured (EXACTNESS.md H23)."""
        if self._ttl is not None:
            return []
        return [(entry, Sweep(entry.spaces())) for entry in tables.of(self._connector) if entry.ttl is not None]

    def _persist(self, entry: TableEntry, sweep: Sweep) -> None:
        """Take the expiry from a page of keys; when none is left, say so in the table's entry.

        Rows written meanwhile keep the expiry they have, and are found by the scan like all others.
        """
        wire = self._second()
        for _ in range(_PAGES):
            if sweep.done:
                break
            keys = sweep.keys(wire.one(*sweep.command()))
            wire.call(*(("PERSIST", key) for key in keys))
        else:
            return
        field = table_field(self._connector, entry.topic)
        _, text = wire.call(("WATCH", TABLES), ("HGET", TABLES, field))
        if text is None:
            wire.one("UNWATCH")
        else:
            entry = replace(TableEntry.decode(text), ttl=None)
            *_, done = wire.call(("MULTI",), ("HSET", TABLES, field, entry.encode()), ("EXEC",))
            if done is None:
                return
        self._expiring.pop(0)

    def _second(self) -> Wire:
        if self._control is None:
            self._control = self._connect()
        return self._control

    def close(self) -> None:
        for wire in (self._wire, self._control):
            if wire is not None:
                wire.close()
        self._wire = self._control = self._writer = self._fence = None
        self._barriers.clear()
