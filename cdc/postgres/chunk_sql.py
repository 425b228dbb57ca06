"""The statements that read a chunk of a table's rows, in the transaction that the caller has begun.

Rows are read by COPY, as text, so that a value has the same bytes here and in the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from typing import Final

import psycopg
from psycopg import sql

from cdc.errors import FatalError, RetriableError
from cdc.postgres.catalog import TableInfo, qualified
from cdc.postgres.connection import Connection
from cdc.postgres.copytext import parse_row
from cdc.postgres.touched import DatabaseSnapshot
from cdc.record import RawRow

__all__ = [
    "CHUNK_BYTES",
    "Describe",
    "TableGone",
    "check_condition",
    "check_files",
    "check_statement",
    "copy_lines",
    "described",
    "first_rows",
    "has_rows",
    "key_text",
    "lock_table",
    "select_range",
    "select_rows",
    "source_of",
    "writers",
]

CHUNK_BYTES: Final = 8 << 20
"""A chunk ends at this size even before it has its number of rows."""

Describe = Callable[[Connection, int], "TableInfo | None"]
"""The table with this OID as it is captured, seen by the connection's transaction."""


class TableGone(FatalError):
    """The table cannot be read any more; others can."""


def lock_table(connection: Connection, schema: str, name: str) -> None:
    """Hold the table against DDL, before the snapshot is taken.

    TRUNCATE and the rewriting forms of ALTER TABLE are not MVCC-safe: to a snapshot that is older than their commit the
    table is empty, and a chunk that waited for their lock would take it for read to its end.
    """
    try:
        # Without ONLY: partitions are locked too, and so are other heirs, which does no harm.
        connection.execute(sql.SQL("lock table {} in access share mode").format(qualified(schema, name)))
    except psycopg.errors.UndefinedTable:
        raise _gone(f"{schema}.{name}") from None


def _gone(full_name: str) -> FatalError:
    return TableGone(
        f"the table {full_name} was dropped or renamed while its rows were being read. "
        "Remedy: remove it from table.include.list"
    )


def described(
    connection: Connection, oid: int, full_name: str, describe: Describe
) -> tuple[DatabaseSnapshot, TableInfo]:
    """The running transaction's snapshot and the table as it sees it."""
    row = connection.execute("select pg_current_snapshot()::text, pg_is_in_recovery()").fetchone()
    table = describe(connection, oid)
    if table is None or row is None:
        raise _gone(full_name)
    return DatabaseSnapshot.parse(row[0], standby=row[1]), table


def check_files(connection: Connection, table: TableInfo) -> None:
    """`RetriableError` when the locked table was rewritten or truncated after the transaction's snapshot was taken.

    To that snapshot the new file is empty (see `lock_table`). Its catalog is compared with the one of now.
    """
    query = sql.SQL(
        "select from pg_class c where c.relkind = 'r' and c.relfilenode is distinct from pg_relation_filenode(c.oid)"
        " and (c.oid = {0} or c.oid in (select relid from pg_partition_tree({0}))) limit 1"
    ).format(sql.Literal(table.oid))
    if connection.execute(query).fetchone() is not None:
        raise RetriableError(
            f"{table.full_name} was rewritten after its snapshot was exported: starting again, to read it in another"
        )


def check_condition(connection: Connection, table: TableInfo, condition: str) -> None:
    """Have the server look at a condition before it becomes part of a statement. Its error is psycopg's.

    It must be one expression of the table's columns: text that ends the parentheses around it would have to go on with
    THEN in the one statement, and could not in the other. Both are prepared, which takes single statements only.
    """
    wrapped = sql.SQL("(\n") + sql.SQL(condition) + sql.SQL("\n)")
    for statement in (
        sql.SQL("select case when {} then true end from {} limit 0").format(wrapped, table.source),
        sql.SQL("select from {} where {} limit 0").format(table.source, wrapped),
    ):
        connection.execute(statement, prepare=True)


