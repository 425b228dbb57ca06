"""What the role may not do that the task will need: read the chosen tables, and make the publication."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from cdc.errors import Finding
from cdc.postgres.catalog import TableInfo, publication_tables, qualified
from cdc.postgres.config import PostgresConfig
from cdc.postgres.connection import Connection

__all__ = ["privilege_findings"]

_UNREADABLE = """
select c.oid, has_schema_privilege(c.relnamespace, 'USAGE')
from pg_class c
where c.oid = any(%s::oid[]) and not (
    has_schema_privilege(c.relnamespace, 'USAGE') and (
        has_table_privilege(c.oid, 'SELECT') or (
            select bool_and(has_column_privilege(c.oid, a.attnum, 'SELECT'))
            from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped)))
"""

_CANNOT_PUBLISH = """
select not has_database_privilege(current_database(), 'CREATE')
    or exists (select from pg_class where oid = any(%s::oid[]) and not pg_has_role(relowner, 'USAGE'))
"""


def privilege_findings(connection: Connection, config: PostgresConfig, tables: Sequence[TableInfo]) -> list[Finding]:
    """What the connected role lacks, each with the statement that an owner runs to give it."""
    role = sql.Identifier(config.database_user)
    oids = [table.oid for table in tables]
    usage = {oid: bool(may) for oid, may in connection.execute(_UNREADABLE, (oids,)).fetchall()}
    findings = []
    for table in tables:
        if table.oid not in usage:
            continue
        name = qualified(table.schema, table.name)
        grant = sql.SQL("GRANT SELECT ON {} TO {};").format(name, role)
        if not usage[table.oid]:
            grant = sql.SQL("GRANT USAGE ON SCHEMA {} TO {}; {}").format(sql.Identifier(table.schema), role, grant)
        findings.append(
            Finding(
                f"the role {config.database_user} may not read {table.full_name}",
                key="database.user",
                remedy=grant.as_string(connection),
            )
        )
    if tables and publication_tables(connection, config.publication) is None:
        findings += _publication_findings(connection, config, tables)
    return findings


def _publication_findings(connection: Connection, config: PostgresConfig, tables: Sequence[TableInfo]) -> list[Finding]:
    disabled = config.publication_autocreate_mode == "disabled"
    row = connection.execute(_CANNOT_PUBLISH, ([table.oid for table in tables],)).fetchone()
    if not disabled and row is not None and not row[0]:
        return []
    why = (
        "and publication.autocreate.mode is disabled"
        if disabled
        else f"and the role {config.database_user} may not create it: that takes CREATE on the database and owning "
        "the tables"
    )
    listed = sql.SQL(", ").join(qualified(table.schema, table.name) for table in tables)
    create = sql.SQL("CREATE PUBLICATION {} FOR TABLE {};").format(sql.Identifier(config.publication), listed)
    return [
        Finding(
            f"the publication {config.publication} does not exist, {why}",
            key="publication.name",
            remedy=create.as_string(connection),
        )
    ]
