"""The store for a cluster: the seam of `cdc.mirror.store` over connections to all primaries.

There is no transaction across nodes. Each row has its version, and the guard (`cdc.redis.cluster.library`) drops what
is not later, so that batches can be written again, in part or whole, by anybody; offsets follow behind the rows, in
witnesses (`cdc.redis.cluster.witnesses`).

A second set of connections, opened when it is first needed, does what goes on beside batches: truncates and the removal
of expiry.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import hiredis
import structlog

from cdc.errors import CdcError, FatalError
from cdc.mirror.keys import KeySpace
from cdc.mirror.store import Arrival, Batch, Capabilities, GuardLost, Partition, Refusal, StoredOffset, Verdict
from cdc.mirror.tables import TableEntry, Tables
from cdc.redis.cluster.catalog import Catalog
from cdc.redis.cluster.library import IN_PART, change
from cdc.redis.cluster.nodes import Call, Nodes
from cdc.redis.cluster.slots import place, slot_of
from cdc.redis.cluster.sweeps import ClusterSweep
from cdc.redis.cluster.truncate import Truncates
from cdc.redis.cluster.versions import VERSION_FIELD, foreign_source, suffix, version
from cdc.redis.cluster.witnesses import Witnesses
from cdc.redis.connection import pack
from cdc.redis.errors import classify

__all__ = ["ClusterStore"]

_log = structlog.get_logger(__name__)

_PAGES: Final = 4
"""Pages of keys of each primary that are looked at in one `ClusterStore.advance`."""
_OFFSETS_S: Final = 0.05
"""How long offsets may lag behind rows: what is read again after a crash."""


class ClusterStore:
    """Rows as hashes, each with its version; offsets on every primary (`cdc.mirror.store.Store`)."""

    def __init__(
        self, connector: str, nodes: Callable[[], Nodes], capabilities: Capabilities, ttl: int | None, fence_ttl: int
    ) -> None:
        """``ttl`` of rows in seconds, ``fence_ttl`` of deletes in milliseconds. ``nodes`` makes connections."""
        self.capabilities = capabilities
        self._connector = connector
        self._ttl = ttl
        self._fence_ttl = fence_ttl
        self._nodes = nodes()
        self._control = nodes()
        self._catalog = Catalog(connector)
        self._witnesses: Witnesses | None = None
        self._topology: object = None
        self._batch: Batch | None = None
        self._stored = 0
        """How many of the calls under way store offsets."""
        self._stored_at = 0.0
        self._unseen: dict[Partition, StoredOffset] = {}
        """Offsets whose batch had refusals of which nobody has said yet that they were seen."""
        self._topic_ids: dict[Partition, str | None] = {}
        self._truncates = Truncates(self._second, self._truncated_at, fence_ttl)
        self._expiring: list[tuple[TableEntry, ClusterSweep]] = []
        self._look_for_expiring = False
        self.in_part = 0
        """Changes of some columns of rows that are not there, which were left out."""

    def take(self, partitions: Collection[Partition]) -> Mapping[Partition, StoredOffset]:
        if self._batch is not None:
            self.close()
        self._forget()
        with self._closing():
            nodes = self._nodes
            nodes.open()
            self._catalog.load(nodes)
            witnesses = Witnesses(nodes, self._connector, partitions)
            self._topology = nodes.topology
            offsets = witnesses.offsets()
        self._witnesses = witnesses
        self._topic_ids = {partition: stored.topic_id for partition, stored in offsets.items()}
        self._look_for_expiring = self._ttl is None
        return offsets

    def tables(self) -> Tables:
        self._guarded()
        return self._catalog.tables

    # --- batches -----------------------------------------------------------------------------------------

    def write(self, batch: Batch) -> None:
        with self._closing():
            nodes, witnesses = self._guarded()
            _refuse_guarding_column(batch.entries)
            self._catalog.learn(nodes, batch.entries)
            now = time.monotonic()
            calls: list[Call] = []
            if witnesses.due and now - self._stored_at >= _OFFSETS_S:
                self._stored_at = now
                calls = witnesses.calls()
            self._stored = len(calls)
            self._topic_ids.update((partition, stored.topic_id) for partition, stored in batch.offsets.items())
            calls += self._changes(batch)
            nodes.send(calls)
            self._batch = batch

    def _changes(self, batch: Batch) -> Iterator[Call]:
        """One call for each change. Once for every row: no more is done than must be."""
        ttl = b"" if self._ttl is None else self._ttl
        fence_ttl = self._fence_ttl
        versions = batch.versions or {}
        suffixes = {source: suffix(source) for source in {source for source, _ in versions.values()}}
        for key, op in batch.ops.items():
            source, position = versions[key]
            if source:
                written = position + suffixes[source]
            else:
                partition = batch.sources[op[3]]
                written = version(foreign_source(partition, self._topic_ids.get(partition)), b"%020d" % op[4])
            slot, fence = place(key)
            yield slot, change(key, fence, op, written, ttl, fence_ttl)

    def settle(self) -> Sequence[Refusal]:
        batch, self._batch = self._batch, None
        if batch is None:
            return ()
        with self._closing():
            nodes, witnesses = self._guarded()
            answers = nodes.receive()
            if self._stored:
                witnesses.settle(answers[: self._stored])
            self._followed(nodes, witnesses)
            outcomes = answers[self._stored :]
            refusals = () if set(outcomes) <= _OUTCOMES else self._judge(nodes, batch, outcomes)
            # The next batch says that the refusals of the last one were seen.
            witnesses.reach({partition: _seen(stored) for partition, stored in self._unseen.items()})
            self._unseen = {}
            if refusals:
                self._unseen = dict(batch.offsets)
                witnesses.reach(batch.offsets)
                witnesses.write()
            else:
                witnesses.reach({partition: _seen(stored) for partition, stored in batch.offsets.items()})
        return refusals

    def _judge(self, nodes: Nodes, batch: Batch, outcomes: Sequence[object]) -> Sequence[Refusal]:
        """The changes that were refused while their neighbours were made."""
        refusals = []
        for (key, op), outcome in zip(batch.ops.items(), outcomes, strict=True):
            if outcome == IN_PART:
                self.in_part += 1
                if self.in_part & (self.in_part - 1) == 0:  # told ever more rarely
                    _log.warning(
                        "changes of some columns of rows that are not there are left out",
                        changes=self.in_part,
                        key=key.decode("utf-8", "replace"),
                    )
            elif isinstance(outcome, hiredis.ReplyError):
                if classify(outcome) is not Verdict.REJECT:
                    raise nodes.failed(outcome, slot_of(key), f"writing the key {key!r}")
                refusals.append(Refusal(key, batch.sources[op[3]], op[4], str(outcome)))
        return tuple(refusals)

    def confirm(self) -> None:
        with self._closing():
            _, witnesses = self._guarded()
            witnesses.reach({partition: _seen(stored) for partition, stored in self._unseen.items()})
            self._unseen = {}
            self._store(witnesses)

    def verify(self) -> None:
        with self._closing():
            nodes, witnesses = self._guarded()
            self._store(witnesses)
            nodes.follow()
            self._followed(nodes, witnesses)
            witnesses.verify()

    def _store(self, witnesses: Witnesses) -> None:
        self._stored_at = time.monotonic()
        witnesses.write()

    def _followed(self, nodes: Nodes, witnesses: Witnesses) -> None:
        """When slots have moved: does every primary have a witness?"""
        if nodes.topology is not self._topology:
            self._topology = nodes.topology
            witnesses.follow()

    def _guarded(self) -> tuple[Nodes, Witnesses]:
        if self._witnesses is None:
            raise GuardLost("no guard is in place")
        return self._nodes, self._witnesses

    @contextmanager
    def _closing(self) -> Iterator[None]:
        """After any error nothing is written before the next `take`."""
        try:
            yield
        except GuardLost:
            if self._nodes.pending:
                self.close()
            self._forget()
            raise
        except CdcError:
            self.close()
            raise

    def _forget(self) -> None:
        self._witnesses = None
        self._batch = None
        self._unseen = {}
        self._expiring = []
        self._look_for_expiring = False
        self._truncates = Truncates(self._second, self._truncated_at, self._fence_ttl)
        self._control.close()

    # --- truncates and expiry ----------------------------------------------------------------------------

    def arrive(self, arrivals: Iterable[Arrival], partitions: Mapping[str, int]) -> None:  # noqa: ARG002 - no barrier
        for arrival in arrivals:
            self._truncates.arrive(arrival)

    def advance(self) -> Sequence[Partition]:
        released: list[Partition] = []
        with self._closing():
            _, witnesses = self._guarded()
            if self._batch is None and witnesses.due and time.monotonic() - self._stored_at >= _OFFSETS_S:
                self._store(witnesses)
            if not self._truncates.empty:
                released += self._truncates.advance(self._spaces)
            if self._look_for_expiring:
                self._find_expiring()
            if self._expiring:
                self._persist(*self._expiring[0])
        return released

    def _truncated_at(self, arrival: Arrival) -> bytes:
        source = arrival.source.encode()
        if not source:
            source = foreign_source(arrival.partition, self._topic_ids.get(arrival.partition))
        return version(source, arrival.position.encode())

    def _spaces(self, topic: str) -> Sequence[KeySpace]:
        entry = self._catalog.tables.get(self._connector, topic)
        return [] if entry is None else entry.spaces()

    def _find_expiring(self) -> None:
        """Tables whose rows were written with an expiry that is no longer configured (EXACTNESS.md H23)."""
        self._look_for_expiring = False
        entries = [entry for entry in self._catalog.tables.of(self._connector) if entry.ttl is not None]
        self._expiring = [(entry, ClusterSweep(self._second(), entry.spaces())) for entry in entries]

    def _persist(self, entry: TableEntry, sweep: ClusterSweep) -> None:
        """Take the expiry from some keys; when none is left, say so in the table's entry."""
        nodes = self._second()
        for _ in range(_PAGES):
            if sweep.done:
                break
            calls = [(slot_of(key), pack(("PERSIST", key))) for key in sweep.page()]
            for (slot, _), answer in zip(calls, nodes.run(calls), strict=True):
                if isinstance(answer, hiredis.ReplyError):
                    raise nodes.failed(answer, slot, "removing the expiry of rows")
        if not sweep.done:
            return
        now = self._catalog.tables.get(self._connector, entry.topic) or entry
        self._catalog.learn(nodes, {entry.topic: replace(now, ttl=None)})
        self._expiring.pop(0)

    def _second(self) -> Nodes:
        if not self._control.is_open:
            self._control.open()
        return self._control

    def close(self) -> None:
        self._nodes.close()
        self._forget()


_OUTCOMES: Final = frozenset((0, 1))


def _refuse_guarding_column(entries: Mapping[str, TableEntry]) -> None:
    """A column with the name of the field that guards rows would be written over it."""
    for topic, entry in entries.items():
        named = {*entry.columns, *(column.name for shape in entry.shapes for column in shape)}
        if VERSION_FIELD.decode() in named:
            raise FatalError(
                f"the table of topic {topic} has a column {VERSION_FIELD.decode()}, and in a cluster that is the field "
                "which guards its rows. Remedy: rename the column, or leave it out (column.exclude.list of the source)"
            )


def _seen(stored: StoredOffset) -> StoredOffset:
    """The offset of a batch all of whose outcomes were seen."""
    return stored if stored.previous is None else replace(stored, previous=None)
