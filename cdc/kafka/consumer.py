"""The consumer of a sink task: records in batches, positions that the store dictates, a group kept alive.

A thin shell around librdkafka. Offsets of the consumer group are committed for lag tools and never read; where to read
from is always said by `RecordConsumer.reposition`, and ``auto.offset.reset`` is an error. The assignor is
cooperative: a rebalance stops only the partitions that move, and the guard in the store makes a late writer harmless.
A static member id lets a restarted task have its partitions back at once, and fences its own remnant. A member that is
fenced itself takes its place back, once for each time that brokers were away: a coordinator that lost its latest state
takes it for a stranger, and only another worker that runs the same connector holds on to the place. Partitions that
the client stops reading without a word are noticed and read anew: see `RecordConsumer.mend_stalls`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final

import structlog
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupState,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from cdc.errors import FatalError, RetriableError
from cdc.kafka.clients import made, refused
from cdc.kafka.progress import Progress
from cdc.kafka.settings import client_settings, translate
from cdc.kafka.topics import topic_ids

__all__ = ["RecordConsumer", "TopicPart"]

_log = structlog.get_logger(__name__)

TopicPart = tuple[str, int]
"""A topic and the number of a partition: any tuple of the two."""
Offsets = Mapping[Any, int]
"""`TopicPart` → offset."""

_HEARING_S: Final = 5.0
_HEARD: Final = 10_000
_REQUEST_S: Final = 5.0
_LIMITS: Final[Mapping[str, Any]] = {
    # Memory: what librdkafka fetches ahead, whatever the size of a transaction. A response is counted as it comes,
    # compressed: 2 MB of it can be twenty in the queue, and ten times as many messages as of random bytes.
    "queued.max.messages.kbytes": 24 * 1024,
    "queued.min.messages": 20_000,
    "fetch.max.bytes": 2 << 20,
    "max.partition.fetch.bytes": 1 << 20,
    # Without this a full queue is looked at again only after a second.
    "fetch.queue.backoff.ms": 5,
    "fetch.error.backoff.ms": 100,
    "fetch.wait.max.ms": 50,
    "session.timeout.ms": 10_000,
    "heartbeat.interval.ms": 2_000,
    "reconnect.backoff.max.ms": 2_000,
}
_FIXED: Final[Mapping[str, Any]] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "isolation.level": "read_committed",
    "auto.offset.reset": "error",
    "partition.assignment.strategy": "cooperative-sticky",
    "allow.auto.create.topics": False,
}
_FENCED_S: Final = 300.0
"""For how long after it took its place back a member takes a second loss of it for the work of another."""
_LOST_PLACE: Final = {KafkaError.FENCED_INSTANCE_ID, KafkaError._FATAL}
_NOT_A_MEMBER: Final = {
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
}


class RecordConsumer:
    """A member of a consumer group. For one thread; ``on_revoked`` is called inside `fetch` and `keep_alive`."""

    def __init__(
        self,
        worker: Mapping[str, str],
        group: str,
        instance: str,
        on_revoked: Callable[[Collection[TopicPart]], None],
    ) -> None:
        self._settings = {**_LIMITS, "group.instance.id": instance, **client_settings(worker, "consumer")}
        self._settings.update(_FIXED)
        self._settings.setdefault("group.id", group)
        self._instance = str(self._settings["group.instance.id"])
        self._admin_settings = client_settings(worker, "admin")
        self._admin: AdminClient | None = None
        self._on_revoked = on_revoked
        self._fatal: FatalError | None = None
        self._fenced = ""
        """Why this life of the client is over; empty while it is not."""
        self._taken_back_at: float | None = None
        self._subscribed: frozenset[str] = frozenset()
        self._outcomes: list[KafkaError | None] = []
        self.assigned: set[TopicPart] = set()
        self.changed = False
        """The assignment changed; the records fetched with it are to be thrown away. Cleared by `reposition`."""
        self.ends: dict[TopicPart, int] = {}
        """Partitions whose end was reached, and the offset there, since this was last emptied."""
        self._progress = Progress(self._admin_client)
        self._group_asked: Future[Any] | None = None
        self.away: str = ""
        """Why no broker answers; empty when one does."""
        self._consumer = self._make()

    def _make(self) -> Consumer:
        return made(Consumer, {**self._settings, "on_commit": self._on_commit}, self._on_error)

    # --- topics ------------------------------------------------------------------------------------------

    def topics(self) -> dict[str, int]:
        """All topics there are and how many partitions they have. `RetriableError` when no broker answers."""
        try:
            metadata = self._consumer.list_topics(timeout=_REQUEST_S)
        except KafkaException as error:
            raise translate(error, "asking for the topics") from None
        self.away = ""
        return {name: len(topic.partitions) for name, topic in metadata.topics.items() if topic.error is None}

    def topic_ids(self, topics: Collection[str]) -> dict[str, str]:
        """The ids of topics, of those whose broker knows about ids."""
        return topic_ids(self._admin_client(), topics)

    def _admin_client(self) -> AdminClient:
        if self._admin is None:
            self._admin = made(AdminClient, self._admin_settings, self._on_refusal)
        return self._admin

    def subscribe(self, topics: Collection[str]) -> None:
        """Take part in reading these topics, all of which exist. Nothing happens if they are subscribed already."""
        if frozenset(topics) == self._subscribed:
            return
        self._subscribed = frozenset(topics)
        self._group_asked = None
        try:
            if topics:
                self._consumer.subscribe(
                    sorted(topics), on_assign=self._assign, on_revoke=self._revoke, on_lost=self._revoke
                )
            else:
                self._consumer.unsubscribe()
        except KafkaException as error:
            raise translate(error, "subscribing") from None

    def left_out(self, partitions: Mapping[str, int]) -> set[TopicPart] | None:
        """Partitions (of topic → how many it has) that no member of the group reads; ``None`` while that is open.

        It is open while the group is being formed, and for ever with a broker that does not tell (the one for
        demonstrations calls a group stable and its members idle). Waits for nothing: each call has the answer to
        what the one before asked, if both are of the same subscription.
        """
        asked = self._group_asked
        if asked is not None and not asked.done():
            return None
        self._group_asked = self._ask_group()
        if asked is None:
            return None
        error = asked.exception()
        if error is not None:
            # A client from before its broker was killed may find the group's coordinator never again.
            _log.info("the group does not tell who reads what; asking by a new client", error=str(error))
            self._admin = self._group_asked = None
            return None
        found = asked.result()
        if found.state != ConsumerGroupState.STABLE:
            return None
        read = {
            (part.topic, part.partition)
            for member in found.members
            if member.assignment is not None
            for part in member.assignment.topic_partitions
        }
        if not read or not self.assigned <= read:
            return None
        return {(topic, number) for topic, count in partitions.items() for number in range(count)} - read

    def _ask_group(self) -> Future[Any]:
        group = str(self._settings["group.id"])
        return self._admin_client().describe_consumer_groups([group], request_timeout=_REQUEST_S)[group]

    def join_anew(self) -> None:
        """Become another member of the group, which is then assigned anew; what we were is forgotten by its timeout.

        A static member that comes back is given what it had, whatever it subscribes to now: the coordinator looks
        at its name alone.
        """
        self._settings["group.instance.id"] = f"{self._instance}-{secrets.token_hex(4)}"
        self._renew()

    def _renew(self) -> None:
        """Go on with a new client, which is to be subscribed anew."""
        self.close()
        self._consumer = self._make()
        self._fenced = ""
        self._subscribed = frozenset()
        self.assigned.clear()
        self.ends = {}
        self.changed = True

    def _take_back(self) -> None:
        """Take the place in the group back that another was given. Raises in any case: what was read is void."""
        cause, now = self._fenced, time.monotonic()
        if self._taken_back_at is not None and now - self._taken_back_at < _FENCED_S:
            raise FatalError(
                f"another task has taken this one's place in the consumer group ({cause}). Remedy: let only one "
                "worker run the connector"
            )
        self._taken_back_at = now
        self._renew()
        raise RetriableError(f"another was given this task's place in the consumer group ({cause}); joining it again")

    # --- assignment --------------------------------------------------------------------------------------

    def _assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        new = [TopicPartition(part.topic, part.partition, OFFSET_BEGINNING) for part in partitions]
        consumer.incremental_assign(new)
        if new:
            consumer.pause(new)  # until the store has said where to read from
        self.assigned.update((part.topic, part.partition) for part in partitions)
        self.changed = True

    def _revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        gone = {(part.topic, part.partition) for part in partitions} & self.assigned
        self.changed = True
        if gone:
            self._on_revoked(gone)
        self.assigned -= gone
        self._progress.forget(gone)
        consumer.incremental_unassign([TopicPartition(topic, number) for topic, number in gone])

    def reposition(self, begins: Mapping[Any, int | None]) -> None:
        """Read partitions that are ours from these offsets on; ``None`` is the beginning.

        Records fetched before are not handed out any more.
        """
        self.ends = {part: end for part, end in self.ends.items() if part not in begins}
        parts = [
            TopicPartition(topic, number, OFFSET_BEGINNING if offset is None else offset)
            for (topic, number), offset in begins.items()
        ]
        if not parts:
            return
        try:
            # A seek would need each partition to be fetching already; this works at any time.
            self._consumer.incremental_unassign(parts)
            self._consumer.incremental_assign(parts)
            self._consumer.resume(parts)
        except KafkaException as error:
            raise translate(error, "going to an offset") from None
        self._progress.begin(begins)

    def pause(self, parts: Iterable[TopicPart]) -> None:
        """Hand out no records of these partitions until they are repositioned."""
        paused = list(parts)
        if paused:
            self._consumer.pause([TopicPartition(*part) for part in paused])
        self._progress.forget(paused)

    # --- records -----------------------------------------------------------------------------------------

    def fetch(self, most: int, timeout: float) -> list[Message]:
        """Records that are there, up to ``most``; waits up to ``timeout`` seconds for the first.

        `FatalError` for what only an operator can mend, `RetriableError` for what passes.
        """
        try:
            if timeout > 0:
                first = self._consumer.poll(timeout)
                # consume() waits for its whole timeout, so that it gets none
                messages = [] if first is None else [first, *self._consumer.consume(most - 1, 0)]
            else:
                messages = self._consumer.consume(most, 0)
        except KafkaException as error:
            self._note(error.args[0])
            if not self._fenced:
                raise self._translated(error) from None
            messages = []
        if self._fatal is not None:
            raise self._fatal
        if any(message.error() is not None for message in messages):
            messages = self._without_events(messages)
        if self._fenced:
            self._take_back()
        if messages:
            self.away = ""
        if len(messages) < most:
            self._progress.drained()
        return messages

    def _without_events(self, messages: Sequence[Message]) -> list[Message]:
        records = []
        for message in messages:
            error = message.error()
            if error is None:
                records.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                part, end = (message.topic() or "", message.partition() or 0), message.offset() or 0
                self.ends[part] = end
                self._progress.end_reached(part, end)
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                raise self._out_of_range(message)
            elif error.fatal() or error.code() in _LOST_PLACE:
                self._note(error)
            else:
                # a topic that is gone, a leader that moves, an interval exceeded: librdkafka goes on by itself
                _log.warning("Kafka reports", error=error.str(), code=error.name())
        return records

    def _out_of_range(self, message: Message) -> FatalError:
        topic, number = message.topic() or "", message.partition() or 0
        low, high = self.watermarks((topic, number))
        return FatalError(
            f"{topic}[{number}] has no record at the offset to read next ({message.error()}); the topic holds {low} to "
            f"{high}. Records were removed before they were mirrored, or the topic was made anew. Remedy: delete the "
            "offset keys of the topic in the store to read what there is, and snapshot the table again at the source"
        )

    def watermarks(self, part: TopicPart) -> tuple[int, int]:
        """The first offset of a partition and the one behind its last record. `RetriableError` without an answer."""
        try:
            found = self._consumer.get_watermark_offsets(TopicPartition(*part), timeout=_REQUEST_S)
        except KafkaException as error:
            raise translate(error, f"asking for the offsets of {part[0]}[{part[1]}]") from None
        if found is None:
            raise RetriableError(f"asking for the offsets of {part[0]}[{part[1]}]: no answer")
        return found

    def committed(self, part: TopicPart) -> int | None:
        """What the group was told of a partition, now or in an earlier life. `RetriableError` without answer."""
        try:
            [found] = self._consumer.committed([TopicPartition(*part)], timeout=_REQUEST_S)
        except KafkaException as error:
            raise translate(error, f"asking for the group's offset of {part[0]}[{part[1]}]") from None
        return found.offset if found.offset >= 0 else None

    def lag(self, positions: Offsets) -> int:
        """Records between ``positions`` and the ends of their partitions, as last seen in fetches."""
        total = 0
        for part in self.assigned:
            found = self._consumer.get_watermark_offsets(TopicPartition(*part), cached=True)
            if found is not None and found[1] > 0:
                total += max(0, found[1] - max(positions.get(part, 0), found[0], 0))
        return total

    def keep_alive(self, seconds: float) -> None:
        """Stay in the group for a while without taking records. Pause the partitions first."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.fetch(1, left)

    # --- partitions that stand still ---------------------------------------------------------------------

    def mend_stalls(self, now: float) -> None:
        """Have partitions read anew of which nothing comes, though the broker says that they hold more.

        To be called often; waits for nothing. ``now`` is of `time.monotonic`. Partitions that stand still set
        `changed`; when that was in vain, the whole client is made anew, too. `cdc.kafka.stalls` has the rule.
        """
        standing = self._progress.standing(now, self._consumer)
        if not standing:
            return
        in_vain = self._progress.in_vain(standing)
        _log.warning(
            "Kafka's client has stopped reading partitions that hold more: "
            + ("starting it anew" if in_vain else "reading them anew"),
            partitions={f"{topic}[{number}]": f"{at} of {end}" for (topic, number), (at, end) in standing.items()},
        )
        if in_vain:
            self._renew()
        self.changed = True

    # --- group -------------------------------------------------------------------------------------------

    def commit(self, offsets: Offsets) -> None:
        """Tell the group how far we are, for tools that show lag. Does not wait, and does not matter if it fails."""
        parts = [TopicPartition(part[0], part[1], offset) for part, offset in offsets.items() if part in self.assigned]
        if parts:
            try:
                self._consumer.commit(offsets=parts, asynchronous=True)
            except KafkaException as error:
                _log.debug("offsets for lag tools not committed", error=str(error))

    def is_member(self, offsets: Offsets) -> bool:
        """Whether the group still counts us in, asked of its coordinator by committing ``offsets``.

        True as well if nobody answers: that is for the store's guard to decide.
        """
        if not any(part in self.assigned for part in offsets):
            return True
        self._outcomes.clear()
        self.commit(offsets)
        deadline = time.monotonic() + _REQUEST_S
        while not self._outcomes and time.monotonic() < deadline:
            self.fetch(1, 0.05)
        return not any(error is not None and error.code() in _NOT_A_MEMBER for error in self._outcomes)

    def close(self) -> None:
        """Leave. A static member's partitions stay with it for the session timeout, for a restart. Never raises."""
        try:
            # An assignment that is heard of inside close() is answered for ever: librdkafka #4884 waits, and holds the
            # interpreter's lock meanwhile. So it is heard before, behind whatever records are there.
            deadline = time.monotonic() + _HEARING_S
            while self._consumer.consume(_HEARD, 0) and time.monotonic() < deadline:
                pass
            self._consumer.close()
        except (KafkaException, RuntimeError) as error:
            _log.debug("closing the consumer", error=str(error))
        # It has threads and connections of its own, and ends with the last that knows it.
        self._admin = self._group_asked = None
        self._progress.close()

    # --- callbacks ---------------------------------------------------------------------------------------

    def _on_commit(self, error: KafkaError | None, _parts: list[TopicPartition]) -> None:
        self._outcomes = [error]

    def _on_refusal(self, error: KafkaError) -> None:
        self._fatal = self._fatal or refused(error)

    def _note(self, error: KafkaError) -> None:
        """The client is of no use any more when its place in the group is lost: it says so once, and stands still."""
        if error.fatal() or error.code() in _LOST_PLACE:
            self._fenced = self._fenced or error.str()

    def _on_error(self, error: KafkaError) -> None:
        self._on_refusal(error)
        self._note(error)
        if self._fatal is not None or self._fenced:
            return
        if error.code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE):
            if not self.away:
                _log.warning("Kafka does not answer", error=error.str())
            self.away = error.str()
            self._taken_back_at = None  # what follows may be a coordinator's loss once more
            return
        translated = self._translated(error)
        if isinstance(translated, FatalError):
            self._fatal = translated

    def _translated(self, error: KafkaError | KafkaException) -> FatalError | RetriableError:
        found = translate(error, "consuming")
        return found if isinstance(found, FatalError | RetriableError) else RetriableError(str(found))
