"""The seam between the sink's runtime and a store, and what both keep about partitions.

The runtime decodes, maps keys, folds, waits and counts; a store writes batches and tells what it holds. The store's
word counts: where to read on is asked of the store, never of the consumer group (DESIGN.md §6).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, Protocol

from cdc.errors import FatalError
from cdc.mirror.fold import Ops
from cdc.mirror.tables import TableEntry, Tables

__all__ = [
    "Arrival",
    "Batch",
    "Capabilities",
    "GuardLost",
    "Partition",
    "Previous",
    "Refusal",
    "Store",
    "StoredOffset",
    "Verdict",
]


class Partition(NamedTuple):
    """A partition of a topic."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.number}]"


class Previous(NamedTuple):
    """Where a partition stood before the batch that was written last (EXACTNESS.md H21)."""

    next: int
    positions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StoredOffset:
    """What the store holds about a partition, written in one step with the data.

    ``next`` is the offset to read next; ``timestamp`` that of the last record, in ms since 1970, -1 before
    the first (H20); ``positions`` the last position applied of each source, in its text form (H18).

    While ``previous`` is there, nobody has looked at the outcome of the last batch: some of its records may have been
    refused. Whoever starts reads from ``previous`` on and applies that batch again, whole and in one step, which
    changes nothing that was applied and shows again what was refused. The next batch, or `Store.confirm`, clears it.

    ``topic_id`` and ``partitions`` are those of the topic when they were known (H17).
    """

    next: int
    timestamp: int = -1
    positions: Mapping[str, str] = field(default_factory=dict)
    previous: Previous | None = None
    topic_id: str | None = None
    partitions: int | None = None

    def encode(self) -> bytes:
        """Compact JSON with a version."""
        value: dict[str, Any] = {"v": 1, "next": self.next, "ts": self.timestamp}
        if self.positions:
            value["pos"] = self.positions
        if self.previous is not None:
            value["prev"] = {"next": self.previous.next, "pos": self.previous.positions}
        if self.topic_id is not None:
            value["topic"] = self.topic_id
        if self.partitions is not None:
            value["parts"] = self.partitions
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def decode(cls, text: bytes) -> StoredOffset:
        """`FatalError` for what this version did not write: going on could skip records."""
        try:
            value = json.loads(text)
            if value["v"] != 1:
                raise FatalError(
                    f"an offset in the store was written by a newer version ({text[:80]!r}). Remedy: run that version"
                )
            previous = value.get("prev")
            offset = cls(
                int(value["next"]),
                int(value["ts"]),
                dict(value.get("pos", {})),
                None if previous is None else Previous(int(previous["next"]), dict(previous["pos"])),
                value.get("topic"),
                value.get("parts"),
            )
            offset.encode()  # half of a surrogate pair is no character
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise FatalError(
                f"an offset in the store is not one: {text[:80]!r}. Remedy: delete the key, and the partition is read "
                "again from its beginning"
            ) from error
        return offset


@dataclass(slots=True)
class Batch:
    """What is written in one step: changes, one for each key, and how far each partition has come with them."""

    ops: Ops = field(default_factory=dict)
    sources: Sequence[Partition] = ()
    """The partitions that changes name by their number here."""
    offsets: dict[Partition, StoredOffset] = field(default_factory=dict)
    entries: dict[str, TableEntry] = field(default_factory=dict)
    """What is new about tables, by topic."""
    released: list[Partition] = field(default_factory=list)
    """Partitions whose offset passes a truncate for which they were held."""
    versions: dict[bytes, tuple[bytes, bytes]] | None = None
    """Key → source and position of its change, as header bytes; both empty for records without. Only for a store that
    guards each row (not `Capabilities.atomic_offsets`)."""

    def __bool__(self) -> bool:
        return bool(self.offsets or self.entries)


class Verdict(Enum):
    """What an error means for those who met it."""

    RETRY = "retry"
    """Nothing is lost by waiting: the whole batch again, later."""
    REJECT = "reject"
    """One record is at fault; its neighbours are applied."""
    STOP = "stop"
    """An operator must act."""


class Refusal(NamedTuple):
    """A change that the store would not apply, though it applied its neighbours."""

    key: bytes
    partition: Partition
    offset: int
    reason: str


class GuardLost(Exception):
    """The batch was not applied, or may not have been: somebody else wrote, or the connection is gone.

    Nothing may be written before `Store.take` has said again what the store holds.
    """


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store can do."""

    atomic_offsets: bool
    """Changes and offsets are one step."""
    fenced: bool
    """A writer that no longer owns a partition cannot write."""
    truncate: bool
    """It can remove all rows of a table."""
    max_batch_records: int
    max_batch_bytes: int


class Arrival(NamedTuple):
    """A partition stands at a truncate of its topic: the next record to read is the truncate at ``offset``."""

    partition: Partition
    source: str
    position: str
    offset: int


class Store(Protocol):
    """A store that rows are mirrored into. For one thread.

    Every method raises `cdc.errors.RetriableError` when the store is away or busy and `cdc.errors.FatalError`
    when an operator must act; after either, `take` comes before the next `write`.
    """

    capabilities: Capabilities

    def take(self, partitions: Collection[Partition]) -> Mapping[Partition, StoredOffset]:
        """Guard exactly these partitions from now on, and tell what is held about them (no entry: nothing)."""

    def tables(self) -> Tables:
        """What the store knows of all tables mirrored into it, as of the last `take`."""

    def write(self, batch: Batch) -> None:
        """Hand over a batch. `settle` comes before the next `write`."""

    def settle(self) -> Sequence[Refusal]:
        """Wait for the outcome of the last `write`: the changes that were refused, all others being applied.

        `GuardLost` when the batch was not applied because somebody else wrote to a guarded partition.
        """

    def confirm(self) -> None:
        """Say that the outcome of the last batches was seen; without, they are applied again after a restart."""

    def verify(self) -> None:
        """While idle: is the store still there, and does it hold what we wrote? `GuardLost` if not."""

    def arrive(self, arrivals: Iterable[Arrival], partitions: Mapping[str, int]) -> None:
        """Partitions that wait at a truncate; ``partitions`` is how many each topic has."""

    def advance(self) -> Sequence[Partition]:
        """Do a little of what truncates need; the partitions that may pass theirs now (see `Batch.released`)."""

    def close(self) -> None:
        """Let go of everything. Never raises."""
