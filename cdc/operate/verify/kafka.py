"""Where a topic ends, and whether anything lies between two offsets."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from cdc.errors import RetriableError
from cdc.kafka.clients import Refusal, made
from cdc.kafka.settings import client_settings, translate

__all__ = ["TopicEnds"]

_SLICE_S: Final = 0.5
_ASK_S: Final = 5.0


class TopicEnds:
    """The ends of one topic, by a consumer that joins no group."""

    def __init__(self, worker: Mapping[str, str], topic: str) -> None:
        self._topic = topic
        self._empty: set[tuple[int, int, int]] = set()
        self._refusal = Refusal()
        settings = {
            **client_settings(worker, "consumer"),
            "group.id": "cdc-verify",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 50,
        }
        self._consumer = made(Consumer, settings, self._refusal)

    def close(self) -> None:
        self._consumer.close()

    def read(self, deadline: float) -> dict[int, int]:
        """Partition → where its committed records end. `RetriableError` when Kafka is away."""
        doing = f"asking for the ends of the topic {self._topic}"
        try:
            found = self._consumer.list_topics(self._topic, timeout=_ASK_S).topics.get(self._topic)
            if found is None or found.error is not None:
                return {}  # no record was ever written
            ends = {}
            for partition in found.partitions:
                if time.monotonic() > deadline:
                    raise RetriableError(f"{doing}: no answer in time")
                place = TopicPartition(self._topic, partition)
                ends[partition] = self._consumer.get_watermark_offsets(place, timeout=_ASK_S)[1]
        except KafkaException as error:
            self._refusal.check(self._consumer)
            raise translate(error, doing) from None
        return ends

    def has_records(self, partition: int, start: int, end: int) -> bool:
        """Whether a reader at ``start`` gets any record before ``end``: transactions leave markers at offsets of their
        own, and compaction leaves holes."""
        if (partition, start, end) in self._empty:
            return False
        place = TopicPartition(self._topic, partition, start)
        deadline = time.monotonic() + _ASK_S
        try:
            self._consumer.assign([place])
            while time.monotonic() < deadline:
                message = self._consumer.poll(_SLICE_S)
                if message is None:
                    continue
                error = message.error()
                if error is None:
                    found = (message.offset() or 0) < end
                elif error.code() == KafkaError._PARTITION_EOF:
                    found = False
                else:
                    raise translate(error, f"reading the topic {self._topic}")
                if not found:
                    self._empty.add((partition, start, end))
                return found
        except KafkaException as error:
            raise translate(error, f"reading the topic {self._topic}") from None
        finally:
            self._consumer.unassign()
        raise RetriableError(f"reading the topic {self._topic}: no answer within {_ASK_S:.0f} s")
