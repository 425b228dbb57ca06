"""Before the stream: the chosen tables, the publication, the slot, and whether the stored position fits them.

Everything that could make a gap or a lie is found here and stops the task, naming the gap and the remedy
(EXACTNESS.md H2 to H5). Nothing is silently re-created.
"""

from __future__ import annotations

import difflib
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import sql

from cdc.errors import FatalError, Finding, RetriableError
from cdc.postgres.catalog import (
    SlotInfo,
    TableInfo,
    list_tables,
    publication_tables,
    qualified,
    read_settings,
    read_slot,
    read_table,
)
from cdc.postgres.config import PostgresConfig, split_list
from cdc.postgres.connection import Connection, translate
from cdc.postgres.pgoutput import format_lsn
from cdc.postgres.position import StoredPosition

__all__ = [
    "HOLDER_GRACE_S",
    "chosen_tables",
    "ensure_publication",
    "next_epoch",
    "origin_of",
    "server_findings",
    "verify_position",
    "verify_slot",
]

HOLDER_GRACE_S: Final = 30.0
"""Waited beyond wal_sender_timeout for a slot in use: a dead host's walsender lives that long (H5)."""

_PLAIN_NAME: Final = re.compile(r"[\w.$-]+")


@dataclass(frozen=True, slots=True)
class Chosen:
    """The captured tables, and what is wrong with the lists that chose them."""

    tables: list[TableInfo]
    findings: list[Finding]


def chosen_tables(connection: Connection, config: PostgresConfig) -> Chosen:
    """Tables chosen by the include and exclude lists; a plain name that does not exist is a finding."""
    existing = [(oid, schema, name) for oid, schema, name, _kind in list_tables(connection)]
    names = [f"{schema}.{name}" for _, schema, name in existing]
    findings = []
    for expression in split_list(config.table_include_list):
        if not any(re.fullmatch(expression, name) for name in names):
            near = difflib.get_close_matches(expression.replace("\\", ""), names, n=1, cutoff=0.5)
            plain = _PLAIN_NAME.fullmatch(expression.replace("\\.", "."))
            what = f"the table {expression} does not exist" if plain else f"{expression} matches no table"
            hint = f"; did you mean {near[0]}?" if near else ""
            findings.append(Finding(f"{what} in database {config.database_dbname}{hint}", key="table.include.list"))
    tables = [read_table(connection, oid) for oid, schema, name in existing if config.captures(schema, name)]
    found = [table for table in tables if table is not None]
    findings += _shared_topics(config, found)
    if not found and not findings:
        findings.append(
            Finding(f"no table of database {config.database_dbname} is chosen by the lists", key="table.include.list")
        )
    return Chosen(found, findings)


def _shared_topics(config: PostgresConfig, tables: list[TableInfo]) -> list[Finding]:
    """Two tables in one topic would overwrite each other's rows."""
    findings = []
    owners: dict[str, TableInfo] = {}
    for table in tables:
        topic = config.topic(table.schema, table.name)
        first = owners.setdefault(topic, table)
        if first is not table:
            findings.append(
                Finding(
                    f'the tables "{first.schema}"."{first.name}" and "{table.schema}"."{table.name}" would share the '
                    f"topic {topic}",
                    key="table.include.list",
                    remedy="Leave one of them out (table.exclude.list), or rename it",
                )
            )
    return findings


def server_findings(settings: Mapping[str, str]) -> list[Finding]:
    """What the server's settings forbid."""
    findings = []
    if settings.get("wal_level") != "logical":
        findings.append(
            Finding(
                f"wal_level is {settings.get('wal_level')}, logical replication needs logical",
                key="wal_level",
                remedy="ALTER SYSTEM SET wal_level = logical; then restart the server",
            )
        )
    if int(settings.get("server_version_num", "0")) < 140000:
        findings.append(
            Finding(
                f"the server is Postgres {settings.get('server_version')}, logical messages in the stream need 14",
                remedy="Upgrade the server",
            )
        )
    return findings


