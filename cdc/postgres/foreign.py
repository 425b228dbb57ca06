"""Debezium's properties that have no field in `cdc.postgres.config.PostgresConfig`: what they come to here.

A configuration that Debezium takes is taken. What makes no difference here is accepted with a warning that says why;
what would change records or positions, and is not done here, is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["FOREIGN", "FOREIGN_PREFIXES"]

_QUEUE = "memory is bounded in bytes, and records are written as they come"
_SNAPSHOT = "snapshots are read in chunks beside the stream, each in one consistent transaction, without locks"
_RETRY = "what is away is waited for; what an operator must mend fails the task, which is restarted with backoff"
_EXACT = "positions are checked against the slot at every start, and a gap stops the task"
_SIGNALS = "signals are read by the worker's consumer, from its own brokers"
_NO_CODE = "classes of Java cannot be loaded"
_CONNECT = "the worker decides"

FOREIGN: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    **dict.fromkeys(
        (
            *("poll.interval.ms", "poll.dispatch.interval.ms", "max.batch.size", "max.queue.size"),
            *("max.queue.size.in.bytes", "queue.provider.type"),
        ),
        ((), _QUEUE),
    ),
    **dict.fromkeys(
        (
            *("snapshot.isolation.mode", "snapshot.locking.mode", "snapshot.lock.timeout.ms"),
            *("snapshot.max.threads.multiplier", "snapshot.query.mode", "snapshot.tables.order.by.row.count"),
            *("snapshot.delay.ms", "streaming.delay.ms", "legacy.snapshot.max.threads"),
            *("min.row.count.to.stream.results", "incremental.snapshot.chunk.size"),
            *("incremental.snapshot.watermarking.strategy", "incremental.snapshot.allow.schema.changes"),
        ),
        ((), _SNAPSHOT),
    ),
    **dict.fromkeys(
        (
            *("slot.max.retries", "slot.retry.delay.ms", "retriable.restart.connector.wait.ms", "errors.max.retries"),
            *("create.slot.command.timeout", "database.query.timeout.ms", "database.tcpkeepalive"),
            *("database.tcpKeepAlive", "connection.validation.timeout.ms", "errors.retry.delay.initial.ms"),
            "executor.shutdown.timeout.ms",
        ),
        ((), _RETRY),
    ),
    **dict.fromkeys(
        ("offset.mismatch.strategy", "lsn.flush.timeout.ms", "lsn.flush.timeout.action", "xmin.fetch.interval.ms"),
        ((), _EXACT),
    ),
    **dict.fromkeys(
        (
            *("exactly.once.support", "transaction.boundary", "transaction.boundary.interval.ms"),
            *("config.action.reload", "tasks.max.enforce", "offsets.storage.topic"),
            *("header.converter", "topic.creation.groups"),
        ),
        ((), _CONNECT),
    ),
    **dict.fromkeys(
        ("statistics.metrics.enabled", "custom.metric.tags", "advanced.metrics.enable"),
        ((), "metrics are the worker's"),
    ),
    **dict.fromkeys(
        ("notification.enabled.channels", "notification.sink.topic.name", "signal.poll.interval.ms"),
        ((), "notifications are the worker's log and its status"),
    ),
    "lsn.flush.mode": (("connector", "connector_and_driver"), _EXACT),
    "flush.lsn.source": (("true",), "positions are acknowledged as they become durable, or the WAL would grow"),
    "slot.drop.on.stop": (("false",), "a dropped slot is a gap"),
    "slot.stream.params": (("",), "the parameters of the stream are part of the stored position"),
    "schema.refresh.mode": ((), "schemas come from the stream"),
    "include.unknown.datatypes": ((), "columns of every type are captured, those that Debezium leaves out as text"),
    "table.ignore.builtin": (("true",), "tables of the system are not captured"),
    "event.processing.failure.handling.mode": (("fail",), "a record is never left out"),
    "event.converting.failure.handling.mode": ((), "every value can be written"),
    **dict.fromkeys(
        ("signal.kafka.bootstrap.servers", "signal.kafka.groupId", "signal.kafka.poll.timeout.ms"), ((), _SIGNALS)
    ),
    "signal.file": ((), "there is no channel file"),
    "guardrail.collections.max": (("0",), "the number of tables is not limited"),
    "guardrail.limit.action": ((), "the number of tables is not limited"),
    "openlineage.integration.enabled": (("false",), "lineage is not told"),
    "post.processors": (("",), _NO_CODE + "; for unavailable values see toast.handling.mode"),
    "converters": (("",), _NO_CODE),
    "database.initial.statements": (("",), "settings of the session are pinned, so that values have one text"),
    "sourceinfo.struct.maker": (("",), _NO_CODE),
    "transaction.metadata.factory": (("io.debezium.pipeline.txmetadata.DefaultTransactionMetadataFactory",), _NO_CODE),
    "topic.naming.strategy": (
        (
            "io.debezium.schema.SchemaTopicNamingStrategy",
            "io.debezium.schema.DefaultTopicNamingStrategy",
            "SchemaTopicNamingStrategy",
        ),
        "topics are named <topic.prefix>.<schema>.<table>",
    ),
    "topic.cache.size": ((), "topics are remembered with their tables"),
}
"""Property → the values that can be accepted (none listed: all), and why it changes nothing, or cannot."""

FOREIGN_PREFIXES: Final[Mapping[str, str]] = {
    "internal.": "internals of Debezium",
    "openlineage.integration.": "lineage is not told",
    "driver.": "there is no JDBC driver",
    "signal.consumer.": _SIGNALS,
}
"""Prefixes of properties that are accepted whatever they say, and why."""
