"""Which record of a topic is the last of each key: what a rebuild keeps of its first pass (EXACTNESS.md H24).

A row for each key and partition, in SQLite's temporary database: a file that the system removes with the process,
however it ends, and of which only a cache of fixed size is in memory. It costs the key and some twenty bytes of disk.
"""

from __future__ import annotations

import marshal
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from cdc.mirror.fold import DELETE, PATCH, Op

__all__ = ["Last", "LastRecords"]

CACHE_KB: Final = 32 << 10
"""Memory that SQLite may use for pages of the file."""
_LOOKUP: Final = 500

_SCHEMA: Final = """
create table last (key blob, part int, at int, since int, state int, primary key (key, part)) without rowid;
create table begun (key blob, part int, since int, op blob, primary key (key, part)) without rowid;
"""
_GONE, _WHOLE, _PARTIAL = 0, 1, 2
# A change of some columns belongs to the whole row before it; without one, the row cannot be made from the topic alone.
_PUT: Final = """
insert into last values (?, ?, ?, ?, ?) on conflict do update set
    at = excluded.at,
    since = iif(excluded.state = 2 and state <> 0, since, excluded.since),
    state = iif(excluded.state = 2 and state <> 0, state, excluded.state)
"""


class Last(NamedTuple):
    """The last record of a key in one partition.

    ``since`` is the offset of the last whole row of the key, from which on its records are to be folded; usually the
    same record.
    """

    partition: int
    offset: int
    since: int
    there: bool
    """Whether the row is there after it."""


class LastRecords:
    """The last records of the keys of one topic. For one thread.

    ``only`` leaves out all other keys.
    """

    def __init__(self, only: Collection[bytes] | None = None) -> None:
        self._only = None if only is None else frozenset(only)
        self._base = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._base.execute(f"pragma cache_size = -{CACHE_KB}")
        self._base.execute("pragma temp_store = file")
        self._base.executescript(_SCHEMA)
        self.truncated: dict[int, int] = {}
        """Partition → offset of its last truncate: no row of an earlier record is there."""

    def close(self) -> None:
        self._base.close()

    def take(self, partition: int, changes: Iterable[tuple[bytes, Op]]) -> None:
        """Changes of one partition, in order."""
        rows: dict[bytes, tuple[bytes, int, int, int, int]] = {}
        for key, op in changes:
            if self._only is not None and key not in self._only:
                continue
            verb, offset = op[0], op[4]
            state = _GONE if verb == DELETE else _PARTIAL if verb == PATCH else _WHOLE
            before = rows.get(key)
            if state == _PARTIAL and before is not None and before[4] != _GONE:
                rows[key] = (key, partition, offset, before[3], before[4])
            else:
                rows[key] = (key, partition, offset, offset, state)
        self._write(_PUT, list(rows.values()))

    def truncate(self, partition: int, offset: int) -> None:
        """All rows of earlier records of the partition are gone."""
        self.truncated[partition] = offset
        self._base.execute("delete from last where part = ?", [partition])

    def find(self, keys: Sequence[bytes]) -> dict[bytes, list[Last]]:
        """What is known of these keys: one for each partition that has records of a key."""
        found: dict[bytes, list[Last]] = {}
        for start in range(0, len(keys), _LOOKUP):
            some = keys[start : start + _LOOKUP]
            query = f"select * from last where key in ({','.join('?' * len(some))})"  # noqa: S608 - question marks
            for key, part, at, since, state in self._base.execute(query, some):
                found.setdefault(key, []).append(Last(part, at, since, state != _GONE))
        return found

    def count(self) -> int:
        """Keys whose row is there."""
        [number] = self._base.execute("select count(distinct key) from last where state <> ?", [_GONE]).fetchone()
        return int(number)

    # --- rows whose last record is a part of them ----------------------------------------------------------

    def begin(self, partition: int, changes: Mapping[bytes, Op], since: Mapping[bytes, int]) -> None:
        """Keep what was folded of rows so far, until their last records come."""
        self._write(
            "insert or replace into begun values (?, ?, ?, ?)",
            [(key, partition, since[key], marshal.dumps(op)) for key, op in changes.items()],
        )

    def begun(self, partition: int, keys: Sequence[bytes]) -> dict[bytes, Op]:
        """What `begin` kept of these keys."""
        found: dict[bytes, Op] = {}
        for key in keys:
            for [op] in self._base.execute("select op from begun where key = ? and part = ?", [key, partition]):
                found[key] = marshal.loads(op)  # noqa: S302 - written by `begin`, in a file of this process
        return found

    def end(self, partition: int, keys: Sequence[bytes]) -> None:
        """Forget what `begin` kept of these keys."""
        self._write("delete from begun where key = ? and part = ?", [(key, partition) for key in keys])

    def open_since(self, partition: int) -> int | None:
        """The first offset that a row which is begun needs."""
        [since] = self._base.execute("select min(since) from begun where part = ?", [partition]).fetchone()
        return None if since is None else int(since)

    def forget_begun(self) -> None:
        """The second pass starts over."""
        self._base.execute("delete from begun")

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        if rows:
            self._base.execute("begin")
            self._base.executemany(statement, rows)
            self._base.execute("commit")