def ensure_publication(
    connection: Connection,
    config: PostgresConfig,
    tables: list[TableInfo],
    stored: StoredPosition | None = None,
    told: Mapping[int, Mapping[str, Any]] | None = None,
) -> None:
    """The publication publishes exactly the chosen tables (mode filtered), or at least them.

    ``told`` are the stored offsets of tables whose rows were told before (OID now → offset): what left the publication
    since ``stored`` is not taken in again, because nobody knows what changed meanwhile (`FatalError`).
    """
    name = config.publication
    found = publication_tables(connection, name)
    identifier = sql.Identifier(name)
    listed = sql.SQL(", ").join(qualified(table.schema, table.name) for table in tables)
    if found is None and stored is not None:
        raise FatalError(
            f"the publication {name} is gone, or the stream had another one until {format_lsn(stored.lsn)}: changes "
            "since then are not told by a publication made now. Remedy: set publication.name back; if it was dropped, "
            "delete this connector's offsets to take a new snapshot"
        )
    if found is not None:
        _refuse_partial(connection, name, found, tables)
        _refuse_gap(name, found, tables, told or {})
    if found is None:
        if config.publication_autocreate_mode == "disabled":
            statement = sql.SQL("CREATE PUBLICATION {} FOR TABLE {};").format(identifier, listed).as_string(connection)
            raise FatalError(
                f"the publication {name} does not exist and publication.autocreate.mode is disabled. Run: {statement}"
            )
        what = (
            sql.SQL("all tables") if config.publication_autocreate_mode == "all_tables" else sql.SQL("table ") + listed
        )
        _execute(connection, sql.SQL("create publication {} for {}").format(identifier, what))
        return
    if not set("cudt") <= set(found["operations"]):
        every = sql.Literal("insert, update, delete, truncate")
        mend = sql.SQL("ALTER PUBLICATION {} SET (publish = {});").format(identifier, every).as_string(connection)
        raise FatalError(
            f"the publication {name} publishes only {', '.join(found['operations'])} of c, u, d, t: rows would differ "
            f"without anyone being told. Run: {mend}"
        )
    if found["all_tables"]:
        return
    missing = [table for table in tables if table.oid not in found["tables"]]
    if missing and config.publication_autocreate_mode == "disabled":
        add = sql.SQL(", ").join(qualified(table.schema, table.name) for table in missing)
        statement = sql.SQL("ALTER PUBLICATION {} ADD TABLE {};").format(identifier, add).as_string(connection)
        raise FatalError(
            f"the publication {name} lacks {', '.join(table.full_name for table in missing)}. Run: {statement}"
        )
    if missing:
        add = sql.SQL(", ").join(qualified(table.schema, table.name) for table in missing)
        _execute(connection, sql.SQL("alter publication {} add table {}").format(identifier, add))
    surplus = found["tables"] - {table.oid for table in tables}
    if surplus and config.publication_autocreate_mode == "filtered" and _owns_publication(connection, name):
        for oid in surplus:
            table = read_table(connection, oid)
            if table is not None:
                drop = qualified(table.schema, table.name)
                _execute(connection, sql.SQL("alter publication {} drop table {}").format(identifier, drop))


def _owns_publication(connection: Connection, name: str) -> bool:
    """A publication that its owner made for this role is left as it is: more tables than needed do no harm."""
    row = connection.execute(
        "select pg_has_role(pubowner, 'usage') from pg_publication where pubname = %s", [name]
    ).fetchone()
    return bool(row and row[0])


def _refuse_partial(connection: Connection, name: str, found: Mapping[str, Any], tables: list[TableInfo]) -> None:
    """A snapshot tells whole tables under their own names; the stream must do the same."""
    partial = [table for table in tables if table.oid in found["partial"]]
    if partial:
        names = ", ".join(table.full_name for table in partial)
        mend = "; ".join(
            sql.SQL("ALTER PUBLICATION {0} DROP TABLE {1}; ALTER PUBLICATION {0} ADD TABLE {1}")
            .format(sql.Identifier(name), qualified(table.schema, table.name))
            .as_string(connection)
            for table in partial
        )
        raise FatalError(
            f"the publication {name} publishes {names} with a row filter or a column list, which this version does "
            f"not support: rows would differ without anyone being told. Run, before the first start: {mend};"
        )
    rooted = [table for table in tables if table.oid not in found["published"]]
    if found["via_root"] and rooted:
        statement = sql.SQL("ALTER PUBLICATION {} SET (publish_via_partition_root = false);").format(
            sql.Identifier(name)
        )
        raise FatalError(
            f"the publication {name} has publish_via_partition_root, and does not tell changes of "
            f"{', '.join(table.full_name for table in rooted)} under that name. Run: {statement.as_string(connection)}"
        )


