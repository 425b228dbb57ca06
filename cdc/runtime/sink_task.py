"""The loop of a sink task: fetch, assemble, write, settle.

While Redis applies one batch the next is fetched and assembled. Where to read from is what the store holds, and
whenever that is in doubt (a lost connection, a batch that was not applied, partitions that moved) the task starts
over from there: there is no other way to recover, so that the one way is well trodden. An outage of any part is waited
out here, with the consumer alive in its group.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

import structlog
import tenacity
from confluent_kafka import Message

from cdc.errors import FatalError, RetriableError
from cdc.kafka.consumer import RecordConsumer, TopicPart
from cdc.mirror.assembly import TASK_PUT, Assembler
from cdc.mirror.partitions import Message as Record
from cdc.mirror.rows import placeholders
from cdc.mirror.store import GuardLost, Partition, Refusal, Store
from cdc.plugin import SinkConnector, TaskContext
from cdc.runtime.healing import Healing
from cdc.runtime.letters import class_name
from cdc.runtime.sink_errors import SinkErrors
from cdc.runtime.sink_metrics import SinkMetrics
from cdc.runtime.sink_records import SinkRecords
from cdc.runtime.sink_start import Beginning
from cdc.runtime.sink_topics import SinkTopics

__all__ = ["run_sink_task"]

_log = structlog.get_logger(__name__)

IDLE_POLL_S: Final = 0.25
BARRIER_POLL_S: Final = 0.02
"""Pause between two looks at a truncate that other partitions have yet to reach."""
VERIFY_S: Final = 1.0
"""How often an idle task asks the store whether it still holds what was written."""
METRICS_S: Final = 1.0
COMMIT_S: Final = 5.0
"""How often the consumer group is told, for lag tools."""
PUMP_S: Final = 0.2
_RETRY_WAIT: Final = tenacity.wait_exponential(multiplier=0.1, max=10.0) + tenacity.wait_random(0, 0.5)


def run_sink_task(connector: SinkConnector, context: TaskContext, worker: Mapping[str, str]) -> None:
    """Run until ``context.stopping()``; `FatalError` and `ConfigError` end it earlier.

    Sets the process's garbage collector to look for cycles rarely: the loop makes none, and looking through the rows
    of a batch costs a fifth of it.
    """
    gc.set_threshold(200_000, 10, 10)
    task = _SinkTask(connector, context, worker)
    try:
        task.run()
    finally:
        task.close()


class _UnderWay(NamedTuple):
    """A batch whose outcome is not known yet."""

    stamps: list[int]
    """Timestamps of some of its records."""
    offsets: dict[Partition, int]
    messages: Sequence[Record] = ()
    """Its records, for those that the store refuses."""


class _SinkTask:
    def __init__(self, connector: SinkConnector, context: TaskContext, worker: Mapping[str, str]) -> None:
        settings: Any = connector.config
        self._settings = settings
        self._context = context
        self._records = SinkRecords(settings, worker, settings.metadata)
        self._errors = SinkErrors(settings, worker, context, {**self._records.classes, TASK_PUT: class_name(connector)})
        self._store: Store = connector.store(context)
        capabilities = self._store.capabilities
        self._most = capabilities.max_batch_records
        self._assembler = Assembler(
            settings.name,
            self._records.reader,
            settings.template,
            ttl=settings.redis_ttl,
            max_records=self._most,
            max_bytes=capabilities.max_batch_bytes,
            not_known=placeholders(settings.unavailable_value_placeholder),
            tolerant=self._errors.policy.tolerant,
            versions=not capabilities.atomic_offsets,
        )
        self._consumer = RecordConsumer(
            worker, f"connect-{settings.name}", f"{settings.name}-{context.task}", self._revoked
        )
        self._topics = SinkTopics(settings, self._consumer)
        self._beginning = Beginning(connector, worker, self._store, self._consumer, self._assembler)
        self._healing = Healing(connector, worker)
        self._metrics = SinkMetrics()
        self._pending: list[Message] = []
        """Fetched, and not yet in a batch."""
        self._under_way: _UnderWay | None = None
        """The batch that was written last, until it is settled."""
        self._settled: dict[Partition, int] = {}
        """What the store holds, as offsets to read next."""
        self._held: set[Partition] = set()
        self._start_over = True
        self._doubted = False
        """Another writer was seen: the partitions may be ours no more."""
        self._running = False
        self._attempts = 0
        self._metrics_at = self._committed_at = 0.0
        self._looked_at = 0.0
        """When the store last said what it holds."""
        self._told_keyless: set[str] = set()
        self._told_waiting = ""

    # --- the loop ----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Mirror until asked to stop, then drain."""
        while not self._context.stopping():
            try:
                self._step()
            except GuardLost as lost:
                _log.info("starting over from what the store holds", reason=str(lost))
                self._begin_again()
                self._doubted = True
            except RetriableError as error:
                self._begin_again()
                self._wait(error)
        self._drain()

    def _step(self) -> None:
        now = time.monotonic()
        if self._doubted:
            self._doubted = False
            self._await_membership()
        if self._start_over:
            self._start()
        else:
            self._topics.look(now)
        if self._topics.joined_anew(now):
            self._begin_again()
        if now - self._metrics_at >= METRICS_S:
            self._metrics_at = now
            self._report()
            for topic, since in self._healing.done():
                self._assembler.healed(topic, since)
        self._consumer.mend_stalls(now)
        assembler = self._assembler
        messages = self._pending or self._fetch()
        if self._consumer.changed:
            self._begin_again()
            return
        self._pending = assembler.add(messages)
        if not self._pending:
            self._ends()
        rejected = assembler.take_rejected()
        batch = assembler.finish()
        self._settle()
        if rejected:
            self._errors.put_aside(rejected)  # before the batch that passes them
        if batch:
            self._store.write(batch)
            taken = messages[: len(messages) - len(self._pending)]
            stamps = [message.timestamp()[1] for message in taken[:: self._metrics.sample(len(taken))]]
            offsets = {part: offset.next for part, offset in batch.offsets.items()}
            self._under_way = _UnderWay(stamps, offsets, [*assembler.take_again(), *taken])
        self._after_faults()
        self._truncates()
        if not messages and now - self._looked_at >= VERIFY_S:
            self._look()

    def _ends(self) -> None:
        """Partitions that were read to their end: nothing is to come of what was to be applied again."""
        ends = self._consumer.ends
        for (topic, number), end in list(ends.items()):
            self._assembler.end_reached(Partition(topic, number), end)
            del ends[topic, number]

    def _fetch(self) -> list[Message]:
        """More records. Waits for them only when nothing else is to be done."""
        if self._under_way is not None:
            timeout = 0.0
        elif self._held:
            timeout = BARRIER_POLL_S
        else:
            timeout = IDLE_POLL_S
        return self._records.routed(self._consumer.fetch(self._most, timeout))

    def _settle(self) -> None:
        """Wait for the outcome of the batch under way."""
        if self._under_way is None:
            return
        batch, self._under_way = self._under_way, None
        refusals = self._store.settle()
        if refusals:
            self._refused(refusals, batch.messages)
        self._looked_at = time.monotonic()
        self._metrics.applied(batch.stamps)
        self._settled.update(batch.offsets)
        self._attempts = 0

    def _refused(self, refusals: Sequence[Refusal], messages: Sequence[Record]) -> None:
        """Put records aside that the store would not apply, before anything confirms their batch."""
        rejected = self._assembler.refused(refusals, messages) if self._errors.policy.tolerant else []
        if not rejected:
            raise _refused(refusals, self._settings.name)
        self._errors.put_aside(rejected)

    def _after_faults(self) -> None:
        """Stop at a record that cannot be mirrored, once everything before it is applied."""
        if self._assembler.waiting is not None:
            self._settle()
            raise self._assembler.waiting
        fault = self._assembler.fault
        if fault is not None:
            self._settle()
            raise FatalError(
                f"{fault.partition} offset {fault.offset}: {fault.error}. Everything before it is mirrored. Remedy: "
                "correct or remove the record; with errors.tolerance=none the connector stops in front of it"
            ) from fault.error

    def _truncates(self) -> None:
        """Bring partitions to truncates, and past them."""
        arrivals = self._assembler.arrivals()
        if arrivals:
            self._settle()
            self._store.confirm()
            self._store.arrive(arrivals, self._topics.partitions)
            self._held.update(arrival.partition for arrival in arrivals)
            self._consumer.pause(self._held)
            self._pending = [m for m in self._pending if (m.topic(), m.partition()) not in self._held]
        released = self._store.advance()
        if released:
            self._settle()
            batch, begins = self._assembler.release(released)
            self._store.write(batch)
            self._under_way = _UnderWay([], {part: offset.next for part, offset in batch.offsets.items()})
            self._settle()
            self._held.difference_update(released)
            self._consumer.reposition(begins)
            for partition in released:
                _log.info("passed a truncate", partition=str(partition))

    def _look(self) -> None:
        """Nothing to do: tell the store that all outcomes were seen, or ask whether it still holds them."""
        self._settle()
        self._store.confirm()
        self._store.verify()
        self._looked_at = time.monotonic()
        self._attempts = 0

    # --- starting over -----------------------------------------------------------------------------------

    def _begin_again(self) -> None:
        """Forget all that the store has not said it holds."""
        self._start_over = True
        self._pending = []
        self._under_way = None
        self._held.clear()

    def _start(self) -> None:
        """Read on from what the store holds."""
        self._topics.find()
        self._errors.prepare()
        self._consumer.pause(self._consumer.assigned)
        begins = self._beginning.take_up(self._topics.partitions)
        self._healing.owe(self._beginning.entries, self._consumer.assigned, self._topics.partitions)
        self._consumer.reposition(begins)
        self._consumer.changed = self._start_over = False
        self._settled = {partition: offset for partition, offset in begins.items() if offset is not None}
        self._looked_at = time.monotonic()
        if not self._running:
            self._running = True
            self._context.report("state", "RUNNING")
            self._tell_waiting("")
        if begins:
            _log.info("reading", partitions={str(part): begin for part, begin in begins.items()})

    def _revoked(self, parts: Collection[TopicPart]) -> None:
        """Partitions go to another task: let it find everything that is under way."""
        try:
            self._settle()
        except (GuardLost, RetriableError, FatalError) as error:
            _log.info(
                "a batch was under way when partitions were revoked", partitions=sorted(parts), outcome=str(error)
            )
        self._begin_again()

    def _await_membership(self) -> None:
        """After another writer was seen: are the partitions still ours? If not, the next poll takes them away."""
        if not self._consumer.is_member(self._settled):
            _log.info("no longer a member of the consumer group; waiting to be one again")
            self._consumer.keep_alive(PUMP_S)

    # --- waiting -----------------------------------------------------------------------------------------

    def _wait(self, error: RetriableError) -> None:
        """Wait a while, longer each time, in the group and without taking records."""
        self._attempts += 1
        pause = _RETRY_WAIT(_retry_state(self._attempts))
        _log.warning("waiting for a part that is away", cause=str(error), retry_in_s=round(pause, 1))
        self._tell_waiting(str(error))
        self._running = False
        deadline = time.monotonic() + pause
        self._consumer.pause(self._consumer.assigned)
        while not self._context.stopping() and (left := deadline - time.monotonic()) > 0:
            try:
                self._consumer.keep_alive(min(left, PUMP_S))
            except RetriableError as another:
                _log.warning("something else fails meanwhile", cause=str(another))
                time.sleep(min(left, PUMP_S))  # it fails at once, again and again, perhaps

    # --- telling -----------------------------------------------------------------------------------------

    def _report(self) -> None:
        counts = self._assembler.counts
        lag = self._consumer.lag(self._settled)
        figures = {**self._metrics.figures(counts, lag), **self._errors.policy.figures(), **self._healing.figures()}
        if self._held:
            figures["at_truncate"] = sorted(str(partition) for partition in self._held)
        self._context.report("metrics", figures)
        for topic in counts.keyless.keys() - self._told_keyless:
            self._told_keyless.add(topic)
            _log.warning("records without key are not mirrored: the table has no primary key", topic=topic)
        self._tell_waiting(self._consumer.away)
        now = time.monotonic()
        if now - self._committed_at >= COMMIT_S:
            self._committed_at = now
            self._consumer.commit(self._settled)

    def _tell_waiting(self, reason: str) -> None:
        """What the task waits for; empty when for nothing."""
        if reason != self._told_waiting:
            self._told_waiting = reason
            self._context.report("waiting", reason)

    # --- the end -----------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Finish the batch under way. What is lost here is read again at the next start."""
        try:
            self._settle()
            self._store.confirm()
            self._consumer.commit(self._settled)
            self._report()
        except (GuardLost, RetriableError) as error:
            _log.warning(
                "stopped before the store said that the last records are written; the next start writes them again, "
                "which changes nothing where they are",
                cause=str(error),
            )

    def close(self) -> None:
        self._healing.close()
        self._store.close()
        self._consumer.close()
        self._errors.close()
        self._records.close()


def _refused(refusals: Sequence[Refusal], connector: str) -> FatalError:
    """The store would not apply a change; its neighbours are applied."""
    first = refusals[0]
    more = f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else ""
    return FatalError(
        f"{first.partition} offset {first.offset}: the store refuses the key {first.key.decode('utf-8', 'replace')!r}: "
        f"{first.reason}{more}. Its batch is applied otherwise, and will be applied again at the next start. Remedy: "
        f"remove or rename that key, which connector {connector} did not write; then restart the task"
    )


def _retry_state(attempt: int) -> tenacity.RetryCallState:
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = attempt
    return state
