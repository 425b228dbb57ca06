"""The topic of signals to a source: JSON objects under the source's key, read from where the last one was acted on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from confluent_kafka import KafkaError, Producer

from cdc.errors import CdcError, RetriableError
from cdc.kafka.clients import Refusal, made
from cdc.kafka.reader import TopicReader
from cdc.kafka.settings import client_settings, translate
from cdc.kafka.stalls import StallWatch
from cdc.kafka.topics import TopicFacts, Topics

__all__ = ["SIGNALS", "SignalReader", "write_signal"]

SIGNALS: Final = {"cleanup.policy": "delete"}
"""Settings of the topic: signals are events, and go with the broker's retention."""
_LOOK_S: Final = 0.1
_WRITE_S: Final = 15.0
_BATCH: Final = 100
_ID: Final = "id"
"""The topic's, among the offsets that are stored."""


def write_signal(worker: Mapping[str, str], topic: str, key: bytes, value: bytes) -> tuple[int, int]:
    """Write a signal, creating the topic if it is missing; partition and offset.

    `RetriableError` without an answer, `FatalError` when brokers refuse.
    """
    Topics(worker, _nothing).ensure(topic, SIGNALS, partitions=1)
    found: list[tuple[int, int]] = []
    errors: list[KafkaError] = []

    def delivered(error: KafkaError | None, message: Any) -> None:
        if error is None:
            found.append((message.partition(), message.offset()))
        else:
            errors.append(error)

    refusal = Refusal()
    settings = {**client_settings(worker, "producer"), "acks": "all", "message.timeout.ms": int(_WRITE_S * 1e3)}
    producer = made(Producer, settings, refusal)
    producer.produce(topic, value, key, on_delivery=delivered)
    producer.flush(_WRITE_S + 1)
    if errors or not found:
        refusal.check()
    if errors:
        raise translate(errors[0], f"writing a signal to {topic}")
    if not found:
        raise RetriableError(f"writing a signal to {topic}: no broker answered within {_WRITE_S:.0f} s")
    return found[0]


class SignalReader:
    """The records of the topic with one key, each once. For one thread; nothing here waits.

    ``stored`` is what `places` said when the last record was acted on. A topic that was made anew is read from its
    beginning, once `note` has told of it.
    """

    def __init__(
        self,
        worker: Mapping[str, str],
        topic: str,
        key: bytes,
        partitions: int,
        stored: Mapping[str, Any],
        watch: StallWatch | None = None,
    ) -> None:
        self.topic = topic
        self._key = key
        self._looked_at = 0.0
        self._told: set[str] = set()
        self._offsets: dict[str, int] = {part: offset for part, offset in stored.items() if part != _ID}
        self._id: str | None = stored.get(_ID)
        self._partitions = partitions
        # Signals that a broker's retention has removed are gone; what is there is read.
        self._reader = TopicReader(worker, topic, "signals", endless=True, reset=True, watch=watch)
        self._go()

    def _go(self) -> None:
        self._reader.go({part: self._offsets.get(str(part)) for part in range(self._partitions)})

    @property
    def places(self) -> dict[str, Any]:
        """Offsets behind the last records that were given, by partition (text), and of which topic they are."""
        return {**self._offsets, **({} if self._id is None else {_ID: self._id})}

    def take(self, complain: Callable[[str], None]) -> list[tuple[str, bytes]]:
        """Place and value of each record that has come; ``complain`` is told of errors, each once."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_S:
            return []
        self._looked_at = now
        try:
            messages = self._reader.fetch(_BATCH, 0)
        except CdcError as error:
            self._complain(str(error), complain)
            return []
        found = []
        for message in messages:
            self._told.clear()
            partition, offset = message.partition(), message.offset()
            if partition is None or offset is None or message.key() != self._key:
                continue
            self._offsets[str(partition)] = offset + 1
            # With its time: a topic that was made anew has the same offsets again.
            place = f"{self.topic}[{partition}]@{offset}/{message.timestamp()[1]}"
            found.append((place, message.value() or b""))
        return found

    def note(self, facts: TopicFacts | None, complain: Callable[[str], None]) -> bool:
        """What the broker says of the topic now; whether `places` are others for it."""
        if facts is None:
            self._complain(
                f"the topic of signals {self.topic} was deleted; it is read once it is there again", complain
            )
            return False
        anew = None not in (self._id, facts.id) and self._id != facts.id
        if anew:
            complain(f"the topic of signals {self.topic} was made anew: it is read from its beginning")
            self._offsets = {}
        known, self._id = self._id, facts.id if facts.id is not None else self._id
        if anew or facts.partitions != self._partitions:
            self._partitions = facts.partitions
            self._go()
        return self._id != known

    def close(self) -> None:
        self._reader.close()

    def _complain(self, text: str, complain: Callable[[str], None]) -> None:
        if text not in self._told:
            self._told.add(text)
            complain(text)


def _nothing() -> None:
    """Nobody has to be kept alive."""
