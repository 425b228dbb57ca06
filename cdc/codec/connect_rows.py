"""From changes of rows to native values of Debezium's schemas: for those who ask for values instead of bytes.

Transforms and general converters do; the way of most records is `cdc.codec.avro_rows`, which writes the same values as
bytes without making them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from cdc.codec.fillers import missing, nothing
from cdc.codec.values import Inexact, Reader, reader
from cdc.errors import DataError, TableError
from cdc.record import (
    HEADER_TEXT,
    HEADER_UNKNOWN,
    UNCHANGED,
    Column,
    ConnectRecord,
    RawRow,
    RowChange,
    RowShape,
    Transaction,
)

__all__ = ["RowValues", "SourceConstants", "row_values", "source_value"]


class SourceConstants(NamedTuple):
    """What ``source`` says in every record: our version, Debezium's word for the connector, ``topic.prefix``."""

    version: str
    name: str
    connector: str = "postgresql"


class RowValues(NamedTuple):
    """How the changes of one shape become native values.

    ``key(change)`` is the struct of the record's key, ``None`` for a table without key; ``envelope(change, now_us)`` is
    Debezium's envelope, ``None`` for a tombstone, and adds to ``change.headers`` what the schema has no place for, as
    `cdc.plugin.ValueEncoder` does. `TableError` for a key that is not known or not exact,
    `DataError` for text that Postgres cannot have printed.
    """

    key: Callable[[RowChange], dict[str, Any] | None]
    envelope: Callable[[RowChange, int], dict[str, Any] | None]

    def record(self, change: RowChange, now_us: int) -> ConnectRecord:
        """The whole record, schemas included. Its position is the change's."""
        shape = change.shape
        envelope = self.envelope(change, now_us)
        return ConnectRecord(
            topic=shape.topic,
            key_schema=shape.key_schema,
            key=self.key(change),
            value_schema=None if envelope is None else shape.envelope_schema,
            value=envelope,
            headers=tuple(change.headers),
            position=change.tx.position_prefix + b"%08x.%08x" % (change.ordinal, change.index),
            compacted=bool(shape.key),
        )


def row_values(shape: RowShape, version: str) -> RowValues:
    """Compile the values of a shape. ``version`` is ours, for ``source``."""
    source = SourceConstants(version, shape.server)
    columns, topic = shape.columns, shape.topic
    readers = [reader(column.kind, column.params) for column in columns]
    absent = [missing(column) for column in columns]
    key_parts = [(columns[at].name, at) for at in shape.key]

    def image(row: RawRow, notes: dict[str, str | None], *, old: bool) -> dict[str, Any]:
        if len(row) != len(columns):
            raise DataError(f"{topic}: a row of {len(row)} values where the table has {len(columns)} columns")
        struct: dict[str, Any] = {}
        for column, read, filler, text in zip(columns, readers, absent, row, strict=True):
            if text is None or text is UNCHANGED:
                struct[column.name] = filler if text is None else nothing(column)
                if text is None and not old and not column.schema.optional:
                    notes[column.name] = None
            else:
                struct[column.name] = _value(topic, column, read, text, notes)
        return struct

    def key(change: RowChange) -> dict[str, Any] | None:
        row = change.key_row
        if row is None or not key_parts:
            return None
        notes: dict[str, str | None] = {}
        struct: dict[str, Any] = {}
        for name, at in key_parts:
            text = row[at]
            if text is None and columns[at].schema.optional:
                struct[name] = None
            elif text is None or text is UNCHANGED:
                notes[name] = None
            else:
                struct[name] = _value(topic, columns[at], readers[at], text, notes)
        if notes:
            raise TableError(
                f"{topic}: the record key ({', '.join(notes)}) is not known or not exact in its schema, so two rows "
                "could get one key. Give the column a type that is exact (numeric with a scale)"
            )
        return struct

    def envelope(change: RowChange, now_us: int) -> dict[str, Any] | None:
        if not change.op:
            return None
        notes: dict[str, str | None] = {}
        before = None if change.before is None else image(change.before, {}, old=True)
        after = None if change.after is None else image(change.after, notes, old=False)
        if notes:
            _add_header(change, HEADER_TEXT, notes)
        if change.unknown and after is not None:
            _add_header(change, HEADER_UNKNOWN, list(change.unknown))
        return {
            "before": before,
            "after": after,
            "source": source_value(source, change.tx, change.lsn, shape.db, shape.schema, shape.table, change.marker),
            "transaction": None if change.block is None else change.block._asdict(),
            "op": change.op,
            "ts_ms": now_us // 1000,
            "ts_us": now_us,
            "ts_ns": now_us * 1000,
        }

    return RowValues(key, envelope)


def source_value(
    source: SourceConstants, tx: Transaction, lsn: int, db: str, schema: str, table: str, marker: str | None = None
) -> dict[str, Any]:
    """The native value of ``source`` (`cdc.codec.envelope.SOURCE`)."""
    last = "null" if tx.last_commit_lsn is None else f'"{tx.last_commit_lsn}"'
    return {
        "version": source.version,
        "connector": source.connector,
        "name": source.name,
        "ts_ms": tx.commit_us // 1000,
        # Debezium leaves the marker of a streamed record unset: its readers see the schema's default.
        "snapshot": marker or "false",
        "db": db,
        "sequence": f'[{last},"{lsn}"]',
        "ts_us": tx.commit_us,
        "ts_ns": tx.commit_us * 1000,
        "schema": schema,
        "table": table,
        "txId": tx.xid,
        "lsn": lsn,
        "xmin": None,
        "origin": None,
        "origin_lsn": None,
    }


def _value(topic: str, column: Column, read: Reader, text: bytes, notes: dict[str, str | None]) -> Any:
    try:
        value = read(text)
    except ValueError as fault:
        raise DataError(
            f"{topic}: column {column.name!r} of type {column.schema.name or column.schema.type}: {fault}. "
            "The text is not what Postgres prints for this type; has the table changed?"
        ) from fault
    if isinstance(value, Inexact):
        notes[column.name] = value.text
        return nothing(column) if value.fallback is None else value.fallback
    return value


def _add_header(change: RowChange, name: str, value: dict[str, str | None] | Sequence[str]) -> None:
    """Add a header in JSON, once: a change may be written again after a failed send."""
    kept = [header for header in change.headers if header[0] != name]
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    change.headers = (*kept, (name, data))
