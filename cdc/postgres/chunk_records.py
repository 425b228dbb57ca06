"""The records of a chunk. Pure (EXACTNESS.md H8, H9)."""

from __future__ import annotations

from collections.abc import Set

from cdc.postgres.captured_table import CapturedTable
from cdc.postgres.chunks import Chunk
from cdc.record import RowChange, Transaction

__all__ = ["chunk_records"]


def chunk_records(
    chunk: Chunk,
    table: CapturedTable,
    newer: Set[tuple[bytes | None, ...]],
    tx: Transaction,
    lsn: int,
    ordinal: int,
    *,
    begun: bool,
) -> list[RowChange]:
    """The rows as records of the message that marks them, at its position, without those whose keys are ``newer``.

    ``begun`` says that rows of the same snapshot were told before. ``source.snapshot`` is Debezium's: first and last
    rows are marked, and those of an incremental snapshot are all the same.
    """
    shape, key, adhoc = table.shape, table.shape.key, chunk.reading.adhoc
    incremental = adhoc is not None and not adhoc.blocking
    marker = "incremental" if incremental else "true"
    out: list[RowChange] = []
    for row in chunk.rows:
        if newer and tuple(row[i] for i in key) in newer:
            continue
        table.masked(row)
        out.append(RowChange(shape, "r", row, None, row, tx, lsn, ordinal, len(out), marker=marker))
    if incremental or not out:
        return out
    begun = begun or adhoc is not None
    if chunk.first:
        out[0].marker = "first_in_data_collection" if begun else "first"
    if chunk.last and (len(out) > 1 or begun):
        out[-1].marker = "last_in_data_collection"
    if chunk.final:
        out[-1].marker = "last"
    return out
