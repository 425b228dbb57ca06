"""Unchanged TOAST that is not read again (``toast.handling.mode`` mark and placeholder). Pure.

Either way the columns are named in the header ``cdc.unknown``. A placeholder is Debezium's, and only where Debezium
writes one that cannot be taken for a value: text, JSON, bytes and arrays of text. Elsewhere (numbers that spell the
placeholder in an int[], a made-up uuid) the value is missing.
"""

from __future__ import annotations

from collections.abc import Sequence

from cdc.postgres.captured_table import Reselect
from cdc.record import Column

__all__ = ["mark_unknown", "placeholder_text"]


def mark_unknown(pending: Sequence[Reselect], placeholder: bytes | None) -> None:
    """Name the unchanged columns of all changes; fill them with the ``placeholder``, if there is one."""
    for item in pending:
        columns = item.table.shape.columns
        item.change.unknown = [columns[place].name for place in item.columns]
        if placeholder is None or item.change.after is None:
            continue
        for place in item.columns:
            text = placeholder_text(columns[place], placeholder)
            if text is not None:
                item.change.after[place] = text


def placeholder_text(column: Column, placeholder: bytes) -> bytes | None:
    """What Postgres would print if the column held the placeholder; ``None`` for a type that has none."""
    if column.kind == "bytes":
        return b"\\x" + placeholder.hex().encode("ascii")
    try:
        placeholder.decode("utf-8")
    except ValueError:
        return None
    if column.kind == "text" and column.schema.name != "io.debezium.data.Enum":
        return placeholder
    if column.kind == "array" and column.params[0] == "text":
        quoted = placeholder.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        return b'{"' + quoted + b'"}'
    return None
