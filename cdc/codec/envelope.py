"""Debezium's schemas around a row: key, row, source, envelope; and the shape that holds them all.

Names, order, versions and optionality are those of Debezium 3.6 for Postgres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from cdc.record import Column, Field, RowShape, Schema

__all__ = ["SOURCE", "TRANSACTION", "envelope_schema", "key_schema", "row_schema", "row_shape"]

_STRING: Final = Schema("string")
_OPTIONAL_STRING: Final = Schema("string", optional=True)
_INT64: Final = Schema("int64")
_OPTIONAL_INT64: Final = Schema("int64", optional=True)

SOURCE: Final = Schema(
    "struct",
    name="io.debezium.connector.postgresql.Source",
    version=1,
    fields=(
        Field("version", _STRING),
        Field("connector", _STRING),
        Field("name", _STRING),
        Field("ts_ms", _INT64),
        Field(
            "snapshot",
            Schema(
                "string",
                optional=True,
                name="io.debezium.data.Enum",
                version=1,
                parameters=(
                    ("allowed", "true,first,first_in_data_collection,last_in_data_collection,last,false,incremental"),
                ),
                default="false",
            ),
        ),
        Field("db", _STRING),
        Field("sequence", _OPTIONAL_STRING),
        Field("ts_us", _OPTIONAL_INT64),
        Field("ts_ns", _OPTIONAL_INT64),
        Field("schema", _STRING),
        Field("table", _STRING),
        Field("txId", _OPTIONAL_INT64),
        Field("lsn", _OPTIONAL_INT64),
        Field("xmin", _OPTIONAL_INT64),
        Field("origin", _OPTIONAL_STRING),
        Field("origin_lsn", _OPTIONAL_INT64),
    ),
)
"""``source``: where a change comes from. Times are those of the commit."""

TRANSACTION: Final = Schema(
    "struct",
    optional=True,
    name="event.block",
    version=1,
    fields=(Field("id", _STRING), Field("total_order", _INT64), Field("data_collection_order", _INT64)),
)
"""``transaction``: null unless transaction metadata is asked for."""


def row_schema(topic: str, columns: Sequence[Column]) -> Schema:
    """The struct of one row image of the table that ``topic`` carries."""
    return Schema("struct", name=f"{topic}.Value", fields=tuple(Field(c.name, c.schema) for c in columns))


def key_schema(topic: str, columns: Sequence[Column]) -> Schema:
    """The struct of a record key: ``columns`` are those of the key, in its order."""
    return Schema("struct", name=f"{topic}.Key", fields=tuple(Field(c.name, c.schema) for c in columns))


def envelope_schema(topic: str, row: Schema) -> Schema:
    """Debezium's envelope around two images of ``row``. Its times are those of processing."""
    image = replace(row, optional=True)
    return Schema(
        "struct",
        name=f"{topic}.Envelope",
        version=2,
        fields=(
            Field("before", image),
            Field("after", image),
            Field("source", SOURCE),
            Field("transaction", TRANSACTION),
            Field("op", _STRING),
            Field("ts_ms", _OPTIONAL_INT64),
            Field("ts_us", _OPTIONAL_INT64),
            Field("ts_ns", _OPTIONAL_INT64),
        ),
    )


def row_shape(
    topic: str,
    db: str,
    schema: str,
    table: str,
    columns: Sequence[Column],
    key: Sequence[int],
    server: str,
    compact: bool | None = None,
    name: str = "",
) -> RowShape:
    """The shape of one version of a table. ``key`` are indexes into ``columns``; empty for a table without key.

    ``compact`` is whether its topic keeps only the last record of a key; by default if there is a key.
    ``name`` is what the schemas' names begin with, if not ``topic``.
    """
    name = name or topic
    row = row_schema(name, columns)
    return RowShape(
        topic=topic,
        db=db,
        schema=schema,
        table=table,
        columns=tuple(columns),
        key=tuple(key),
        key_schema=key_schema(name, [columns[index] for index in key]) if key else None,
        row_schema=row,
        envelope_schema=envelope_schema(name, row),
        server=server,
        compact=bool(key) if compact is None else compact,
    )