def _refuse_gap(
    name: str, found: Mapping[str, Any], tables: list[TableInfo], told: Mapping[int, Mapping[str, Any]]
) -> None:
    """Tables that were read and streamed before, and are not the same, or not published, now."""
    for table in tables:
        offset = told.get(table.oid)
        if offset is None:
            continue
        gap = ""
        if offset.get("oid", table.oid) != table.oid:
            gap = "was dropped and made anew since its rows were read"
        elif table.oid not in found["published"]:
            gap = f"left the publication {name} since its rows were read, or was dropped and made anew"
        if gap:
            raise FatalError(
                f"{table.full_name} {gap}: what happened to its rows meanwhile was not told. Remedy: remove its rows "
                "from the sinks and delete this connector's offsets to take a new snapshot; or leave it out "
                "(table.exclude.list)"
            )


def verify_slot(slot: SlotInfo | None, config: PostgresConfig, stored: StoredPosition | None) -> None:
    """Stop when the slot is lost, foreign, or ahead of what is stored: `FatalError` names the gap."""
    name = config.slot
    if slot is None:
        if stored is None:
            return
        raise FatalError(
            f"the replication slot {name} is gone, and changes after {format_lsn(stored.lsn)} with it. "
            "Remedy: find out who dropped it, then delete this connector's offsets to take a new snapshot"
        )
    if slot.slot_type != "logical" or slot.plugin != "pgoutput":
        raise FatalError(
            f"the replication slot {name} exists but is {slot.slot_type} with plugin {slot.plugin}; "
            "expected logical with pgoutput. Remedy: choose another slot.name"
        )
    if slot.database != config.database_dbname:
        raise FatalError(
            f"the replication slot {name} belongs to database {slot.database}, not {config.database_dbname}. "
            "Remedy: choose another slot.name"
        )
    if slot.wal_status == "lost":
        since = f"changes after {format_lsn(stored.lsn)} are lost" if stored else "it cannot be streamed"
        raise FatalError(
            f"the replication slot {name} was invalidated by the server (wal_status lost): {since}. Remedy: raise "
            "max_slot_wal_keep_size, drop the slot and delete this connector's offsets to take a new snapshot"
        )
    if stored is not None and slot.confirmed_flush_lsn is not None and slot.confirmed_flush_lsn > stored.lsn:
        raise FatalError(
            f"the replication slot {name} has confirmed {format_lsn(slot.confirmed_flush_lsn)}, beyond the stored "
            f"position {format_lsn(stored.lsn)}: the changes between are not in Kafka and will not be sent "
            "again. Somebody advanced or re-created the slot, or another consumer uses it. "
            "Remedy: delete this connector's offsets to take a new snapshot"
        )


