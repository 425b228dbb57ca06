"""Truncates in a cluster: rows that are older than the truncate are removed, one by one, by the guard.

No partition waits for another one (EXACTNESS.md H16): what it writes after the truncate has a later version and stays,
and what a partition that has yet to come to the truncate writes meanwhile is older, and is removed when it comes there
itself. A row that is removed leaves the fence of a delete, so that nobody who is late can bring it back. A partition
passes once the rows are gone; a kill before that leaves its offset in front of the truncate, and it is done again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import hiredis

from cdc.mirror.keys import KeySpace
from cdc.mirror.store import Arrival, Partition, Verdict
from cdc.redis.cluster.library import remove
from cdc.redis.cluster.nodes import Call, Nodes
from cdc.redis.cluster.slots import place
from cdc.redis.cluster.sweeps import ClusterSweep
from cdc.redis.errors import classify

__all__ = ["Truncates"]

_PAGES: Final = 4
"""Pages of each primary that are looked at in one `Truncates.advance`."""


class Truncates:
    """The truncates that this task's partitions stand at. Uses connections of its own."""

    def __init__(self, nodes: Callable[[], Nodes], version: Callable[[Arrival], bytes], fence_ttl: int) -> None:
        self._nodes = nodes
        self._version = version
        self._fence_ttl = fence_ttl
        self._waiting: list[Arrival] = []
        self._passing: list[Arrival] = []
        """Those whose rows are being removed."""
        self._sweep: ClusterSweep | None = None

    @property
    def empty(self) -> bool:
        """Nobody waits."""
        return not self._waiting and not self._passing

    def arrive(self, arrival: Arrival) -> None:
        """A partition has written everything before the truncate and waits."""
        self._waiting.append(arrival)

    def advance(self, spaces: Callable[[str], Sequence[KeySpace]]) -> list[Partition]:
        """Remove some rows; the partitions that may pass. ``spaces`` are the key spaces of a topic."""
        if self._sweep is None:
            if not self._waiting:
                return []
            first = self._waiting[0]
            # All that wait at this truncate now. Whoever comes later may have written rows that a scan has passed.
            self._passing = [arrival for arrival in self._waiting if self._same(arrival, first)]
            self._waiting = [arrival for arrival in self._waiting if not self._same(arrival, first)]
            self._sweep = ClusterSweep(self._nodes(), spaces(first.partition.topic))
        version = self._version(self._passing[0])
        for _ in range(_PAGES):
            if self._sweep.done:
                break
            self._remove(self._sweep.page(), version)
        if not self._sweep.done:
            return []
        passing, self._passing, self._sweep = self._passing, [], None
        return [arrival.partition for arrival in passing]

    def _same(self, one: Arrival, other: Arrival) -> bool:
        return one.partition.topic == other.partition.topic and self._version(one) == self._version(other)

    def _remove(self, keys: Sequence[bytes], version: bytes) -> None:
        nodes = self._nodes()
        calls: list[Call] = []
        for key in keys:
            slot, fence = place(key)
            calls.append((slot, remove(key, fence, version, self._fence_ttl)))
        for (slot, _), answer in zip(calls, nodes.run(calls), strict=True):
            # A key of another type is none of ours, and stays.
            if isinstance(answer, hiredis.ReplyError) and classify(answer) is not Verdict.REJECT:
                raise nodes.failed(answer, slot, "removing the rows of a truncated table")
