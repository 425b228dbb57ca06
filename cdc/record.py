"""What travels through the bridge: Connect schemas, positions, rows and records.

Rows stay as the server sent them: a row is a list with, for each column, the bytes of Postgres's
text output, ``None`` for NULL, or `UNCHANGED` for a TOASTed value that the WAL does not carry.
Converters that know row shapes compile them (`RowShape`) into a plan from that text to wire bytes; Python
values are made only for those who ask (`cdc.codec.values`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

__all__ = [
    "HEADER_POSITION",
    "HEADER_SCHEMA",
    "HEADER_SOURCE",
    "HEADER_TEXT",
    "HEADER_UNKNOWN",
    "NO_DEFAULT",
    "UNCHANGED",
    "Column",
    "ConnectRecord",
    "Field",
    "Position",
    "RawRow",
    "RowChange",
    "RowShape",
    "Schema",
    "Transaction",
    "TransactionBlock",
]

HEADER_SOURCE: Final = "cdc.source"
"""Who wrote the record: ``<connector>/<slot>`` in UTF-8. Positions compare only within one source."""
HEADER_POSITION: Final = "cdc.position"
"""The record's `Position` in its text form."""
HEADER_SCHEMA: Final = "cdc.schema"
"""What the bytes of a converter without schemas do not say of their columns (`cdc.codec.told_schema`)."""
HEADER_UNKNOWN: Final = "cdc.unknown"
"""JSON array of columns whose value is not known; the value in the record is a filler. Sinks leave
these fields alone (EXACTNESS.md H13)."""
HEADER_TEXT: Final = "cdc.text"
"""JSON object column → Postgres's text, for values of the row image that the schema's type cannot hold
exactly (NaN in a decimal, a timestamp beyond 64 bits, ...). It overrides the value in the record;
``null`` is a NULL that the schema cannot hold because the column became NOT NULL later."""


class _NoDefault:
    __slots__ = ()

    def __repr__(self) -> str:
        return "NO_DEFAULT"


NO_DEFAULT: Final = _NoDefault()


