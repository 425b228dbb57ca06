"""Writing rows again, and removing those that nothing tells of, while the sink goes on writing.

Why no interleaving loses a row or shows an older one. A page of rows is *held*: put under WATCH and read, and then the
sink's offsets are read, in this order. Let N be a partition's offset. The rows read came of records below N. The topic
is now read to N at least, so that the last record below N of every key is known. Then:

* **A row is written** only from the record that is the last of its key in the topic as far as it was read, and only if
  that record is below N: the sink has applied it, and nothing newer that the row could show is known to exist. If the
  sink writes the row before our EXEC, that fails and the page is held again. If it writes it after, it writes a later
  record, because all below N are applied. A batch that it applies again after a crash is applied as one, and ends
  with the same record of the key.
* **A key is removed** only if no record tells of a row, the topic being read to its end at the start at least, and if
  what says so (a delete, a truncate, or no record at all) is below N for every partition. If the sink makes the row
  anew before our EXEC, that fails; after, it simply is there.
* **While a truncate is under way** rows may be half gone though no offset has passed it. Partitions that stand at one
  are in a hash that is watched too; as long as there is any, nothing is written.
* **A store that is emptied or set back** begins again from older records. FLUSHALL removes ``__cdc:tables``, which is
  watched; any other way of setting it back closes the connection, and each page is held on the connection that writes
  it. After that N is what the store really holds, and rows whose record is not below it are left to the sink.

A cluster cannot guard several rows at once: each is guarded by itself, and offsets lag behind rows; when a primary is
emptied they fall to nothing while the rows of the others stay. So the topic is read to its end after the rows were,
which has all that can show in them. N then says too little, never too much. A row of N or behind is looked at only if
it has the version of its last record, for the sink, which comes by again, would take it for what it is; others are the
sink's.

A key with rows in two partitions (somebody changed the record key's schema under it) has no order: it is left alone,
and counted. A row whose last record is one that the sink has put aside (``errors.tolerance=all``) is left alone, too: a
replayed dead letter may have made it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cdc.errors import RetriableError
from cdc.mirror.fold import PATCH, Op, fold
from cdc.mirror.mending import Change, Foreign, Holding, Mender, Record, extra, mended
from cdc.runtime.rebuild.last import Last, LastRecords
from cdc.runtime.rebuild.scan import Scan

__all__ = ["Counts", "Rows", "StateLost"]

PAGE_ROWS: Final = 500
PAGE_BYTES: Final = 1 << 20
_NAMED: Final = 100
_TRUNCATE_PAUSE_S: Final = 0.02


class StateLost(Exception):
    """The store does not hold what this rebuild has written into it, or no table: it was emptied or set back."""


@dataclass(slots=True)
class Counts:
    """What a rebuild found and did."""

    rows: int = 0
    """Rows compared with their last record."""
    missing: int = 0
    different: int = 0
    ghosts: int = 0
    """Keys removed."""
    unordered: int = 0
    """Keys that have rows in several partitions, left alone."""
    foreign: list[str] = field(default_factory=list)
    """Keys that hold something else than a row, left alone; some of them, in printable form."""


class Rows:
    """Puts the rows of one topic right. For one thread."""

    def __init__(
        self,
        mender: Mender,
        scan: Scan,
        ttl: int | None,
        state: Mapping[bytes, bytes],
        stopping: Callable[[], bool],
    ) -> None:
        """``state`` is what the store must hold of this rebuild whenever rows are written."""
        self.counts = Counts()
        self._mender = mender
        self._scan = scan
        self._last: LastRecords = scan.last
        self._ttl = ttl
        self._state = state
        self._stopping = stopping
        self._page: dict[bytes, tuple[Op, Record]] = {}
        self._bytes = 0

    # --- rows that are there -----------------------------------------------------------------------------

    def take(self, partition: int, changes: Sequence[tuple[bytes, Op]], records: Sequence[Record]) -> None:
        """Changes of a partition, and their records, in the order of the topic. Those that are the last of their key
        are written."""
        keys = list({key for key, _ in changes})
        found = self._last.find(keys)
        begun: dict[bytes, Op] | None = None
        since: dict[bytes, int] = {}
        ended: list[bytes] = []
        for (key, op), record in zip(changes, records, strict=True):
            last = _alone(found.get(key, ()))
            offset = op[4]
            if last is None:
                if len(found.get(key, ())) > 1 and any(one.offset == offset for one in found[key]):
                    self.counts.unordered += 1
                continue
            if last.partition != partition or not last.since <= offset <= last.offset:
                continue
            if last.since != last.offset:
                if begun is None:
                    begun = self._last.begun(partition, keys)
                if key in begun:
                    op = fold(begun[key], op)  # noqa: PLW2901 - the change that all of them make together
                if offset < last.offset:
                    begun[key], since[key] = op, last.since
                    continue
                if begun.pop(key, None) is not None:
                    ended.append(key)
            self._page[key] = (op, record)
            self._bytes += sum(map(len, op[1]))
            if len(self._page) >= PAGE_ROWS or self._bytes >= PAGE_BYTES:
                self.flush()
        if begun:
            self._last.begin(partition, {key: begun[key] for key in since if key in begun}, since)
        self._last.end(partition, ended)

    def flush(self) -> None:
        """Write what `take` has gathered."""
        page, self._page, self._bytes = self._page, {}, 0
        self.counts.rows += len(page)
        while page:
            held = self._hold(list(page))
            page = self._still_last(page, held)
            columns = _columns(held)
            changes = []
            for key, (op, record) in page.items():
                row = held.rows[key]
                if isinstance(row, Foreign):
                    self._note_foreign(key, held)
                elif row is not None or op[0] != PATCH or self._mender.makes_parts:
                    change = mended(key, op, row, columns)
                    if change is not None:
                        changes.append(change._replace(record=record))
            left = self._make(changes, held)
            page = {key: page[key] for key in left}

    def _make(self, changes: Sequence[Change], held: Holding) -> list[bytes]:
        """Make changes and count them; the keys that somebody wrote meanwhile, to be looked at again."""
        if not changes:
            self._mender.release()
            return []
        made = self._mender.apply(changes, self._ttl)
        for change in changes:
            if change.key not in made:
                continue
            if change.delete:
                self.counts.ghosts += 1
            elif held.rows[change.key] is None:
                self.counts.missing += 1
            else:
                self.counts.different += 1
        return [change.key for change in changes if change.key not in made]

    def _still_last(self, page: Mapping[bytes, tuple[Op, Record]], held: Holding) -> dict[bytes, tuple[Op, Record]]:
        """Those rows whose last record is still the one of the page, and is applied, as the offset or the row itself
        says. The sink writes the others."""
        found = self._last.find(list(page))
        kept = {}
        for key, (op, record) in page.items():
            last = _alone(found.get(key, ()))
            if last is None or last[:2] != record[2:]:
                continue
            if record.offset >= held.next[record.partition] and not self._mender.shows(key, record):
                continue
            kept[key] = (op, record)
        return kept

    # --- keys that are too much --------------------------------------------------------------------------

    def sweep(
        self,
        keys: Iterable[bytes],
        since: Mapping[int, int] | None,
        removable: Callable[[bytes], bool] = lambda _: True,
    ) -> None:
        """Of keys that are in the store, remove those that no record tells of, if they are ``removable``.

        With ``since``, rows that the sink has written from those offsets on lose the fields that are no columns.
        """
        every = list(dict.fromkeys(keys))
        found = self._last.find(every)
        suspects = [key for key in every if _suspect(found.get(key, ()), since)]
        for start in range(0, len(suspects), PAGE_ROWS):
            self._sweep(suspects[start : start + PAGE_ROWS], since, removable)

    def _sweep(self, keys: list[bytes], since: Mapping[int, int] | None, removable: Callable[[bytes], bool]) -> None:
        while keys:
            held = self._hold(keys)
            found = self._last.find(keys)
            truncated = all(offset < held.next[part] for part, offset in self._last.truncated.items())
            changes = []
            for key in keys:
                row = held.rows[key]
                if row is None:
                    continue
                if isinstance(row, Foreign):
                    self._note_foreign(key, held)
                    continue
                records = found.get(key, ())
                change = None
                if not any(last.there for last in records):
                    applied = truncated and all(last.offset < held.next[last.partition] for last in records)
                    if applied and removable(key):
                        change = Change(key, delete=True)
                elif since is not None:
                    change = extra(key, row, _columns(held))
                if change is not None:
                    changes.append(change)
            keys = self._make(changes, held)

    # --- holding -----------------------------------------------------------------------------------------

    def _hold(self, keys: Sequence[bytes]) -> Holding:
        """Hold rows while no truncate is under way, with the topic read as far as the sink has come."""
        while True:
            held = self._mender.hold(keys)
            if held.entry is None or any(held.state.get(name) != value for name, value in self._state.items()):
                raise StateLost
            if not held.truncating:
                break
            self._mender.release()
            if self._stopping():
                raise RetriableError("asked to stop")
            time.sleep(_TRUNCATE_PAUSE_S)
        # All that can show in the rows read.
        self._scan.reach(self._scan.ends() if self._mender.lags else held.next)
        return held

    def _note_foreign(self, key: bytes, held: Holding) -> None:
        if isinstance(held.rows[key], Foreign) and len(self.counts.foreign) < _NAMED:
            name = key.decode("utf-8", "backslashreplace")
            if name not in self.counts.foreign:
                self.counts.foreign.append(name)


def _alone(records: Collection[Last]) -> Last | None:
    """The last record of a key whose row is there in one partition; ``None`` if in none, or in several."""
    there = [last for last in records if last.there]
    return there[0] if len(there) == 1 else None


def _suspect(records: Collection[Last], since: Mapping[int, int] | None) -> bool:
    there = [last for last in records if last.there]
    return not there or (since is not None and any(last.offset >= since[last.partition] for last in there))


def _columns(held: Holding) -> frozenset[bytes]:
    """All columns that rows of the table were written with."""
    entry = held.entry
    if entry is None:
        return frozenset()
    keys = {column.name for shape in entry.shapes for column in shape}
    return frozenset(name.encode() for name in (*entry.columns, *keys))
