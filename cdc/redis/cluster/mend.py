"""Rows of a cluster put right beside the sink (`cdc.mirror.mending.Mender`).

There is no WATCH over nodes. Each row is changed by a function that first looks whether its version, or the fence of a
row that is not there, is still the one that was read: every change of the sink makes it another. What is written gets
the version of its record, so that the sink's later records pass and a replay does not.

What a primary loses in a failover, with rows put right in it, no version tells. So a rebuild remembers which processes
the primaries were when it began, and begins anew when one of them is another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import hiredis

from cdc.errors import RetriableError
from cdc.mirror.mending import Change, Foreign, Holding, Record, Row
from cdc.mirror.store import GuardLost, Partition, StoredOffset, Verdict
from cdc.mirror.tables import TableEntry, Tables
from cdc.redis.cluster.catalog import Catalog
from cdc.redis.cluster.library import MENDED, mend
from cdc.redis.cluster.nodes import Call, Nodes
from cdc.redis.cluster.slots import place, slot_of
from cdc.redis.cluster.sweeps import ClusterSweep
from cdc.redis.cluster.versions import VERSION_FIELD, foreign_source, version
from cdc.redis.cluster.witnesses import Witnesses
from cdc.redis.connection import pack
from cdc.redis.errors import classify
from cdc.redis.fence import TABLES, rebuild_key, table_field

__all__ = ["ClusterMender"]

_PROCESSES: Final = b"nodes"
"""Field of a rebuild's state: which processes the primaries were."""


