"""Reading partitions of a topic that no group shares out, read-committed; and what a topic's settings keep of it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]

from cdc.errors import CdcError, FatalError, RetriableError
from cdc.kafka.clients import Refusal, made
from cdc.kafka.progress import Ends
from cdc.kafka.settings import client_settings, translate
from cdc.kafka.stalls import StallWatch

__all__ = ["Retention", "TopicReader", "retention"]

_log = structlog.get_logger(__name__)

_REQUEST_S: Final = 5.0
_SILENCE_S: Final = 30.0
_BATCH: Final = 1000
_SLICE_S: Final = 0.2
_MARGIN: Final = 0.1
"""Part of ``delete.retention.ms`` that clocks may be apart."""


class Retention(NamedTuple):
    """What a topic's settings let the broker remove."""

    compacted: bool
    """Records are removed once a later one has the same key."""
    timed: bool
    """Records are removed by age or size, whether or not a later one has the same key."""
    tombstones_ms: int | None
    """How long a tombstone can be read at least, if it is removed at all."""

    def may_lack_tombstones(self, since_ms: int, now_ms: int) -> bool:
        """Whether a tombstone that was written at ``since_ms`` or later may be gone by now; -1 is any time."""
        kept = self.tombstones_ms
        return kept is not None and (since_ms < 0 or now_ms - since_ms > kept * (1 - _MARGIN))


def retention(worker: Mapping[str, str], topic: str) -> Retention | None:
    """What the broker says of a topic; ``None`` from a broker that tells no settings. `RetriableError` without answer.

    For one look: makes a client of its own.
    """
    resource = ConfigResource(ResourceType.TOPIC, topic)
    doing = f"asking for the settings of topic {topic}"
    refusal = Refusal()
    admin = made(AdminClient, client_settings(worker, "admin"), refusal)  # its requests end with it
    try:
        [future] = admin.describe_configs([resource]).values()
        deadline = time.monotonic() + 2 * _REQUEST_S
        while not future.done() and time.monotonic() < deadline:
            admin.poll(0.05)
            refusal.check()
        settings = {name: entry.value for name, entry in future.result(timeout=0).items()}
    except KafkaException as error:
        code = error.args[0].code()
        if code in (KafkaError._UNSUPPORTED_FEATURE, KafkaError.UNSUPPORTED_VERSION):
            return None
        raise translate(error, doing) from None
    except TimeoutError:
        raise RetriableError(f"{doing}: no answer") from None
    policy = settings.get("cleanup.policy")
    if policy is None:
        return None
    compacted = "compact" in policy
    limited = settings.get("retention.ms") != "-1" or settings.get("retention.bytes") != "-1"
    kept = settings.get("delete.retention.ms")
    return Retention(
        compacted,
        timed="delete" in policy and limited,
        tombstones_ms=int(kept) if compacted and kept is not None else None,
    )


