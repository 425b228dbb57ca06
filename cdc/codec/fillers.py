"""What is written for a value that is not there, as Debezium writes it."""

from __future__ import annotations

from typing import Any

from cdc.codec.avro_binary import zero
from cdc.codec.connect_json import value_from_json
from cdc.record import NO_DEFAULT, Column

__all__ = ["missing", "nothing"]


def missing(column: Column) -> Any:
    """For an image that does not carry the column (the old row of a DELETE under REPLICA IDENTITY DEFAULT): null, else
    the column's default, else zero. A native value."""
    schema = column.schema
    if schema.optional or schema.default is NO_DEFAULT:
        return nothing(column)
    return value_from_json(schema, schema.default)


def nothing(column: Column) -> Any:
    """For a value that nothing is known of: null, else the zero of the type. A native value."""
    if column.schema.optional:
        return None
    if column.kind == "numeric_text":
        return "0"
    if column.kind == "money_text":
        return "0" + f".{'0' * column.params[0]}" * bool(column.params[0])
    return zero(column.schema)
