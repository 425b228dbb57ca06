"""A table as its rows come in the stream, and what is checked and mended in each of them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cdc.errors import FatalError
from cdc.postgres.pgoutput import ProtocolError
from cdc.record import UNCHANGED, RawRow, RowChange, RowShape

__all__ = ["CapturedTable", "Reselect", "check_end", "check_width", "fill"]


@dataclass(eq=False, slots=True)
class CapturedTable:
    """A table in the version of its last Relation message.

    ``picks`` are the places of the captured columns among the ``width`` that the server sends, ``None`` when they are
    all of them; ``masks`` hide values, by place among the captured.
    """

    oid: int
    shape: RowShape
    width: int
    picks: tuple[int, ...] | None = None
    masks: Mapping[int, Callable[[bytes], bytes]] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    """The captured columns as Postgres names them, where records name them otherwise."""

    def name(self, place: int) -> str:
        """How Postgres names a captured column."""
        return self.names[place] if self.names else self.shape.columns[place].name

    @property
    def whole(self) -> bool:
        """Whether rows are told as they come."""
        return self.picks is None and not self.masks

    def captured(self, row: RawRow) -> RawRow:
        """The captured columns of a row that the server sent, masked."""
        return self.masked(row if self.picks is None else [row[place] for place in self.picks])

    def masked(self, row: RawRow) -> RawRow:
        """A row of captured columns, masked in place."""
        for place, mask in self.masks.items():
            value = row[place]
            if value is not None and value is not UNCHANGED:
                row[place] = mask(value)
        return row


@dataclass(slots=True)
class Reselect:
    """A change whose row has TOASTed columns that the WAL does not carry."""

    table: CapturedTable
    change: RowChange
    columns: list[int] = field(default_factory=list)


def fill(row: RawRow, old: RawRow, key: tuple[int, ...] | None) -> int:
    """Take unchanged columns from the old tuple: all of a full one, the key's of a key tuple. How many are left.

    In a key tuple the other columns are NULL whatever they hold (docs/traps.md, T8).
    """
    left = 0
    for i, value in enumerate(row):
        if value is UNCHANGED:
            if (key is None or i in key) and old[i] is not UNCHANGED:
                row[i] = old[i]
            else:
                left += 1
    return left


def check_width(row: RawRow, table: CapturedTable) -> None:
    if len(row) != table.width:
        raise FatalError(
            f"a row of {table.shape.schema}.{table.shape.table} has {len(row)} columns, its Relation message "
            f"{table.width}. Postgres 15.0 and 15.1 have this fault with column lists: update the server"
        )


def check_end(frame: bytes, end: int, table: CapturedTable) -> None:
    if end != len(frame):
        raise ProtocolError(
            f"a row message of {table.shape.schema}.{table.shape.table} has {len(frame)} bytes, its columns {end}"
        )
