"""Topics are created explicitly, with the settings they need; never by accident of the first record."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic

from cdc.errors import RetriableError
from cdc.kafka.settings import client_settings, translate

__all__ = ["COMPACTED", "DELETE_RETENTION_MS", "EVENTS", "Topics"]

DELETE_RETENTION_MS: Final = 7 * 24 * 3600 * 1000
"""How long tombstones stay readable: the longest outage of a sink that still tells it every delete."""
COMPACTED: Final = {"cleanup.policy": "compact", "delete.retention.ms": str(DELETE_RETENTION_MS)}
"""For tables with a key: the topic keeps the last record of every row."""
EVENTS: Final = {"cleanup.policy": "delete"}
"""For tables without key: nothing can be compacted (EXACTNESS.md H16)."""


_CREATION: Final = "topic.creation.default."


class Topics:
    """Creates topics as ``topic.creation.default.*`` says, and knows how many partitions they have. For one thread."""

    def __init__(self, worker: Mapping[str, str], pump: Callable[[], None]) -> None:
        self._admin = AdminClient(client_settings(worker, "admin"))
        self._pump = pump
        self._known: dict[str, int] = {}
        self._partitions = int(worker.get("topic.creation.default.partitions", "-1"))
        self._replication = int(worker.get("topic.creation.default.replication.factor", "-1"))
        self._settings = {
            key.removeprefix(_CREATION): value
            for key, value in worker.items()
            if key.startswith(_CREATION) and key not in (_CREATION + "partitions", _CREATION + "replication.factor")
        }

    def ensure(
        self,
        topic: str,
        config: Mapping[str, str],
        *,
        partitions: int | None = None,
        replication: int | None = None,
        setting: str = "",
    ) -> int:
        """Create the topic unless it exists; its number of partitions. ``partitions`` are given for internal topics,
        ``setting`` is what their replication factor comes from.

        Raises `RetriableError` when the brokers do not answer, `FatalError` when they refuse.
        """
        known = self._known.get(topic)
        if known is not None:
            return known
        count = self._count(topic)
        if count is None:
            new = NewTopic(
                topic,
                num_partitions=self._partitions if partitions is None else partitions,
                replication_factor=self._replication if replication is None else replication,
                config={**config, **self._settings} if partitions is None else dict(config),
            )
            future = self._admin.create_topics([new], operation_timeout=10, request_timeout=15)[topic]
            while not future.done():
                self._pump()
                self._admin.poll(0.05)
            error = future.exception()
            if isinstance(error, KafkaException):
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    said = f" with {setting}={replication}" if setting else ""
                    raise translate(error, f"creating the topic {topic}{said}") from None
            elif error is not None:
                raise error
            count = self._await_count(topic)
        self._known[topic] = count
        return count

    def limit(self, topic: str) -> int | None:
        """The topic's ``max.message.bytes``; ``None`` if the brokers do not tell it."""
        resource = ConfigResource(ResourceType.TOPIC, topic)
        future = self._admin.describe_configs([resource], request_timeout=15)[resource]
        while not future.done():
            self._pump()
            self._admin.poll(0.05)
        if future.exception() is not None:
            return None
        entry = future.result().get("max.message.bytes")
        return None if entry is None or not str(entry.value).isdecimal() else int(entry.value)

    def _await_count(self, topic: str) -> int:
        """Metadata follows the creation by a moment."""
        deadline = time.monotonic() + 15
        while (count := self._count(topic)) is None:
            if time.monotonic() > deadline:
                raise RetriableError(f"the topic {topic} was created, but no broker tells of it yet")
            self._pump()
            self._admin.poll(0.05)
        return count

    def _count(self, topic: str) -> int | None:
        """Partitions of the topic; ``None`` when there is no such topic.

        A describe request, because a plain metadata request for one name lets brokers create it with their defaults.
        """
        future = self._admin.describe_topics(TopicCollection([topic]), request_timeout=15)[topic]
        while not future.done():
            self._pump()
            self._admin.poll(0.05)
        error = future.exception()
        if isinstance(error, KafkaException):
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return None
            raise translate(error, f"asking for the topic {topic}") from None
        if error is not None:
            raise error
        return len(future.result().partitions)
