"""Looking at the catalog every few seconds, in a thread of its own: a look may wait, the stream must not.

`CatalogWatch` keeps the newest `CatalogView` for the task to take. It also adds tables to the publication, because that
too may wait for somebody's lock.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import psycopg
import structlog
from psycopg import sql

from cdc.errors import CdcError, FatalError, RetriableError
from cdc.postgres.captured import read_captured
from cdc.postgres.catalog import TableInfo, qualified
from cdc.postgres.catalog_view import NamedTable, read_fingerprints
from cdc.postgres.choice import places
from cdc.postgres.config import PostgresConfig
from cdc.postgres.connection import Connection, translate
from cdc.postgres.server import Server

__all__ = ["CatalogView", "CatalogWatch", "look"]

_log = structlog.get_logger(__name__)

_SHORTEST_S: Final = 0.1
"""Between two looks, however many Relation messages ask for one."""
_LOCK_TIMEOUT: Final = "5s"
"""Adding a table to the publication waits this long for its lock; then it is tried at the next look."""


@dataclass(frozen=True, slots=True)
class CatalogView:
    """The tables that the lists choose, as one look found them. ``infos`` has those that were new or had changed."""

    tables: Mapping[int, NamedTable]
    infos: Mapping[int, TableInfo] = field(default_factory=dict)
    unpublished: Mapping[int, str] = field(default_factory=dict)
    """Tables that could not be added to the publication, and why."""
    raw: Mapping[int, NamedTable] = field(default_factory=dict)
    """The tables before their record keys were worked out: what the next look compares with."""


def look(connection: Connection, config: PostgresConfig, before: CatalogView | None) -> CatalogView:
    """The catalog as it is now."""
    chosen = places(connection, config)
    raw = read_fingerprints(connection, config.publication, list(chosen))
    tables: dict[int, NamedTable] = {}
    infos: dict[int, TableInfo] = {}
    for oid, table in raw.items():
        if not config.captures(table.schema, table.name):
            continue  # renamed since the tables were listed
        if before is not None and before.raw.get(oid) == table:
            tables[oid] = before.tables[oid]
            continue
        info = read_captured(connection, config, oid)
        if info is None:
            continue
        published = bool(table.fingerprint.published)
        place = chosen[oid]
        infos[oid] = replace(info, published=published, streamed=place.streamed, ancestors=place.ancestors)
        numbers = {column.name: column.number for column in table.fingerprint.columns}
        key = tuple(numbers[name] for name in info.key if name in numbers)
        tables[oid] = replace(table, fingerprint=replace(table.fingerprint, key=key))
    return CatalogView(tables, infos, raw=raw)


class CatalogWatch:
    """Looks again every ``schema.refresh.ms``, and soon after `wake`. Errors of the thread are raised by `take`."""

    def __init__(self, config: PostgresConfig, server: Server) -> None:
        self._config = config
        self._server = server
        self._interval = config.schema_refresh_ms / 1000
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._view: CatalogView | None = None
        self._to_publish: dict[int, TableInfo] = {}
        self._before: CatalogView | None = None
        self._error: CdcError | None = None
        self._thread = threading.Thread(target=self._run, name="catalog", daemon=True)

    def start(self, before: CatalogView) -> None:
        """Begin to look; ``before`` is what the task has seen already."""
        self._before = before
        self._thread.start()

    def wake(self) -> None:
        """Something in the stream says that the catalog has changed."""
        self._wake.set()

    def publish(self, tables: Mapping[int, TableInfo]) -> None:
        """Add these tables to the publication before the next look."""
        with self._lock:
            self._to_publish.update(tables)
        self._wake.set()

    def take(self) -> CatalogView | None:
        """The newest view that was not taken yet."""
        if self._error is not None:
            raise self._error
        if self._view is None:
            return None
        with self._lock:
            view, self._view = self._view, None
        return view

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    # -- the thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        connection: Connection | None = None
        before = self._before
        try:
            while not self._stopping.is_set():
                self._wake.wait(self._interval)
                if self._stopping.wait(_SHORTEST_S):
                    break
                self._wake.clear()
                try:
                    if connection is None or connection.closed:
                        connection = self._server.connect()
                    failed = self._publish(connection)
                    view = look(connection, self._config, before)
                except RetriableError as error:
                    # The stream meets the same outage, and waits it out.
                    _log.warning("the catalog could not be looked at", cause=str(error))
                    continue
                before = view
                with self._lock:
                    infos = {**self._view.infos, **view.infos} if self._view is not None else view.infos
                    self._view = CatalogView(view.tables, infos, failed, view.raw)
        except CdcError as error:
            self._error = error
        finally:
            if connection is not None:
                connection.close()

    def _publish(self, connection: Connection) -> dict[int, str]:
        with self._lock:
            wanted, self._to_publish = self._to_publish, {}
        failed: dict[int, str] = {}
        for oid, table in wanted.items():
            statement = sql.SQL("alter publication {} add table {}").format(
                sql.Identifier(self._config.publication), qualified(table.schema, table.name)
            )
            try:
                with connection.transaction():
                    connection.execute(sql.SQL("set local lock_timeout = {}").format(sql.Literal(_LOCK_TIMEOUT)))
                    connection.execute(statement)
            except (psycopg.errors.DuplicateObject, psycopg.errors.UndefinedTable):
                continue  # somebody did it, or dropped the table: the look that follows tells
            except psycopg.errors.LockNotAvailable:
                with self._lock:
                    self._to_publish[oid] = table
            except psycopg.Error as error:
                cause = translate(error, "adding it to the publication")
                if not isinstance(cause, FatalError):
                    raise cause from None
                failed[oid] = f"{cause}. Remedy: let the owner of the tables run: {statement.as_string(connection)};"
        return failed
