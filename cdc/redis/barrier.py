"""Truncates: a barrier across the partitions of a topic, in whichever task they are (EXACTNESS.md H16).

A source writes a truncate to every partition. A partition stops at it, having written all that came before, and
says so in a hash of the connector and topic::

    <n>     wait <position> <offset> <source>     partition n stands at the truncate
    <n>     pass <position> <offset> <source>     the rows are gone: partition n may go on
    sweep   <token>                               who removes the rows

When all partitions wait, the task that owns partition 0 removes the table's keys and turns ``wait`` into ``pass``. A
partition's next batch stores an offset behind the truncate and clears its field, in one step.

Nothing of this can remove a row that is written later: while the sweep runs every partition stands still, and each
page of it is an EXEC under WATCH of the hash, which changes when the sweep ends or another task takes it over. A kill
at any point leaves offsets in front of the truncate, so that the next owner comes to the same place and goes on.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from cdc.errors import FatalError
from cdc.mirror.store import Arrival, GuardLost, Partition, StoredOffset
from cdc.redis.connection import Argument, Wire
from cdc.redis.fence import barrier_key, load_tables, offset_key
from cdc.redis.sweep import Sweep

__all__ = ["Barrier"]

_WAIT: Final = b"wait"
_PASS: Final = b"pass"
_SWEEP: Final = b"sweep"
_PAGES: Final = 8
"""Pages removed in one `Barrier.advance`: a few milliseconds."""


class _Mark(NamedTuple):
    """A partition's field."""

    state: bytes
    position: bytes
    offset: int
    source: bytes

    @classmethod
    def parse(cls, text: bytes) -> _Mark:
        state, position, offset, source = text.split(b" ", 3)
        return cls(state, position, int(offset), source)

    def encode(self) -> bytes:
        return b"%b %b %d %b" % self

    def of(self, arrival: Arrival) -> bool:
        return (self.position, self.source) == (arrival.position.encode(), arrival.source.encode())


def _parse(reply: Sequence[bytes]) -> dict[int, _Mark]:
    """The partitions' fields of the hash."""
    pairs = zip(reply[::2], reply[1::2], strict=True)
    return {int(field): _Mark.parse(text) for field, text in pairs if field != _SWEEP}


