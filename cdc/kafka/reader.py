"""Reading a topic from given offsets, read-committed and in no group; and what a topic's settings keep of it."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]

from cdc.errors import CdcError, FatalError, RetriableError
from cdc.kafka.settings import client_settings, translate

__all__ = ["Retention", "TopicReader", "retention"]

_REQUEST_S: Final = 5.0


class Retention(NamedTuple):
    """What a topic's settings let the broker remove."""

    compacted: bool
    """Records are removed once a later one has the same key."""
    timed: bool
    """Records are removed by age or size, whether or not a later one has the same key."""
    tombstones_ms: int | None
    """How long a tombstone can be read at least, if it is removed at all."""


def retention(worker: Mapping[str, str], topic: str) -> Retention | None:
    """What the broker says of a topic; ``None`` from a broker that tells no settings. `RetriableError` without answer.

    For one look: makes a client of its own.
    """
    resource = ConfigResource(ResourceType.TOPIC, topic)
    doing = f"asking for the settings of topic {topic}"
    admin = AdminClient(client_settings(worker, "admin"))  # its requests end with it
    try:
        [future] = admin.describe_configs([resource]).values()
        settings = {name: entry.value for name, entry in future.result(timeout=2 * _REQUEST_S).items()}
    except KafkaException as error:
        code = error.args[0].code()
        if code in (KafkaError._UNSUPPORTED_FEATURE, KafkaError.UNSUPPORTED_VERSION):
            return None
        raise translate(error, doing) from None
    except TimeoutError:
        raise RetriableError(f"{doing}: no answer") from None
    policy = settings.get("cleanup.policy")
    if policy is None:
        return None
    compacted = "compact" in policy
    limited = settings.get("retention.ms") != "-1" or settings.get("retention.bytes") != "-1"
    kept = settings.get("delete.retention.ms")
    return Retention(
        compacted,
        timed="delete" in policy and limited,
        tombstones_ms=int(kept) if compacted and kept is not None else None,
    )


class TopicReader:
    """Reads some partitions of one topic. For one thread.

    Errors: `RetriableError` for what passes, `FatalError` for an offset that the topic does not have.
    """

    def __init__(self, worker: Mapping[str, str], topic: str, purpose: str) -> None:
        self.topic = topic
        self.positions: dict[int, int] = {}
        """Partition → where it was read to. Nothing below is to come any more."""
        # No offset is ever committed, and no group joined: the name is for quotas and logs.
        settings: dict[str, Any] = {
            **client_settings(worker, "consumer"),
            "group.id": f"cdc-{purpose}-{topic}-{secrets.token_hex(4)}",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "allow.auto.create.topics": False,
            "queued.max.messages.kbytes": 16 << 10,
            "fetch.queue.backoff.ms": 5,
            "fetch.wait.max.ms": 20,
        }
        settings.pop("group.instance.id", None)
        try:
            self._consumer = Consumer(settings)
        except KafkaException as error:
            raise translate(error, f"making a consumer for {topic}") from None

    def close(self) -> None:
        """Never raises."""
        self._consumer.close()

    def bounds(self, partitions: Collection[int]) -> dict[int, tuple[int, int]]:
        """The first offset of each partition and the one behind its last committed record."""
        return {partition: self._bounds(partition) for partition in partitions}

    def _bounds(self, partition: int) -> tuple[int, int]:
        doing = f"asking for the offsets of {self.topic}[{partition}]"
        try:
            found = self._consumer.get_watermark_offsets(TopicPartition(self.topic, partition), timeout=_REQUEST_S)
        except KafkaException as error:
            raise translate(error, doing) from None
        if found is None:
            raise RetriableError(f"{doing}: no answer")
        return found

    def go(self, begins: Mapping[int, int | None]) -> None:
        """Read exactly these partitions, from these offsets on; ``None`` is the beginning."""
        self.positions = {partition: begin or 0 for partition, begin in begins.items()}
        parts = [
            TopicPartition(self.topic, partition, OFFSET_BEGINNING if begin is None else begin)
            for partition, begin in begins.items()
        ]
        try:
            self._consumer.assign(parts)
        except KafkaException as error:
            raise translate(error, f"going to an offset of {self.topic}") from None

    def leave(self, partition: int) -> None:
        """Read no more of a partition."""
        try:
            self._consumer.incremental_unassign([TopicPartition(self.topic, partition)])
        except KafkaException as error:
            raise translate(error, f"leaving {self.topic}[{partition}]") from None

    def fetch(self, most: int, timeout: float) -> list[Message]:
        """The next records, up to ``most``; waits up to ``timeout`` seconds for the first. Moves `positions`."""
        try:
            first = self._consumer.poll(timeout)
            found = [] if first is None else [first, *self._consumer.consume(most - 1, 0)]
        except KafkaException as error:
            raise translate(error, f"reading {self.topic}") from None
        records = []
        for message in found:
            error_ = message.error()
            partition, offset = message.partition() or 0, message.offset() or 0
            if error_ is None:
                records.append(message)
                self._moved(partition, offset + 1)
            elif error_.code() == KafkaError._PARTITION_EOF:
                self._moved(partition, offset)  # behind markers of transactions, which are no records
            else:
                raise self._failed(error_, partition)
        return records

    def _moved(self, partition: int, offset: int) -> None:
        if offset > self.positions.get(partition, 0):
            self.positions[partition] = offset

    def _failed(self, error: KafkaError, partition: int) -> CdcError:
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            low, high = self._bounds(partition)
            return FatalError(
                f"{self.topic}[{partition}] does not have the offset {self.positions.get(partition)}; it holds {low} "
                f"to {high}. Remedy: begin anew; if the topic was made anew, see docs/operations.md"
            )
        found = translate(error, f"reading {self.topic}[{partition}]")
        if isinstance(found, FatalError | RetriableError):
            return found
        return RetriableError(str(found))
