"""Where a sink task begins: what the store holds of its partitions, and what the topics still have (EXACTNESS.md H20).

A replay from an older offset brings back every row that the topic has. It removes none whose tombstone is gone from
the topic: those are owed, which is remembered in the table's entry, in the store and before anything is read, until
`cdc.runtime.healing` has removed them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from typing import Final

import structlog
from confluent_kafka import Message

from cdc.errors import FatalError
from cdc.kafka.consumer import RecordConsumer
from cdc.kafka.reader import Retention, TopicReader, retention
from cdc.mirror.assembly import Assembler
from cdc.mirror.partitions import Standing
from cdc.mirror.store import Batch, Partition, Store, StoredOffset
from cdc.mirror.tables import TableEntry, Tables
from cdc.plugin import SinkConnector
from cdc.runtime.sink_topics import refuse_other_topic

__all__ = ["Beginning"]

_log = structlog.get_logger(__name__)

_SHORTEST: Final = Retention(compacted=True, timed=False, tombstones_ms=1000)
"""No topic of a mirror forgets tombstones sooner: of one that was read within this time nobody need be asked."""


class Beginning:
    """Takes a task's partitions, each time the task starts over. For one thread."""

    def __init__(
        self,
        connector: SinkConnector,
        worker: Mapping[str, str],
        store: Store,
        consumer: RecordConsumer,
        assembler: Assembler,
    ) -> None:
        self._connector = connector
        self._name = connector.config.name
        self._worker = worker
        self._store = store
        self._consumer = consumer
        self._assembler = assembler
        self._kept: dict[str, Retention | None] = {}
        self.entries: list[TableEntry] = []
        """The connector's tables, as of the last `take_up`."""

    def take_up(self, topics: Mapping[str, int]) -> dict[Partition, int | None]:
        """Take the assigned partitions of ``topics``: the offset to read each from, ``None`` for its beginning.

        `FatalError` when a topic is not the one that was mirrored (H17), or has lost records that were not (H20).
        """
        consumer, store = self._consumer, self._store
        # A group may still give what an earlier life of this task read (`SinkTopics.joined_anew`), of topics that it no
        # longer reads and of topics that had more partitions: that is not ours.
        assigned = [Partition(*part) for part in sorted(consumer.assigned) if part[1] < topics.get(part[0], 0)]
        held = store.take(assigned)
        ids = consumer.topic_ids({partition.topic for partition in assigned})
        standings = {
            partition: Standing(held.get(partition), ids.get(partition.topic), topics.get(partition.topic))
            for partition in assigned
        }
        for partition, standing in standings.items():
            refuse_other_topic(partition, standing)
        self._kept.clear()
        tables = self._owing(held, topics)
        self._assembler.assign(standings, tables)
        self.entries = tables.of(self._name)
        begins = self._assembler.begins()
        for partition in assigned:
            stored = held.get(partition)
            if stored is None:
                self._refuse_hole(partition)
            elif stored.previous is not None:
                # of the batch to be applied again only what the topic still has
                low, _ = consumer.watermarks(partition)
                begins[partition] = min(max(low, stored.previous.next), stored.next)
            elif (entry := tables.get(self._name, partition.topic)) is not None and not entry.shapes:
                # rows without key are not mirrored: nothing is missed where the topic was trimmed
                low, _ = consumer.watermarks(partition)
                begins[partition] = max(low, stored.next)
        return begins

    # --- ghosts ------------------------------------------------------------------------------------------

    def _owing(self, held: Mapping[Partition, StoredOffset], topics: Mapping[str, int]) -> Tables:
        """The tables; those whose rows may have missed a delete say so, in the store too."""
        tables = self._store.tables()
        now = int(time.time() * 1000)
        owing = {}
        for topic in sorted({part[0] for part in self._consumer.assigned} & topics.keys()):
            entry = tables.get(self._name, topic)
            if entry is None or not entry.shapes or entry.ghosts is not None:
                continue
            parts = [Partition(topic, number) for number in range(topics[topic])]
            known = {part: held[part] for part in parts if part in held}
            if self._misses(known, entry, now) or (not known and self._begins_anew(topic, topics[topic])):
                owing[topic] = replace(entry, ghosts=now)
        if owing:
            _log.warning(
                "topics may lack deletes that were not mirrored: keys of which they tell no row will be removed",
                topics=sorted(owing),
            )
            self._store.write(Batch(entries=owing))
            self._store.settle()
            for entry in owing.values():
                tables = tables.with_entry(entry)
        return tables

    def _misses(self, held: Mapping[Partition, StoredOffset], entry: TableEntry, now: int) -> bool:
        """Whether a delete may be gone from the topic before it was mirrored."""
        topic = entry.topic
        # What was written behind the last record that was applied is not older than that record.
        if not any(_SHORTEST.may_lack_tombstones(stored.timestamp, now) for stored in held.values()):
            return False
        kept = self._retention(topic)
        if kept is None or not kept.may_lack_tombstones(-1 if entry.began is None else entry.began, now):
            return False  # even if the records are old: no row was mirrored before what is still kept
        late = [part for part, stored in held.items() if kept.may_lack_tombstones(stored.timestamp, now)]
        if not any(self._follows(part, held[part].next) for part in late):
            return False
        if kept.timed:
            _log.error(
                "deletes may be gone from a topic before they were mirrored, and as it does not keep all rows "
                "(cleanup.policy=compact,delete) nobody can tell from it which keys are too many. Remedy: cdc verify "
                "--repair",
                topic=topic,
            )
        return not kept.timed

    def _follows(self, partition: Partition, offset: int) -> bool:
        """Whether records were written at or behind an offset."""
        low, high = self._consumer.watermarks(partition)
        return high > offset and (low > offset or _first(self._worker, partition, offset) is not None)

    def _begins_anew(self, topic: str, partitions: int) -> bool:
        """Whether the store has rows of a topic and no offset: those were deleted, so that it is read anew (H17)."""
        try:
            with closing(self._connector.mender(topic, partitions, f"{self._name}-begin")) as mender:
                return not mender.offsets()
        except FatalError as error:
            _log.debug("whether rows are there of before is not known", topic=topic, cause=str(error))
            return False

    def _retention(self, topic: str) -> Retention | None:
        if topic not in self._kept:
            self._kept[topic] = retention(self._worker, topic)
        return self._kept[topic]

    # --- records that are gone ---------------------------------------------------------------------------

    def _refuse_hole(self, partition: Partition) -> None:
        """The store holds nothing of a partition that was mirrored, and the topic has lost its first records."""
        low, high = self._consumer.watermarks(partition)
        if not 0 < low < high:
            return
        kept = self._retention(partition.topic)
        if kept is None or not kept.timed or self._consumer.committed(partition) is None:
            return
        first = _first(self._worker, partition, low)
        if first is None or first.key() is None:
            return  # rows without key are not mirrored
        raise FatalError(
            f"the store holds nothing of {partition}, which was mirrored before, and the topic no longer has records "
            f"before offset {low} (its cleanup.policy removes them by age or size): rows would be missing. Remedy: let "
            "the source snapshot the table again into the topic; then delete the consumer group "
            f"connect-{self._name}, which tells that the topic was mirrored before"
        )


def _first(worker: Mapping[str, str], partition: Partition, begin: int) -> Message | None:
    """The first record there is from an offset on; ``None`` if there are but markers of transactions.

    The last record that was written is always there: brokers do not compact the segment that they write to.
    """
    with closing(TopicReader(worker, partition.topic, "begin")) as reader:
        _, high = reader.bounds([partition.number])[partition.number]
        reader.go({partition.number: begin})
        reader.expect({partition.number: high})
        while reader.left:
            for message in reader.fetch(1, 1.0):
                return message
    return None
