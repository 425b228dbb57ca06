"""Partitions that a client has stopped reading, though they hold more.

librdkafka loses a partition now and then where a broker ended and came back: it is assigned, not paused, no error is
told, and its fetches never go out again (confluentinc/librdkafka #4492, #5153, #2363). A mirror that trusts it stands
still in silence. So the broker itself is asked, once in a while, where partitions end, and what was read is held
against that. No I/O here: who calls says the time, the ends and how far the reading is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

__all__ = ["STALL_S", "StallWatch"]

STALL_S: Final = 15.0
"""For how long nothing may come of a partition that holds more, with nothing else in the client's queue."""

_DOUBLINGS: Final = 5
"""Of the patience, at most: eight minutes between two times that a partition is told."""


class _Suspect(NamedTuple):
    reached: int
    since: float
    drained: int
    """How often the client's queue had been seen empty."""


class StallWatch:
    """Tells the partitions of which nothing comes. Times are seconds of one steady clock, offsets those to read next.

    A partition is told when its committed end was ahead of what was read of it at every look for ``patience`` seconds,
    what was read of it did not move, and the client had nothing else to hand out meanwhile: a long queue is no stall.
    Told in vain, it is told again after twice the time, and so on up to 32 times the patience.
    """

    def __init__(self, patience: float = STALL_S) -> None:
        self._patience = patience
        self._suspects: dict[Any, _Suspect] = {}
        self._vain: dict[Any, tuple[int, int]] = {}
        """Partition → what was read of it when it was told, and how often it was."""
        self._drained = 0

    @property
    def period(self) -> float:
        """How often to look, in seconds."""
        return self._patience / 3

    def drained(self) -> None:
        """The client had nothing more to hand out."""
        self._drained += 1

    def forget(self, parts: Collection[Any]) -> None:
        """These are paused, revoked or read from elsewhere."""
        for part in parts:
            self._suspects.pop(part, None)

    def look(self, now: float, ends: Mapping[Any, int], reached: Mapping[Any, int]) -> dict[Any, tuple[int, int]]:
        """Partitions that stand still: (what is to be read next, the end). Those without an end are not looked at."""
        told = {}
        for part in self._suspects.keys() - ends.keys():
            del self._suspects[part]
        for part, end in ends.items():
            at = reached.get(part)
            if at is None or at >= end:
                self._suspects.pop(part, None)
                self._vain.pop(part, None)
                continue
            before = self._suspects.get(part)
            if before is None or before.reached != at:
                self._suspects[part] = _Suspect(at, now, self._drained)
                continue
            where, times = self._vain.get(part, (at, 0))
            if where != at:
                times = 0
            if now - before.since >= self._patience * 2 ** min(times, _DOUBLINGS) and self._drained > before.drained:
                told[part] = (at, end)
                self._vain[part] = (at, times + 1)
                del self._suspects[part]
        return told

    def in_vain(self, part: Any) -> int:
        """How often a partition was told without anything having been read of it since."""
        return self._vain.get(part, (0, 0))[1]
