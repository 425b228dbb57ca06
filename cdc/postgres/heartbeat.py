"""Heartbeats: a record now and then, and a statement run in the database."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable
from typing import Final

import psycopg
import structlog

from cdc.errors import CdcError
from cdc.postgres.config import PostgresConfig
from cdc.postgres.connection import Connection
from cdc.record import ConnectRecord, Field, Schema

__all__ = ["Heartbeat"]

_log = structlog.get_logger(__name__)

_NAMESPACE: Final = "io.debezium.connector.common"
_KEY: Final = Schema(
    "struct", name=f"{_NAMESPACE}.ServerNameKey", version=1, fields=(Field("serverName", Schema("string")),)
)
_VALUE: Final = Schema("struct", name=f"{_NAMESPACE}.Heartbeat", version=1, fields=(Field("ts_ms", Schema("int64")),))


class Heartbeat:
    """Beats every ``heartbeat.interval.ms``; never, when that is 0.

    The statement of ``heartbeat.action.query`` runs in a thread and on a connection of its own, so that a lock it waits
    for holds up nothing; while it runs, the next one is left out. Its errors are logged: they are no fault of the
    stream.
    """

    def __init__(self, config: PostgresConfig, connect: Callable[[], Connection]) -> None:
        self._interval = config.heartbeat_interval_ms / 1000
        self._topic = config.topic_heartbeat_name or config.topic_delimiter.join(
            (config.topic_heartbeat_prefix, config.topic_prefix)
        )
        self._server = config.topic_prefix
        self._query = config.heartbeat_action_query
        self._connect = connect
        self._last = time.monotonic()
        self._acting: concurrent.futures.ThreadPoolExecutor | None = None
        self._action: concurrent.futures.Future[None] | None = None

    @property
    def wait(self) -> float | None:
        """Seconds until the next beat; ``None`` when there is none."""
        return max(0.0, self._last + self._interval - time.monotonic()) if self._interval else None

    def records(self) -> list[ConnectRecord]:
        """The beat that is due, if one is."""
        if self.wait != 0.0:
            return []
        self._last = time.monotonic()
        if self._query:
            self._act()
        value = {"ts_ms": time.time_ns() // 1_000_000}
        return [ConnectRecord(self._topic, _KEY, {"serverName": self._server}, _VALUE, value)]

    def close(self) -> None:
        """Wait for no statement. A running one ends with its connection."""
        if self._acting is not None:
            self._acting.shutdown(wait=False, cancel_futures=True)

    def _act(self) -> None:
        if self._action is not None and not self._action.done():
            _log.warning("the heartbeat's statement is still running: not run again", query=self._query)
            return
        if self._acting is None:
            self._acting = concurrent.futures.ThreadPoolExecutor(1, "heartbeat")
        self._action = self._acting.submit(self._run)

    def _run(self) -> None:
        try:
            with self._connect() as connection:
                connection.execute(self._query.encode())
        except (psycopg.Error, CdcError) as error:
            _log.warning("the heartbeat's statement failed", query=self._query, cause=" ".join(str(error).split()))
