"""Rows put right beside the sink, each page of them under WATCH (`cdc.mirror.mending.Mender`).

What is watched: the rows, ``__cdc:tables`` (a FLUSHALL removes it, so that nothing is written into a store that begins
anew), the truncate of the topic if one is under way, and the rebuild's own state. The offsets are not: every batch of
the sink moves them. They are read behind the rows, which is all that is needed (`cdc.runtime.rebuild`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import hiredis

from cdc.mirror.mending import Change, Foreign, Holding, Record, Row
from cdc.mirror.store import Partition, StoredOffset, Verdict
from cdc.mirror.tables import TableEntry, Tables
from cdc.redis.connection import Argument, Wire, pack
from cdc.redis.errors import classify
from cdc.redis.fence import TABLES, barrier_key, load_tables, offset_key, rebuild_key, table_field
from cdc.redis.server import refuse_unfit
from cdc.redis.sweep import Sweep

__all__ = ["RedisMender"]


class RedisMender:
    """The rows of one topic."""

    lags = False
    makes_parts = True

    def __init__(self, connector: str, topic: str, partitions: int, wire: Wire) -> None:
        self._connector = connector
        self._topic = topic
        self._offsets = [offset_key(connector, Partition(topic, number)) for number in range(partitions)]
        self._state = rebuild_key(connector, topic)
        self._barrier = barrier_key(connector, topic)
        self._wire = wire
        refuse_unfit(wire)
        self._ours: tuple[tuple[Argument, ...], ...] = (
            ("HGET", TABLES, table_field(connector, topic)),
            ("HGETALL", self._barrier),
            ("HGETALL", self._state),
            ("MGET", *self._offsets),
        )
        self._tail = b"".join(pack(command) for command in self._ours)

    def tables(self) -> Tables:
        return load_tables(self._wire)

    def offsets(self) -> Mapping[int, StoredOffset]:
        held = self._wire.one("MGET", *self._offsets)
        return {number: StoredOffset.decode(text) for number, text in enumerate(held) if text is not None}

    def hold(self, keys: Sequence[bytes]) -> Holding:
        wire = self._wire
        watch = pack(("WATCH", TABLES, self._barrier, self._state, *keys))
        wire.send(b"".join((watch, *(pack(("HGETALL", key)) for key in keys), self._tail)))
        answers = [wire.reply() for _ in range(1 + len(keys) + len(self._ours))]
        rows: dict[bytes, Row | Foreign | None] = {}
        for key, answer in zip(keys, answers[1 : 1 + len(keys)], strict=True):
            if isinstance(answer, hiredis.ReplyError):
                if classify(answer) is not Verdict.REJECT:
                    raise wire.refused(answer, f"reading the key {key!r}")
                rows[key] = Foreign(str(answer))
            else:
                rows[key] = dict(zip(answer[::2], answer[1::2], strict=True)) if answer else None
        for answer in (answers[0], *answers[1 + len(keys) :]):
            if isinstance(answer, hiredis.ReplyError):
                raise wire.refused(answer, "guarding rows")
        entry, barrier, state, offsets = answers[1 + len(keys) :]
        return Holding(
            rows,
            {number: 0 if text is None else StoredOffset.decode(text).next for number, text in enumerate(offsets)},
            None if entry is None else TableEntry.decode(entry),
            bool(barrier),
            dict(zip(state[::2], state[1::2], strict=True)),
        )

    def shows(self, key: bytes, record: Record) -> bool:  # noqa: ARG002 - rows have no version
        return False

    def apply(self, changes: Sequence[Change], ttl: int | None) -> Collection[bytes]:
        commands = [command for change in changes for command in _commands(change, ttl)]
        *_, results = self._wire.call(("MULTI",), *commands, ("EXEC",))
        if results is None:
            return ()
        for answer in results:
            if isinstance(answer, Exception):
                raise self._wire.refused(answer, f"mending rows of topic {self._topic}")
        return [change.key for change in changes]

    def release(self) -> None:
        self._wire.one("UNWATCH")

    def scan(self, tables: Tables) -> Iterator[Sequence[bytes]]:
        entry = tables.get(self._connector, self._topic)
        if entry is None:
            return
        others = [space for other in tables if other != entry for space in other.spaces()]
        sweep = Sweep(entry.spaces())
        while not sweep.done:
            keys = sweep.keys(self._wire.one(*sweep.command()))
            yield [key for key in keys if all(space.parse(key) is None for space in others)]

    def size(self) -> int:
        answer = self._wire.ask("DBSIZE")
        return answer if isinstance(answer, int) else 0  # a user who may not ask: only progress is not known

    def state(self) -> Mapping[bytes, bytes]:
        reply = self._wire.one("HGETALL", self._state)
        return dict(zip(reply[::2], reply[1::2], strict=True))

    def save(self, fields: Mapping[bytes, bytes]) -> None:
        self._wire.one("HSET", self._state, *(part for pair in fields.items() for part in pair))

    def forget(self) -> None:
        self._wire.one("DEL", self._state)

    def close(self) -> None:
        self._wire.close()


def _commands(change: Change, ttl: int | None) -> Iterator[tuple[Argument, ...]]:
    key = change.key
    if change.delete:
        yield "DEL", key
        return
    if change.set:
        yield "HSET", key, *change.set
    if change.remove:
        yield "HDEL", key, *change.remove
    if ttl is not None:
        yield "EXPIRE", key, ttl
