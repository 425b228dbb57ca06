"""The producer of a source task: exactly-once by transactions, or at-least-once with idempotence.

What is durable is known in one way only (EXACTNESS.md H7): from the commit of the transaction, which fails if any
record failed, or, without transactions, from an empty queue and a shared error callback that was not called.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from cdc.errors import CdcError, FatalError, RetriableError
from cdc.kafka.clients import Refusal, made
from cdc.kafka.settings import client_settings, translate

__all__ = ["Headers", "RecordProducer", "RecordTooLarge", "Undelivered"]

_SLICE_S: Final = 0.5
"""Longest wait inside librdkafka before the source is kept alive again."""
TRANSACTION_TIMEOUT_MS: Final = 300_000
"""Longer than any stall that is waited out; its expiry is a restart from the stored position, not a failure (H6)."""

Headers = list[tuple[str, str | bytes | None]]


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A record that the broker would not take."""

    topic: str
    key: bytes | None
    size: int
    """Of key and value."""


class RecordTooLarge(FatalError):
    """Records are larger than the producer or their topic takes.

    ``undelivered`` are those that the broker refused, some time after they were given to the producer; if there are
    none, it is the one that is being given to it.
    """

    def __init__(self, message: str, undelivered: list[Undelivered]) -> None:
        super().__init__(message)
        self.undelivered = undelivered


class RecordProducer:
    """Produces records and commits them. For one thread; ``pump`` is called while it waits.

    After a `RetriableError` nothing of the open transaction counts: close this producer, and start again from the
    stored position.
    """

    def __init__(
        self,
        worker: Mapping[str, str],
        transactional_id: str | None,
        pump: Callable[[], None],
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """``more`` are settings of librdkafka's that override the worker's."""
        settings: dict[str, Any] = {
            "enable.idempotence": True,
            "acks": "all",
            # Where the Java client would put the key, so that topics are co-partitioned with Connect's.
            "partitioner": "murmur2_random",
            # A commit sends what is queued at once; until then, fewer and larger requests spare the broker.
            "linger.ms": 50,
            # A broker refuses a transaction that follows another closely until that one's markers are written, a few
            # milliseconds later; librdkafka's 100 ms would be the latency of every commit under steady writes.
            "retry.backoff.ms": 5,
            "batch.size": 1 << 20,
            "compression.type": "lz4",
            "queue.buffering.max.kbytes": 32 << 10,
            "queue.buffering.max.messages": 200_000,
            "delivery.report.only.error": True,
            **client_settings(worker, "producer"),
            **(more or {}),
        }
        if transactional_id is not None:
            settings["transactional.id"] = transactional_id
            settings["transaction.timeout.ms"] = TRANSACTION_TIMEOUT_MS
            settings["message.timeout.ms"] = TRANSACTION_TIMEOUT_MS
        else:
            settings["message.timeout.ms"] = 0  # for ever: the source is held back instead
        self._fatal: KafkaError | None = None
        self._failed: KafkaError | None = None
        self._too_large: list[Undelivered] = []
        self._refused = Refusal()
        self._producer = made(Producer, settings, self._on_error)
        self._transactional = transactional_id is not None
        self._pump = pump
        self._open = False
        self.records = 0
        """Records in the open transaction, or since the last commit."""
        self.bytes = 0

    def start(self) -> None:
        """Fence off any earlier producer with this transactional id and abort what it left open."""
        if self._transactional:
            self._persist(self._producer.init_transactions, "starting Kafka transactions")

    def produce(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None = None,
        partition: int = -1,
        timestamp: int = 0,
    ) -> None:
        """Queue one record. Waits while the queue is full. ``timestamp`` in milliseconds, 0 for now."""
        if self._transactional and not self._open:
            self._producer.begin_transaction()
            self._open = True
        while True:
            try:
                if headers or timestamp:
                    self._producer.produce(
                        topic, value, key, partition, self._on_delivery, timestamp=timestamp, headers=headers
                    )
                else:
                    self._producer.produce(topic, value, key, partition, self._on_delivery)
            except BufferError:
                self._pump()
                self._producer.poll(0.05)
                self._raise_failure()
            except KafkaException as error:
                if error.args[0].code() == KafkaError._STATE:
                    # The transaction has failed because of an earlier record: that one says why.
                    self._producer.poll(0.1)
                    self._raise_failure()
                size = len(value or b"") + len(key or b"")
                raise self._refusal(error.args[0], f"producing a record of {size} bytes to {topic}") from None
            else:
                break
        self.records += 1
        self.bytes += len(value or b"") + len(key or b"") + 100

    def poll(self) -> None:
        """Serve callbacks without waiting."""
        self._producer.poll(0)
        self._raise_failure()

    def commit(self) -> None:
        """Make everything produced so far durable, and visible to read-committed consumers."""
        if self._transactional:
            if self._open:
                self._persist(self._producer.commit_transaction, "committing a Kafka transaction")
                self._open = False
        else:
            while self._producer.flush(_SLICE_S):
                self._pump()
                self._raise_failure()
        self._raise_failure()
        self.records = 0
        self.bytes = 0

    def close(self) -> None:
        """Throw away what is not committed."""
        if self._transactional and self._open:
            try:
                self._producer.abort_transaction(2.0)
            except KafkaException:
                # The next init_transactions of this transactional id aborts it.
                self._open = False
        self._producer.purge()
        try:
            self._producer.flush(0.1)
        except KafkaException:
            # Fenced or failed for good: there is nothing left to serve callbacks for.
            return

    def _persist(self, call: Callable[[float], None], doing: str) -> None:
        """Repeat a transactional call in slices until it is through."""
        started = time.monotonic()
        while True:
            try:
                call(_SLICE_S)
            except KafkaException as error:
                cause = error.args[0]
                if cause.fatal():
                    if cause.code() in (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH):
                        raise FatalError(
                            f"{doing}: another producer took over this connector's transactional id "
                            f"({cause.str()}). Remedy: stop the other worker that runs this connector"
                        ) from None
                    raise RetriableError(f"{doing}: {cause.str()} ({cause.name()})") from None
                if cause.txn_requires_abort():
                    self._raise_failure()
                    raise RetriableError(f"{doing}: {cause.str()} ({cause.name()})") from None
                if not cause.retriable():
                    raise translate(cause, doing) from None
                self._producer.poll(0)  # serves error_cb: is there anything to wait for?
                self._refused.check()
                if time.monotonic() - started > TRANSACTION_TIMEOUT_MS / 1000:
                    raise RetriableError(f"{doing}: not done after {TRANSACTION_TIMEOUT_MS // 1000} s") from None
                self._pump()
            else:
                return

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            return
        if self._failed is None:
            self._failed = error
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            self._failed = error  # the others failed because of it
            size = len(message.value() or b"") + len(message.key() or b"")
            self._too_large.append(Undelivered(message.topic() or "", message.key(), size))

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error
        else:
            self._refused(error)

    def _raise_failure(self) -> None:
        self._refused.check()
        if self._failed is not None and self._failed.code() not in (
            KafkaError._PURGE_QUEUE,
            KafkaError._PURGE_INFLIGHT,
        ):
            where = ", ".join(sorted({f"{each.topic} ({each.size} bytes)" for each in self._too_large[:3]}))
            raise self._refusal(self._failed, f"a record was not delivered{' to ' if where else ''}{where}")
        if self._fatal is not None:
            raise translate(self._fatal, "the Kafka producer failed")

    def _refusal(self, error: KafkaError, doing: str) -> CdcError:
        found = translate(error, doing)
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return RecordTooLarge(str(found), self._too_large)
        return found
