"""Topics are created explicitly, with the settings they need; never by accident of the first record."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic

from cdc.errors import RetriableError
from cdc.kafka.clients import Refusal, made
from cdc.kafka.settings import client_settings, translate

__all__ = ["COMPACTED", "DELETE_RETENTION_MS", "EVENTS", "TopicFacts", "Topics", "topic_ids", "topics_there"]

_REQUEST_S: Final = 5.0
LOOK_S: Final = 5.0
"""How often it is asked whether topics are still the same."""

DELETE_RETENTION_MS: Final = 7 * 24 * 3600 * 1000
"""How long tombstones stay readable: the longest outage of a sink that still tells it every delete."""
COMPACTED: Final = {"cleanup.policy": "compact", "delete.retention.ms": str(DELETE_RETENTION_MS)}
"""For tables with a key: the topic keeps the last record of every row."""
EVENTS: Final = {"cleanup.policy": "delete"}
"""For tables without key: nothing can be compacted (EXACTNESS.md H16)."""


_CREATION: Final = "topic.creation.default."


def topic_ids(admin: AdminClient, topics: Collection[str]) -> dict[str, str]:
    """The ids of topics, of those that are there and whose broker knows about ids. `RetriableError` without answer."""
    if not topics:
        return {}
    found: dict[str, str] = {}
    futures = admin.describe_topics(TopicCollection(sorted(topics)), request_timeout=_REQUEST_S)
    for name, future in futures.items():
        try:
            topic_id = _facts(future.result(timeout=2 * _REQUEST_S)).id
        except KafkaException as error:
            code = error.args[0].code()
            if code in (KafkaError._UNSUPPORTED_FEATURE, KafkaError.UNSUPPORTED_VERSION):
                continue
            raise translate(error, f"asking for the id of topic {name}") from None
        except TimeoutError:
            raise RetriableError(f"asking for the id of topic {name}: no answer") from None
        if topic_id is not None:
            found[name] = topic_id
    return found


class TopicFacts(NamedTuple):
    """A topic as it is now; ``id`` is ``None`` where the broker knows of none."""

    partitions: int
    id: str | None


def topics_there(worker: Mapping[str, str], wanted: Callable[[str], bool]) -> dict[str, TopicFacts]:
    """The topics there are, of those that are ``wanted``. `RetriableError` when no broker answers."""
    admin = AdminClient(client_settings(worker, "admin"))
    try:
        metadata = admin.list_topics(timeout=_REQUEST_S)
    except KafkaException as error:
        raise translate(error, "asking for the topics") from None
    counts = {
        name: len(topic.partitions) for name, topic in metadata.topics.items() if topic.error is None and wanted(name)
    }
    ids = topic_ids(admin, counts)
    return {name: TopicFacts(count, ids.get(name)) for name, count in sorted(counts.items())}


class Topics:
    """Creates topics as ``topic.creation.default.*`` says, and knows how many partitions they have. For one thread.

    ``noted`` is told what the broker says of each compacted topic of rows: at `ensure`, and now and then at `look`.
    """

    def __init__(
        self,
        worker: Mapping[str, str],
        pump: Callable[[], None],
        noted: Callable[[str, TopicFacts | None], None] | None = None,
    ) -> None:
        self._noted = noted
        self._watched: set[str] = set()
        self._missing: set[str] = set()
        self._asked: Mapping[str, Future[Any]] = {}
        self._asked_at = time.monotonic()
        self._refusal = Refusal()
        self._admin = made(AdminClient, client_settings(worker, "admin"), self._refusal)
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
        facts = self._facts(topic)
        if facts is None:
            new = NewTopic(
                topic,
                num_partitions=self._partitions if partitions is None else partitions,
                replication_factor=self._replication if replication is None else replication,
                config={**config, **self._settings} if partitions is None else dict(config),
            )
            future = self._admin.create_topics([new], operation_timeout=10, request_timeout=15)[topic]
            self._await(future)
            error = future.exception()
            if isinstance(error, KafkaException):
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    said = f" with {setting}={replication}" if setting else ""
                    raise translate(error, f"creating the topic {topic}{said}") from None
            elif error is not None:
                raise error
            facts = self._await_facts(topic)
        if self._noted is not None and partitions is None and "compact" in config.get("cleanup.policy", ""):
            self._noted(topic, facts)
            self._watched.add(topic)
        self._known[topic] = facts.partitions
        return facts.partitions

    def _await(self, future: Future[Any]) -> None:
        while not future.done():
            self._pump()
            self._admin.poll(0.05)
            self._refusal.check()

    def limit(self, topic: str) -> int | None:
        """The topic's ``max.message.bytes``; ``None`` if the brokers do not tell it."""
        resource = ConfigResource(ResourceType.TOPIC, topic)
        future = self._admin.describe_configs([resource], request_timeout=15)[resource]
        self._await(future)
        if future.exception() is not None:
            return None
        entry = future.result().get("max.message.bytes")
        return None if entry is None or not str(entry.value).isdecimal() else int(entry.value)

    def watch(self, topics: Collection[str]) -> None:
        """Ask after these topics too, from the next `look` on."""
        self._watched.update(topics)
        self._asked_at = float("-inf")

    def look(self) -> None:
        """Ask after the topics of rows once in a while, without waiting; what was answered goes to ``noted``.

        Of a topic that this session writes to and that is twice not there, ``None`` is told: its records would be
        waited for in vain. A broker that does not answer shows when records are written.
        """
        self._admin.poll(0)
        if self._noted is None or not all(future.done() for future in self._asked.values()):
            return
        for topic, future in self._asked.items():
            error = future.exception()
            if error is None:
                self._missing.discard(topic)
                self._noted(topic, _facts(future.result()))
            elif topic in self._known and _is_unknown(error):
                if topic in self._missing:
                    self._noted(topic, None)
                self._missing.add(topic)  # once is no proof: metadata follows a creation by a moment
        self._asked = {}
        if self._watched and time.monotonic() - self._asked_at >= LOOK_S:
            self._asked_at = time.monotonic()
            self._asked = self._admin.describe_topics(TopicCollection(sorted(self._watched)), request_timeout=15)

    def _await_facts(self, topic: str) -> TopicFacts:
        """Metadata follows the creation by a moment."""
        deadline = time.monotonic() + 15
        while (facts := self._facts(topic)) is None:
            if time.monotonic() > deadline:
                raise RetriableError(f"the topic {topic} was created, but no broker tells of it yet")
            self._pump()
            self._admin.poll(0.05)
        return facts

    def _facts(self, topic: str) -> TopicFacts | None:
        """What the broker says of the topic; ``None`` when there is no such topic.

        A describe request, because a plain metadata request for one name lets brokers create it with their defaults.
        """
        future = self._admin.describe_topics(TopicCollection([topic]), request_timeout=15)[topic]
        self._await(future)
        error = future.exception()
        if _is_unknown(error):
            return None
        if isinstance(error, KafkaException):
            raise translate(error, f"asking for the topic {topic}") from None
        if error is not None:
            raise error
        return _facts(future.result())


def _is_unknown(error: BaseException | None) -> bool:
    return isinstance(error, KafkaException) and error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART


def _facts(description: Any) -> TopicFacts:
    topic_id = description.topic_id
    if topic_id is None or not topic_id.get_most_significant_bits() | topic_id.get_least_significant_bits():
        return TopicFacts(len(description.partitions), None)
    return TopicFacts(len(description.partitions), str(topic_id))