class ClusterMender:
    """The rows of one topic. ``fence_ttl`` is how many milliseconds a delete is remembered."""

    lags = True
    makes_parts = False

    def __init__(
        self,
        connector: str,
        topic: str,
        partitions: int,
        nodes: Callable[[], Nodes],
        fence_ttl: int,
        topic_id: str | None = None,
    ) -> None:
        self._connector = connector
        self._topic = topic
        self._partitions = [Partition(topic, number) for number in range(partitions)]
        self._state_key = rebuild_key(connector, topic)
        self._fence_ttl = fence_ttl
        self._held: dict[bytes, tuple[bytes, bytes]] = {}
        """Key → version of the row, and of its fence, as they were read; empty for none."""
        self._topic_ids: dict[int, str | None] = {}
        self._topic_id = topic_id
        """Of partitions that the cluster holds no offset of."""
        self._nodes = nodes()
        with self._closing():
            self._nodes.open()
            self._processes = self._look()

    def tables(self) -> Tables:
        catalog = Catalog(self._connector)
        with self._closing():
            catalog.load(self._nodes)
        return catalog.tables

    def offsets(self) -> Mapping[int, StoredOffset]:
        with self._closing():
            return self._offsets(Witnesses(self._nodes, self._connector, self._partitions))

    def _offsets(self, witnesses: Witnesses) -> Mapping[int, StoredOffset]:
        found = {partition.number: stored for partition, stored in witnesses.offsets().items()}
        self._topic_ids = {number: stored.topic_id for number, stored in found.items()}
        return found

    def hold(self, keys: Sequence[bytes]) -> Holding:
        calls: list[Call] = []
        for key in keys:
            slot, fence = place(key)
            calls += ((slot, pack(("HGETALL", key))), (slot, pack(("GET", fence))))
        calls.append((slot_of(TABLES), pack(("HGET", TABLES, table_field(self._connector, self._topic)))))
        rows: dict[bytes, Row | Foreign | None] = {}
        self._held = {}
        with self._closing():
            *answers, entry = self._nodes.run(calls)
            for key, row, fence in zip(keys, answers[::2], answers[1::2], strict=True):
                for answer in (row, fence):
                    if isinstance(answer, hiredis.ReplyError) and classify(answer) is not Verdict.REJECT:
                        raise self._nodes.failed(answer, slot_of(key), f"reading the key {key!r}")
                if isinstance(row, hiredis.ReplyError):
                    rows[key] = Foreign(str(row))
                    continue
                fields = dict(zip(row[::2], row[1::2], strict=True))
                self._held[key] = fields.pop(VERSION_FIELD, b""), fence if isinstance(fence, bytes) else b""
                rows[key] = fields if row else None
            if isinstance(entry, hiredis.ReplyError):
                raise self._nodes.failed(entry, slot_of(TABLES), "reading what is known of the tables")
            witnesses = Witnesses(self._nodes, self._connector, self._partitions)
            if witnesses.unfollowed():
                # Nothing would count as applied, and rows that are missing would be left to a sink that goes on.
                raise RetriableError(
                    "a primary has got its first slots, and the sink has yet to write there how far it is, which it "
                    "does within a second. Remedy, if it does not run: start it"
                )
            offsets = self._offsets(witnesses)
            self._refuse_others(self._look())
        following = {partition.number: 0 for partition in self._partitions}
        following.update((number, stored.next) for number, stored in offsets.items())
        told = None if entry is None else TableEntry.decode(entry)
        return Holding(rows, following, told, truncating=False, state=self.state())

    def apply(self, changes: Sequence[Change], ttl: int | None) -> Collection[bytes]:
        calls: list[Call] = []
        lives = b"" if ttl is None else ttl
        for change in changes:
            slot, fence = place(change.key)
            seen, fenced = self._held[change.key]
            written = self._version(change.record) if change.record is not None else seen
            calls.append((slot, mend(change, fence, seen, fenced, written, lives, self._fence_ttl)))
        made = set()
        with self._closing():
            for change, answer in zip(changes, self._nodes.run(calls), strict=True):
                if isinstance(answer, hiredis.ReplyError):
                    raise self._nodes.failed(answer, slot_of(change.key), f"mending rows of topic {self._topic}")
                if answer == MENDED:
                    made.add(change.key)
        self._held = {}
        return made

    def shows(self, key: bytes, record: Record) -> bool:
        held = self._held.get(key)
        return held is not None and held[0] == self._version(record)

    def _version(self, record: Record) -> bytes:
        if record.source:
            return version(record.source, record.position)
        topic_id = self._topic_ids.get(record.partition, self._topic_id)
        return version(foreign_source(Partition(self._topic, record.partition), topic_id), b"%020d" % record.offset)

    def release(self) -> None:
        self._held = {}

    def scan(self, tables: Tables) -> Iterator[Sequence[bytes]]:
        entry = tables.get(self._connector, self._topic)
        if entry is None:
            return
        others = [space for other in tables if other != entry for space in other.spaces()]
        with self._closing():
            sweep = ClusterSweep(self._nodes, entry.spaces())
        while not sweep.done:
            with self._closing():
                keys = sweep.page()
            yield [key for key in keys if all(space.parse(key) is None for space in others)]

    def size(self) -> int:
        with self._closing():
            told = self._nodes.each("INFO", "keyspace").values()
        return sum(int(keys) for reply in told for keys in re.findall(rb"keys=(\d+)", bytes(reply)))

    def state(self) -> Mapping[bytes, bytes]:
        with self._closing():
            reply = self._nodes.one(self._state_key, "HGETALL", self._state_key)
        found = dict(zip(reply[::2], reply[1::2], strict=True))
        before = json.loads(found.pop(_PROCESSES, b"{}"))
        return found if before.items() <= self._processes.items() else {}

    def save(self, fields: Mapping[bytes, bytes]) -> None:
        pairs = {**fields, _PROCESSES: json.dumps(self._processes).encode()}
        with self._closing():
            self._nodes.one(self._state_key, "HSET", self._state_key, *(p for pair in pairs.items() for p in pair))

    def forget(self) -> None:
        with self._closing():
            self._nodes.one(self._state_key, "DEL", self._state_key)

    def close(self) -> None:
        self._nodes.close()

    # --- primaries ---------------------------------------------------------------------------------------

    def _look(self) -> dict[str, str]:
        """Primary → its process. One that starts again is another, with what its disk or its replica has."""
        found = {}
        for address, reply in self._nodes.each("INFO", "server").items():
            told = dict(line.split(":", 1) for line in bytes(reply).decode().split("\r\n") if ":" in line)
            found[str(address)] = told["run_id"]
        return found

    def _refuse_others(self, now: Mapping[str, str]) -> None:
        """A primary that comes to the others has what they have; one in the place of another may lack rows."""
        changed = sorted(address for address, process in self._processes.items() if now.get(address) != process)
        if changed:
            raise RetriableError(
                f"primaries were replaced, or started again: {', '.join(changed)}. What was put right there may be "
                "lost: all is looked at again"
            )

    @contextmanager
    def _closing(self) -> Iterator[None]:
        try:
            yield
        except GuardLost as error:
            self._nodes.close()
            raise RetriableError(f"the cluster changed while rows were looked at: {error}") from None
