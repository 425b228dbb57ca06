"""Debezium's headers: the context of a record."""

from __future__ import annotations

import uuid

from cdc.postgres.config import PostgresConfig

__all__ = ["context_headers"]


def context_headers(config: PostgresConfig, task: int) -> tuple[tuple[str, bytes], ...]:
    """What ``extended.headers.enabled`` adds to every record of one run of a task, as Debezium 3.6 writes it."""
    context = {
        "connectorLogicalName": config.topic_prefix,
        "taskId": str(task),
        "connectorName": "postgresql",
        "runId": str(uuid.uuid4()),
    }
    return tuple((f"__debezium.context.{name}", value.encode()) for name, value in context.items())
