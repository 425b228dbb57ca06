"""Whether Kafka is there and lets the worker do what it will do: reach, create, find topics as they must be."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]

from cdc.config import Config, ConnectorSpec
from cdc.errors import Finding
from cdc.kafka.clients import Refusal
from cdc.kafka.security import SECURITY
from cdc.kafka.settings import client_settings

__all__ = ["BOOTSTRAP", "check_kafka"]

_log = logging.getLogger(__name__)

BOOTSTRAP: Final = "worker.bootstrap.servers"
"""The key of the finding that Kafka does not answer at all."""

_TIMEOUT: Final = 10.0
_PEEK_TIMEOUT: Final = 5.0
_PRODUCER_LIMIT: Final = 1_000_000
"""librdkafka's own `message.max.bytes`."""
_REGISTRY: Final = "worker.schema.registry.url"
_SCHEMAS: Final = "_schemas"

_Settings = Mapping[str, str]


def check_kafka(config: Config) -> list[Finding]:
    """What is wrong with the brokers and topics of ``config``. If none answers, that alone, as ``BOOTSTRAP``'s."""
    answer = _asked(client_settings(config.properties, "admin"), BOOTSTRAP)
    if isinstance(answer, Finding):
        return [answer]
    admin, cluster = answer
    topics = {name: set(topic.partitions) for name, topic in cluster.topics.items()}
    check = _Check(config, admin, topics, str(next(iter(cluster.brokers))))
    try:
        check.all()
    except KafkaException as error:
        refused: KafkaError = error.args[0]
        check.add(f"Kafka refused a question: {refused.str()} ({refused.name()})", BOOTSTRAP, _remedy(refused))
    except FutureTimeout:
        check.add(f"Kafka did not answer within {_TIMEOUT:g} s", BOOTSTRAP, "Look at its log")
    return check.found + list(_own_logins(config))


def _asked(settings: Mapping[str, Any], key: str) -> tuple[AdminClient, Any] | Finding:
    """A client and what it is told of the cluster; or why not, as a finding about ``key``."""
    errors: list[str] = []
    refusal = Refusal()

    def on_error(error: KafkaError) -> None:
        errors.append(error.str())
        refusal(error)

    whole: dict[str, Any] = {**settings, "logger": _log, "error_cb": on_error}
    try:
        admin = AdminClient(whole)
    except KafkaException as error:
        remedy = "Correct the security.*, sasl.* and ssl.* settings, and those under admin., producer. and consumer."
        return Finding(f"the Kafka client refuses its settings: {error.args[0].str()}", key, remedy=remedy)
    try:
        return admin, admin.list_topics(timeout=_TIMEOUT)
    except KafkaException as error:
        admin.poll(0)  # serves error_cb: a connection's error says more than the time-out of the question
        if refusal.error is not None:
            message, _, remedy = str(refusal.error).partition(". Remedy: ")
            return Finding(message, key, remedy=remedy[:1].upper() + remedy[1:])
        cause = errors[-1] if errors else error.args[0].str()
        message = f"no Kafka broker answers at {settings['bootstrap.servers']}: {cause}"
        remedy = "Start Kafka, or correct bootstrap.servers and the security settings (security.*, sasl.*, ssl.*)"
        return Finding(message, key, remedy=remedy)


def _own_logins(config: Config) -> Iterator[Finding]:
    """Whether connectors get in where they or a kind of client have a login of their own."""
    tried = [_login(config.properties, "admin")]
    for spec in config.connectors:
        for role in ("producer", "consumer") if spec.kind == "source" else ("consumer",):
            login = _login(spec.worker, role)
            if login in tried:
                continue
            tried.append(login)
            answer = _asked({"bootstrap.servers": spec.worker["bootstrap.servers"], **login}, f"connectors.{spec.name}")
            if isinstance(answer, Finding):
                yield answer


