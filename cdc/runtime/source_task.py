"""The loop of a source task: poll, encode, produce, commit, acknowledge.

Records and source offsets go into one Kafka transaction (EXACTNESS.md H6, H7); what is committed is acknowledged to
the source after, never before (H3). An outage of any part is waited out here: everything that is not committed is
thrown away and the source starts again from the stored position. Only what an operator must mend leaves this loop.
"""

from __future__ import annotations

import concurrent.futures
import json
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

import structlog
import tenacity

from cdc.config import converter_properties, find_converter
from cdc.errors import RetriableError, TableError
from cdc.kafka.offsets import encode_offset, read_offsets
from cdc.kafka.producer import Headers, RecordProducer
from cdc.kafka.topics import COMPACTED, EVENTS, Topics
from cdc.plugin import Converter, Encoder, KeyEncoder, SourceConnector, SourceTask, Sweep, TaskContext, ValueEncoder
from cdc.record import HEADER_POSITION, HEADER_SOURCE, ConnectRecord, RowChange, RowShape, Schema, Transaction
from cdc.runtime.ghosts import Ghosts
from cdc.runtime.signals import Signals
from cdc.runtime.source_transforms import Chain, load_chain

__all__ = ["run_source_task"]

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)

COMMIT_BYTES: Final = 4 << 20
"""A transaction is committed at this size, also inside a transaction of the source (never inside a message)."""
COMMIT_SECONDS: Final = 0.25
"""A transaction is committed at this age while records keep coming; at once when none is waiting."""
IDLE_POLL_S: Final = 0.5
METRICS_SECONDS: Final = 1.0
SWEEP_POLL_S: Final = 0.05
"""Longest wait for the source while a sweep is under way."""
PUMP_S: Final = 0.1
"""How often the source is looked after while something else is waited for."""
GENERAL_ENCODERS: Final = 1000
"""Encoders kept for records that are not rows; more means that somebody makes a schema per record."""
DRAIN_S: Final = 8.0
"""How long a task that was asked to stop goes on waiting for Kafka or the registry."""
_RETRY_WAIT: Final = tenacity.wait_exponential(multiplier=0.2, max=10.0) + tenacity.wait_random(0, 0.2)


def run_source_task(connector: SourceConnector, context: TaskContext, worker: Mapping[str, str]) -> None:
    """Run until ``context.stopping()``; `FatalError` and `ConfigError` end it earlier."""
    attempt = 0
    while not context.stopping():
        session = _Session(connector, context, worker)
        try:
            session.run()
        except RetriableError as error:
            attempt = 1 if session.healthy else attempt + 1
            pause = _RETRY_WAIT(_retry_state(attempt))
            _log.warning("waiting for a part that is away", cause=str(error), retry_in_s=round(pause, 1))
            context.report("waiting", str(error))
            _wait(pause, context.stopping)
        finally:
            session.close()


class _Memory:
    """What the key converter remembers, as records of the offsets topic (`cdc.plugin.KeyMemory`)."""

    def __init__(self, connector: str, stored: Mapping[str, Any]) -> None:
        self._connector = connector
        self._stored = dict(stored)
        self.fresh: dict[str, Any] = {}

    def get(self, topic: str) -> Mapping[str, Any] | None:
        found: Mapping[str, Any] | None = self._stored.get(self._partition(topic))
        return found

    def put(self, topic: str, state: Mapping[str, Any]) -> None:
        partition = self._partition(topic)
        self._stored[partition] = dict(state)
        self.fresh[partition] = dict(state)

    def _partition(self, topic: str) -> str:
        return json.dumps([self._connector, {"key": topic}], separators=(",", ":"))


