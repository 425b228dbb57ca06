"""Reading a topic from here to its end, by a consumer that joins no group."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from cdc.errors import RetriableError
from cdc.kafka.settings import client_settings, translate

__all__ = ["TopicReader"]

_ASK_S: Final = 10.0
_SILENCE_S: Final = 30.0
_BATCH: Final = 1000
_SLICE_S: Final = 0.2


class TopicReader:
    """Reads the committed records of one topic. `RetriableError` when Kafka is away."""

    def __init__(self, worker: Mapping[str, str], topic: str) -> None:
        self._topic = topic
        settings: dict[str, Any] = {
            **client_settings(worker, "consumer"),
            "group.id": f"cdc-read-{topic}",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "allow.auto.create.topics": False,
            "fetch.wait.max.ms": 50,
        }
        self._consumer = Consumer(settings)
        self._goal = 0
        self.end = 0
        """Of the partition that is followed: the offset behind all that was read of it."""
        self.ended = False
        """All that it held when it began to be followed has been read."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def partitions(self) -> list[int]:
        """The topic's partitions; none if there is no such topic."""
        try:
            found = self._consumer.list_topics(self._topic, timeout=_ASK_S).topics.get(self._topic)
        except KafkaException as error:
            raise translate(error, f"asking for the topic {self._topic}") from None
        return [] if found is None or found.error is not None else sorted(found.partitions)

    def read(self, begins: Mapping[int, int]) -> Iterator[Message]:
        """The records of partitions from an offset each, to where they end now, or a little further."""
        goals = {number: self._committed(number) for number in begins}
        left = {number for number, offset in begins.items() if offset < goals[number]}
        heard = time.monotonic()
        try:
            self._consumer.assign([TopicPartition(self._topic, number, begins[number]) for number in left])
            while left:
                messages = self._consumer.consume(_BATCH, _SLICE_S)
                if messages:
                    heard = time.monotonic()
                elif time.monotonic() - heard > _SILENCE_S:
                    raise RetriableError(f"reading the topic {self._topic}: no answer for {_SILENCE_S:.0f} s")
                for message in messages:
                    error = message.error()
                    number, offset = message.partition() or 0, message.offset() or 0
                    if error is None:
                        if number in left:
                            yield message
                        reached = offset + 1
                    elif error.code() == KafkaError._PARTITION_EOF:
                        reached = offset  # behind markers of transactions, which are no records
                    else:
                        raise translate(error, f"reading the topic {self._topic}")
                    # A busy partition never tells that it ends: each answer of the broker has one more record.
                    if reached >= goals.get(number, 0):
                        left.discard(number)
            self._consumer.unassign()
        except KafkaException as error:
            raise translate(error, f"reading the topic {self._topic}") from None

    def _committed(self, number: int) -> int:
        """The offset behind the last committed record of a partition, now."""
        doing = f"asking for the end of {self._topic}[{number}]"
        try:
            found = self._consumer.get_watermark_offsets(TopicPartition(self._topic, number), timeout=_ASK_S)
        except KafkaException as error:
            raise translate(error, doing) from None
        if found is None:
            raise RetriableError(f"{doing}: no answer within {_ASK_S:.0f} s")
        return found[1]

    def follow(self, number: int, offset: int) -> None:
        """Read one partition from an offset on, by `more`."""
        self._goal = self._committed(number)
        self.end, self.ended = offset, offset >= self._goal
        try:
            self._consumer.assign([TopicPartition(self._topic, number, offset)])
        except KafkaException as error:
            raise translate(error, f"reading the topic {self._topic}") from None

    def more(self, timeout: float) -> list[Message]:
        """The next records of the partition that is followed; waits up to ``timeout`` seconds for the first."""
        try:
            first = self._consumer.poll(timeout)
            # consume() waits for its whole timeout, so that it gets none
            found = [] if first is None else [first, *self._consumer.consume(_BATCH, 0)]
        except KafkaException as error:
            raise translate(error, f"reading the topic {self._topic}") from None
        records = []
        for message in found:
            fault = message.error()
            if fault is None:
                records.append(message)
                self.end = max(self.end, (message.offset() or 0) + 1)
            elif fault.code() == KafkaError._PARTITION_EOF:
                self.end = max(self.end, message.offset() or 0)
            else:
                raise translate(fault, f"reading the topic {self._topic}")
        # Not by that error alone: a busy partition never gives it.
        self.ended = self.ended or self.end >= self._goal
        return records
