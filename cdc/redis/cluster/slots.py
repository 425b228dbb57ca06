"""Slots, and keys that are to be in a certain one. Pure."""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final, NamedTuple

__all__ = ["SLOTS", "WITNESS_RANGES", "Address", "Range", "Topology", "place", "slot_of", "tag_within"]

SLOTS: Final = 16384

_WIDTH: Final = 512
WITNESS_RANGES: Final = tuple((first, first + _WIDTH - 1) for first in range(0, SLOTS, _WIDTH))
"""Parts of the slots that each have a witness (`cdc.redis.cluster.witnesses`). Those of a primary that has a whole part
go with the keys of that part wherever they are moved to."""


def slot_of(key: bytes) -> int:
    """The slot of a key."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) & 16383


def place(row: bytes) -> tuple[int, bytes]:
    """The slot of a row, and where its fence is, which is in the same one.

    The braces make the whole row key the hash tag. A row key that has a tag of its own lends it; one with other braces
    would end ours too early, and gets a number that happens to have its slot.
    """
    if b"}" not in row:
        return crc_hqx(row, 0) & 16383, b"__cdc:gone:{%b}" % row
    slot = slot_of(row)
    start = row.find(b"{")
    end = row.find(b"}", start + 1) if start >= 0 else -1
    tag = row[start + 1 : end] if end > start + 1 else tag_within(slot, slot)
    return slot, b"__cdc:gone:{%b}:%b" % (tag, row)


@lru_cache(maxsize=SLOTS)
def tag_within(first: int, last: int) -> bytes:
    """The least number whose digits are a hash tag with a slot from ``first`` to ``last``."""
    number = 0
    while not first <= crc_hqx(b"%d" % number, 0) & 16383 <= last:
        number += 1
    return b"%d" % number


class Address(NamedTuple):
    """Where a node answers."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Range(NamedTuple):
    """Slots, both ends included, and the primary that has them."""

    first: int
    last: int
    primary: Address


@dataclass(frozen=True)
class Topology:
    """Which primary has which slots."""

    ranges: tuple[Range, ...]

    @classmethod
    def parse(cls, reply: Iterable[Sequence[Any]], asked: Address) -> Topology:
        """The reply to CLUSTER SLOTS of the node at ``asked``, the host of nodes that do not know their own."""
        ranges = []
        for first, last, primary, *_ in reply:
            host = (primary[0] or b"").decode()
            known = host if host and host != "?" else asked.host
            ranges.append(Range(int(first), int(last), Address(known, int(primary[1]))))
        return cls(tuple(sorted(ranges)))

    @cached_property
    def owners(self) -> list[Address]:
        """Slot → primary. Of a topology that is `whole`."""
        return [primary for first, last, primary in self.ranges for _ in range(first, last + 1)]

    @cached_property
    def primaries(self) -> tuple[Address, ...]:
        """All primaries that have slots."""
        return tuple(dict.fromkeys(part.primary for part in self.ranges))

    @property
    def whole(self) -> bool:
        """Every slot is served."""
        return len(self.owners) == SLOTS

    @cached_property
    def tags(self) -> tuple[bytes, ...]:
        """Hash tags of the witnesses: one for each of `WITNESS_RANGES`, and one more for a primary without any of
        these."""
        tags = [tag_within(*bounds) for bounds in WITNESS_RANGES]
        watched = {self.owners[slot_of(tag)] for tag in tags}
        tags += [self._own(primary) for primary in self.primaries if primary not in watched]
        return tuple(tags)

    def _own(self, primary: Address) -> bytes:
        first, last, _ = next(part for part in self.ranges if part.primary == primary)
        return tag_within(first, last)
