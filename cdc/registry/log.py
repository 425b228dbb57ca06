"""The ``_schemas`` topic: created or checked, read to its end and on, appended to with acks from all replicas."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from cdc.errors import CdcError
from cdc.registry.errors import RegistryMisconfigured, RegistryRefused, RegistryUnavailable, RestError
from cdc.registry.records import Record
from cdc.registry.store import LogReader, topic_was_replaced

__all__ = ["KafkaLog"]

_log = logging.getLogger(__name__)

_OUTDATED: Final = frozenset(
    (
        *(KafkaError._NOENT, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC),
        *(KafkaError._UNKNOWN_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION),
        *(KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH),
    )
)
"""What the admin client hears when the leader it remembers is not the one there is, or has another epoch."""
_MAX_RECORD_BYTES: Final = 16 * 1024 * 1024
_REFUSALS: Final = frozenset(
    (
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError._AUTHENTICATION,
    )
)


_LOGINS: Final = frozenset((KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._AUTHENTICATION))


class KafkaLog:
    """One compacted, one-partition topic.

    ``client`` has librdkafka's properties common to all clients (``bootstrap.servers``, ``security.*``, …).
    ``replication`` is the factor wanted for a new topic; on a smaller cluster, as many as there are brokers.
    ``timeout`` (seconds) is how long Kafka may take to answer a question or to acknowledge a record.
    """

    patience = 15.0
    """For how long nothing may come of a topic that holds more, in seconds."""

    def __init__(
        self, client: Mapping[str, Any], topic: str = "_schemas", *, replication: int = 3, timeout: float = 5.0
    ) -> None:
        self._client = {**client, "logger": _log, "error_cb": self._on_client_error}
        self._topic = topic
        self._replication = replication
        self._timeout = timeout
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._admin: AdminClient | None = None
        self._producer: Producer | None = None
        self._appending = threading.Lock()
        self._refused: KafkaError | None = None
        self._wanted = 0
        """The topic is known to go to here."""

    def start(self, reader: LogReader) -> None:
        """Create or check the topic, and begin to read, once. `RegistryMisconfigured` when the topic cannot serve."""
        if self._thread is not None:
            return
        if self._stopping.is_set():
            raise RegistryUnavailable(f"The log on topic {self._topic} has been closed")
        admin = AdminClient(self._client)
        try:
            self._create_or_check(admin)
        except KafkaException as error:
            admin.poll(0)  # what brokers refuse a client for is told to it alone
            raise self._as_error(error.args[0], f"Cannot create or check the topic {self._topic}") from error
        except FutureTimeout as error:
            admin.poll(0)
            raise self._silence() from error
        self._admin = admin
        self._producer = Producer(
            {
                **self._client,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 0,
                "compression.type": "gzip",
                "message.max.bytes": _MAX_RECORD_BYTES,
                "delivery.timeout.ms": int(self._timeout * 1000),
            }
        )
        self._thread = threading.Thread(target=self._follow, args=(reader,), name="schema-registry-log", daemon=True)
        self._thread.start()

    def _reading(self, position: int) -> Consumer:
        """A consumer that reads from there on."""
        consumer = Consumer(
            {
                **self._client,
                "group.id": f"cdc-registry-{self._topic}",  # librdkafka wants one; nothing is ever joined or committed
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                # Writes wait for their own records. Not every broker ends a waiting fetch as soon as there is one.
                "fetch.wait.max.ms": 50,
                "isolation.level": "read_uncommitted",  # as Confluent's reader: offsets must not wait for strangers
            }
        )
        consumer.assign([TopicPartition(self._topic, 0, position or OFFSET_BEGINNING)])
        return consumer

    def end(self) -> int:
        """The topic's high watermark, asked of the broker."""
        admin = self._admin
        if admin is None:
            raise RegistryUnavailable(f"The log on topic {self._topic} has not been started")
        end = self._asked_for_end(admin)
        self._wanted = max(self._wanted, end)
        return end

    def _asked_for_end(self, admin: AdminClient) -> int:
        try:
            try:
                return self._ask_for_end(admin)
            except KafkaException as error:
                if error.args[0].code() not in _OUTDATED:
                    raise
                # The client keeps in mind who led, or that nobody did for a moment, and asks again only when told to.
                if self._topic not in admin.list_topics(timeout=self._timeout).topics:
                    raise RegistryUnavailable(
                        f"Topic {self._topic} does not exist. If it was deleted, restore it, for it has the ids in use"
                    ) from error
                return self._ask_for_end(admin)
        except KafkaException as error:
            raise self._as_error(error.args[0], f"Cannot ask Kafka for the end of topic {self._topic}") from error
        except FutureTimeout as error:
            raise self._silence() from error

    def _ask_for_end(self, admin: AdminClient) -> int:
        # Not the consumer's own query: it would have to wait for the poll that is always under way.
        partition = TopicPartition(self._topic, 0)
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        answer = admin.list_offsets({partition: latest}, request_timeout=self._timeout)
        return int(answer[partition].result(self._timeout).offset)

    def append(self, records: Sequence[Record]) -> int:
        """Write ``records`` one after the other, each acknowledged before the next; the offset of the last.

        As Confluent's registry does: a failure in between leaves a prefix, never a gap. And a broker may tell the end
        of a topic wrongly behind a batch of several records (the one for demonstrations does).
        """
        producer = self._producer
        if producer is None:
            raise RegistryUnavailable(f"The log on topic {self._topic} has not been started")
        offset = -1
        with self._appending:
            for record in records:
                offset = self._append(producer, record)
        return offset

    def _append(self, producer: Producer, record: Record) -> int:
        outcome: list[KafkaError | int] = []

        def delivered(error: KafkaError | None, message: Message) -> None:
            outcome.append(_offset(message) if error is None else error)

        try:
            producer.produce(self._topic, record.value, record.key, partition=0, on_delivery=delivered)
        except KafkaException as error:
            raise self._as_error(error.args[0], f"Cannot write to topic {self._topic}") from error
        except BufferError as error:
            raise RegistryUnavailable(f"Too many unacknowledged records for topic {self._topic}") from error
        # delivery.timeout.ms ends the wait: the record is reported by then.
        while not outcome:
            producer.poll(self._timeout)
        if isinstance(outcome[0], int):
            self._wanted = max(self._wanted, outcome[0] + 1)
            return outcome[0]
        raise self._as_error(outcome[0], f"Cannot write to topic {self._topic}")

    def close(self) -> None:
        """Stop reading. Records whose acknowledgement is awaited are reported as lost."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        if self._producer is not None:
            self._producer.purge()

    def _silence(self) -> CdcError:
        if self._refused is not None:
            return self._as_error(self._refused, f"Cannot ask Kafka about topic {self._topic}")
        return RegistryUnavailable(f"Kafka did not answer within {self._timeout} s about topic {self._topic}")

    def _on_client_error(self, error: KafkaError) -> None:
        """A refused login looks like an outage to every request."""
        _log.debug("Kafka client: %s", error)
        if error.code() in _REFUSALS:
            self._refused = self._refused or error

    def _as_error(self, error: KafkaError, what: str) -> CdcError:
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return RestError(422, 42209, "Register operation failed because schema is too large")
        refused = error if error.code() in _REFUSALS else self._refused
        if refused is not None:
            remedy = "Grant the worker's principal access to the topic"
            if refused.code() in _LOGINS:
                remedy = "Correct sasl.mechanism and the login of the worker"
            return RegistryRefused(f"{what}: {refused.str()}. {remedy}")
        return RegistryUnavailable(f"{what}: {error.str()}")

    # -- reading -------------------------------------------------------------------------------

    def _follow(self, reader: LogReader) -> None:
        consumer: Consumer | None = None
        try:
            consumer = self._reading(0)
            position = 0
            heard = time.monotonic()
            while not self._stopping.is_set():
                first = consumer.poll(0.25)
                if first is not None:
                    # consume() alone would wait for a full batch; after poll() it takes what has been fetched.
                    for message in (first, *consumer.consume(500, timeout=0)):
                        position = self._tell(message, reader, position)
                    reader.reached(position)
                if first is not None or position >= self._wanted:
                    heard = time.monotonic()
                elif time.monotonic() - heard > self.patience:
                    # librdkafka stops reading a partition now and then, where a broker ended and came back.
                    _log.warning("Nothing comes of topic %s behind offset %d: reading anew", self._topic, position)
                    consumer.close()
                    consumer = self._reading(position)
                    heard = time.monotonic()
        except CdcError as error:
            reader.failed(error)
        except Exception as error:  # noqa: BLE001 - the thread's last word; whoever waits for it gets it
            _log.exception("The reader of topic %s has died", self._topic)
            reader.failed(RegistryUnavailable(f"The reader of topic {self._topic} has died: {error!r}"))
        finally:
            if consumer is not None:
                consumer.close()

    def _tell(self, message: Message, reader: LogReader, position: int) -> int:
        error = message.error()
        if error is None:
            reader.record(_offset(message), _bytes(message.key()), _bytes(message.value()))
            return _offset(message) + 1
        if error.code() == KafkaError._PARTITION_EOF:
            return max(position, _offset(message))  # also past offsets that compaction left without a record
        if error.code() in {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}:
            raise topic_was_replaced(f"has no offset {position} any more")
        _log.warning("Reading topic %s: %s", self._topic, error)
        return position

    # -- the topic -----------------------------------------------------------------------------

    def _create_or_check(self, admin: AdminClient) -> None:
        cluster = admin.list_topics(timeout=self._timeout)
        if self._topic not in cluster.topics:
            replication = max(1, min(self._replication, len(cluster.brokers)))
            topic = NewTopic(self._topic, 1, replication, config={"cleanup.policy": "compact"})
            try:
                admin.create_topics([topic], request_timeout=self._timeout)[self._topic].result(self._timeout)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
            else:
                _log.info("Created topic %s with replication factor %d", self._topic, replication)
                return
            cluster = admin.list_topics(timeout=self._timeout)
        self._check(admin, cluster.topics[self._topic])

    def _check(self, admin: AdminClient, topic: Any) -> None:
        if len(topic.partitions) != 1:
            raise RegistryMisconfigured(
                f"Topic {self._topic} has {len(topic.partitions)} partitions; a schema registry needs exactly one,"
                " because the order of its records decides. Name another topic or make it again"
            )
        resource = ConfigResource(ResourceType.TOPIC, self._topic)
        configs = admin.describe_configs([resource], request_timeout=self._timeout)[resource].result(self._timeout)
        policy = configs["cleanup.policy"].value if "cleanup.policy" in configs else None
        if policy != "compact":
            raise RegistryMisconfigured(
                f"Topic {self._topic} has cleanup.policy={policy}, so that Kafka would delete schemas in use. Set it:"
                f" kafka-configs.sh --alter --entity-type topics --entity-name {self._topic}"
                " --add-config cleanup.policy=compact"
            )


def _offset(message: Message) -> int:
    offset = message.offset()
    if offset is None:
        raise RegistryUnavailable("Kafka's client reported a record without its offset")
    return offset


def _bytes(data: str | bytes | None) -> bytes | None:
    return data.encode() if isinstance(data, str) else data
