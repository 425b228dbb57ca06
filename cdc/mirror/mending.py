"""The seam between a rebuild and a store: rows put right beside a sink that goes on writing (EXACTNESS.md H24).

A rebuild does not take the sink's place. It looks at rows under a guard, decides what they must be, and writes only if
nobody wrote them since it looked. What it decides with is in `cdc.runtime.rebuild`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from cdc.mirror.fold import DELETE, PATCH, Op
from cdc.mirror.store import StoredOffset
from cdc.mirror.tables import TableEntry, Tables

__all__ = ["Change", "Foreign", "Holding", "Mender", "Record", "Row", "extra", "mended"]

Row = Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Foreign:
    """What a key holds when it is no row; ``told`` is the store's answer."""

    told: str


class Holding(NamedTuple):
    """Rows as they are, guarded from before they were read until the next `Mender.apply` or `Mender.release`."""

    rows: Mapping[bytes, Row | Foreign | None]
    next: Mapping[int, int]
    """Partition → offset behind the last record that can show in ``rows``: read after them. Less if a store `lags`."""
    entry: TableEntry | None
    """What is remembered of the table, guarded as well."""
    truncating: bool
    """Partitions stand at a truncate: its rows may be half gone, and none may be written."""
    state: Mapping[bytes, bytes]
    """What `Mender.save` has written, guarded as well."""


class Record(NamedTuple):
    """Which record makes a row: its source and position (both empty without our headers), partition and offset."""

    source: bytes
    position: bytes
    partition: int
    offset: int


class Change(NamedTuple):
    """What makes a row what it must be."""

    key: bytes
    set: Sequence[bytes] = ()
    """Names and values in turn."""
    remove: Sequence[bytes] = ()
    """Names."""
    delete: bool = False
    record: Record | None = None
    """The row's, if it is one of the topic."""


def mended(key: bytes, op: Op, row: Row | None, columns: Collection[bytes]) -> Change | None:
    """What makes ``row`` the one that ``op`` makes; ``None`` if it is that one.

    A whole row has no other fields. Of a part of one (`PATCH`) the other columns stay, and what is no column of
    the table goes.
    """
    verb, fields, absent, _, _ = op
    if verb == DELETE:
        return None if row is None else Change(key, delete=True)
    want = dict(zip(fields[::2], fields[1::2], strict=True))
    if row is None:
        return Change(key, fields)
    missing = [part for name, value in want.items() if row.get(name) != value for part in (name, value)]
    if verb == PATCH:
        gone = [name for name in row if name not in want and (name in absent or name not in columns)]
    else:
        gone = [name for name in row if name not in want]
    return Change(key, missing, gone) if missing or gone else None


def extra(key: bytes, row: Row, columns: Collection[bytes]) -> Change | None:
    """What takes away the fields that no record of the table can have set."""
    gone = [name for name in row if name not in columns]
    return Change(key, remove=gone) if gone else None


class Mender(Protocol):
    """A store as a rebuild of one topic sees it. For one thread.

    Methods raise `cdc.errors.RetriableError` when the store is away or busy and `cdc.errors.FatalError` when an
    operator must act; after either only `close` may follow.
    """

    lags: bool
    """Rows may show records that are behind `Holding.next`, which may also fall to nothing while rows are there."""
    makes_parts: bool
    """A record of some columns makes a row where there is none, as for the sink."""

    def tables(self) -> Tables:
        """What the store knows of all tables."""

    def offsets(self) -> Mapping[int, StoredOffset]:
        """Partition → what the store holds of it."""

    def hold(self, keys: Sequence[bytes]) -> Holding:
        """Guard these rows and read them."""

    def shows(self, key: bytes, record: Record) -> bool:
        """Whether the row that is held has the version of this record; ``False`` where rows have none."""

    def apply(self, changes: Sequence[Change], ttl: int | None) -> Collection[bytes]:
        """Make changes, each in one step, and let go; the keys whose rows had not been written since they were held."""

    def release(self) -> None:
        """Let go of what is held."""

    def scan(self, tables: Tables) -> Iterator[Sequence[bytes]]:
        """All keys that rows of the topic can have and rows of no other topic, in pages; a key may come twice.

        ``tables`` has an entry of the topic.
        """

    def size(self) -> int:
        """About how many keys a scan looks at."""

    def state(self) -> Mapping[bytes, bytes]:
        """What `save` has written."""

    def save(self, fields: Mapping[bytes, bytes]) -> None:
        """Remember how far a rebuild is."""

    def forget(self) -> None:
        """Remove what `save` has written."""

    def close(self) -> None:
        """Let go of everything. Never raises."""
