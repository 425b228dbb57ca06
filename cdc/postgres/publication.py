"""The connector's publication: made, kept to the chosen tables, and refused when it would tell less than they need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql

from cdc.errors import FatalError, GapError
from cdc.postgres.catalog import GENERATED_SINCE, TableInfo, publication_tables, qualified, read_table
from cdc.postgres.choice import Chosen
from cdc.postgres.config import PostgresConfig
from cdc.postgres.connection import Connection, translate
from cdc.postgres.pgoutput import format_lsn
from cdc.postgres.position import StoredPosition
from cdc.postgres.preparation import reset_remedy

__all__ = ["all_tables_warnings", "ensure_publication"]

_HARMED = """
select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and c.relpersistence = 'p' and n.nspname <> 'information_schema' and n.nspname not like 'pg\\_%'
  and (c.relreplident = 'n' or c.relreplident = 'd' and not exists (
    select from pg_index i where i.indrelid = c.oid and i.indisprimary))
order by 1
"""


def all_tables_warnings(connection: Connection, config: PostgresConfig, chosen: Chosen) -> list[str]:
    """Tables that a publication of all tables harms, though nobody has chosen them."""
    if config.publication_autocreate_mode != "all_tables":
        return []
    mine = {table.full_name for table in chosen.tables}
    harmed = [row[0] for row in connection.execute(_HARMED).fetchall() if row[0] not in mine]
    if not harmed:
        return []
    return [
        "publication.autocreate.mode is all_tables, and these tables have no replica identity: the application cannot "
        f"change or remove their rows: {', '.join(harmed)}. Set it to filtered, or give them a primary key"
    ]


def ensure_publication(
    connection: Connection,
    config: PostgresConfig,
    tables: Sequence[TableInfo],
    stored: StoredPosition | None = None,
    told: Mapping[int, Mapping[str, Any]] | None = None,
) -> set[int]:
    """The publication publishes exactly the chosen tables (mode filtered), or at least them.

    ``told`` are the stored offsets of tables whose rows were told before (OID now → offset). The answer are those that
    left the publication since ``stored``: nobody knows what changed meanwhile, they must be read again.
    """
    name = config.publication
    found = publication_tables(connection, name)
    identifier = sql.Identifier(name)
    rooted = any(table.kind == "p" and table.streamed for table in tables)
    if found is None and stored is not None:
        raise GapError(
            f"the publication {name} is gone, or the stream had another one until {format_lsn(stored.lsn)}: changes "
            "since then are not told by a publication made now. Remedy: set publication.name back; if it was dropped, "
            + reset_remedy(config)
        )
    if found is None:
        _create(connection, config, tables, rooted=bool(config.publish_via_partition_root or rooted))
        if config.publication_autocreate_mode != "no_tables":
            return set()
        found = publication_tables(connection, name) or {}
    _refuse_root(config, found, tables)
    gaps = _gaps(config, found, tables, told or {})
    if not set("cudt") - config.skipped <= set(found["operations"]):
        every = sql.Literal("insert, update, delete, truncate")
        mend = sql.SQL("ALTER PUBLICATION {} SET (publish = {});").format(identifier, every).as_string(connection)
        raise FatalError(
            f"the publication {name} publishes only {', '.join(found['operations'])} of c, u, d, t: rows would differ "
            f"without anyone being told. Run: {mend}"
        )
    if found["all_tables"]:
        return gaps
    known = found["tables"] | found["published"]
    missing = [table for table in tables if table.oid not in known]
    if missing and config.publication_autocreate_mode in {"disabled", "no_tables"}:
        statement = sql.SQL("ALTER PUBLICATION {} ADD TABLE {};").format(identifier, _listed(missing))
        raise FatalError(
            f"the publication {name} lacks {', '.join(table.full_name for table in missing)}. "
            f"Run: {statement.as_string(connection)}"
        )
    if missing:
        _execute(connection, sql.SQL("alter publication {} add table {}").format(identifier, _listed(missing)))
    surplus = found["tables"] - {table.oid for table in tables}
    surplus -= {ancestor for table in tables for ancestor in table.ancestors}
    if surplus and config.publication_autocreate_mode == "filtered" and _owns_publication(connection, name):
        for oid in surplus:
            table = read_table(connection, oid)
            if table is not None:
                drop = qualified(table.schema, table.name)
                _execute(connection, sql.SQL("alter publication {} drop table {}").format(identifier, drop))
    return gaps


def _create(connection: Connection, config: PostgresConfig, tables: Sequence[TableInfo], *, rooted: bool) -> None:
    name, mode = sql.Identifier(config.publication), config.publication_autocreate_mode
    if mode == "disabled":
        wanted = sql.SQL("CREATE PUBLICATION {} FOR TABLE {};").format(name, _listed(tables))
        raise FatalError(
            f"the publication {config.publication} does not exist and publication.autocreate.mode is disabled. "
            f"Run: {wanted.as_string(connection)}"
        )
    options = []
    if rooted:
        options.append(sql.SQL("publish_via_partition_root = true"))
    if connection.info.server_version >= GENERATED_SINCE:
        options.append(sql.SQL("publish_generated_columns = stored"))
    what = {
        "all_tables": sql.SQL(" for all tables"),
        "no_tables": sql.SQL(""),
        "filtered": sql.SQL(" for table ") + _listed(tables),
    }[mode]
    statement = sql.SQL("create publication {}{}").format(name, what)
    if options:
        statement += sql.SQL(" with ({})").format(sql.SQL(", ").join(options))
    _execute(connection, statement)


def _listed(tables: Sequence[TableInfo]) -> sql.Composed:
    return sql.SQL(", ").join(qualified(table.schema, table.name) for table in tables)


def _owns_publication(connection: Connection, name: str) -> bool:
    """A publication that its owner made for this role is left as it is: more tables than needed do no harm."""
    row = connection.execute(
        "select pg_has_role(pubowner, 'usage') from pg_publication where pubname = %s", [name]
    ).fetchone()
    return bool(row and row[0])


def _refuse_root(config: PostgresConfig, found: Mapping[str, Any], tables: Sequence[TableInfo]) -> None:
    """Changes must be told under the names that the tables are captured by."""
    name, wanted = config.publication, config.publish_via_partition_root
    ancestors = {ancestor for table in tables for ancestor in table.ancestors}
    under_root = found["via_root"] and (found["all_tables"] or not found["tables"].isdisjoint(ancestors))
    lost = [table.full_name for table in tables if table.ancestors and table.oid not in found["published"]]
    wrong = ""
    if under_root and lost:
        wrong = f"does not tell changes of {', '.join(lost)} under that name"
    elif wanted is not None and wanted != found["via_root"] and any(t.kind == "p" or t.ancestors for t in tables):
        wrong = f"has not publish.via.partition.root={str(wanted).lower()}, as this connector has"
    if wrong:
        mend = "false" if found["via_root"] else "true"
        raise FatalError(
            f"the publication {name} {'has publish_via_partition_root, and ' if found['via_root'] else ''}{wrong}. "
            f'Run, before the first start: ALTER PUBLICATION "{name}" SET (publish_via_partition_root = {mend});'
        )


def _gaps(
    config: PostgresConfig,
    found: Mapping[str, Any],
    tables: Sequence[TableInfo],
    told: Mapping[int, Mapping[str, Any]],
) -> set[int]:
    """Tables that were read and streamed before, and are not the same, or not published, now.

    They are read again, unless that is turned off or there is no key to do so by: then a `FatalError` names them.
    """
    gaps = set()
    for table in tables:
        offset = told.get(table.oid)
        if offset is None or not table.streamed or offset.get("snapshot") in {"failed", "stopped"}:
            continue
        gap = ""
        if offset.get("oid", table.oid) != table.oid:
            gap = "was dropped and made anew since its rows were read"
        elif table.oid not in found["published"]:
            gap = f"left the publication {config.publication} since its rows were read, or was dropped and made anew"
        if gap and not (table.ordered and config.reads_again(table.schema, table.name)):
            raise GapError(
                f"{table.full_name} {gap}: what happened to its rows meanwhile was not told, and it is not read again "
                "by itself. Remedy: leave it out (table.exclude.list); or " + reset_remedy(config)
            )
        if gap:
            gaps.add(table.oid)
    return gaps


def _execute(connection: Connection, statement: sql.Composed) -> None:
    try:
        connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege as error:
        raise FatalError(
            f"preparing the publication: {' '.join(str(error).split())}. "
            f"Remedy: let the owner of the tables run: {statement.as_string(connection)};"
        ) from None
    except psycopg.errors.ReadOnlySqlTransaction:
        raise FatalError(
            "this server is a standby, where the publication cannot be made or changed. "
            f"Remedy: run on its primary: {statement.as_string(connection)};"
        ) from None
    except psycopg.Error as error:
        raise translate(error, f"running {statement.as_string(connection)}") from None
