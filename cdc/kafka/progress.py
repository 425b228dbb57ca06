"""How far a consumer reads its partitions, beside where their broker says they end. A thin shell around `stalls`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from typing import Any, Final

import structlog
from confluent_kafka import Consumer, IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from cdc.kafka.stalls import StallWatch

__all__ = ["Ends", "Progress"]

_log = structlog.get_logger(__name__)

_REQUEST_S: Final = 5.0


class Ends:
    """Asks brokers for the committed ends of partitions, and waits for no answer. For one thread.

    Parts are tuples of topic and number. ``admin`` makes the client that asks, when it is needed first.
    """

    def __init__(self, admin: Callable[[], AdminClient]) -> None:
        self._admin = admin
        self._asked: dict[Any, Future[Any]] = {}
        self._unanswered = False

    def ask(self, parts: Collection[Any]) -> None:
        """For the ends of these, which `answers` has once they have come."""
        if not parts:
            self._asked = {}
            return
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = self._admin().list_offsets(
            {TopicPartition(*part): latest for part in parts},
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=_REQUEST_S,
        )
        self._asked = {(part.topic, part.partition): future for part, future in asked.items()}

    def answers(self) -> dict[Any, int]:
        """What was answered to the last `ask`. Without any answer nothing can be noticed, which is told once."""
        done = {part: asked for part, asked in self._asked.items() if asked.done()}
        ends = {part: asked.result().offset for part, asked in done.items() if asked.exception() is None}
        unanswered = bool(self._asked) and not ends
        if unanswered and not self._unanswered:
            errors = {str(asked.exception()) for asked in done.values()} or {"no answer yet"}
            _log.warning("the broker does not tell where partitions end: stalls go unnoticed", errors=sorted(errors))
        self._unanswered = unanswered
        return ends

    def forget(self) -> None:
        """Wait for no answer."""
        self._asked = {}


class Progress:
    """Finds the partitions of which nothing comes though they hold more. Waits for nothing; for one thread.

    Parts are tuples of topic and number. ``admin`` makes the client that asks for ends, when it is needed first.
    """

    def __init__(self, admin: Callable[[], AdminClient], watch: StallWatch | None = None) -> None:
        self._ends = Ends(admin)
        self._watch = watch or StallWatch()
        self._reached: dict[Any, int] = {}
        """The partitions that are read, and at least how far they were: where reading began, or their end."""
        self._look_at = 0.0

    def begin(self, begins: Mapping[Any, int | None]) -> None:
        """These are read from an offset each from now on; ``None`` is the beginning."""
        self.forget(begins)
        self._reached.update((part, offset or 0) for part, offset in begins.items())

    def forget(self, parts: Collection[Any]) -> None:
        """These are not read any more: paused, or another's."""
        self._watch.forget(parts)
        for part in parts:
            self._reached.pop(part, None)

    def close(self) -> None:
        """The client is no more: nothing is read, and no answer is waited for. Another may go on from here."""
        self.forget(list(self._reached))
        self._ends.forget()

    def drained(self) -> None:
        """The client had nothing more to hand out."""
        self._watch.drained()

    def end_reached(self, part: Any, end: int) -> None:
        """The client said so."""
        if part in self._reached:
            self._reached[part] = end

    def standing(self, now: float, consumer: Consumer) -> dict[Any, tuple[int, int]]:
        """Partitions that stand still: (what is to be read next, the end); none between two looks."""
        if now < self._look_at:
            return {}
        self._look_at = now + self._watch.period
        found = self._watch.look(now, self._ends.answers(), self._positions(consumer))
        self._ends.ask(self._reached)
        return found

    def in_vain(self, parts: Collection[Any]) -> bool:
        """Whether one of these, told to stand still, had been told before, and nothing was read of it since."""
        return any(self._watch.in_vain(part) > 1 for part in parts)

    def _positions(self, consumer: Consumer) -> dict[Any, int]:
        asked = [TopicPartition(*part) for part in self._reached]
        found = consumer.position(asked) if asked else []
        positions = {(part.topic, part.partition): part.offset for part in found if part.error is None}
        return {part: max(at, positions.get(part, at)) for part, at in self._reached.items()}
