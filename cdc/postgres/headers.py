"""Debezium's headers: the other key of a row that changed it, and the context of a record."""

from __future__ import annotations

import uuid
from typing import Any, Final

from cdc.codec.connect_rows import row_values
from cdc.codec.header_text import header_text
from cdc.postgres.config import PostgresConfig
from cdc.record import RowChange

__all__ = ["NEW_KEY", "OLD_KEY", "context_headers", "key_header"]

NEW_KEY: Final = "__debezium.newkey"
"""On the delete, and its tombstone, of a row that got another key: that key."""
OLD_KEY: Final = "__debezium.oldkey"
"""On the create that follows: the key before."""
_PLAN: Final = object()


def key_header(name: str, change: RowChange) -> tuple[str, bytes]:
    """A header with the record key of ``change``. `cdc.errors.DataError` for a key that is not known or not exact."""
    shape = change.shape
    keys: Any = shape.plans.get(_PLAN)
    if keys is None:
        keys = shape.plans[_PLAN] = row_values(shape, "").key
    if shape.key_schema is None:
        raise ValueError(f"{shape.topic} has no key")
    return name, header_text(shape.key_schema, keys(change)).encode()


def context_headers(config: PostgresConfig, task: int) -> tuple[tuple[str, bytes], ...]:
    """What ``extended.headers.enabled`` adds to every record of one run of a task, as Debezium 3.6 writes it."""
    context = {
        "connectorLogicalName": config.topic_prefix,
        "taskId": str(task),
        "connectorName": "postgresql",
        "runId": str(uuid.uuid4()),
    }
    return tuple((f"__debezium.context.{name}", value.encode()) for name, value in context.items())
