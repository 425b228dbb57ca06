"""What is read of tables, and what is handed from the threads that read to the one that streams."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from cdc.postgres.catalog import TableInfo
from cdc.postgres.progress import AdHoc
from cdc.postgres.stream import ReplicationStream
from cdc.postgres.touched import DatabaseSnapshot
from cdc.record import RawRow

__all__ = ["Begun", "Chunk", "Exported", "Reading"]


@dataclass(slots=True)
class Exported:
    """A snapshot exported by a temporary slot: alive as long as ``holder`` is open."""

    name: str
    consistent_point: int
    holder: ReplicationStream


@dataclass(eq=False, slots=True)
class Reading:
    """One table to be read from the key ``after`` to its end, by ``key`` or in the exported snapshot.

    With ``marked`` it begins at a point in the stream that `Begun` marks, after `go`, and by the key that the table has
    then. ``first`` says that no row of it was told before, ``counted`` that it is one of the tables of which the last
    row of all is told. An error of an ``adhoc`` one is its own, and leaves everything else alone.
    """

    oid: int
    schema: str
    name: str
    key: tuple[str, ...] = ()
    after: list[str | None] | None = None
    first: bool = True
    exported: Exported | None = None
    marked: bool = False
    counted: bool = False
    rows_per_second: int = 0
    adhoc: AdHoc | None = None
    statement: str = ""
    """An operator's SELECT that gives the rows, in place of the table."""
    started: bool = False
    """Whether a snapshot of the database was taken for it, or is about to be: set by the thread that reads."""
    found: bool = False
    """Whether the thread has read rows of it."""
    seen: DatabaseSnapshot | None = None
    """That of its last chunk which was told: all of its later ones are newer."""
    _go: threading.Event = field(default_factory=threading.Event)
    _cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def full_name(self) -> str:
        return f"{self.schema}.{self.name}"

    def go(self) -> None:
        """The stream has passed the beginning: read the rows."""
        self._go.set()

    def cancel(self) -> None:
        """Read no more of it. Chunks that were read may still come."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait for `go`, or to be cancelled; whether it was `go`."""
        return self._go.wait(seconds)

    def pause(self, seconds: float) -> None:
        """Wait so long, or until it is cancelled."""
        self._cancelled.wait(max(0.0, seconds))


@dataclass(slots=True)
class Chunk:
    """Rows of one table as one database snapshot saw them. ``after`` is the key of its last row."""

    token: str
    reading: Reading
    table: TableInfo
    rows: list[RawRow]
    size: int
    snapshot: DatabaseSnapshot
    after: list[str | None] | None
    first: bool
    last: bool
    final: bool = False
    """Whether no table after this one has a row."""
    at: int = 0
    """Without messages: the LSN that the stream must have passed."""


@dataclass(slots=True)
class Begun:
    """The stream has passed the beginning of reading a table again."""

    token: str
    reading: Reading
    size: int = 0
    at: int = 0
