"""The topic of signals to a source: JSON objects under the source's key, read from where the last one was acted on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition

from cdc.errors import RetriableError
from cdc.kafka.settings import client_settings, translate
from cdc.kafka.topics import Topics

__all__ = ["SIGNALS", "SignalReader", "write_signal"]

SIGNALS: Final = {"cleanup.policy": "delete"}
"""Settings of the topic: signals are events, and go with the broker's retention."""
_LOOK_S: Final = 0.1
_WRITE_S: Final = 15.0
_BATCH: Final = 100


def write_signal(worker: Mapping[str, str], topic: str, key: bytes, value: bytes) -> tuple[int, int]:
    """Write a signal, creating the topic if it is missing; partition and offset. `RetriableError` without an answer."""
    Topics(worker, _nothing).ensure(topic, SIGNALS, partitions=1)
    found: list[tuple[int, int]] = []
    errors: list[KafkaError] = []

    def delivered(error: KafkaError | None, message: Any) -> None:
        if error is None:
            found.append((message.partition(), message.offset()))
        else:
            errors.append(error)

    producer = Producer(
        {**client_settings(worker, "producer"), "acks": "all", "message.timeout.ms": int(_WRITE_S * 1e3)}
    )
    producer.produce(topic, value, key, on_delivery=delivered)
    producer.flush(_WRITE_S + 1)
    if errors:
        raise translate(errors[0], f"writing a signal to {topic}")
    if not found:
        raise RetriableError(f"writing a signal to {topic}: no broker answered within {_WRITE_S:.0f} s")
    return found[0]


class SignalReader:
    """The records of the topic with one key, each once. For one thread; nothing here waits.

    ``stored`` are the offsets behind the last records that were acted on, by partition (text).
    """

    def __init__(
        self, worker: Mapping[str, str], group: str, topic: str, key: bytes, partitions: int, stored: Mapping[str, int]
    ) -> None:
        self.topic = topic
        self._key = key
        self._looked_at = 0.0
        self._told: set[str] = set()
        self.offsets = dict(stored)
        """Behind the last record that was given."""
        self._consumer = Consumer(
            {
                **client_settings(worker, "consumer"),
                "group.id": group,
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
            }
        )
        self._consumer.assign(
            [TopicPartition(topic, part, self.offsets.get(str(part), OFFSET_BEGINNING)) for part in range(partitions)]
        )

    def take(self, complain: Callable[[str], None]) -> list[tuple[str, bytes]]:
        """Place and value of each record that has come; ``complain`` is told of errors, each once."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_S:
            return []
        self._looked_at = now
        try:
            messages = self._consumer.consume(_BATCH, 0)
        except KafkaException as error:
            self._complain(error, complain)
            return []
        found = []
        for message in messages:
            failure = message.error()
            if failure is not None:
                self._complain(failure, complain)
                continue
            self._told.clear()
            partition, offset = message.partition(), message.offset()
            if partition is None or offset is None or message.key() != self._key:
                continue
            self.offsets[str(partition)] = offset + 1
            # With its time: a topic that was made anew has the same offsets again.
            place = f"{self.topic}[{partition}]@{offset}/{message.timestamp()[1]}"
            found.append((place, message.value() or b""))
        return found

    def close(self) -> None:
        self._consumer.close()

    def _complain(self, error: KafkaError | KafkaException, complain: Callable[[str], None]) -> None:
        text = str(translate(error, f"reading signals from {self.topic}"))
        if text not in self._told:
            self._told.add(text)
            complain(text)


def _nothing() -> None:
    """Nobody has to be kept alive."""