class Barrier:
    """The truncates that this task's partitions of one topic stand at. Uses a connection of its own."""

    def __init__(self, wire: Wire, connector: str, topic: str, partitions: int) -> None:
        self._wire = wire
        self._connector = connector
        self._topic = topic
        self._all = range(partitions)
        self._key = barrier_key(connector, topic)
        self._arrivals: dict[int, Arrival] = {}
        self._token = secrets.token_hex(8).encode()
        self._sweep: Sweep | None = None

    @property
    def empty(self) -> bool:
        """Nobody waits here any more."""
        return not self._arrivals

    def arrive(self, arrival: Arrival) -> None:
        """A partition has written everything before the truncate and waits.

        `GuardLost` when it does not stand there: somebody else has taken it on.
        """
        number = arrival.partition.number
        offset = offset_key(self._connector, arrival.partition)
        field = b"%d" % number
        while True:
            _, held, text = self._wire.call(("WATCH", self._key, offset), ("GET", offset), ("HGET", self._key, field))
            stored = None if held is None else StoredOffset.decode(held)
            if stored is not None and (stored.next > arrival.offset or stored.previous is not None):
                raise GuardLost(f"{arrival.partition} does not stand at the truncate at offset {arrival.offset}")
            if text is not None and _Mark.parse(text).of(arrival):
                self._wire.one("UNWATCH")
                break
            mark = _Mark(_WAIT, arrival.position.encode(), arrival.offset, arrival.source.encode())
            if self._exec(("HSET", self._key, field, mark.encode())):
                break
        self._arrivals[number] = arrival

    def advance(self) -> Sequence[Partition]:
        """Look whether all have come, remove a few pages of rows, and tell who may pass."""
        if self._sweep is not None:
            self._remove(self._sweep)
            return ()
        marks = _parse(self._wire.one("HGETALL", self._key))
        passing = [
            arrival
            for number, arrival in self._arrivals.items()
            if number in marks and marks[number].state == _PASS and marks[number].of(arrival)
        ]
        if passing:
            for arrival in passing:
                del self._arrivals[arrival.partition.number]
            return [arrival.partition for arrival in passing]
        waiting = {number: mark for number, mark in marks.items() if mark.state == _WAIT}
        if len(waiting) < len(self._all):
            self._refuse_passed()
        elif 0 in self._arrivals:
            self._begin(waiting)
        return ()

    def _refuse_passed(self) -> None:
        """A partition beyond the truncate without having waited will never come back to it.

        Its rows from after the truncate are there, so that nothing may be removed any more. Looks at the hash and at
        all offsets in one moment: a partition that passes clears its field and moves its offset in one step.
        """
        keys = [offset_key(self._connector, Partition(self._topic, number)) for number in self._all]
        _, reply, offsets = self._wire.call(("WATCH", self._key, *keys), ("HGETALL", self._key), ("MGET", *keys))
        if not self._exec(("EXISTS", self._key)):
            return
        marks = _parse(reply)
        waiting = [a for n, a in self._arrivals.items() if n in marks and marks[n].state == _WAIT and marks[n].of(a)]
        for number, held in zip(self._all, offsets, strict=True):
            positions = StoredOffset.decode(held).positions if held is not None and number not in marks else {}
            for arrival in waiting:
                if positions.get(arrival.source, "") >= arrival.position:
                    raise FatalError(
                        f"{arrival.partition} stands at a truncate at offset {arrival.offset}, and partition {number} "
                        "of the topic is beyond it already: rows written since would be removed with those "
                        f"before it. Remedy: delete the keys {self._key.decode()} and "
                        f"{offset_key(self._connector, Partition(self._topic, 0)).decode()[:-1]}*, and the connector "
                        "reads the whole topic again"
                    )

    def _begin(self, waiting: Mapping[int, _Mark]) -> None:
        """Take the sweep, from whoever has it: it is ours because partition 0 is."""
        sources = {mark.source for mark in waiting.values()}
        if len(sources) > 1:
            raise FatalError(
                f"the partitions of topic {self._topic} wait at truncates of different sources "
                f"({', '.join(sorted(source.decode() for source in sources))}), which have no order between them. "
                "Remedy: let one source write the topic"
            )
        _, reply = self._wire.call(("WATCH", self._key), ("HGETALL", self._key))
        seen = dict(zip(reply[::2], reply[1::2], strict=True))
        if any(seen.get(b"%d" % number) != mark.encode() for number, mark in waiting.items()):
            self._give_up()
            return
        if self._exec(("HSET", self._key, _SWEEP, self._token)):
            entry = load_tables(self._wire).get(self._connector, self._topic)
            self._sweep = Sweep([] if entry is None else entry.spaces())

    def _remove(self, sweep: Sweep) -> None:
        for _ in range(_PAGES):
            if sweep.done:
                self._finish()
                return
            _, owner, page = self._wire.call(("WATCH", self._key), ("HGET", self._key, _SWEEP), sweep.command())
            if owner != self._token:
                self._give_up()
                return
            keys = sweep.keys(page)
            if not keys:
                self._wire.one("UNWATCH")
            elif not self._exec(("UNLINK", *keys)):
                self._give_up()
                return

    def _finish(self) -> None:
        """The rows are gone: those at the earliest truncate may pass. Later ones sweep again."""
        _, reply = self._wire.call(("WATCH", self._key), ("HGETALL", self._key))
        seen = dict(zip(reply[::2], reply[1::2], strict=True))
        if seen.pop(_SWEEP, None) != self._token:
            self._give_up()
            return
        marks = {field: _Mark.parse(text) for field, text in seen.items()}
        first = min(mark.position for mark in marks.values())
        done = [
            part
            for field, mark in marks.items()
            if mark.position == first
            for part in (field, mark._replace(state=_PASS).encode())
        ]
        self._exec(("HSET", self._key, *done), ("HDEL", self._key, _SWEEP))
        self._sweep = None

    def _give_up(self) -> None:
        """Another task has the sweep. Whether it is ours again shows at the next look."""
        self._wire.one("UNWATCH")
        self._sweep = None

    def _exec(self, *commands: Sequence[Argument]) -> bool:
        """Run commands if what is watched did not change."""
        *_, results = self._wire.call(("MULTI",), *commands, ("EXEC",))
        if results is None:
            return False
        for answer in results:
            if isinstance(answer, Exception):
                raise self._wire.refused(answer, f"at a truncate of topic {self._topic}")
        return True