def verify_position(
    stored: StoredPosition, system: Mapping[str, Any], history: Callable[[int], str], publication: str
) -> None:
    """Stop when the stored position is not a place in this server's WAL (H4)."""
    origin = stored.origin
    if origin.get("system_identifier") != system["system_identifier"]:
        raise FatalError(
            f"the stored position belongs to the Postgres system {origin.get('system_identifier')}, this server is "
            f"{system['system_identifier']}: another cluster, or one restored from elsewhere. "
            "Remedy: point the connector at the right server, or delete its offsets to take a new snapshot"
        )
    timeline = int(origin.get("timeline", 0))
    if timeline != system["timeline"]:
        left = _left_at(history(system["timeline"]), timeline)
        if left is None or stored.lsn > left:
            where = "unknown to this server" if left is None else f"which this server left at {format_lsn(left)}"
            raise FatalError(
                f"the stored position {format_lsn(stored.lsn)} is on timeline {timeline}, {where}: this server was "
                "promoted without having received all that was streamed. "
                "Remedy: delete this connector's offsets to take a new snapshot"
            )
    if stored.lsn > system["wal_flush"]:
        raise FatalError(
            f"the stored position {format_lsn(stored.lsn)} is beyond the end of the server's WAL "
            f"{format_lsn(system['wal_flush'])}: it lost changes that were streamed (a restored backup, a standby "
            "that lagged, fsync off). Remedy: delete this connector's offsets to take a new snapshot"
        )
    if stored.open is not None and origin.get("publication") != publication:
        raise FatalError(
            f"the stream stopped inside a transaction with publication {origin.get('publication')}; with {publication} "
            "its messages cannot be counted the same. Remedy: set publication.name back, let the transaction finish, "
            "then change it"
        )


def origin_of(system: Mapping[str, Any], config: PostgresConfig) -> dict[str, Any]:
    """What a position belongs to."""
    return {
        "system_identifier": system["system_identifier"],
        "timeline": system["timeline"],
        "slot": config.slot,
        "publication": config.publication,
        "options": {"proto_version": "1", "messages": "true"},
    }


def next_epoch(stored_epoch: int) -> int:
    """An epoch above every position told so far (H2)."""
    return max(stored_epoch + 1, int(time.time()))


def wait_for_slot(
    read: Callable[[], SlotInfo | None],
    slot: str,
    sender_timeout_s: float,
    stopping: Callable[[], bool],
    tell: Callable[[str], None],
) -> None:
    """Wait until nobody holds the slot; `FatalError` naming the holder when it stays held (H5).

    ``tell`` is told what is waited for, and the empty text when it is over.
    """
    deadline = time.monotonic() + sender_timeout_s + HOLDER_GRACE_S
    pause = 0.1
    holder = ""
    while (info := read()) is not None and info.active_pid is not None:
        if holder != (holder := info.holder or f"pid {info.active_pid}"):
            tell(f"the replication slot {slot} is held by {holder}")
        if stopping():
            raise RetriableError(f"asked to stop while waiting for the replication slot {slot}")
        if time.monotonic() > deadline:
            raise FatalError(
                f"the replication slot {slot} is held by {holder}, waited "
                f"{sender_timeout_s + HOLDER_GRACE_S:.0f} s. Remedy: stop the other consumer, or choose another "
                f"slot.name; SELECT pg_terminate_backend({info.active_pid}); ends a session that is left over"
            )
        # Somebody else's session: nothing signals its end but the catalog.
        time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        pause = min(pause * 2, 2.0)
    if holder:
        tell("")


def settings_of(connection: Connection) -> dict[str, str]:
    """The settings that decide whether and how streaming works."""
    return read_settings(
        connection,
        [
            "wal_level",
            "max_replication_slots",
            "max_wal_senders",
            "wal_sender_timeout",
            "server_version",
            "server_version_num",
            "max_slot_wal_keep_size",
        ],
    )


def slot_of(connection: Connection, config: PostgresConfig) -> SlotInfo | None:
    """The connector's slot."""
    return read_slot(connection, config.slot)


def _left_at(history: str, timeline: int) -> int | None:
    """Where a timeline history file says that ``timeline`` was left."""
    for line in history.splitlines():
        fields = line.split("#", 1)[0].split()
        if len(fields) >= 2 and fields[0] == str(timeline):
            high, _, low = fields[1].partition("/")
            return (int(high, 16) << 32) | int(low, 16)
    return None


def _execute(connection: Connection, statement: sql.Composed) -> None:
    try:
        connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege as error:
        raise FatalError(
            f"preparing the publication: {' '.join(str(error).split())}. "
            f"Remedy: let the owner of the tables run: {statement.as_string(connection)};"
        ) from None
    except psycopg.Error as error:
        raise translate(error, f"running {statement.as_string(connection)}") from None
