"""A source task's session as sweeps see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from cdc.errors import TableError
from cdc.plugin import SourceTask, Sweep, ValueEncoder
from cdc.record import RowChange, Transaction
from cdc.runtime.source_writer import SourceWriter

__all__ = ["COMMIT_BYTES", "SweepOutput"]

COMMIT_BYTES: Final = 4 << 20
"""A transaction is committed at this size, also inside a transaction of the source (never inside a message)."""


class SweepOutput:
    """Writes what a sweep finds (`cdc.runtime.ghosts.Output`)."""

    def __init__(
        self, writer: SourceWriter, task: SourceTask, commit: Callable[[], None], pump: Callable[[], None]
    ) -> None:
        self._writer = writer
        self._task = task
        self.commit = commit
        self.pump = pump

    def scattered(self, sweep: Sweep) -> bool:
        chain = self._writer.chain
        # Transforms drop truncates, which are what makes new keys safe (H14).
        return chain is not None and (sweep.renew or not chain.keeps_place)

    def partitions(self, sweep: Sweep) -> int:
        return self._writer.partitions(sweep.shape)

    def truncate_key(self, sweep: Sweep, partition: int) -> bytes | None:
        compacted = sweep.shape.compact and self._writer.compacts
        return self._writer.keys.control_key(partition) if compacted else None

    def place(self) -> tuple[Transaction, int, int]:
        return self._task.place()

    def prepare(self, sweep: Sweep) -> None:
        """Compile what `write` needs. `TableError` when the registry refuses it."""
        if self._writer.chain is None:
            self._encoder(sweep)

    def _encoder(self, sweep: Sweep) -> ValueEncoder:
        return self._writer.value_encoder(sweep.shape, keyless=sweep.renew)  # its keys cannot be compiled yet

    def refuse(self, sweep: Sweep, error: TableError) -> None:
        self._task.refuse(sweep.shape, error)

    def write(self, sweep: Sweep, change: RowChange, key: bytes | None, partition: int, now_us: int) -> None:
        writer, chain = self._writer, self._writer.chain
        if writer.spared and (sweep.shape.topic, key) in writer.spared and not sweep.renew:
            return
        if chain is not None and change.key_row is not None:
            record = chain.apply(chain.record(change, now_us))
            if record is not None:
                writer.write_general(replace(record, partition=partition), partial(_same, key))
            writer.records += 1
        else:
            value = self._encoder(sweep)(change, now_us) if change.op else None
            writer.write_ready(change, key, value, partition)

    def full(self) -> bool:
        return self._writer.producer.bytes >= COMMIT_BYTES

    def renewed(self, sweep: Sweep) -> None:
        self._writer.renew_keys(sweep.shape.topic)

    def swept(self, sweep: Sweep, declined: str = "") -> None:
        self._task.swept(sweep, declined)


def _same(key: bytes | None) -> bytes | None:
    return key