def check_statement(connection: Connection, table: TableInfo, statement: str) -> None:
    """Have the server look at an operator's SELECT: one statement with all captured columns. Its error is psycopg's."""
    connection.execute(select_rows(table, source=_given(statement)) + sql.SQL(" limit 0"), prepare=True)


def _given(statement: str) -> sql.Composed:
    return sql.SQL("(\n") + sql.SQL(statement) + sql.SQL("\n) given")


def source_of(table: TableInfo, statement: str) -> sql.Composed:
    """Where the rows of the table come from."""
    return _given(statement) if statement else table.source


def select_rows(table: TableInfo, *conditions: sql.Composable, source: sql.Composed | None = None) -> sql.Composed:
    """All rows that the publication tells of and that fulfil the conditions."""
    published = [] if table.row_filter is None else [sql.SQL("({})").format(sql.SQL(table.row_filter))]
    where = sql.SQL(" and ").join([*published, *conditions])
    return sql.SQL("select {} from {}{}{}").format(
        sql.SQL(", ").join(sql.Identifier(column.name) for column in table.columns),
        table.source if source is None else source,
        sql.SQL(" where " if published or conditions else ""),
        where,
    )


def select_range(
    table: TableInfo,
    key: tuple[str, ...],
    after: list[str | None] | None,
    limit: int,
    *conditions: sql.Composable,
    source: sql.Composed | None = None,
) -> sql.Composed:
    """At most ``limit`` of these rows in the order of ``key``, those behind the key ``after``."""
    columns = sql.SQL(", ").join(sql.Identifier(name) for name in key)
    beyond = []
    if after is not None:
        types = {column.name: column.type_name for column in table.columns}
        # format_type() has quoted the type's name already.
        values = sql.SQL(", ").join(
            sql.SQL("{}::{}").format(sql.Literal(value), sql.SQL(types[name]))
            for name, value in zip(key, after, strict=True)
        )
        beyond.append(sql.SQL("({}) > ({})").format(columns, values))
    rows = select_rows(table, *beyond, *conditions, source=source)
    return rows + sql.SQL(" order by {} limit {}").format(columns, sql.Literal(limit))


def first_rows(connection: Connection, query: sql.Composed, width: int, limit: int) -> tuple[list[RawRow], int, bool]:
    """At most ``limit`` rows and about `CHUNK_BYTES`; their bytes, and whether there are more."""
    rows: list[RawRow] = []
    size = 0
    with closing(copy_lines(connection, query)) as lines:
        for line in lines:
            if len(rows) >= limit or size >= CHUNK_BYTES:
                return rows, size, True
            rows.append(parse_row(line[:-1], width))
            size += len(line)
    return rows, size, False


def copy_lines(connection: Connection, query: sql.Composed) -> Generator[bytes, None, None]:
    """The lines of a COPY. Closed early, the COPY is cancelled (psycopg does so on any exception)."""
    with connection.cursor() as cursor, cursor.copy(sql.SQL("copy ({}) to stdout").format(query)) as copy:
        for data in copy:
            yield bytes(data)


def has_rows(connection: Connection, schema: str, name: str) -> bool:
    """Whether the table has a row now; one that is gone counts as having, which is said when its turn comes."""
    try:
        row = connection.execute(sql.SQL("select exists (select from {})").format(qualified(schema, name))).fetchone()
    except psycopg.errors.UndefinedTable:
        return True
    return row is None or bool(row[0])


def writers(connection: Connection, oid: int) -> dict[str, int]:
    """The transactions that write to the table or its partitions now: virtual id → pid, 0 of a prepared one."""
    query = sql.SQL(
        "select virtualtransaction, coalesce(pid, 0) from pg_locks where locktype = 'relation' and granted"
        " and relation in (select {0} union all select relid::oid from pg_partition_tree({0}))"
        " and database = (select oid from pg_database where datname = current_database())"
        " and mode in ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')"
    ).format(sql.Literal(oid))
    return {row[0]: row[1] for row in connection.execute(query).fetchall()}


def key_text(value: object) -> str | None:
    """A value of a key as text, to go on behind it."""
    return value.decode() if isinstance(value, bytes) else None
