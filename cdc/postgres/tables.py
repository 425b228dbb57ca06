"""Which tables are captured, and the shape of their rows: Relation messages completed by the catalog.

Names, types and order of the columns are the stream's, which is right in time; what the stream does not tell (NOT NULL,
defaults, the order of the primary key) is the catalog's of now, and only where it still speaks of the same column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from cdc.codec.envelope import row_shape
from cdc.errors import FatalError, Finding
from cdc.postgres.catalog import ColumnInfo, TableInfo, read_table, read_types
from cdc.postgres.changes import CapturedTable
from cdc.postgres.config import PostgresConfig
from cdc.postgres.connection import Connection
from cdc.postgres.pgoutput import Relation
from cdc.postgres.types import PgType, TypeModes, default_value, resolve
from cdc.record import NO_DEFAULT, Column, RowShape

__all__ = ["TableRegistry", "table_findings"]


class TableRegistry:
    """The captured tables of one connector, in their present versions."""

    def __init__(self, config: PostgresConfig, connection: Callable[[], Connection]) -> None:
        self._config = config
        self._connection = connection
        self._modes = TypeModes(
            decimal=config.decimal_handling_mode,
            time=config.time_precision_mode,
            binary=config.binary_handling_mode,
            hstore=config.hstore_handling_mode,
            interval=config.interval_handling_mode,
            money_fraction_digits=config.money_fraction_digits,
        )
        self._types: dict[int, PgType] = {}
        self._tables: dict[int, CapturedTable] = {}
        self.infos: dict[int, TableInfo] = {}

    def captured(self, relation: Relation) -> CapturedTable | None:
        """The table of a Relation message; ``None`` when the lists leave it out."""
        if not self._config.captures(relation.schema, relation.name):
            return None
        info = read_table(self._connection(), relation.oid)
        known = {column.name: column for column in info.columns} if info else {}
        columns = []
        for told in relation.columns:
            now = known.get(told.name)
            same = now is not None and now.type_oid == told.type_oid
            columns.append(
                ColumnInfo(
                    name=told.name,
                    type_oid=told.type_oid,
                    typmod=told.typmod,
                    type_name=now.type_name if now is not None and same else "text",
                    not_null=now.not_null if now is not None and same else False,
                    default=now.default if now is not None and same else None,
                )
            )
        told_key = {column.name for column in relation.columns if column.is_key}
        key = info.primary_key if info else ()
        if relation.replica_identity == "d" and set(key) != told_key:
            # The key has changed since: the one the rows were written under is the flagged columns.
            key = tuple(column.name for column in relation.columns if column.is_key)
        if relation.replica_identity == "i" and not set(key) <= told_key:
            raise FatalError(
                f"{relation.schema}.{relation.name} has REPLICA IDENTITY USING INDEX on "
                f"({', '.join(sorted(told_key))}), which lacks its primary key: a change of the key would not tell "
                f'which row it was. Remedy: ALTER TABLE "{relation.schema}"."{relation.name}" REPLICA IDENTITY '
                "DEFAULT; then delete this connector's offsets to take a new snapshot"
            )
        present = {column.name for column in columns}
        key = key if all(name in present for name in key) else ()
        return self._remember(relation.oid, relation.schema, relation.name, tuple(columns), key, info)

    def from_catalog(self, info: TableInfo) -> CapturedTable:
        """The table as the catalog has it: for rows read by a snapshot."""
        return self._remember(info.oid, info.schema, info.name, info.columns, info.primary_key, info)

    def _remember(
        self,
        oid: int,
        schema: str,
        name: str,
        columns: tuple[ColumnInfo, ...],
        key: tuple[str, ...],
        info: TableInfo | None,
    ) -> CapturedTable:
        shape = self._shape(schema, name, columns, key)
        if info is not None:
            self.infos[oid] = info
        known = self._tables.get(oid)
        if known is not None and _same(known.shape, shape):
            return known
        table = CapturedTable(oid, shape)
        self._tables[oid] = table
        return table

    def _shape(self, schema: str, name: str, columns: tuple[ColumnInfo, ...], key: tuple[str, ...]) -> RowShape:
        missing = {column.type_oid for column in columns} - self._types.keys()
        if missing:
            self._types.update(read_types(self._connection(), missing))
        shaped = []
        for column in columns:
            mapping = resolve(column.type_oid, column.typmod, self._types, self._modes)
            optional = not column.not_null and column.name not in key
            default = NO_DEFAULT if column.default is None else default_value(column.default, mapping)
            shaped.append(
                Column(
                    column.name,
                    replace(mapping.schema, optional=optional, default=default),
                    mapping.kind,
                    mapping.params,
                )
            )
        names = [column.name for column in columns]
        return row_shape(
            topic=self._config.topic(schema, name),
            db=self._config.database_dbname,
            schema=schema,
            table=name,
            columns=tuple(shaped),
            key=tuple(names.index(part) for part in key),
            server=self._config.topic_prefix,
        )


def _same(a: RowShape, b: RowShape) -> bool:
    return (a.topic, a.columns, a.key) == (b.topic, b.columns, b.key)


def table_findings(tables: Iterable[TableInfo]) -> list[Finding]:
    """Tables that cannot be captured without harm, each with its remedy (EXACTNESS.md H15, DESIGN.md §4)."""
    findings = []
    for table in tables:
        name = table.full_name
        quoted = f'"{table.schema}"."{table.name}"'
        problem = remedy = ""
        if table.persistence == "u":
            problem = f"{name} is UNLOGGED: its changes are not in the WAL"
            remedy = f"ALTER TABLE {quoted} SET LOGGED; or leave it out of table.include.list"
        elif table.kind == "p":
            problem = f"{name} is a partitioned table, which this version captures only by its partitions"
            remedy = "Name the partitions in table.include.list"
        elif table.replica_identity == "n":
            problem = (
                f"{name} has REPLICA IDENTITY NOTHING: publishing it makes the application's UPDATE and DELETE fail"
            )
            remedy = f"ALTER TABLE {quoted} REPLICA IDENTITY DEFAULT;"
        elif not table.primary_key and table.replica_identity == "d":
            problem = (
                f"{name} has no primary key and no replica identity: publishing it makes the application's UPDATE "
                "and DELETE fail"
            )
            remedy = (
                f"Add a primary key; or ALTER TABLE {quoted} REPLICA IDENTITY FULL; (it is then a stream of changes "
                "without keys, not mirrored by sinks); or leave it out of table.include.list"
            )
        elif table.deferrable:
            problem = (
                f"the primary key of {name} is DEFERRABLE: within a statement two rows may bear one key, and their "
                "records would overtake each other"
            )
            remedy = "Make the constraint NOT DEFERRABLE, or leave the table out of table.include.list"
        elif table.replica_identity == "i" and not set(table.primary_key) <= set(table.identity_columns):
            problem = (
                f"{name} has REPLICA IDENTITY USING INDEX on ({', '.join(table.identity_columns)}), which lacks its "
                "primary key: deletes would not tell which row"
            )
            remedy = f"ALTER TABLE {quoted} REPLICA IDENTITY DEFAULT; (or FULL)"
        if problem:
            findings.append(Finding(problem, key="table.include.list", remedy=remedy))
    return findings


def require(findings: list[Finding]) -> None:
    """`FatalError` with all findings, if there are any."""
    if findings:
        raise FatalError("; ".join(str(finding) for finding in findings))
