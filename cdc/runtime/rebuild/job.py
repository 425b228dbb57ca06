"""A rebuild of one topic: what forbids it, its passes, and how far it is, so that it can be interrupted (H24).

1. The topic is read from its beginning to its end: the last record of each key is kept.
2. It is read again to E, the sink's offsets at the start (in a cluster: the end of the topic): of each key only the
   last record is compared with the row, and written if the row is another.
3. All keys of the table are looked at: those that no record tells of are removed.

A row whose last record is at E or behind is the sink's: it writes the row, or has. How far the second pass is, is
stored for each partition, in the store: if that is set back, so is the rebuild. `cdc.runtime.rebuild.rows` argues why
nothing is lost between.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, Final

import structlog
import tenacity

from cdc.errors import FatalError, RetriableError
from cdc.kafka.reader import Retention, TopicReader, retention
from cdc.mirror.mending import Mender
from cdc.mirror.store import StoredOffset
from cdc.mirror.tables import TableEntry
from cdc.plugin import SinkConnector
from cdc.runtime.rebuild.changes import Changes
from cdc.runtime.rebuild.rows import Counts, Rows, StateLost
from cdc.runtime.rebuild.scan import Scan

__all__ = ["Progress", "Rebuild", "Rebuilt"]

_log = structlog.get_logger(__name__)

SAVE_S: Final = 1.0
_BATCH: Final = 2000
_SLICE_S: Final = 0.1
_RUN: Final = b"run"
_PUMP_S: Final = 0.1
_RETRY_WAIT: Final = tenacity.wait_exponential(multiplier=0.1, max=5.0) + tenacity.wait_random(0, 0.2)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a rebuild is. ``phase`` is ``reading``, ``writing``, ``sweeping`` or ``waiting``; ``cause`` is what it
    waits for."""

    topic: str
    phase: str
    done: int = 0
    total: int = 0
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The outcome for one topic."""

    topic: str
    counts: Counts
    keys: int
    """Keys that the topic has rows of."""
    resumed: bool
    """A rebuild that was interrupted was gone on with."""
    seconds: float


class _Begun:
    """What the store holds of a rebuild: its name, and how far its second pass is."""

    def __init__(self, state: Mapping[bytes, bytes]) -> None:
        self.resumed = _RUN in state
        self.run = state.get(_RUN) or secrets.token_hex(8).encode()
        # Places without a run were stored behind a FLUSHALL, by a rebuild that had yet to notice it.
        self.written = {int(name): int(value) for name, value in state.items() if self.resumed and name != _RUN}

    @property
    def mark(self) -> dict[bytes, bytes]:
        return {_RUN: self.run}


class Rebuild:
    """Makes the rows of one topic again. For one thread.

    ``only`` are the keys to look at, all others being left alone, and whether each may be removed; ``sweep_only``
    leaves out the second pass: rows are not written, keys that are too much are removed.
    """

    def __init__(
        self,
        connector: SinkConnector,
        worker: Mapping[str, str],
        topic: str,
        partitions: int,
        *,
        told: Callable[[Progress], None],
        stopping: Callable[[], bool],
        topic_id: str | None = None,
        only: Mapping[bytes, bool] | None = None,
        sweep_only: bool = False,
    ) -> None:
        self._connector = connector
        self._settings: Any = connector.config
        self._worker = worker
        self._topic = topic
        self._partitions = partitions
        self._topic_id = topic_id
        self._told = told
        self._stopping = stopping
        self._only = only
        self._sweep_only = sweep_only
        self._resumed = False

    def run(self) -> Rebuilt:
        """Do all of it; outages of any part are waited out.

        `FatalError` when the topic or the store forbids it. `RetriableError` when asked to stop.
        """
        begun = time.monotonic()
        attempt = 0
        while True:
            try:
                counts, keys = self._attempt()
                return Rebuilt(self._topic, counts, keys, self._resumed, time.monotonic() - begun)
            except StateLost:
                _log.info("the store was emptied or set back: starting over", topic=self._topic)
            except RetriableError as error:
                if self._stopping():
                    raise
                attempt += 1
                self._told(Progress(self._topic, "waiting", cause=str(error)))
                self._pause(attempt)

    def _pause(self, attempt: int) -> None:
        state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
        state.attempt_number = attempt
        deadline = time.monotonic() + _RETRY_WAIT(state)
        while not self._stopping() and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, _PUMP_S))

    # --- what forbids it ---------------------------------------------------------------------------------

    def _refuse_incomplete(self, kept: Retention | None) -> None:
        """A topic that does not hold the last record of every row."""
        if kept is not None and kept.timed:
            policy = "compact,delete" if kept.compacted else "delete"
            raise FatalError(
                f"topic {self._topic} has cleanup.policy={policy}: records are removed by age or size, so that it does "
                "not hold all rows, and rows that it no longer tells of would be removed. Remedy: let the source "
                "snapshot the table again; or keep the topic complete (cleanup.policy=compact), and snapshot it once"
            )

    def _refuse_other_topic(self, offsets: Mapping[int, StoredOffset]) -> None:
        """A topic made anew, or with other partitions, than the sink has read (EXACTNESS.md H17)."""
        for number, stored in offsets.items():
            other = self._topic_id is not None and stored.topic_id not in (None, self._topic_id)
            if other or stored.partitions not in (None, self._partitions):
                raise FatalError(
                    f"topic {self._topic} is not the one that the sink has mirrored up to offset {stored.next} of "
                    f"partition {number}: it was made anew, or its partitions were raised. Remedy: write the table to "
                    "a new topic, or delete the offset keys of the topic in the store and let the source snapshot the "
                    "table again"
                )

    def _entry(self, mender: Mender) -> TableEntry | None:
        """What the store remembers of the table. `FatalError` for templates that forbid to touch its keys (H22)."""
        tables = mender.tables()
        entry = tables.get(self._settings.name, self._topic)
        if entry is None or not entry.shapes:
            return None
        template = self._settings.template(self._topic)
        if template.text != entry.template:
            raise FatalError(
                f"the rows of topic {self._topic} have keys by the template {entry.template!r}; the configuration now "
                f"says {template.text!r}. Remedy: set the template back"
            )
        tables.refuse_overlaps(entry)
        return entry

    # --- the passes --------------------------------------------------------------------------------------

    def _attempt(self) -> tuple[Counts, int]:
        with ExitStack() as parts:
            mender = parts.enter_context(
                closing(
                    self._connector.mender(
                        self._topic, self._partitions, f"{self._settings.name}-rebuild", self._topic_id
                    )
                )
            )
            offsets = mender.offsets()
            self._refuse_other_topic(offsets)
            entry = self._entry(mender)
            if entry is None or not (offsets or self._sweep_only or mender.lags):
                return Counts(), 0  # nothing was mirrored yet; what there will be, the sink writes
            self._refuse_incomplete(retention(self._worker, self._topic))
            whole = self._only is None and not self._sweep_only
            begun = _Begun(mender.state() if whole else {})
            self._resumed = self._resumed or begun.resumed
            if whole and not begun.resumed:
                mender.forget()
                mender.save(begun.mark)
            applied = {number: offsets[number].next if number in offsets else 0 for number in range(self._partitions)}
            scan = self._scan(mender, parts)
            # Not only to where the sink is: offsets may have been deleted by hand, and rows be there of later records.
            there = scan.ends()
            total = scan.left(there)
            scan.reach(there, lambda: self._told(Progress(self._topic, "reading", total - scan.left(there), total)))
            state = begun.mark if whole else {}
            rows = Rows(mender, scan, self._settings.redis_ttl, state, self._stopping)
            if not self._sweep_only:
                self._write(mender, rows, scan, there if mender.lags else applied, begun, parts)
            self._sweep(mender, rows, None if self._sweep_only else applied)
            if whole:
                mender.forget()
            return rows.counts, scan.last.count()

    def _scan(self, mender: Mender, parts: ExitStack) -> Scan:
        scan = Scan(
            self._settings,
            self._worker,
            self._topic,
            self._partitions,
            mender.tables(),
            self._stopping,
            self._only,
        )
        parts.callback(scan.close)
        return scan

    def _write(
        self, mender: Mender, rows: Rows, scan: Scan, ends: Mapping[int, int], begun: _Begun, parts: ExitStack
    ) -> None:
        """The second pass: from where it was interrupted to ``ends``."""
        reader = TopicReader(self._worker, self._topic, "rebuild")
        parts.callback(reader.close)
        changes = Changes(self._settings, self._worker, self._topic, self._partitions, mender.tables(), self._stopping)
        parts.callback(changes.close)
        left = {number for number, end in ends.items() if begun.written.get(number, 0) < end}
        reader.go({number: begun.written.get(number) for number in left})
        reader.expect(ends)
        total = sum(ends.values())
        saved = time.monotonic()
        while left:
            if self._stopping():
                self._save(mender, rows, scan, reader, begun)
                raise RetriableError("asked to stop")
            messages = reader.fetch(_BATCH, _SLICE_S)
            for read in changes.of(messages):
                rows.take(read.partition, read.changes, read.records)
            for number in [number for number in left if reader.positions[number] >= ends[number]]:
                left.discard(number)
                reader.leave(number)
            if time.monotonic() - saved >= SAVE_S or not left:
                self._save(mender, rows, scan, reader, begun)
                saved = time.monotonic()
            done = total - sum(max(0, ends[number] - reader.positions[number]) for number in left)
            self._told(Progress(self._topic, "writing", done, total))

    def _save(self, mender: Mender, rows: Rows, scan: Scan, reader: TopicReader, begun: _Begun) -> None:
        """Store how far the second pass is. A row that is made of several records is begun with its first again."""
        rows.flush()
        if self._only is not None:
            return
        places = {}
        for number, position in reader.positions.items():
            since = scan.last.open_since(number)
            places[b"%d" % number] = b"%d" % (position if since is None else min(position, since))
        held = mender.hold(())
        if held.state.get(_RUN) != begun.run:
            raise StateLost
        mender.release()
        mender.save(places)

    def _sweep(self, mender: Mender, rows: Rows, since: Mapping[int, int] | None) -> None:
        if self._only is not None:
            rows.sweep(self._only, since, self._only.__getitem__)
            return
        total, done = mender.size(), 0
        pages: Iterable[Collection[bytes]] = mender.scan(mender.tables())
        for page in pages:
            if self._stopping():
                raise RetriableError("asked to stop")
            rows.sweep(page, since)
            done += len(page)
            self._told(Progress(self._topic, "sweeping", done, max(total, done)))
