"""Which topics a sink task reads: those there are of those it is to read, and whether its group reads all of them."""

from __future__ import annotations

import time
from typing import Any, Final

import structlog

from cdc.errors import FatalError, RetriableError
from cdc.kafka.consumer import RecordConsumer
from cdc.mirror.partitions import Standing
from cdc.mirror.store import Partition

__all__ = ["SinkTopics", "refuse_other_topic"]

_log = structlog.get_logger(__name__)

GROUP_S: Final = 3.0
"""How often it is looked whether the group reads all partitions, until it was seen to."""


class SinkTopics:
    """Subscribes a consumer. ``settings`` are the connector's."""

    def __init__(self, settings: Any, consumer: RecordConsumer) -> None:
        self._settings = settings
        self._consumer = consumer
        self.partitions: dict[str, int] = {}
        """How many each topic has that is read."""
        self._looked_at = 0.0
        self._group_at = 0.0
        self._whole = False
        """Whether the group was seen to read all partitions since the topics changed."""
        self._left_out: set[tuple[str, int]] = set()
        """Partitions that nobody read at the last look."""
        self._told_missing: frozenset[str] = frozenset()

    def look(self, now: float) -> None:
        """Once in a while: are there new topics to read, is Kafka there again?"""
        if now - self._looked_at < self._settings.topics_refresh_ms / 1000:
            return
        if not (self._settings.topics_regex or self._consumer.away or self._missing()):
            return
        try:
            self.find()
        except RetriableError as error:
            self._consumer.away = str(error)  # what is subscribed already goes on by itself

    def find(self) -> None:
        """Subscribe to the topics that there are, of those that the connector reads."""
        self._looked_at = time.monotonic()
        there = self._consumer.topics()
        partitions = {topic: count for topic, count in there.items() if self._settings.reads(topic)}
        if partitions != self.partitions:
            self.partitions, self._whole = partitions, False
        self._consumer.subscribe(self.partitions)
        missing = self._missing()
        if missing != self._told_missing:
            self._told_missing = missing
            if missing:
                _log.warning("topics are not there yet", topics=sorted(missing))

    def joined_anew(self, now: float) -> bool:
        """Does the group stand by an assignment from before this task's topics? Then join it anew, and start over.

        It may when the task was away for less than the session timeout: see `RecordConsumer.join_anew`.
        """
        if self._whole or now - self._group_at < GROUP_S or self._consumer.away:
            return False
        self._group_at = time.monotonic()
        left_out = self._consumer.left_out(self.partitions)
        self._whole = left_out == set()
        still = (left_out or set()) & self._left_out
        if still:
            _log.warning("nobody in the group reads some partitions: joining it anew", partitions=sorted(still))
            self._consumer.join_anew()
            left_out = None
        self._left_out = left_out or set()
        return bool(still)

    def _missing(self) -> frozenset[str]:
        return frozenset(self._settings.topic_names) - self.partitions.keys()


def refuse_other_topic(partition: Partition, standing: Standing) -> None:
    """A topic made anew, or with another number of partitions (EXACTNESS.md H17)."""
    stored = standing.stored
    if stored is None:
        return
    changed = ""
    if stored.topic_id is not None and standing.topic_id is not None and stored.topic_id != standing.topic_id:
        changed = "was deleted and made anew"
    elif stored.partitions is not None and standing.partitions is not None and stored.partitions != standing.partitions:
        changed = f"had {stored.partitions} partitions and has {standing.partitions}, so that keys have moved"
    if changed:
        raise FatalError(
            f"topic {partition.topic} {changed} since offset {stored.next} of {partition} was mirrored. Remedy: write "
            "the table to a new topic, or delete the offset keys of the topic in the store and let the source snapshot "
            "the table again"
        )
