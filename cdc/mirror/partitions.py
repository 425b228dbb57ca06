"""A partition while it is ours: where it stands, and what was applied of it."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from cdc.errors import DataError
from cdc.mirror.plans import TablePlans
from cdc.mirror.store import Arrival, Partition, Previous, StoredOffset

__all__ = ["Faulty", "Message", "PartitionState", "Standing", "as_text", "original"]


class Message(Protocol):
    """A consumed record, as confluent-kafka hands it out; not one of its events."""

    def topic(self) -> Any: ...
    def partition(self) -> Any: ...
    def offset(self) -> Any: ...
    def key(self) -> Any: ...
    def value(self) -> Any: ...
    def headers(self) -> Any: ...
    def timestamp(self) -> Any: ...


class Faulty:
    """A message that was found to be at fault before its turn: asked for its value or key, it says so."""

    def __init__(self, message: Message, error: DataError) -> None:
        self.original = message
        self._error = error
        self.topic = message.topic
        self.partition = message.partition
        self.offset = message.offset
        self.headers = message.headers
        self.timestamp = message.timestamp

    def value(self) -> Any:
        raise self._error

    def key(self) -> Any:
        raise self._error


def original(message: Message) -> Message:
    """The message as it was consumed, with the bytes that are in the topic."""
    while (inner := getattr(message, "original", None)) is not None:
        message = inner
    return message


def as_text(header: bytes) -> str:
    """A header of ours; whatever somebody else put there must not stop the partition."""
    return header.decode(errors="backslashreplace")


class Standing(NamedTuple):
    """Where a partition begins: what the store holds, and the topic as it is now."""

    stored: StoredOffset | None = None
    topic_id: str | None = None
    partitions: int | None = None


class PartitionState:
    """What the assembler knows of one partition."""

    __slots__ = (
        "_standing",
        "applied",
        "begin",
        "closed",
        "dirty",
        "held",
        "index",
        "last",
        "next",
        "partition",
        "plans",
        "redo",
        "redo_until",
    )

    def __init__(self, index: int, partition: Partition, standing: Standing, plans: TablePlans) -> None:
        self.index = index
        """The number by which changes name the partition."""
        self.partition = partition
        self.plans = plans
        self._standing = standing
        stored = standing.stored
        begin = None if stored is None else stored.previous or stored
        positions = {} if begin is None else begin.positions
        self.next = 0 if begin is None else begin.next
        """The offset behind the last record taken."""
        self.applied = {source.encode(): position.encode() for source, position in positions.items()}
        """Source → last position taken, as header bytes."""
        self.redo_until = stored.next if stored is not None and stored.previous is not None else None
        """The end of a batch whose outcome nobody saw, until it was taken again."""
        self.redo: list[Message] = []
        self.begin: Previous | None = None
        """Where this batch began, once it has a record of the partition."""
        self.dirty = False
        """This batch has a change of the partition."""
        self.last: Message | None = None
        self.closed = False
        """Records are passed over: the partition stands at a truncate, or at a record that cannot be mirrored."""
        self.held: Arrival | None = None

    @property
    def known(self) -> bool:
        """The store holds an offset of it."""
        return self._standing.stored is not None

    @property
    def alone(self) -> bool:
        """It is the only partition of its topic."""
        return self._standing.partitions == 1

    def positions(self) -> dict[str, str]:
        return {as_text(source): as_text(position) for source, position in self.applied.items()}

    def offset(self, previous: Previous | None) -> StoredOffset:
        """What to store of the partition now."""
        stored = self._standing.stored
        timestamp = -1 if stored is None else stored.timestamp
        return StoredOffset(
            next=self.next,
            timestamp=timestamp if self.last is None else self.last.timestamp()[1],
            positions=self.positions(),
            previous=previous,
            topic_id=self._standing.topic_id,
            partitions=self._standing.partitions,
        )
