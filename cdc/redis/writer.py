"""A batch as one write: changes and offsets in MULTI and EXEC, and behind them the guard of the next batch.

What is sent in one go, for whatever number of rows::

    MULTI
      HSET shop:1 …  HDEL shop:1 …  DEL shop:2  …
      SET __cdc:offset:{c}:t:0 …
    EXEC
    WATCH __cdc:tables __cdc:offset:{c}:t:0 …
    MGET  __cdc:offset:{c}:t:0 …

Every reply is looked at: errors while queueing abort the whole and are the batch's; a nil EXEC is a lost guard; errors
inside EXEC are single changes that were refused while their neighbours and the offsets were applied; and the MGET
must show what was written.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

from cdc.errors import FatalError
from cdc.mirror.fold import DELETE, REPLACE, Op
from cdc.mirror.store import Batch, GuardLost, Refusal, Verdict
from cdc.redis.connection import Wire, pack
from cdc.redis.errors import classify
from cdc.redis.fence import TABLES, Fence, barrier_key, table_field

__all__ = ["Writer", "commands"]

_MULTI: Final = pack((b"MULTI",))
_EXEC: Final = pack((b"EXEC",))


def commands(key: bytes, op: Op, ttl: int | None) -> list[tuple[bytes | int, ...]]:
    """The commands that make one change, in order."""
    verb, fields, absent, _, _ = op
    if verb == DELETE:
        return [(b"DEL", key)]
    out: list[tuple[bytes | int, ...]] = []
    if verb == REPLACE:
        out.append((b"DEL", key))
    if fields:
        out.append((b"HSET", key, *fields))
    if absent and verb != REPLACE:
        out.append((b"HDEL", key, *absent))
    if ttl is not None:
        out.append((b"EXPIRE", key, ttl))
    return out


class Writer:
    """Writes batches over one connection, one at a time: `write`, then `settle`."""

    def __init__(self, wire: Wire, fence: Fence, connector: str, ttl: int | None) -> None:
        self.wire = wire
        self._fence = fence
        self._connector = connector
        self._ttl = ttl
        self._batch: Batch | None = None
        self._count = 0
        self._expected: list[bytes | None] = []

    @property
    def pending(self) -> bool:
        """Replies to a batch are still to be read."""
        return self._batch is not None

    def write(self, batch: Batch) -> None:
        """Send the batch. Its replies are `settle`'s."""
        out = [_MULTI]
        ttl = self._ttl
        add = out.append
        for key, op in batch.ops.items():
            verb, fields, absent, _, _ = op
            if verb < DELETE and not absent and ttl is None and fields:
                add(pack((b"HSET", key, *fields)))
            else:
                for command in commands(key, op, ttl):
                    add(pack(command))
        for topic, entry in batch.entries.items():
            add(pack((b"HSET", TABLES, table_field(self._connector, topic), entry.encode())))
        for partition in batch.released:
            add(pack((b"HDEL", barrier_key(self._connector, partition.topic), str(partition.number))))
        written = {partition: offset.encode() for partition, offset in batch.offsets.items()}
        for partition, value in written.items():
            add(pack((b"SET", self._fence.keys[partition], value)))
        self._count = len(out) - 1
        self._expected = self._fence.expect(written)
        self._batch = batch
        out += (_EXEC, self._fence.arm)
        self.wire.send(b"".join(out))

    def settle(self) -> Sequence[Refusal]:
        """Read and judge all replies to the last batch."""
        batch, self._batch = self._batch, None
        if batch is None:
            return ()
        reply = self.wire.reply
        fault: Exception | None = None
        for _ in range(self._count + 1):  # MULTI's OK, and one QUEUED for each command
            answer = reply()
            if fault is None and isinstance(answer, Exception):
                fault = answer
        results = reply()
        held = self._fence.rearmed(self.wire)
        if isinstance(results, Exception):
            raise self.wire.refused(fault or results, "writing a batch")
        self._fence.held = held
        if results is None:
            raise GuardLost("another writer touched a partition, or what is known of the tables")
        refusals = self._refusals(batch, results) if not set(map(type, results)) <= {int, bytes} else ()
        if held != self._expected:
            raise GuardLost("Redis does not hold the offsets that were just written")
        return refusals

    def _refusals(self, batch: Batch, results: Sequence[object]) -> Sequence[Refusal]:
        """The changes that EXEC left out while it applied all others."""
        answers = iter(results)
        refused: dict[bytes, Refusal] = {}
        for key, op in batch.ops.items():
            for answer in itertools.islice(answers, len(commands(key, op, self._ttl))):
                if isinstance(answer, Exception):
                    if classify(answer) is not Verdict.REJECT:
                        raise self.wire.refused(answer, f"writing the key {key!r}")
                    refused[key] = Refusal(key, batch.sources[op[3]], op[4], str(answer))
        for answer in answers:
            if isinstance(answer, Exception):
                raise FatalError(
                    f"Redis refused to store an offset of connector {self._connector}: {answer}. "
                    "Remedy: remove the key of another type whose name begins with __cdc:"
                )
        return tuple(refused.values())
