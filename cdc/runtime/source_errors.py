"""The dead letters of a source task: written in the Kafka transaction of the records around them.

What cannot be encoded is written by the JSON converter with its schema, as Connect has it; a record too large for its
topic with its own bytes, and without its value if even the queue cannot hold it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any, Final

import structlog

from cdc.codec.connect_rows import RowValues, row_values
from cdc.converters.json_converter import JsonConverter
from cdc.errors import CdcError, FatalError
from cdc.kafka.producer import RecordProducer, RecordTooLarge
from cdc.kafka.topics import Topics
from cdc.plugin import ConnectorConfig, Encoder, TaskContext
from cdc.record import HEADER_POSITION, UNCHANGED, ConnectRecord, RawRow, RowChange, RowShape, Schema
from cdc.runtime.error_policy import LARGEST, ErrorPolicy
from cdc.runtime.letters import Cause, Headers, Letter, made

__all__ = ["KAFKA_PRODUCE", "KEY_CONVERTER", "TRANSFORMATION", "VALUE_CONVERTER", "SourceErrors"]

_log = structlog.get_logger(__name__)

TRANSFORMATION: Final = "TRANSFORMATION"
KEY_CONVERTER: Final = "KEY_CONVERTER"
VALUE_CONVERTER: Final = "VALUE_CONVERTER"
KAFKA_PRODUCE: Final = "KAFKA_PRODUCE"
DEFAULT_LARGEST: Final = 1_000_000
"""librdkafka's ``message.max.bytes``."""
SLACK: Final = 16
"""Bytes by which the times in a record may change its size."""
UNKNOWN_LIMIT: Final = 16 << 10
"""Taken for the limit of a topic that nobody tells: larger records are alone in their batches."""
ENCODERS: Final = 200
Bytes = tuple["bytes | None", "bytes | None"]
"""Key and value."""


