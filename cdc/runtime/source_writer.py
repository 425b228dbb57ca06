"""From a source's records to the producer: encoded, transformed where that is asked for, or put aside."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from cdc.config import converter_properties, find_converter
from cdc.errors import DataError, RetriableError, SchemaRefused, TableError
from cdc.kafka.producer import Headers, RecordProducer, RecordTooLarge
from cdc.kafka.topics import COMPACTED, EVENTS, Topics
from cdc.plugin import Converter, Encoder, KeyEncoder, KeyMemory, SourceConnector, SourceTask, ValueEncoder
from cdc.record import HEADER_POSITION, ConnectRecord, RowChange, RowShape, Schema
from cdc.runtime.letters import Cause, class_name
from cdc.runtime.schema_headers import SchemaHeaders
from cdc.runtime.source_errors import KAFKA_PRODUCE, KEY_CONVERTER, TRANSFORMATION, VALUE_CONVERTER, SourceErrors
from cdc.runtime.source_transforms import Chain

__all__ = ["SourceWriter", "load_converters"]

_T = TypeVar("_T")

GENERAL_ENCODERS: Final = 1000
"""Encoders kept for records that are not rows; more means that somebody makes a schema per record."""
FIRST_RETRY_S: Final = 0.3
ASK_AGAIN_S: Final = 30.0
"""How often a schema that the registry refused is offered again while rows of it come."""


class Waiting(Protocol):
    """How the session waits."""

    def patiently(self, call: Callable[[], _T]) -> _T:
        """The answer of a call that asks the registry, however long it takes."""

    def pause(self, seconds: float, reason: str) -> None:
        """Keep the source alive for a while."""


class SourceWriter:
    """Writes the records of one session. ``source`` is the header that names it.

    ``memory`` is what the key converter must keep; ``compacts`` whether topics of rows are compacted, where a truncate
    needs a key (EXACTNESS.md H16).
    """

    def __init__(
        self,
        connector: SourceConnector,
        task: SourceTask,
        producer: RecordProducer,
        topics: Topics,
        converters: tuple[Converter, Converter],
        memory: KeyMemory,
        chain: Chain | None,
        source: tuple[str, bytes],
        errors: SourceErrors,
        waiting: Waiting,
        *,
        compacts: bool,
    ) -> None:
        self._config = connector.config
        self._queues_schemas = connector.queues_incompatible_schemas and bool(errors.policy.queue)
        self._task = task
        self.producer = producer
        self._topics = topics
        self.keys, self.values = converters
        self._types = None if self.keys.tells_types and self.values.tells_types else SchemaHeaders(*converters)
        self.memory = memory
        self.chain = chain
        self._source = source
        self._common = list(task.headers)
        self._errors = errors
        self._waiting = waiting
        self.compacts = compacts
        self._produce = errors.checked(producer.produce)
        self._encoders: dict[RowShape, tuple[KeyEncoder, ValueEncoder, int]] = {}
        self._general: dict[tuple[str, int, int], tuple[Encoder, Encoder, Schema | None, Schema | None]] = {}
        """Encoders of `ConnectRecord`, by topic and identity of the schemas, which they keep alive."""
        self._row_keys: dict[RowShape, KeyEncoder] = {}
        """Encoders of keys that transforms leave as they are."""
        self._refused: dict[RowShape, tuple[SchemaRefused, float]] = {}
        """Shapes whose changes go to the queue, and when their schema was offered last."""
        self.spared: set[tuple[str, bytes | None]] = set()
        """Topic and key of rows that a sweep must not take for ghosts."""
        self.records = 0

    # -- one batch ----------------------------------------------------------------------------------

    def write(self, changes: Sequence[RowChange | ConnectRecord]) -> None:
        """Write what one poll gave, in order."""
        produce = self._produce
        encoders = self._encoders
        source, common, chain, types = self._source, self._common, self.chain, self._types
        now_us = time.time_ns() // 1000
        shape = None
        refused: set[RowShape] = set()
        change: RowChange | ConnectRecord
        for change in changes:
            if chain is not None:
                if isinstance(change, ConnectRecord) or change.shape not in refused:
                    try:
                        self._write_transformed(change, chain, now_us)
                    except TableError as error:
                        if isinstance(change, ConnectRecord):
                            raise
                        self._refuse(change, error, refused)
                continue
            if isinstance(change, ConnectRecord):
                self._write_as_it_is(change)
                continue
            if change.shape is not shape:
                shape = change.shape
                found = encoders.get(shape)
                if found is None and shape not in refused:
                    found = self._compiled(change, refused)
                if found is not None:
                    encode_key, encode_value, partitions = found
                topic = shape.topic
            if refused and shape in refused:
                if shape in self._refused:
                    self._queue_refused(change, self._refused[shape][0])
                continue
            value = key = None
            try:
                position = change.tx.position_prefix + b"%08x.%08x" % (change.ordinal, change.index)
                value = encode_value(change, now_us)
                headers: Headers = [source, (HEADER_POSITION, position), *change.headers, *common]
                if types is not None:
                    headers += types.of(change.shape.key_schema, change.shape.envelope_schema if change.op else None)
                if change.broadcast:
                    for partition in range(partitions):
                        # Compaction needs a key, and it must not be a row's (EXACTNESS.md H16).
                        key = self.keys.control_key(partition) if change.shape.compact and self.compacts else None
                        produce(topic, key, value, headers, partition)
                else:
                    try:
                        key = encode_key(change)
                    except TableError as error:  # a key that two rows could share
                        self._task.refuse(shape, error)
                        refused.add(shape)
                        continue
                    produce(topic, key, value, headers)
            except DataError as error:
                stage, converter = (VALUE_CONVERTER, self.values) if value is None else (KEY_CONVERTER, self.keys)
                self._aside(change, topic, Cause(stage, class_name(converter), error))
                self._spare(change, encode_key)
            except RecordTooLarge as error:
                if error.undelivered:  # another one, sent before
                    raise
                self._aside(change, topic, Cause(KAFKA_PRODUCE, class_name(self.producer), error), (key, value))
                self._spare(change, encode_key)
        self.records += len(changes)

    def _aside(
        self,
        record: RowChange | ConnectRecord,
        topic: str,
        cause: Cause,
        encoded: tuple[bytes | None, bytes | None] | None = None,
    ) -> None:
        common: Headers = [*self._common, self._source]
        self._errors.put_aside(self.producer, record, topic, cause, common, encoded)

    def _spare(self, change: RowChange, encode_key: KeyEncoder) -> None:
        """A row that was read again and put aside is there, though the topic tells nothing new of it."""
        if change.marker is not None:
            try:
                key = encode_key(change)
            except DataError:
                return  # then it has no older record either
            self.spared.add((change.shape.topic, key))

    # -- schemas that the registry refuses ------------------------------------------------------------

    def _compiled(self, change: RowChange, refused: set[RowShape]) -> tuple[KeyEncoder, ValueEncoder, int] | None:
        """The encoders of the change's shape; ``None``, and among the ``refused``, if there can be none."""
        shape = change.shape
        known = self._refused.get(shape)
        if known is not None and time.monotonic() - known[1] < ASK_AGAIN_S:
            # The table may have been read again meanwhile, and counted as mended.
            self._task.refuse(shape, known[0], queued=True)
            refused.add(shape)
            return None
        try:
            found = self._encoders[shape] = self._compile(shape)
        except TableError as error:
            self._told_refused(shape, error, refused)
            return None
        if known is not None:
            del self._refused[shape]
            self._task.accepted(shape)
        return found

    def _told_refused(self, shape: RowShape, error: TableError, refused: set[RowShape]) -> None:
        queued = self._queues_schemas and isinstance(error, SchemaRefused)
        self._task.refuse(shape, error, queued=queued)
        refused.add(shape)
        if queued and isinstance(error, SchemaRefused):
            self._refused[shape] = error, time.monotonic()

    def _refuse(self, change: RowChange, error: TableError, refused: set[RowShape]) -> None:
        """A change that came out of transforms cannot be written."""
        shape = change.shape
        if shape in self._refused or (self._queues_schemas and isinstance(error, SchemaRefused)):
            if shape not in self._refused:
                self._task.refuse(shape, error, queued=True)
                self._refused[shape] = SchemaRefused(str(error)), time.monotonic()
            self._queue_refused(change, self._refused[shape][0])
        else:
            self._told_refused(shape, error, refused)

    def _queue_refused(self, change: RowChange, error: SchemaRefused) -> None:
        # Rows that are read will be read again, and a tombstone says what its delete said.
        if change.marker is None and change.op:
            cause = Cause(VALUE_CONVERTER, class_name(self.values), error)
            self._aside(change, change.shape.topic, cause)

    # -- transforms and other records -----------------------------------------------------------------

    def _write_transformed(self, change: RowChange | ConnectRecord, chain: Chain, now_us: int) -> None:
        if isinstance(change, RowChange) and change.shape in self._refused:
            error, asked = self._refused[change.shape]
            if time.monotonic() - asked < ASK_AGAIN_S:
                self._task.refuse(change.shape, error, queued=True)
                self._queue_refused(change, error)
                return
        record = given = None
        topic = change.topic if isinstance(change, ConnectRecord) else change.shape.topic
        try:
            given = change if isinstance(change, ConnectRecord) else chain.record(change, now_us)
            try:
                record = chain.apply(given)
            except RetriableError as error:
                record = self._again(partial(chain.apply, given), error)
            if record is None:
                return
            self._write_made(change, given, record)
        except DataError as error:
            if given is None:
                cause = Cause(VALUE_CONVERTER, class_name(chain), error)
            elif record is None:
                cause = Cause(TRANSFORMATION, chain.failed or class_name(chain), error)
            else:
                cause = Cause(VALUE_CONVERTER, class_name(self.values), error)
            self._aside(given or change, topic if record is None else record.topic, cause)

    def _write_made(self, change: RowChange | ConnectRecord, given: ConnectRecord, record: ConnectRecord) -> None:
        """Write what the chain made of a record."""
        if self._types is not None and isinstance(change, RowChange):
            more = self._types.of(record.key_schema, None if record.value is None else record.value_schema)
            record = replace(record, headers=(*record.headers, *more))
        if isinstance(change, ConnectRecord):
            self.write_general(record)
        elif change.broadcast and record.partition is None:
            partitions = self._topics.ensure(record.topic, COMPACTED if record.compacted else EVENTS)
            for partition in range(partitions):
                key = self.keys.control_key(partition) if record.compacted and self.compacts else None
                self.write_general(replace(record, partition=partition), partial(_same, key))
        elif record.topic == given.topic and record.key is given.key and record.key_schema is given.key_schema:
            # The key is the row's own: its schema is the one that is remembered (EXACTNESS.md H14).
            encode = self._row_key(change.shape)
            self.write_general(record, lambda: encode(change))
        else:
            self.write_general(record)
        if isinstance(change, RowChange) and self._refused.pop(change.shape, None) is not None:
            self._task.accepted(change.shape)

    def _write_as_it_is(self, record: ConnectRecord) -> None:
        try:
            self.write_general(record)
        except DataError as error:
            self._aside(record, record.topic, Cause(VALUE_CONVERTER, class_name(self.values), error))

    def write_general(self, record: ConnectRecord, key_bytes: Callable[[], bytes | None] | None = None) -> None:
        """Write a record of any schema. ``key_bytes`` makes its key, if it is not to be made of the record's."""
        key_schema = record.key_schema if key_bytes is None else None
        value_schema = record.value_schema
        if record.value is None and not self.values.nulls_have_schemas:
            value_schema = None
        identity = (record.topic, id(key_schema), id(value_schema))
        found = self._general.get(identity)
        if found is None:
            if len(self._general) >= GENERAL_ENCODERS:
                self._general.clear()
            found = self._compile_general(record.topic, key_schema, value_schema, compacted=record.compacted)
            self._general[identity] = found
        headers: Headers = [*record.headers, *self._common]
        if record.position:
            headers[:0] = [self._source, (HEADER_POSITION, record.position)]
        key = found[0](record.key) if key_bytes is None else key_bytes()
        value = found[1](record.value)
        partition = -1 if record.partition is None else record.partition
        try:
            self._produce(record.topic, key, value, headers, partition, record.timestamp or 0)
        except RecordTooLarge as error:
            if error.undelivered:
                raise
            self._aside(record, record.topic, Cause(KAFKA_PRODUCE, class_name(self.producer), error), (key, value))

    def _again(self, call: Callable[[], _T], error: RetriableError) -> _T:
        """Try once more, and again, for ``errors.retry.timeout``; then the record is at fault."""
        timeout, longest = self._config.errors_retry_timeout, self._config.errors_retry_delay_max_ms / 1000
        started = time.monotonic()
        delay = FIRST_RETRY_S
        while timeout < 0 or (time.monotonic() - started) * 1000 < timeout:
            self._waiting.pause(delay if delay <= longest else random.uniform(0, longest), str(error))  # noqa: S311
            delay *= 2
            try:
                return call()
            except RetriableError as again:
                error = again
        raise DataError(f"{error} (tried for errors.retry.timeout={timeout})") from error

    # -- for sweeps -----------------------------------------------------------------------------------

    def value_encoder(self, shape: RowShape, *, keyless: bool = False) -> ValueEncoder:
        """The encoder of values of a shape; ``keyless`` while its keys cannot be compiled. `TableError` when the
        registry refuses them."""
        if keyless:
            return self._waiting.patiently(lambda: self.values.value_encoder(shape))
        found = self._encoders.get(shape)
        if found is None:
            found = self._encoders[shape] = self._compile(shape)
        return found[1]

    def partitions(self, shape: RowShape) -> int:
        """How many the topic of a shape has."""
        return self._topics.ensure(shape.topic, COMPACTED if shape.compact else EVENTS)

    def write_ready(self, change: RowChange, key: bytes | None, value: bytes | None, partition: int) -> None:
        """Write a change whose bytes are made."""
        position = change.tx.position_prefix + b"%08x.%08x" % (change.ordinal, change.index)
        headers: Headers = [self._source, (HEADER_POSITION, position), *change.headers, *self._common]
        if self._types is not None:
            headers += self._types.of(change.shape.key_schema, change.shape.envelope_schema if change.op else None)
        self.producer.produce(change.shape.topic, key, value, headers, partition)
        self.records += 1

    def renew_keys(self, topic: str) -> None:
        """The topic's keys are all deleted: the next key schema may be any."""
        self.keys.renew_keys(topic, self.memory)
        for shape in [shape for shape in self._encoders if shape.topic == topic]:
            del self._encoders[shape]

    # -- encoders -------------------------------------------------------------------------------------

    def _compile(self, shape: RowShape) -> tuple[KeyEncoder, ValueEncoder, int]:
        partitions = self.partitions(shape)

        def make() -> tuple[KeyEncoder, ValueEncoder]:
            return self.keys.key_encoder(shape, self.memory), self.values.value_encoder(shape)

        key, value = self._waiting.patiently(make)
        return key, value, partitions

    def _compile_general(
        self, topic: str, key: Schema | None, value: Schema | None, *, compacted: bool
    ) -> tuple[Encoder, Encoder, Schema | None, Schema | None]:
        self._topics.ensure(topic, COMPACTED if compacted else EVENTS)

        def make() -> tuple[Encoder, Encoder]:
            return self.keys.encoder(topic, key), self.values.encoder(topic, value)

        return *self._waiting.patiently(make), key, value

    def _row_key(self, shape: RowShape) -> KeyEncoder:
        found = self._row_keys.get(shape)
        if found is None:
            found = self._row_keys[shape] = self._waiting.patiently(lambda: self.keys.key_encoder(shape, self.memory))
        return found


def load_converters(connector: SourceConnector, worker: Mapping[str, str]) -> tuple[Converter, Converter]:
    """The key and the value converter of a connector. `ConfigError` for properties that they do not take."""
    made: list[Any] = []
    for name, is_key in ((connector.config.key_converter, True), (connector.config.value_converter, False)):
        converter = find_converter(name)()
        converter.refuses_incompatible = not is_key and connector.refuses_incompatible_schemas
        converter.configure(converter_properties(worker, is_key=is_key), is_key=is_key)
        made.append(converter)
    return made[0], made[1]


def _same(key: bytes | None) -> bytes | None:
    return key
