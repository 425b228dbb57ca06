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
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import structlog
import tenacity

from cdc.errors import RetriableError
from cdc.kafka.offsets import encode_offset, read_offsets
from cdc.kafka.producer import RecordProducer, RecordTooLarge
from cdc.kafka.topics import TopicFacts, Topics
from cdc.plugin import Converter, SourceConnector, SourceTask, TaskContext
from cdc.record import HEADER_SOURCE
from cdc.runtime.ghosts import Ghosts
from cdc.runtime.signals import Signals
from cdc.runtime.source_errors import SourceErrors
from cdc.runtime.source_sweeps import COMMIT_BYTES, SweepOutput
from cdc.runtime.source_transforms import load_chain
from cdc.runtime.source_writer import SourceWriter, load_converters
from cdc.runtime.topic_identity import TopicIdentities

__all__ = ["run_source_task"]

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)

COMMIT_SECONDS: Final = 0.25
"""A transaction is committed at this age while records keep coming; at once when none is waiting."""
IDLE_POLL_S: Final = 0.5
METRICS_SECONDS: Final = 1.0
SWEEP_POLL_S: Final = 0.05
"""Longest wait for the source while a sweep is under way."""
PUMP_S: Final = 0.1
"""How often the source is looked after while something else is waited for."""
DRAIN_S: Final = 8.0
"""How long a task that was asked to stop goes on waiting for Kafka or the registry."""
_RETRY_WAIT: Final = tenacity.wait_exponential(multiplier=0.2, max=10.0) + tenacity.wait_random(0, 0.2)


def run_source_task(connector: SourceConnector, context: TaskContext, worker: Mapping[str, str]) -> None:
    """Run until ``context.stopping()``; `FatalError` and `ConfigError` end it earlier."""
    attempt = 0
    errors = SourceErrors(connector.config, context, worker)
    while not context.stopping():
        session = _Session(connector, context, worker, errors)
        try:
            session.run()
        except RecordTooLarge as error:
            if not errors.learn(error, session.limit):
                raise
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

    def __init__(
        self, connector: SourceConnector, context: TaskContext, worker: Mapping[str, str], errors: SourceErrors
    ) -> None:
        self._errors = errors
        self._context = context
        self._worker = worker
        self._name = connector.config.name
        self._connector = connector
        self._task: SourceTask | None = None
        self._producer: RecordProducer | None = None
        self._ghosts: Ghosts | None = None
        self._signals = Signals(self._name, connector.signals)
        self._offsets_topic = worker.get("offset.storage.topic") or f"{worker.get('group.id', 'cdc')}-offsets"
        self._chain = load_chain(worker)
        self._writer: SourceWriter | None = None
        self._bytes = 0
        self._commits = 0
        self._metrics_at = 0.0
        self._opened_at = 0.0
        self._started = False
        self._loaded: tuple[Converter, ...] = ()
        self._stop_by = 0.0
        self._asking = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="registry")
        self.healthy = False
        """Whether anything was committed: an outage after that is a new one."""

    def run(self) -> None:
        context = self._context
        worker = self._worker
        topics = self._topics = Topics(worker, self._pump, self._note_topic)
        partitions = topics.ensure(
            self._offsets_topic,
            {"cleanup.policy": "compact"},
            partitions=int(worker.get("offset.storage.partitions", "25")),
            replication=int(worker.get("offset.storage.replication.factor", "-1")),
        )
        exactly_once = worker.get("exactly.once.source.support", "enabled") == "enabled"
        group = worker.get("group.id", "cdc")
        transactional_id = f"{group}-{self._name}-{context.task}" if exactly_once else None
        self._errors.begin(topics)
        producer = self._producer = RecordProducer(
            worker, transactional_id, self._pump, self._errors.producer_settings()
        )
        producer.start()
        stored = read_offsets(worker, self._offsets_topic, partitions, self._name, self._pump, context.stopping)
        self._memory = _Memory(self._name, stored)
        self._identities = TopicIdentities(self._name, stored)
        topics.watch(self._identities.topics())
        converters = self._loaded = load_converters(self._connector, worker)
        task = self._task = self._connector.task(context)
        source = (HEADER_SOURCE, f"{self._name}/{task.source_id}".encode())
        writer = self._writer = SourceWriter(
            self._connector,
            task,
            producer,
            topics,
            converters,
            self._memory,
            self._chain,
            source,
            self._errors,
            self,
            compacts="compact" in worker.get("topic.creation.default.cleanup.policy", "compact"),
        )
        output = SweepOutput(writer, task, self._commit, self._pump)
        ghosts = self._ghosts = Ghosts(worker, source[1], converters[0], output)
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
                writer.write(changes)
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

    # -- committing ---------------------------------------------------------------------------------

    def _commit(self) -> None:
        """Records and offsets in one transaction; without transactions, the offsets after the records."""
        producer, task = self._producer, self._task
        if producer is None or task is None:
            return
        offsets = {**self._memory.fresh, **self._identities.fresh, **task.offsets(), **self._signals.fresh}
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
        self._identities.fresh.clear()
        task.committed()
        self._errors.committed()
        self._commits += 1
        self.healthy = True

    def _note_topic(self, topic: str, facts: TopicFacts | None) -> None:
        if self._signals.reads(topic):
            self._signals.note(facts)
        else:
            self._identities.note(topic, facts)

    # -- parts --------------------------------------------------------------------------------------

    def patiently(self, call: Callable[[], _T]) -> _T:
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

    def limit(self, topic: str) -> int | None:
        """The largest batch that a topic takes, in bytes; ``None`` if nobody tells."""
        return Topics(self._worker, lambda: None).limit(topic)

    def _sleep(self, seconds: float) -> None:
        self.pause(seconds, "schema registry")

    def pause(self, seconds: float, reason: str) -> None:
        """Keep the source alive for a while, and say why."""
        self._context.report("waiting", reason)
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._pump()
            time.sleep(min(left, PUMP_S))

    def _pump(self) -> None:
        """Called while anything is waited for: the source is kept alive, and a stop is not held up for ever."""
        if self._task is not None and self._started:
            self._task.keep_alive()
            self._topics.look()  # what waits for a topic that is gone waits in vain
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
        self._topics.look()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        figures: dict[str, Any] = {
            "records": 0 if self._writer is None else self._writer.records,
            "bytes": self._bytes,
            "commits": self._commits,
            "rss_peak_kb": usage.ru_maxrss,
            "cpu_s": usage.ru_utime + usage.ru_stime,
            **task.metrics(),
            **self._errors.policy.figures(),
            "sweeps_declined": 0 if self._ghosts is None else self._ghosts.declined,
        }
        self._context.report("metrics", figures)


def _wait(seconds: float, stopping: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not stopping() and (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, PUMP_S))


def _retry_state(attempt: int) -> tenacity.RetryCallState:
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = attempt
    return state