class _Session:
    """One life of the task between two restarts: a producer, a source task, compiled encoders."""

    def __init__(self, connector: SourceConnector, context: TaskContext, worker: Mapping[str, str]) -> None:
        self._context = context
        self._worker = worker
        self._name = connector.config.name
        self._connector = connector
        self._task: SourceTask | None = None
        self._producer: RecordProducer | None = None
        self._compacts = "compact" in worker.get("topic.creation.default.cleanup.policy", "compact")
        """Whether topics of rows are compacted: only there a truncate needs a key (EXACTNESS.md H16)."""
        self._ghosts: Ghosts | None = None
        self._signals = Signals(self._name, connector.signals)
        self._offsets_topic = worker.get("offset.storage.topic") or f"{worker.get('group.id', 'cdc')}-offsets"
        self._encoders: dict[RowShape, tuple[KeyEncoder, ValueEncoder, int]] = {}
        self._general: dict[tuple[str, int, int], tuple[Encoder, Encoder, Schema | None, Schema | None]] = {}
        """Encoders of `ConnectRecord`, by topic and identity of the schemas, which they keep alive."""
        self._row_keys: dict[RowShape, KeyEncoder] = {}
        """Encoders of keys that transforms leave as they are."""
        self._chain = load_chain(worker)
        self._records = 0
        self._bytes = 0
        self._commits = 0
        self._metrics_at = 0.0
        self._opened_at = 0.0
        self._started = False
        self._loaded: list[Converter] = []
        self._stop_by = 0.0
        self._asking = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="registry")
        self.healthy = False
        """Whether anything was committed: an outage after that is a new one."""

    def run(self) -> None:
        context = self._context
        worker = self._worker
        topics = self._topics = Topics(worker, self._pump)
        partitions = topics.ensure(
            self._offsets_topic,
            {"cleanup.policy": "compact"},
            partitions=int(worker.get("offset.storage.partitions", "25")),
            replication=int(worker.get("offset.storage.replication.factor", "-1")),
        )
        exactly_once = worker.get("exactly.once.source.support", "enabled") == "enabled"
        group = worker.get("group.id", "cdc")
        transactional_id = f"{group}-{self._name}-{context.task}" if exactly_once else None
        producer = self._producer = RecordProducer(worker, transactional_id, self._pump)
        producer.start()
        stored = read_offsets(worker, self._offsets_topic, partitions, self._name, self._pump, context.stopping)
        self._memory = _Memory(self._name, stored)
        self._keys, self._values = self._converters()
        task = self._task = self._connector.task(context)
        self._source = (HEADER_SOURCE, f"{self._name}/{task.source_id}".encode())
        self._headers = task.headers
        ghosts = self._ghosts = Ghosts(worker, self._source[1], self._keys, _SweepOutput(self, task))
        task.start(stored)
        self._started = True
        signals = self._signals
        signals.start(worker, topics, stored, context.report)
        for warning in self._chain.warnings() if self._chain is not None else ():
            _log.warning(warning, connector=self._name)
        context.report("state", "RUNNING")
        context.report("waiting", "")
        timeout = IDLE_POLL_S
        while not context.stopping():
            signals.hand_over(task)
            changes = task.poll(timeout)
            if changes:
                if producer.records == 0:
                    self._opened_at = time.monotonic()
                self._write(changes)
            if task.sweeps or ghosts.busy:
                ghosts.ask(task.sweeps)
                task.sweeps = []
                ghosts.step()
            idle = not changes
            # With records in hand, look once more without waiting: what comes together is committed together.
            timeout = IDLE_POLL_S if producer.records == 0 else 0.0
            if producer.records and (
                idle or producer.bytes >= COMMIT_BYTES or time.monotonic() - self._opened_at >= COMMIT_SECONDS
            ):
                self._commit()
                timeout = IDLE_POLL_S if idle else 0.0
            elif idle:
                self._commit()
            if ghosts.busy:
                timeout = min(timeout, SWEEP_POLL_S)
            producer.poll()
            self._report(task)
            if task.finished and idle:
                _log.info("the snapshot is complete, and snapshot.mode is initial_only: the task is done")
                break
        self._commit()

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close()
        if self._ghosts is not None:
            self._ghosts.close()
        self._signals.close()
        if self._task is not None:
            self._task.stop()
        self._asking.shutdown(wait=False, cancel_futures=True)
        for converter in self._loaded:
            converter.close()
        if self._chain is not None:
            self._chain.close()

    # -- one batch ----------------------------------------------------------------------------------

    def _write(self, changes: Sequence[RowChange | ConnectRecord]) -> None:
        producer = self._producer
        if producer is None:
            raise RuntimeError("a batch before the producer was started")
        produce = producer.produce
        encoders = self._encoders
        source, common, chain = self._source, self._headers, self._chain
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
                        self._task_or_raise().refuse(change.shape, error)
                        refused.add(change.shape)
                continue
            if isinstance(change, ConnectRecord):
                self._write_general(change, producer)
                continue
            if change.shape is not shape:
                shape = change.shape
                found = encoders.get(shape)
                if found is None and shape not in refused:
                    try:
                        found = encoders[shape] = self._compile(shape)
                    except TableError as error:
                        self._task_or_raise().refuse(shape, error)
                        refused.add(shape)
                if found is not None:
                    encode_key, encode_value, partitions = found
                topic = shape.topic
            if refused and shape in refused:
                continue
            position = change.tx.position_prefix + b"%08x.%08x" % (change.ordinal, change.index)
            value = encode_value(change, now_us)
            headers: Headers = [source, (HEADER_POSITION, position), *change.headers, *common]
            if change.broadcast:
                for partition in range(partitions):
                    # Compaction needs a key, and it must not be a row's (EXACTNESS.md H16).
                    key = self._keys.control_key(partition) if change.shape.compact and self._compacts else None
                    produce(topic, key, value, headers, partition)
            else:
                try:
                    key = encode_key(change)
                except TableError as error:  # a key that two rows could share
                    self._task_or_raise().refuse(shape, error)
                    refused.add(shape)
                    continue
                produce(topic, key, value, headers)
        self._records += len(changes)

    def _write_transformed(self, change: RowChange | ConnectRecord, chain: Chain, now_us: int) -> None:
        producer = self._producer
        if producer is None:
            raise RuntimeError("a batch before the producer was started")
        given = change if isinstance(change, ConnectRecord) else chain.record(change, now_us)
        record = chain.apply(given)
        if record is None:
            return
        if isinstance(change, ConnectRecord):
            self._write_general(record, producer)
        elif change.broadcast and record.partition is None:
            partitions = self._topics.ensure(record.topic, COMPACTED if record.compacted else EVENTS)
            for partition in range(partitions):
                key = self._keys.control_key(partition) if record.compacted and self._compacts else None
                self._write_general(replace(record, partition=partition), producer, partial(_same, key))
        elif record.topic == given.topic and record.key is given.key and record.key_schema is given.key_schema:
            # The key is the row's own: its schema is the one that is remembered (EXACTNESS.md H14).
            encode = self._row_key(change.shape)
            self._write_general(record, producer, lambda: encode(change))
        else:
            self._write_general(record, producer)

    def _write_general(
        self, record: ConnectRecord, producer: RecordProducer, key_bytes: Callable[[], bytes | None] | None = None
    ) -> None:
        """Write a record of any schema. ``key_bytes`` makes its key, if it is not to be made of the record's."""
        key_schema = record.key_schema if key_bytes is None else None
        value_schema = record.value_schema
        if record.value is None and not self._values.nulls_have_schemas:
            value_schema = None
        identity = (record.topic, id(key_schema), id(value_schema))
        found = self._general.get(identity)
        if found is None:
            if len(self._general) >= GENERAL_ENCODERS:
                self._general.clear()
            found = self._compile_general(record.topic, key_schema, value_schema, compacted=record.compacted)
            self._general[identity] = found
        headers: Headers = [*record.headers, *self._headers]
        if record.position:
            headers[:0] = [self._source, (HEADER_POSITION, record.position)]
        key = found[0](record.key) if key_bytes is None else key_bytes()
        partition = -1 if record.partition is None else record.partition
        producer.produce(record.topic, key, found[1](record.value), headers, partition, record.timestamp or 0)

    def _compile_general(
        self, topic: str, key: Schema | None, value: Schema | None, *, compacted: bool
    ) -> tuple[Encoder, Encoder, Schema | None, Schema | None]:
        self._topics.ensure(topic, COMPACTED if compacted else EVENTS)

        def make() -> tuple[Encoder, Encoder]:
            return self._keys.encoder(topic, key), self._values.encoder(topic, value)

        return *self._patiently(make), key, value

    def _row_key(self, shape: RowShape) -> KeyEncoder:
        found = self._row_keys.get(shape)
        if found is None:
            found = self._row_keys[shape] = self._patiently(lambda: self._keys.key_encoder(shape, self._memory))
        return found

    def _commit(self) -> None:
        """Records and offsets in one transaction; without transactions, the offsets after the records."""
        producer, task = self._producer, self._task
        if producer is None or task is None:
            return
        offsets = {**self._memory.fresh, **task.offsets(), **self._signals.fresh}
        if not offsets and not producer.records:
            return
        together = self._worker.get("exactly.once.source.support", "enabled") == "enabled"
        if not together and producer.records:
            producer.commit()
        self._bytes += producer.bytes
        for partition, value in offsets.items():
            key, encoded = encode_offset(partition, value)
            producer.produce(self._offsets_topic, key, encoded)
            if not together:
                producer.commit()  # one after the other: each may count on those before it
        producer.commit()
        self._memory.fresh.clear()
        self._signals.fresh.clear()
        task.committed()
        self._commits += 1
        self.healthy = True

    def _compile(self, shape: RowShape) -> tuple[KeyEncoder, ValueEncoder, int]:
        partitions = self._topics.ensure(shape.topic, COMPACTED if shape.compact else EVENTS)

        def make() -> tuple[KeyEncoder, ValueEncoder]:
            return self._keys.key_encoder(shape, self._memory), self._values.value_encoder(shape)

        key, value = self._patiently(make)
        return key, value, partitions

    # -- parts --------------------------------------------------------------------------------------

    def _task_or_raise(self) -> SourceTask:
        if self._task is None:
            raise RuntimeError("a batch before the task was made")
        return self._task

    def _converters(self) -> tuple[Converter, Converter]:
        config = self._connector.config
        key = find_converter(config.key_converter)()
        value = find_converter(config.value_converter)()
        self._loaded = [key, value]
        value.refuses_incompatible = self._connector.refuses_incompatible_schemas
        key.configure(converter_properties(self._worker, is_key=True), is_key=True)
        value.configure(converter_properties(self._worker, is_key=False), is_key=False)
        return key, value

    def _patiently(self, call: Callable[[], _T]) -> _T:
        """The answer of a call that asks the registry: in a thread, so that the source is kept alive meanwhile."""

        def attempt() -> _T:
            future = self._asking.submit(call)
            while True:
                try:
                    return future.result(timeout=PUMP_S)
                except concurrent.futures.TimeoutError:
                    self._pump()

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(RetriableError), wait=_RETRY_WAIT, sleep=self._sleep
        )
        answer = retrying(attempt)
        if retrying.statistics.get("attempt_number", 1) > 1:
            self._context.report("waiting", "")
        return answer

    def _sleep(self, seconds: float) -> None:
        self._context.report("waiting", "schema registry")
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._pump()
            time.sleep(min(left, PUMP_S))

    def _pump(self) -> None:
        """Called while anything is waited for: the source is kept alive, and a stop is not held up for ever."""
        if self._task is not None and self._started:
            self._task.keep_alive()
        if self._context.stopping():
            now = time.monotonic()
            self._stop_by = self._stop_by or now + DRAIN_S
            if now > self._stop_by:
                raise RetriableError(f"asked to stop, and what is waited for did not come within {DRAIN_S:.0f} s")

    def _report(self, task: SourceTask) -> None:
        now = time.monotonic()
        if now - self._metrics_at < METRICS_SECONDS:
            return
        self._metrics_at = now
        usage = resource.getrusage(resource.RUSAGE_SELF)
        figures: dict[str, float] = {
            "records": self._records,
            "bytes": self._bytes,
            "commits": self._commits,
            "rss_peak_kb": usage.ru_maxrss,
            "cpu_s": usage.ru_utime + usage.ru_stime,
            **task.metrics(),
        }
        self._context.report("metrics", figures)


