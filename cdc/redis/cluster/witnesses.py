"""Offsets in a cluster: a copy of each on every primary, which tells what that primary has lost.

A row and an offset cannot be written in one step when two nodes have them. So an offset is written once every row below
it is acknowledged by its node, and to all nodes, into hashes called witnesses::

    __cdc:offset:{<tag>}:<connector>     <topic>:<n> → `cdc.mirror.store.StoredOffset` of partition n

The tags (`cdc.redis.cluster.slots.Topology.tags`) lay a witness into each of 32 parts of the slots, and one on every
primary that has none of these. A node that loses the last seconds, or all, of what was written to it (a failover, an
old RDB, FLUSHALL, an empty disk) loses them from its witnesses too, for it keeps the order in which it wrote: so what a
node surely holds is what its witnesses say, and to go on from the least of all of them is safe. What is read again then
changes nothing where it is there, by the guard of each row.

A witness is set only if it is as it was left (EXACTNESS.md H19): one that an emptied node lacks is not made anew in
silence, and a writer that was replaced cannot set it back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import hiredis

from cdc.mirror.store import GuardLost, Partition, StoredOffset
from cdc.redis.cluster.library import advance
from cdc.redis.cluster.nodes import Call, Nodes
from cdc.redis.cluster.slots import WITNESS_RANGES, slot_of, tag_within
from cdc.redis.connection import Argument, pack

__all__ = ["Witnesses", "least", "witness_key", "witnessed"]


def witness_key(tag: bytes, connector: str) -> bytes:
    """Where a connector's offsets are."""
    return b"__cdc:offset:{%b}:%b" % (tag, connector.encode())


def partition_field(partition: Partition) -> bytes:
    """The field of a witness that a partition's offset is in."""
    return f"{partition.topic}:{partition.number}".encode()


def least(values: Collection[bytes | None]) -> StoredOffset | None:
    """The offset to go on from, given what each witness says; ``None`` is the beginning. Of those that say the same,
    one by which the outcome of the last batch was not seen."""
    if None in values:
        return None
    said = (StoredOffset.decode(value) for value in values if value is not None)
    return min(said, key=lambda stored: (stored.next, stored.previous is None))


def witnessed(
    hget: Callable[[bytes, bytes], bytes | None], connector: str, partition: Partition
) -> StoredOffset | None:
    """What a cluster surely holds of a partition, by the witnesses that every cluster has; for those who only look."""
    tags = [tag_within(*bounds) for bounds in WITNESS_RANGES]
    return least([hget(witness_key(tag, connector), partition_field(partition)) for tag in tags])


class Witnesses:
    """What the witnesses say about the partitions of a task. Errors are those of `Nodes`."""

    def __init__(self, nodes: Nodes, connector: str, partitions: Collection[Partition]) -> None:
        """Read them all."""
        self._nodes = nodes
        self._connector = connector
        self._fields = {partition: partition_field(partition) for partition in partitions}
        self._due: dict[Partition, bytes] = {}
        """What is to be written, and is not yet."""
        self._held: dict[bytes, dict[bytes, bytes | None]] = {}
        """Tag → field → value."""
        if self._fields:
            self._held = self._read(nodes.topology.tags)

    def offsets(self) -> Mapping[Partition, StoredOffset]:
        """Where to go on: the least of what the witnesses say, without the partitions that one of them lacks."""
        found = {
            partition: least([values[field] for values in self._held.values()])
            for partition, field in self._fields.items()
        }
        return {partition: stored for partition, stored in found.items() if stored is not None}

    def unfollowed(self) -> list[bytes]:
        """Tags of primaries with slots of their own alone, on which a running sink has yet to write what it knows.

        All other witnesses have offsets. A sink that begins now reads all again.
        """
        shared = [tag_within(*bounds) for bounds in WITNESS_RANGES]
        known = [field for field in self._fields.values() if all(self._held[tag][field] is not None for tag in shared)]
        return [tag for tag, values in self._held.items() if any(values[field] is None for field in known)]

    def reach(self, offsets: Mapping[Partition, StoredOffset]) -> None:
        """All rows below these offsets are acknowledged: the next `calls` write them."""
        self._due.update((partition, stored.encode()) for partition, stored in offsets.items())

    @property
    def due(self) -> bool:
        """There is something to write."""
        return bool(self._due)

    def calls(self) -> list[Call]:
        """The calls that write what is due. `settle` judges their replies."""
        calls: list[Call] = []
        for tag, held in self._held.items():
            changes: list[Argument] = []
            for partition, value in self._due.items():
                field = self._fields[partition]
                changes += (field, held[field] or b"", value)
            key = witness_key(tag, self._connector)
            calls.append((slot_of(key), advance(key, changes)))
        return calls

    def settle(self, answers: Collection[object]) -> None:
        """`GuardLost` unless every witness was as it was left."""
        written = {self._fields[partition]: value for partition, value in self._due.items()}
        self._due = {}
        for (tag, held), answer in zip(self._held.items(), answers, strict=True):
            if isinstance(answer, hiredis.ReplyError):
                slot = slot_of(witness_key(tag, self._connector))
                raise self._nodes.failed(answer, slot, "storing offsets")
            if answer != 1:
                raise GuardLost("the cluster does not hold the offsets that were written last")
            held.update(written)

    def write(self) -> None:
        """Write what is due, now."""
        if self._due:
            self.settle(self._nodes.run(self.calls()))

    def verify(self) -> None:
        """`GuardLost` when a witness says something else than it was told."""
        if self._fields and self._read(tuple(self._held)) != self._held:
            raise GuardLost("the offsets in the cluster changed while nothing was written")

    def follow(self) -> None:
        """Slots moved between primaries that have lost nothing: a new one gets a witness that says the same."""
        fresh = [tag for tag in self._nodes.topology.tags if tag not in self._held]
        if not fresh or not self._fields:
            return
        said: dict[bytes, bytes] = {
            self._fields[partition]: stored.encode() for partition, stored in self.offsets().items()
        }
        for tag, found in self._read(fresh).items():
            changes: list[Argument] = []
            for field, value in said.items():
                changes += (field, found[field] or b"", value)
            key = witness_key(tag, self._connector)
            if changes and self._nodes.run([(slot_of(key), advance(key, changes))]) != [1]:
                raise GuardLost("another task writes the offsets of a new primary")
            self._held[tag] = {**found, **said}

    def _read(self, tags: Collection[bytes]) -> dict[bytes, dict[bytes, bytes | None]]:
        keys = {tag: witness_key(tag, self._connector) for tag in tags}
        fields = list(self._fields.values())
        calls = [(slot_of(key), pack(("HMGET", key, *fields))) for key in keys.values()]
        held = {}
        for (tag, key), answer in zip(keys.items(), self._nodes.run(calls), strict=True):
            if isinstance(answer, hiredis.ReplyError):
                raise self._nodes.failed(answer, slot_of(key), "reading offsets")
            held[tag] = dict(zip(fields, answer, strict=True))
        return held
