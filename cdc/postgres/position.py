"""Where the stream stands: what is stored, what may be acknowledged. Pure.

The rules are EXACTNESS.md H1 to H3. The stored offset is the end LSN of the last complete transaction, and the
change message reached in the open one. Nothing is acknowledged to Postgres before an offset at or beyond it is durable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cdc.errors import FatalError, brief

__all__ = ["CONTROL_PREFIX", "MARK_PREFIX", "OpenTransaction", "Reset", "StoredPosition", "Tracker"]

MARK_PREFIX: Final = "cdc.mark"
"""Prefix of logical messages with which somebody asks that the position behind them be stored and acknowledged at once,
so that the slot tells how far the stream has come on an idle database too."""

CONTROL_PREFIX: Final = "cdc."
"""How the prefixes of our own logical messages begin: they are never told downstream."""

IDLE_SECONDS: Final = 10.0
"""How often an idle stream writes down how far the WAL has come."""
IDLE_BYTES: Final = 16 << 20
"""WAL after which an idle stream writes it down at once."""

_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class OpenTransaction:
    """The last change message of an unfinished transaction that is stored with its records."""

    commit_lsn: int
    ordinal: int
    counts: Mapping[str, int] | None = None
    """Changes told by table, once transaction metadata has told that it began."""


@dataclass(frozen=True, slots=True)
class StoredPosition:
    """The source offset, as it stands in the offsets topic.

    ``lsn`` is the end LSN of the last complete transaction: the stream restarts there. ``origin`` says what the
    position belongs to (system identifier, timeline, slot, publication, plugin options). ``placed`` counts the places
    just before ``lsn`` that were given to records which are in no transaction (`Tracker.place`).
    """

    epoch: int
    lsn: int
    open: OpenTransaction | None
    last_commit_lsn: int | None
    origin: Mapping[str, Any]
    placed: int = 0

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {"version": _VERSION, "epoch": self.epoch, "lsn": self.lsn}
        if self.open is not None:
            value["open"] = {"lsn": self.open.commit_lsn, "ordinal": self.open.ordinal}
            if self.open.counts is not None:
                value["open"]["counts"] = dict(self.open.counts)
        if self.last_commit_lsn is not None:
            value["lsn_commit"] = self.last_commit_lsn
        if self.placed:
            value["placed"] = self.placed
        value["origin"] = dict(self.origin)
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> StoredPosition:
        """`FatalError` when the offset is not one of ours, or of a newer version."""
        try:
            if value["version"] != _VERSION:
                raise FatalError(
                    f"the stored source offset has version {value['version']}, this program reads {_VERSION}. "
                    "Run the version of cdc that wrote it, or delete the connector's offsets to start over"
                )
            unfinished = value.get("open")
            return cls(
                epoch=int(value["epoch"]),
                lsn=int(value["lsn"]),
                open=_open(unfinished) if unfinished else None,
                last_commit_lsn=None if value.get("lsn_commit") is None else int(value["lsn_commit"]),
                origin=dict(value["origin"]),
                placed=int(value.get("placed", 0)),
            )
        except _UNREADABLE as error:
            raise _unreadable(value, error) from None


@dataclass(frozen=True, slots=True)
class Reset:
    """Stands in place of the source offset: an operator has given up what lies between ``lsn`` and the next start.

    That makes the slot anew, begins ``epoch`` (H2), reads every table again and removes what is older (H11).
    """

    epoch: int
    lsn: int | None

    def to_json(self) -> dict[str, Any]:
        return {"version": _VERSION, "reset": {"epoch": self.epoch, "lsn": self.lsn}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Reset | None:
        """``None`` for a stored position. `FatalError` as of `StoredPosition.from_json`."""
        reset = value.get("reset")
        if reset is None:
            return None
        try:
            return cls(int(reset["epoch"]), None if reset["lsn"] is None else int(reset["lsn"]))
        except _UNREADABLE as error:
            raise _unreadable(value, error) from None


_UNREADABLE: Final = (KeyError, TypeError, ValueError, AttributeError, OverflowError)


def _unreadable(value: Mapping[str, Any], error: Exception) -> FatalError:
    return FatalError(
        f"the stored source offset cannot be read ({error!r} in {brief(value, 400)}). "
        "It was not written by this connector: use another connector name, or delete its offsets to start over"
    )


def _open(value: Mapping[str, Any]) -> OpenTransaction:
    counts = value.get("counts")
    told = None if counts is None else {str(table): int(count) for table, count in counts.items()}
    return OpenTransaction(int(value["lsn"]), int(value["ordinal"]), told)


class Tracker:
    """Follows the stream; tells what to store, and what may be acknowledged once that is durable."""

    def __init__(self, stored: StoredPosition, now: float) -> None:
        self._epoch = stored.epoch
        self._origin = stored.origin
        self._lsn = stored.lsn
        self._open = stored.open
        self._last_commit_lsn = stored.last_commit_lsn
        self._placed = stored.placed
        self._records = False
        self._asked = False
        self._stored_lsn = stored.lsn
        self._stored_at = now
        self._offered_lsn: int | None = None
        self.received = stored.lsn
        """Highest LSN seen: the ``write`` of a status update."""
        self.durable = stored.lsn
        """What may be acknowledged: never falls."""

    @property
    def last_commit_lsn(self) -> int | None:
        return self._last_commit_lsn

    @property
    def resting_at(self) -> int | None:
        """The LSN below which all commits were handed on, and none above; ``None`` inside a transaction."""
        return None if self._open is not None else self._lsn

    def place(self) -> tuple[int, int]:
        """LSN and ordinal of a place behind all that was handed on, and before all that will be. Only at rest.

        A commit record begins at or after the point that the stream has reached, and the last one ended there, so
        that no transaction has the LSN before it (H8). Each place follows the last one, after a restart too.
        """
        self._placed += 1
        return self._lsn - 1, self._placed

    def _move(self, lsn: int) -> None:
        if lsn > self._lsn:
            self._lsn = lsn
            self._placed = 0
        self.received = max(self.received, lsn)

    def told(self) -> None:
        """Records have been handed on: the position must be stored with them."""
        self._records = True

    def asked(self) -> None:
        """A mark was read: the position must be stored once its transaction is complete."""
        self._asked = True

    def reached(self, commit_lsn: int, ordinal: int, counts: Mapping[str, int] | None = None) -> None:
        """The open transaction has been handed on up to this change message."""
        self._open = OpenTransaction(commit_lsn, ordinal, counts)

    def passed(self, lsn: int) -> None:
        """What stands at ``lsn``, outside of any transaction, has been handed on: the stream goes on behind it."""
        self._move(lsn + 1)

    def committed(self, commit_lsn: int, end_lsn: int, *, ours: bool = False) -> None:
        """The transaction is complete. One that is ``ours`` alone is not the last commit to anybody else."""
        self._open = None
        if not ours:
            self._last_commit_lsn = commit_lsn
        self._records |= self._asked
        self._asked = False
        self._move(end_lsn)

    def idle(self, wal_end: int) -> None:
        """A keepalive between transactions: all before ``wal_end`` has been sent and there was nothing for us."""
        if self._open is None:
            self._move(wal_end)
        self.received = max(self.received, wal_end)

    def due(self, now: float) -> bool:
        """Whether there is something worth storing: records always, bare progress at a bounded rate."""
        if self._records:
            return True
        ahead = self._lsn - self._stored_lsn
        return ahead >= IDLE_BYTES or (ahead > 0 and now - self._stored_at >= IDLE_SECONDS)

    def offer(self) -> StoredPosition:
        """The position to store now."""
        self._offered_lsn = self._lsn
        return StoredPosition(self._epoch, self._lsn, self._open, self._last_commit_lsn, self._origin, self._placed)

    def stored(self, now: float) -> None:
        """What was offered last is durable, with every record before it."""
        if self._offered_lsn is None:
            return
        self._stored_lsn = self._offered_lsn
        self.durable = max(self.durable, self._offered_lsn)
        self._offered_lsn = None
        self._records = False
        self._stored_at = now