def _same(key: bytes | None) -> bytes | None:
    return key


class _SweepOutput:
    """The session as sweeps see it (`cdc.runtime.ghosts.Output`)."""

    def __init__(self, session: _Session, task: SourceTask) -> None:
        self._session = session
        self._task = task

    def scattered(self, sweep: Sweep) -> bool:
        chain = self._session._chain
        # Transforms drop truncates, which are what makes new keys safe (H14).
        return chain is not None and (sweep.renew or not chain.keeps_place)

    def partitions(self, sweep: Sweep) -> int:
        shape = sweep.shape
        return self._session._topics.ensure(shape.topic, COMPACTED if shape.compact else EVENTS)

    def truncate_key(self, sweep: Sweep, partition: int) -> bytes | None:
        compacted = sweep.shape.compact and self._session._compacts
        return self._session._keys.control_key(partition) if compacted else None

    def place(self) -> tuple[Transaction, int, int]:
        return self._task.place()

    def prepare(self, sweep: Sweep) -> None:
        """Compile what `write` needs. `TableError` when the registry refuses it."""
        if self._session._chain is None:
            self._encoder(sweep)

    def _encoder(self, sweep: Sweep) -> ValueEncoder:
        session, shape = self._session, sweep.shape
        if sweep.renew:  # its keys cannot be compiled yet
            return session._patiently(lambda: session._values.value_encoder(shape))
        found = session._encoders.get(shape)
        if found is None:
            found = session._encoders[shape] = session._compile(shape)
        return found[1]

    def refuse(self, sweep: Sweep, error: TableError) -> None:
        self._task.refuse(sweep.shape, error)

    def write(self, sweep: Sweep, change: RowChange, key: bytes | None, partition: int, now_us: int) -> None:
        session, chain = self._session, self._session._chain
        producer = session._producer
        if producer is None:
            raise RuntimeError("a sweep before the producer was started")
        if chain is not None and change.key_row is not None:
            record = chain.apply(chain.record(change, now_us))
            if record is not None:
                session._write_general(replace(record, partition=partition), producer, partial(_same, key))
        else:
            value = self._encoder(sweep)(change, now_us) if change.op else None
            position = change.tx.position_prefix + b"%08x.%08x" % (change.ordinal, change.index)
            headers: Headers = [session._source, (HEADER_POSITION, position), *change.headers, *session._headers]
            producer.produce(change.shape.topic, key, value, headers, partition)
        session._records += 1

    def commit(self) -> None:
        self._session._commit()

    def full(self) -> bool:
        producer = self._session._producer
        return producer is not None and producer.bytes >= COMMIT_BYTES

    def renewed(self, sweep: Sweep) -> None:
        session, topic = self._session, sweep.shape.topic
        session._keys.renew_keys(topic, session._memory)
        for shape in [shape for shape in session._encoders if shape.topic == topic]:
            del session._encoders[shape]

    def swept(self, sweep: Sweep) -> None:
        self._task.swept(sweep)

    def pump(self) -> None:
        self._session._pump()


def _wait(seconds: float, stopping: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not stopping() and (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, PUMP_S))


def _retry_state(attempt: int) -> tenacity.RetryCallState:
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = attempt
    return state