class SourceErrors:
    """What one task does with records at fault, over all its sessions: some faults are known only after an abort."""

    def __init__(self, config: ConnectorConfig, context: TaskContext, worker: Mapping[str, str]) -> None:
        self.policy = ErrorPolicy(config, context)
        self._context = context
        self._worker = worker
        self._largest = int(worker.get("producer.message.max.bytes", DEFAULT_LARGEST))
        self._too_large: dict[tuple[str, bytes | None], int] = {}
        """Topic and key of records that a broker refused alone in their batches, and their sizes."""
        self._batch_size = 0
        """Where it is known, that no batch of several records is refused for its size."""
        self._pending: list[tuple[Letter, Cause, Mapping[str, Any]]] = []
        self._json = JsonConverter()
        self._json.configure({"schemas.enable": "true"}, is_key=False)
        self._encoders: dict[tuple[str, int], tuple[Encoder, Schema | None]] = {}
        self._values: dict[RowShape, RowValues] = {}
        self._version = version("cdc")

    # -- sessions -----------------------------------------------------------------------------------

    def producer_settings(self) -> dict[str, Any]:
        """Of a session's producer. With a queue, records larger than they may be get to it, and no further."""
        settings: dict[str, Any] = {}
        if self.policy.queue:
            settings["message.max.bytes"] = max(LARGEST, self._largest)
        if self._batch_size:
            settings["batch.size"] = self._batch_size
        return settings

    def begin(self, topics: Topics) -> None:
        """A session begins: what was put aside and not committed, was not."""
        self._pending = []
        self.policy.prepare(topics)

    def committed(self) -> None:
        """What was put aside since the last commit is durable."""
        for each in self._pending:
            self.policy.put_aside(*each)
        self._pending = []

    def learn(self, error: RecordTooLarge, limit: Callable[[str], int | None]) -> bool:
        """A broker refused records, with the transaction they were in: what to do better in the next session, if there
        is anything. ``limit`` tells the ``max.message.bytes`` of a topic."""
        if not self.policy.tolerant:
            return False
        limits = {topic: limit(topic) or UNKNOWN_LIMIT for topic in {refused.topic for refused in error.undelivered}}
        # Less than the limit by what a batch has around its records.
        batch = min((max(1, limited - limited // 16 - 1024) for limited in limits.values()), default=0)
        if batch and (not self._batch_size or self._batch_size > batch):
            # The batch may have had many small records: next time a large one is alone in it.
            self._batch_size = batch
            return True
        learned = False
        for refused in error.undelivered:
            place = refused.topic, refused.key
            if refused.size < self._too_large.get(place, refused.size + 1):
                self._too_large[place] = refused.size
                learned = True
        if learned:
            _log.warning("a record is too large: starting over in front of it", cause=str(error))
        return learned

    # -- records ------------------------------------------------------------------------------------

    def checked(self, produce: Callable[..., None]) -> Callable[..., None]:
        """``produce`` that refuses what is known to be too large, where such records are put aside."""
        if not self.policy.tolerant:
            return produce
        largest = self._largest

        def check(
            topic: str,
            key: bytes | None,
            value: bytes | None,
            headers: Headers,
            partition: int = -1,
            timestamp: int = 0,
        ) -> None:
            size = len(value or b"") + len(key or b"")
            if size > largest:
                raise RecordTooLarge(f"a record of {size} bytes to {topic} exceeds producer.message.max.bytes", [])
            if self._too_large and self._is_too_large(topic, key, size):
                raise RecordTooLarge(f"the topic {topic} takes no record of {size} bytes", [])
            produce(topic, key, value, headers, partition, timestamp)

        return check

    def _is_too_large(self, topic: str, key: bytes | None, size: int) -> bool:
        """Whether a broker refused this record; in a value only times are others now."""
        refused = self._too_large.get((topic, key))
        return refused is not None and size > refused - SLACK

    def put_aside(
        self,
        producer: RecordProducer,
        record: RowChange | ConnectRecord,
        topic: str,
        cause: Cause,
        common: Headers,
        encoded: Bytes | None = None,
    ) -> None:
        """Write a letter, or skip the record, in the open transaction. `FatalError` if nothing is tolerated.

        ``common`` are the headers of the record's source; ``encoded`` its bytes, if it has got any.
        """
        position = _position(record)
        if not self.policy.tolerant:
            where = f" at {position.decode()}" if position else ""
            raise FatalError(
                f"{topic}: a record{where} cannot be written ({cause}). Everything before it is. Remedy: correct what "
                "it names; or set errors.tolerance=all with errors.deadletterqueue.topic.name, and the table goes on"
            ) from cause.error
        form = ""
        if encoded is None:
            form, encoded = self._as_json(record)
        connector, task = self._context.connector, self._context.task
        letter = made(cause, connector, task, topic, position=position.decode(), form=form)
        if self.policy.queue:
            own: Headers = [*record.headers, *common]
            if position:
                own.append((HEADER_POSITION, position))
            self._send(producer, letter, cause, own, *encoded)
        self._pending.append((letter, cause, {"record": (encoded[1] or b"").decode(errors="backslashreplace")}))

    def _send(
        self,
        producer: RecordProducer,
        letter: Letter,
        cause: Cause,
        own: Headers,
        key: bytes | None,
        value: bytes | None,
    ) -> None:
        headers = [*own, *self.policy.headers(letter, cause)]
        if not self._is_too_large(self.policy.queue, key, len(value or b"") + len(key or b"")):
            try:
                producer.produce(self.policy.queue, key, value, headers)
            except RecordTooLarge as error:
                if error.undelivered:  # another one, sent before
                    raise
            else:
                return
        without = replace(letter, size=len(value or b""))
        producer.produce(self.policy.queue, key, None, [*own, *self.policy.headers(without, cause)])

    # -- values that cannot be encoded ----------------------------------------------------------------

    def _as_json(self, record: RowChange | ConnectRecord) -> tuple[str, Bytes]:
        """The form of a letter, its key and its value."""
        try:
            general = record if isinstance(record, ConnectRecord) else self._general(record)
            key = self._encoder(general.topic, general.key_schema)(general.key)
            value = self._encoder(general.topic, general.value_schema)(general.value)
        except CdcError:
            if isinstance(record, ConnectRecord):
                return "text", (None, repr(record.value).encode())
            return "text", _texts(record)
        return "json", (key, value)

    def _general(self, change: RowChange) -> ConnectRecord:
        values = self._values.get(change.shape)
        if values is None:
            values = self._values[change.shape] = row_values(change.shape, self._version)
        return values.record(change, change.tx.commit_us)

    def _encoder(self, topic: str, schema: Schema | None) -> Encoder:
        found = self._encoders.get((topic, id(schema)))
        if found is None:
            if len(self._encoders) >= ENCODERS:
                self._encoders.clear()
            found = self._encoders[topic, id(schema)] = self._json.encoder(topic, schema), schema
        return found[0]


def _position(record: RowChange | ConnectRecord) -> bytes:
    if isinstance(record, ConnectRecord):
        return record.position
    return record.tx.position_prefix + b"%08x.%08x" % (record.ordinal, record.index)


def _texts(change: RowChange) -> Bytes:
    """Key and value as Postgres's texts, for a row that no schema holds."""
    shape = change.shape

    def named(row: RawRow | None, places: Sequence[int] | None = None) -> dict[str, str | None] | None:
        if row is None:
            return None
        told = range(min(len(row), len(shape.columns))) if places is None else places
        return {
            shape.columns[at].name: None if row[at] is None else bytes(row[at]).decode(errors="backslashreplace")
            for at in told
            if row[at] is not UNCHANGED
        }

    value = {"op": change.op, "before": named(change.before), "after": named(change.after)}
    key = named(change.key_row, shape.key)
    return (
        None if key is None else json.dumps(key, ensure_ascii=False).encode(),
        json.dumps(value, ensure_ascii=False).encode(),
    )
