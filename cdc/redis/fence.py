"""The guard: which keys of ours are watched, what they hold, and what they are called.

===========================================  ==============================================================
``__cdc:offset:{<connector>}:<topic>:<n>``   `cdc.mirror.store.StoredOffset` of partition ``n``
``__cdc:tables``                             hash ``<connector> <topic>`` → `cdc.mirror.tables.TableEntry`
``__cdc:truncate:{<connector>}:<topic>``     hash of a truncate under way (`cdc.redis.barrier`)
``__cdc:rebuild:{<connector>}:<topic>``      hash of a rebuild that is not finished (`cdc.redis.mend`)
===========================================  ==============================================================

All of a task's offset keys, and ``__cdc:tables``, are under WATCH whenever an EXEC is sent, and their values were
read on the same connection after that WATCH.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from cdc.mirror.store import GuardLost, Partition, StoredOffset
from cdc.mirror.tables import TableEntry, Tables
from cdc.redis.connection import Argument, Wire, pack

__all__ = ["TABLES", "Fence", "barrier_key", "forget", "load_tables", "offset_key", "rebuild_key", "table_field"]

TABLES: Final = b"__cdc:tables"


def offset_key(connector: str, partition: Partition) -> bytes:
    """Where the offset of a partition is. The braces keep all of a connector's in one slot of a cluster."""
    return f"__cdc:offset:{{{connector}}}:{partition.topic}:{partition.number}".encode()


def barrier_key(connector: str, topic: str) -> bytes:
    """Where the state of a topic's truncate is."""
    return f"__cdc:truncate:{{{connector}}}:{topic}".encode()


def rebuild_key(connector: str, topic: str) -> bytes:
    """Where a rebuild of a topic keeps how far it is."""
    return f"__cdc:rebuild:{{{connector}}}:{topic}".encode()


def table_field(connector: str, topic: str) -> bytes:
    """The field of `TABLES` that a topic's entry is in."""
    return f"{connector} {topic}".encode()


def forget(entry: TableEntry) -> str:
    """How an operator makes Redis forget what it knows of a table."""
    return f"HDEL {TABLES.decode()} '{entry.connector} {entry.topic}'"


def load_tables(wire: Wire) -> Tables:
    """What Redis knows of all mirrored tables."""
    return _tables(wire.one("HGETALL", TABLES))


def _tables(reply: list[bytes]) -> Tables:
    return Tables([TableEntry.decode(value) for value in reply[1::2]], forget)


class Fence:
    """The watched keys of one connection and the values that they must have.

    ``arm`` is sent behind every EXEC, so that the WATCH and GET for the next batch cost no round trip.
    """

    def __init__(self, wire: Wire, connector: str, partitions: Collection[Partition]) -> None:
        self._connector = connector
        self.keys: dict[Partition, bytes] = {partition: offset_key(connector, partition) for partition in partitions}
        keys: list[Argument] = list(self.keys.values())
        watch = pack(("WATCH", TABLES, *keys))
        read = pack(("MGET", *keys)) if keys else pack(("ECHO", b""))
        self.arm = watch + read
        wire.send(pack(("UNWATCH",)) + watch + read + pack(("HGETALL", TABLES)))
        _, _, values, tables = (_checked(wire) for _ in range(4))
        self.held: list[bytes | None] = list(values) if keys else []
        self.tables = _tables(tables)

    def offsets(self) -> Mapping[Partition, StoredOffset]:
        """What is held, without the partitions of which nothing is."""
        pairs = zip(self.keys, self.held, strict=True)
        return {partition: StoredOffset.decode(value) for partition, value in pairs if value is not None}

    def rearmed(self, wire: Wire) -> list[bytes | None]:
        """Read the replies to ``arm``: what is held now."""
        _checked(wire)
        values = _checked(wire)
        return list(values) if self.keys else []

    def verify(self, wire: Wire) -> None:
        """Guard anew, and compare. `GuardLost` when another value is held than at the last look."""
        wire.send(pack(("UNWATCH",)) + self.arm)
        _checked(wire)
        now = self.rearmed(wire)
        if now != self.held:
            self.held = now
            raise GuardLost("the offsets in Redis changed while nothing was written")

    def expect(self, written: Mapping[Partition, bytes]) -> list[bytes | None]:
        """What must be held once ``written`` is applied."""
        return [written.get(partition, value) for partition, value in zip(self.keys, self.held, strict=True)]


def _checked(wire: Wire) -> list[bytes]:
    answer = wire.reply()
    if isinstance(answer, Exception):
        raise wire.refused(answer, "guarding the offsets")
    return answer  # type: ignore[no-any-return]
