"""Reads a dead letter queue whole."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from cdc.runtime.letters import CONTEXT, HEADER_LETTER, HEADER_RECEIPT, Letter, parse_letter


@dataclass(frozen=True)
class Found:
    """A letter as it lies in the queue."""

    key: bytes | None
    value: bytes | None
    timestamp: int
    own: tuple[tuple[str, bytes | None], ...]
    """The headers that the record had."""
    context: Mapping[str, str | None]
    """Connect's, without their prefix."""
    letter: Letter

    @property
    def where(self) -> tuple[str, int, int]:
        return self.letter.topic, self.letter.partition, self.letter.offset


def read_topic(bootstrap_servers: str, topic: str) -> list[Message]:
    """All committed records of a topic of one partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": uuid.uuid4().hex,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "allow.auto.create.topics": False,
        }
    )
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        messages: list[Message] = []
        while True:
            message: Any = consumer.poll(30)
            assert message is not None, f"{topic} cannot be read"
            if message.error() is None:
                messages.append(message)
            elif message.error().code() == KafkaError._PARTITION_EOF:
                return messages
            else:
                raise AssertionError(message.error())
    finally:
        consumer.close()


def letters(bootstrap_servers: str, topic: str) -> list[Found]:
    """All letters of a queue, in order; not its receipts."""
    found = []
    for message in read_topic(bootstrap_servers, topic):
        headers: Any = message.headers() or []
        if any(name == HEADER_RECEIPT for name, _ in headers):
            continue
        letter = parse_letter(headers)
        assert letter is not None, headers
        own = tuple((n, v) for n, v in headers if n != HEADER_LETTER and not n.startswith(CONTEXT))
        context = {n.removeprefix(CONTEXT): v and v.decode() for n, v in headers if n.startswith(CONTEXT)}
        found.append(Found(message.key(), message.value(), message.timestamp()[1], own, context, letter))
    return found
