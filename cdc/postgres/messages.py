"""Records of `pg_logical_emit_message`: Debezium's message events, on ``<topic.prefix>.message``."""

from __future__ import annotations

import re
import time
from importlib.metadata import version
from typing import Final

from cdc.codec.connect_rows import SourceConstants, source_value
from cdc.codec.envelope import SOURCE, TRANSACTION
from cdc.postgres.config import PostgresConfig
from cdc.postgres.pgoutput import LogicalMessage
from cdc.postgres.position import CONTROL_PREFIX
from cdc.record import ConnectRecord, Field, Schema, Transaction

__all__ = ["KEY", "VALUE", "Messages"]

_OPTIONAL_STRING: Final = Schema("string", optional=True)
_NAMESPACE: Final = "io.debezium.connector.postgresql"

KEY: Final = Schema("struct", name=f"{_NAMESPACE}.MessageKey", version=1, fields=(Field("prefix", _OPTIONAL_STRING),))
VALUE: Final = Schema(
    "struct",
    name=f"{_NAMESPACE}.MessageValue",
    version=1,
    fields=(
        Field("op", Schema("string")),
        Field("ts_ms", Schema("int64", optional=True)),
        Field("source", SOURCE),
        Field("transaction", TRANSACTION),
        Field(
            "message",
            Schema(
                "struct",
                name=f"{_NAMESPACE}.Message",
                version=1,
                fields=(Field("prefix", _OPTIONAL_STRING), Field("content", Schema("bytes", optional=True))),
            ),
        ),
    ),
)


class Messages:
    """Makes records of the messages that ``message.prefix.include.list`` and ``.exclude.list`` choose.

    Those whose prefix begins with ``cdc.`` are our own, and told to nobody.
    """

    def __init__(self, config: PostgresConfig) -> None:
        self._topic = config.topic_named("message")
        self._source = SourceConstants(version("cdc"), config.topic_prefix)
        self._database = config.database_dbname
        self._include = _patterns(config.message_prefix_include_list)
        self._exclude = _patterns(config.message_prefix_exclude_list)

    def record(self, message: LogicalMessage, tx: Transaction, ordinal: int) -> ConnectRecord | None:
        """The record of a message at its place in ``tx``; ``None`` for one that is not chosen."""
        prefix = message.prefix
        if prefix.startswith(CONTROL_PREFIX) or _any(self._exclude, prefix):
            return None
        if self._include and not _any(self._include, prefix):
            return None
        value = {
            "op": "m",
            "ts_ms": time.time_ns() // 1_000_000,
            "source": source_value(self._source, tx, message.lsn, self._database, "", ""),
            "transaction": None,
            "message": {"prefix": prefix, "content": message.content},
        }
        position = tx.position_prefix + b"%08x.%08x" % (ordinal, 0)
        return ConnectRecord(self._topic, KEY, {"prefix": prefix}, VALUE, value, position=position)


def _patterns(expressions: str) -> list[re.Pattern[str]]:
    return [re.compile(part.strip()) for part in expressions.split(",") if part.strip()]


def _any(patterns: list[re.Pattern[str]], prefix: str) -> bool:
    return any(pattern.fullmatch(prefix) for pattern in patterns)