class TopicReader:
    """Reads some partitions of one topic. For one thread; a context, or to be closed.

    A partition that is known to hold more (`expect`) and of which nothing comes is read anew, and if that is in vain,
    by a new client (`cdc.kafka.stalls`); with ``endless`` the broker is asked for the ends once in a while, without
    waiting. ``committed=False`` also reads records of transactions that are open or aborted. With ``reset`` a partition
    that does not have the offset is read from its beginning.

    Errors: `RetriableError` for what passes, `FatalError` for what brokers refuse and for an offset that the topic does
    not have.
    """

    def __init__(
        self,
        worker: Mapping[str, str],
        topic: str,
        purpose: str,
        *,
        committed: bool = True,
        endless: bool = False,
        reset: bool = False,
        watch: StallWatch | None = None,
    ) -> None:
        self.topic = topic
        self.positions: dict[int, int] = {}
        """Partition → where it was read to. Nothing below is to come any more."""
        # No offset is ever committed, and no group joined: the name is for quotas and logs.
        self._settings: dict[str, Any] = {
            **client_settings(worker, "consumer"),
            "group.id": f"cdc-{purpose}-{topic}-{secrets.token_hex(4)}",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "isolation.level": "read_committed" if committed else "read_uncommitted",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest" if reset else "error",
            "allow.auto.create.topics": False,
            "queued.max.messages.kbytes": 16 << 10,
            "fetch.queue.backoff.ms": 5,
            "fetch.wait.max.ms": 20,
        }
        self._settings.pop("group.instance.id", None)
        self._watch = watch or StallWatch()
        self._look_at = 0.0
        self._begins: dict[int, int | None] = {}
        """The partitions that are read, and what of each comes next; ``None`` is its beginning."""
        self._expected: dict[int, int] = {}
        self._aside: list[Message] = []
        """What came while errors were asked for."""
        self._refusal = Refusal()
        self._consumer = made(Consumer, self._settings, self._refusal)
        self._ends: Ends | None = None
        if endless:
            admin = made(AdminClient, client_settings(worker, "admin"), self._refusal)
            self._ends = Ends(lambda: admin)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Never raises."""
        self._consumer.close()
        self._ends = None  # its client ends with it

    # --- what there is -----------------------------------------------------------------------------------

    def partitions(self) -> list[int]:
        """The topic's partitions; none if there is no such topic."""
        try:
            found = self._consumer.list_topics(self.topic, timeout=_REQUEST_S).topics.get(self.topic)
        except KafkaException as error:
            raise self._unanswered(error, f"asking for the topic {self.topic}") from None
        return [] if found is None or found.error is not None else sorted(found.partitions)

    def bounds(self, partitions: Collection[int]) -> dict[int, tuple[int, int]]:
        """The first offset of each partition and the one behind its last (committed) record."""
        return {partition: self._bounds(partition) for partition in partitions}

    def _bounds(self, partition: int) -> tuple[int, int]:
        doing = f"asking for the offsets of {self.topic}[{partition}]"
        try:
            found = self._consumer.get_watermark_offsets(TopicPartition(self.topic, partition), timeout=_REQUEST_S)
        except KafkaException as error:
            raise self._unanswered(error, doing) from None
        if found is None:
            raise RetriableError(f"{doing}: no answer")
        return found

    def _unanswered(self, error: KafkaException, doing: str) -> CdcError:
        """A refused login looks like an outage, and is told to whoever polls alone."""
        message = self._consumer.poll(0)
        if message is not None:
            self._aside.append(message)
        return self._refusal.error or translate(error, doing)

    # --- reading -----------------------------------------------------------------------------------------

    def go(self, begins: Mapping[int, int | None]) -> None:
        """Read exactly these partitions, from these offsets on; ``None`` is the beginning."""
        self._watch.forget(self._begins)
        self._begins = dict(begins)
        self._expected, self._aside = {}, []
        self.positions = {partition: begin or 0 for partition, begin in begins.items()}
        self._assign()

    def _assign(self) -> None:
        parts = [
            TopicPartition(self.topic, partition, OFFSET_BEGINNING if begin is None else begin)
            for partition, begin in self._begins.items()
        ]
        try:
            self._consumer.assign(parts)
            self._consumer.resume(parts)
        except KafkaException as error:
            raise translate(error, f"going to an offset of {self.topic}") from None

    def leave(self, partition: int) -> None:
        """Read no more of a partition."""
        del self._begins[partition]
        self._expected.pop(partition, None)
        self._watch.forget([partition])
        try:
            self._consumer.incremental_unassign([TopicPartition(self.topic, partition)])
        except KafkaException as error:
            raise translate(error, f"leaving {self.topic}[{partition}]") from None

    def expect(self, ends: Mapping[int, int]) -> None:
        """Partitions that are read are known to go to these offsets, whatever is read behind them."""
        self._expected = {partition: end for partition, end in ends.items() if partition in self._begins}

    @property
    def left(self) -> list[int]:
        """Partitions of which more is expected."""
        return [partition for partition, end in self._expected.items() if self.positions[partition] < end]

    @property
    def behind(self) -> int:
        """Offsets to pass until nothing more is expected; less than so many records."""
        return sum(max(0, end - self.positions[partition]) for partition, end in self._expected.items())

    def read(self, begins: Mapping[int, int | None]) -> Iterator[Message]:
        """The records of partitions from an offset each, to where they end now, or a little further.

        `RetriableError` when nothing has come for 30 s.
        """
        ends = {partition: high for partition, (_, high) in self.bounds(begins).items()}
        self.go(begins)
        self.expect(ends)
        heard = time.monotonic()
        while left := self.left:
            messages = self.fetch(_BATCH, _SLICE_S)
            yield from messages
            if messages:
                heard = time.monotonic()
            elif time.monotonic() - heard > _SILENCE_S:
                parts = ", ".join(map(str, left))
                raise RetriableError(
                    f"reading the topic {self.topic}: no answer for {_SILENCE_S:.0f} s about the partitions {parts}"
                )
            for partition in set(left) - set(self.left):
                self.leave(partition)

    def fetch(self, most: int, timeout: float) -> list[Message]:
        """The next records, up to ``most``; waits up to ``timeout`` seconds for the first. Moves `positions`."""
        try:
            if self._aside:
                found, self._aside = self._aside, []
            else:
                # consume() waits for its whole timeout, so that it gets none
                first = self._consumer.poll(timeout)
                found = [] if first is None else [first, *self._consumer.consume(most - 1, 0)]
            self._refusal.check()
            if not found:
                self._passed()
        except KafkaException as error:
            raise translate(error, f"reading {self.topic}") from None
        records = []
        for message in found:
            error_ = message.error()
            partition, offset = message.partition() or 0, message.offset() or 0
            if partition not in self._begins:
                continue  # it was left
            if error_ is None:
                records.append(message)
                self._moved(partition, offset + 1)
            elif error_.code() == KafkaError._PARTITION_EOF:
                # Behind markers of transactions, which are no records. A busy partition never tells that it ends.
                self._moved(partition, offset)
            else:
                raise self._failed(error_, partition)
        if len(found) < most:
            self._watch.drained()
        self._mend_stalls()
        return records

    def _moved(self, partition: int, offset: int) -> None:
        if offset > self.positions.get(partition, 0):
            self.positions[partition] = self._begins[partition] = offset

    def _passed(self) -> None:
        """Markers and aborted records are passed without a word where a transaction was open at the end."""
        if not self._begins:
            return
        for part in self._consumer.position([TopicPartition(self.topic, partition) for partition in self._begins]):
            if part.error is None:
                self._moved(part.partition, part.offset)

    def _mend_stalls(self) -> None:
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + self._watch.period
        if self._ends is not None:
            self.expect({number: end for (_, number), end in self._ends.answers().items()})
            self._ends.ask([(self.topic, number) for number in self._begins])
        standing = self._watch.look(now, self._expected, self.positions)
        if not standing:
            return
        in_vain = any(self._watch.in_vain(partition) > 1 for partition in standing)
        _log.warning(
            "nothing comes of partitions that hold more: " + ("reading by a new client" if in_vain else "reading anew"),
            topic=self.topic,
            partitions={partition: f"{at} of {end}" for partition, (at, end) in standing.items()},
        )
        if in_vain:
            self._consumer.close()
            self._consumer = made(Consumer, self._settings, self._refusal)
        self._assign()

    def _failed(self, error: KafkaError, partition: int) -> CdcError:
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            low, high = self._bounds(partition)
            return FatalError(
                f"{self.topic}[{partition}] does not have the offset {self.positions.get(partition)}; it holds {low} "
                f"to {high}. Remedy: begin anew; if the topic was made anew, see docs/operations.md"
            )
        found = translate(error, f"reading {self.topic}[{partition}]")
        if isinstance(found, FatalError | RetriableError):
            return found
        return RetriableError(str(found))