def _login(worker: Mapping[str, str], role: str) -> dict[str, Any]:
    return {name: value for name, value in client_settings(worker, role).items() if name.startswith(SECURITY)}


class _Check:
    def __init__(self, config: Config, admin: AdminClient, topics: Mapping[str, set[int]], broker: str) -> None:
        self._config = config
        self._admin = admin
        self._topics = topics
        self._broker = broker
        self.found: list[Finding] = []

    def add(self, message: str, key: str, remedy: str) -> None:
        self.found.append(Finding(message, key=key, remedy=remedy))

    def all(self) -> None:
        limits = self._limits()
        self._internal_topics()
        if limits is None or limits:  # a broker that tells none of its settings may take a dry run for the real thing
            self._creation()
        self._sizes(int((limits or {}).get("message.max.bytes") or 0))
        self._data_topics()

    def _limits(self) -> _Settings | None:
        """The settings of a broker; ``None`` if this principal may not ask for them, which the bridge need not."""
        try:
            return self._settings(ResourceType.BROKER, [self._broker])[self._broker]
        except KafkaException as error:
            if error.args[0].code() == KafkaError.CLUSTER_AUTHORIZATION_FAILED:
                return None
            raise

    def _settings(self, kind: ResourceType, names: Iterable[str]) -> dict[str, _Settings]:
        """The settings of brokers or topics by their names. `KafkaException` when it is not allowed to ask."""
        resources = [ConfigResource(kind, name) for name in sorted(names)]
        if not resources:
            return {}
        answers: Mapping[ConfigResource, Future[Any]] = self._admin.describe_configs(
            resources, request_timeout=_TIMEOUT
        )
        return {
            resource.name: {name: entry.value for name, entry in answer.result(_TIMEOUT).items()}
            for resource, answer in answers.items()
        }

    def _internal_topics(self) -> None:
        """The worker's own topics, if they are there, keep every key for ever; the registry's has one order."""
        wanted = {self._config.properties["offset.storage.topic"]: "worker.offset.storage.topic"}
        if self._config.embedded_registry:
            wanted[_SCHEMAS] = _REGISTRY
        for topic, settings in self._settings(ResourceType.TOPIC, wanted.keys() & self._topics.keys()).items():
            if (policy := settings.get("cleanup.policy")) != "compact":
                message = f"the topic {topic} has cleanup.policy={policy}: time removes what it must keep"
                self.add(message, wanted[topic], self._alter(topic))
        partitions = len(self._topics.get(_SCHEMAS, {0}))
        if self._config.embedded_registry and partitions != 1:
            message = f"the topic {_SCHEMAS} has {partitions} partitions: the registry's records need one order"
            self.add(message, _REGISTRY, f"Delete {_SCHEMAS} if nothing uses it, or name another registry")

    def _creation(self) -> None:
        """Whether topics can be created as they will be: asked of the broker as a dry run."""
        worker = self._config.worker
        offsets = self._config.properties["offset.storage.topic"]
        factor = worker.offset_storage_replication_factor
        wanted = {offsets: (worker.offset_storage_partitions, factor, "worker.offset.storage.replication.factor")}
        for spec in self._config.connectors:
            if prefix := spec.properties.get("topic.prefix"):
                partitions = worker.topic_creation_default_partitions
                factor = worker.topic_creation_default_replication_factor
                wanted[f"{prefix}.cdc.check"] = (partitions, factor, f"connectors.{spec.name}.topic.prefix")
        new = [
            NewTopic(topic, num_partitions=partitions, replication_factor=factor, config={"cleanup.policy": "compact"})
            for topic, (partitions, factor, _) in wanted.items()
        ]
        for topic, answer in self._admin.create_topics(new, validate_only=True, request_timeout=_TIMEOUT).items():
            try:
                answer.result(_TIMEOUT)
            except KafkaException as error:
                cause: KafkaError = error.args[0]
                if cause.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    message = f"the topic {topic} could not be created: {cause.str()}"
                    self.add(message, wanted[topic][2], _remedy(cause))

    def _sizes(self, limit: int) -> None:
        for spec in self._config.connectors:
            sent = int(spec.worker.get("producer.message.max.bytes") or _PRODUCER_LIMIT)
            if spec.kind == "source" and limit and sent > limit:
                message = f"the producer sends records of up to {sent} bytes, the brokers take {limit}"
                remedy = f"Set message.max.bytes={sent} on the brokers, or producer.message.max.bytes to {limit}"
                self.add(message, f"connectors.{spec.name}", remedy)

    def _data_topics(self) -> None:
        """Topics with keys must be compacted: what retention removes is lost for every rebuild of a store."""
        used: dict[str, str] = {}
        prefixes = tuple(f"{prefix}." for spec in self._config.connectors if (prefix := _prefix(spec)))
        for spec in self._config.connectors:
            if prefix := _prefix(spec):
                own = [topic for topic in self._topics if topic.startswith(f"{prefix}.")]
                used |= dict.fromkeys(own, f"connectors.{spec.name}.topic.prefix")
            key = f"connectors.{spec.name}.topics"
            for topic in _split_list(spec.properties.get("topics", "")):
                if topic in self._topics:
                    used.setdefault(topic, key)
                elif not topic.startswith(prefixes):
                    message = f"the topic {topic} does not exist"
                    self.add(message, key, "Correct its name, or start what writes it first")
        settings = self._settings(ResourceType.TOPIC, used)
        policies = {topic: settings[topic].get("cleanup.policy") or "" for topic in used}
        for topic in self._keyed([topic for topic in used if "delete" in _split_list(policies[topic])]):
            message = (
                f"the topic {topic} has keys and cleanup.policy={policies[topic]}: rows older than its retention are "
                "lost to every rebuild"
            )
            self.add(message, used[topic], self._alter(topic))

    def _keyed(self, topics: list[str]) -> list[str]:
        """Those of ``topics`` that have keys: one record of each partition is looked at."""
        if not topics:
            return []
        settings = {"group.id": "cdc-check", "enable.auto.commit": False, "enable.partition.eof": True, "logger": _log}
        consumer = Consumer(client_settings(self._config.properties, "consumer") | settings)
        try:
            waiting = {(topic, partition) for topic in topics for partition in self._topics[topic]}
            consumer.assign([TopicPartition(*place, OFFSET_BEGINNING) for place in waiting])
            keyed: set[str] = set()
            while waiting and (message := consumer.poll(_PEEK_TIMEOUT)) is not None:
                place = (str(message.topic()), int(message.partition() or 0))
                if message.error() is None and message.key() is not None:
                    keyed.add(place[0])
                if place in waiting:
                    waiting.discard(place)
                    consumer.incremental_unassign([TopicPartition(*place)])
            return sorted(keyed)
        finally:
            consumer.close()

    def _alter(self, topic: str) -> str:
        return (
            f"kafka-configs.sh --bootstrap-server {self._config.worker.bootstrap_servers} --alter "
            f"--entity-type topics --entity-name {topic} --add-config cleanup.policy=compact"
        )


def _prefix(spec: ConnectorSpec) -> str:
    return spec.properties.get("topic.prefix", "")


def _split_list(value: str) -> list[str]:
    """A comma-separated list as Connect reads it."""
    return [part.strip() for part in value.split(",") if part.strip()]


def _remedy(cause: KafkaError) -> str:
    if cause.code() in {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED}:
        return "Let the principal create topics: kafka-acls.sh --add --allow-principal … --operation Create --cluster"
    if cause.code() == KafkaError.INVALID_REPLICATION_FACTOR:
        return "Set the replication factor to at most the number of brokers, or to -1 for the brokers' default"
    if cause.code() == KafkaError.POLICY_VIOLATION:
        return "Ask the owner of the cluster what its policy allows, or create the topic yourself"
    return "See the broker's log"