class _Unchanged:
    """The type of `UNCHANGED`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Final = _Unchanged()
"""A TOASTed column that an UPDATE did not touch: neither NULL nor any value (pgoutput's ``u``)."""

RawRow = list[Any]
"""``bytes | None | UNCHANGED`` for each column of a `RowShape`, in its order."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a struct schema."""

    name: str
    schema: Schema


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema of Kafka Connect.

    ``type`` is Connect's name in lower case: ``int8 int16 int32 int64 float32 float64 boolean string bytes
    array map struct``. ``parameters`` keeps its order. ``default`` is `NO_DEFAULT` or the value in
    the form that Connect's JSON converter writes.
    """

    type: str
    optional: bool = False
    name: str | None = None
    version: int | None = None
    doc: str | None = None
    parameters: tuple[tuple[str, str], ...] = ()
    default: Any = NO_DEFAULT
    fields: tuple[Field, ...] = ()
    keys: Schema | None = None
    values: Schema | None = None


class Position(NamedTuple):
    """Where a record stands in the order of its source (EXACTNESS.md H1, H2).

    ``epoch`` rises whenever the next fields may not follow the ones before (unix seconds, at first
    start and after lost offsets); ``lsn`` is the commit LSN of the transaction; ``ordinal`` counts the change
    messages of the transaction before any filter; ``record`` counts the records of one message.

    The text form has fixed width, so that text order is position order.
    """

    epoch: int
    lsn: int
    ordinal: int
    record: int

    def text(self) -> bytes:
        return b"%08x.%016x.%08x.%08x" % self

    @classmethod
    def parse(cls, text: bytes) -> Position:
        """The position of a `text`. `ValueError` when it is not one."""
        parts = text.split(b".")
        if [len(part) for part in parts] != [8, 16, 8, 8]:
            raise ValueError(f"not a position: {text[:60]!r}; expected epoch.lsn.ordinal.record in fixed-width hex")
        return cls(*(int(part, 16) for part in parts))


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a row: its Connect schema and how its text becomes a value.

    ``kind`` names an entry of `cdc.codec.values.KINDS`; ``params`` are its arguments (scale of a decimal, kind
    of an array's elements, ...).
    """

    name: str
    schema: Schema
    kind: str
    params: tuple[Any, ...] = ()


@dataclass(eq=False, slots=True)
class RowShape:
    """All that is the same for every row of one version of one table: made once, compiled once.

    ``key`` are indexes into ``columns``, in the order of the fields of ``key_schema``; empty for a table without
    key. ``row_schema`` is the struct of one row image, ``envelope_schema`` Debezium's envelope around
    it. ``server`` is Debezium's logical name of the source, ``topic.prefix``. Identity is the version: a changed
    relation is another object.
    """

    topic: str
    db: str
    schema: str
    table: str
    columns: tuple[Column, ...]
    key: tuple[int, ...]
    key_schema: Schema | None
    row_schema: Schema
    envelope_schema: Schema
    server: str
    compact: bool = True
    """Whether the topic may forget all but the last record of each key."""
    plans: dict[Any, Any] = field(default_factory=dict)
    """What converters compiled from this shape, by converter; theirs alone."""


class Transaction:
    """What the changes of one transaction share. Times are microseconds since 1970 UTC."""

    __slots__ = ("commit_lsn", "commit_us", "last_commit_lsn", "plans", "position_prefix", "xid")

    def __init__(self, epoch: int, commit_lsn: int, commit_us: int, xid: int | None, last_commit_lsn: int | None):
        self.commit_lsn = commit_lsn
        self.commit_us = commit_us
        self.xid = xid
        self.last_commit_lsn = last_commit_lsn
        """Commit LSN of the transaction before, for Debezium's ``source.sequence``."""
        self.position_prefix = b"%08x.%016x." % (epoch, commit_lsn)
        self.plans: dict[Any, Any] = {}
        """What encoders made once for this transaction, by shape; theirs alone."""


class TransactionBlock(NamedTuple):
    """Debezium's ``transaction`` of a change: its place among all changes of the transaction, and of its table's."""

    id: str
    total_order: int
    data_collection_order: int


class RowChange:
    """One record to write: a change of a row, a tombstone, a snapshot row or a truncate.

    ``op`` is Debezium's (``c u d r t``), or ``""`` for a tombstone. ``key_row`` is the row image the record's key
    is taken from. ``marker`` is Debezium's ``source.snapshot`` (``None`` while streaming). A change with
    ``broadcast`` goes to every partition of its topic.
    """

    __slots__ = (
        "after",
        "before",
        "block",
        "broadcast",
        "headers",
        "index",
        "key_row",
        "lsn",
        "marker",
        "op",
        "ordinal",
        "shape",
        "tx",
        "unknown",
    )

    def __init__(
        self,
        shape: RowShape,
        op: str,
        key_row: RawRow | None,
        before: RawRow | None,
        after: RawRow | None,
        tx: Transaction,
        lsn: int,
        ordinal: int,
        index: int,
        marker: str | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        unknown: Sequence[str] = (),
        broadcast: bool = False,
    ) -> None:
        self.shape = shape
        self.op = op
        self.key_row = key_row
        self.before = before
        self.after = after
        self.tx = tx
        self.lsn = lsn
        self.ordinal = ordinal
        self.index = index
        self.marker = marker
        self.headers = headers
        self.unknown = unknown
        self.broadcast = broadcast
        self.block: TransactionBlock | None = None


@dataclass(slots=True, eq=False)
class ConnectRecord:
    """A record in Connect's general form, of either direction: what is not the change of a row (heartbeats, messages,
    transaction boundaries), and what transforms are given and make.

    Values are *native*, as `cdc.codec.values` has them: dict of a struct, list of an array, dict or list of pairs of
    a map, bytes of a decimal, days of a date. ``partition`` is ``None`` for the partitioner to choose. ``timestamp``
    is in milliseconds since 1970 UTC, ``None`` for the time of sending. Schemas are to be the same objects for all
    records of one kind: converters compile them once.
    """

    topic: str
    key_schema: Schema | None
    key: Any
    value_schema: Schema | None
    value: Any
    partition: int | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp: int | None = None
    position: bytes = b""
    """Text of the `Position` of a source's record; empty where positions say nothing."""
    compacted: bool = False
    """Whether the topic is to keep the last record of every key, if it is to be created."""
