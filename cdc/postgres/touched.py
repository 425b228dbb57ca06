"""Which rows a chunk of a snapshot must not bring back. Pure (EXACTNESS.md H8, H9).

A chunk is read in a snapshot of the database and emitted later, at a watermark in the stream. Whatever the stream has
emitted meanwhile that the snapshot did not see is newer than the chunk's row; so is the change of an earlier
transaction that was streamed although it was not yet visible (its commit waited for a synchronous standby).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = ["DatabaseSnapshot", "TouchLog", "oldest"]

Key = tuple[bytes | None, ...]

MOST_KEYS: Final = 200_000
"""Keys remembered at most; transactions beyond it count as having touched every key."""


@dataclass(frozen=True, slots=True)
class DatabaseSnapshot:
    """``pg_current_snapshot()``: which transactions were visible. Transaction ids have 64 bits."""

    xmin: int
    xmax: int
    running: frozenset[int]

    @classmethod
    def parse(cls, text: str, *, standby: bool = False) -> DatabaseSnapshot:
        """From ``xmin:xmax:xip,xip…``.

        On a ``standby`` Postgres leaves the running ones out. There nothing from ``xmin`` on counts as visible: what
        the stream has told of a key is at least as good as a chunk's row.
        """
        xmin, xmax, running = text.split(":")
        if standby:
            return cls(int(xmin), int(xmin), frozenset())
        return cls(int(xmin), int(xmax), frozenset(int(xid) for xid in running.split(",") if xid))

    def full_xid(self, xid: int) -> int:
        """The 64-bit id of a recent 32-bit one: the value nearest to this snapshot's ``xmax``."""
        full = (self.xmax & ~0xFFFFFFFF) | xid
        if full - self.xmax > 1 << 31:
            full -= 1 << 32
        elif self.xmax - full > 1 << 31:
            full += 1 << 32
        return full

    def sees(self, xid: int) -> bool:
        """Whether the effects of the (committed) transaction with this 32-bit id were visible."""
        full = self.full_xid(xid)
        return full < self.xmin or (full < self.xmax and full not in self.running)


def oldest(snapshots: Iterable[DatabaseSnapshot | None]) -> DatabaseSnapshot | None:
    """The one that sees least for sure; ``None`` if one of them is not known, or there is none."""
    found: DatabaseSnapshot | None = None
    for snapshot in snapshots:
        if snapshot is None:
            return None
        if found is None or snapshot.xmin < found.xmin:
            found = snapshot
    return found


class _Touches:
    __slots__ = ("everything", "keys", "xid")

    def __init__(self, xid: int) -> None:
        self.xid = xid
        self.keys: dict[int, set[Key]] = {}
        self.everything: set[int] = set()


class TouchLog:
    """The keys that streamed transactions touched, for as long as a later chunk may not see them."""

    def __init__(self, most_keys: int = MOST_KEYS) -> None:
        self._transactions: deque[_Touches] = deque()
        self._most = most_keys
        self.tables: set[int] = set()
        """OIDs of the tables whose rows are still being read: only their keys are worth noting."""
        self._count = 0
        self._xid = 0
        self._current: _Touches | None = None

    def begin(self, xid: int) -> None:
        """A transaction begins; it is noted only if it touches something."""
        self._xid = xid
        self._current = None

    def _open(self) -> _Touches:
        if self._current is None:
            self._current = _Touches(self._xid)
            self._transactions.append(self._current)
        return self._current

    def touch(self, table: int, key: Key) -> None:
        """The open transaction changed the row with this key."""
        current = self._current or self._open()
        if table in current.everything:
            return
        if self._count >= self._most:
            self._count -= len(current.keys.pop(table, ()))
            current.everything.add(table)
            return
        keys = current.keys.setdefault(table, set())
        before = len(keys)
        keys.add(key)
        self._count += len(keys) - before

    def touch_all(self, table: int) -> None:
        """The open transaction changed rows that are not told one by one (TRUNCATE)."""
        current = self._current or self._open()
        self._count -= len(current.keys.pop(table, ()))
        current.everything.add(table)

    def newer(self, snapshot: DatabaseSnapshot, table: int) -> set[Key] | None:
        """Keys of ``table`` that the stream told newer than ``snapshot``; ``None``: any, read the chunk again."""
        keys: set[Key] = set()
        for transaction in self._transactions:
            if snapshot.sees(transaction.xid):
                continue
            if table in transaction.everything:
                return None
            keys |= transaction.keys.get(table, set())
        return keys

    def forget(self, snapshot: DatabaseSnapshot) -> None:
        """Drop what this snapshot, and so every later one, sees for sure."""
        kept: deque[_Touches] = deque()
        for transaction in self._transactions:
            if snapshot.full_xid(transaction.xid) >= snapshot.xmin:
                kept.append(transaction)
            else:
                self._count -= sum(len(keys) for keys in transaction.keys.values())
        self._transactions = kept
        if self._current is not None and (not kept or kept[-1] is not self._current):
            self._current = None

    def clear(self) -> None:
        """No snapshot is under way any more."""
        self.tables.clear()
        self._transactions.clear()
        self._current = None
        self._count = 0
