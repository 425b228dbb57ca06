"""Which tables are captured, and the shape of their rows: Relation messages completed by the catalog.

Names, types and order of the columns are the stream's, which is right in time; what the stream does not tell (NOT NULL,
defaults, the order of the primary key) is the catalog's of now, and only where it still speaks of the same column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from cdc.codec.envelope import row_shape
from cdc.errors import FatalError, Finding, TableError
from cdc.postgres.captured import read_captured
from cdc.postgres.captured_table import CapturedTable
from cdc.postgres.catalog import ColumnInfo, TableInfo, read_types
from cdc.postgres.config import PostgresConfig
from cdc.postgres.connection import Connection
from cdc.postgres.fingerprint import Fingerprint
from cdc.postgres.keys_in_time import KnownKey, key_of, known_keys
from cdc.postgres.masks import masked_mapping
from cdc.postgres.names import field_names, schema_name
from cdc.postgres.pg_type import FIRST_USER_OID
from cdc.postgres.pgoutput import Relation
from cdc.postgres.selection import Names
from cdc.postgres.source_types import source_parameters
from cdc.postgres.types import PgType, TypeMapping, TypeModes, default_value, resolve
from cdc.record import NO_DEFAULT, Column, RowShape

__all__ = ["TableRegistry", "key_is_gone", "require"]


class TableRegistry:
    """The captured tables of one connector, in their present versions.

    `captured` raises `cdc.errors.TableError` for a table that cannot be told as it is.
    """

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
        self._told_columns = Names(config.column_propagate_source_type)
        self._told_types = Names(config.datatype_propagate_source_type)
        self._types: dict[int, PgType] = {}
        self._tables: dict[int, CapturedTable] = {}
        self.infos: dict[int, TableInfo] = {}
        self.fingerprint_of: Callable[[int], Fingerprint | None] = lambda _oid: None
        """The catalog's entries at the moment that the rows told so far agree with."""
        self.on_relation: Callable[[], None] = lambda: None
        """Called at each Relation message: something in the catalog has changed."""
        self.on_columns: Callable[[int, tuple[str, ...]], None] = lambda _oid, _names: None
        """Called with the columns that rows of a table are told with from now on, in the order of the table."""
        self.on_doubt: Callable[[int, str], None] = lambda _oid, _reason: None
        """Called with a table whose stream does not tell which rows its changes were about, and with the reason."""

    def captured(self, relation: Relation) -> CapturedTable | None:
        """The table of a Relation message; ``None`` when the lists leave it out."""
        if not self._config.captures(relation.schema, relation.name):
            return None
        info = read_captured(self._connection(), self._config, relation.oid)
        self.on_relation()
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
        moments = known_keys(self.fingerprint_of(relation.oid), info)
        key = self._key(relation, info, moments)
        if not key and any(moment.key for moment in moments):
            raise TableError(key_is_gone(f"{relation.schema}.{relation.name}"))
        picks = tuple(
            place
            for place, column in enumerate(columns)
            if column.name in key or self._config.selection.column(relation.schema, relation.name, column.name)
        )
        return self._remember(
            relation.oid,
            relation.schema,
            relation.name,
            tuple(columns[place] for place in picks),
            key,
            info,
            len(columns),
            None if len(picks) == len(columns) else picks,
        )

    def _key(self, relation: Relation, info: TableInfo | None, moments: Sequence[KnownKey]) -> tuple[str, ...]:
        """The record key of rows of this version."""
        schema, name = relation.schema, relation.name
        present = [column.name for column in relation.columns]
        told = {column.name for column in relation.columns if column.is_key}
        ruled = self._config.selection.key(schema, name, present)
        key = ruled if ruled is not None else key_of(relation, moments)
        before = self._tables.get(relation.oid)
        if before is not None and relation.replica_identity == "i":
            # The rows told so far have the key that the table had then, whatever would be chosen now.
            key = tuple(before.name(place) for place in before.shape.key)
        # A leaf's identity, not its root's, decides what is told of old rows: those were checked at start.
        if relation.replica_identity == "i" and not set(key) <= told and (info is None or info.kind != "p"):
            raise TableError(
                f"{schema}.{name} has REPLICA IDENTITY USING INDEX on ({', '.join(sorted(told))}), which lacks its "
                "record key: a change of the key would not tell which row it was. Remedy: ALTER TABLE "
                f'"{schema}"."{name}" REPLICA IDENTITY DEFAULT; the table is then read again'
            )
        if relation.replica_identity == "d" and told and not set(key) <= told and (info is None or info.kind != "p"):
            # It was so for a moment, or the next look finds it: rows keep the key that a change took from them.
            self.on_doubt(relation.oid, f"REPLICA IDENTITY DEFAULT does not tell old values of ({', '.join(key)})")
        return key if all(name in present for name in key) else ()

    def from_catalog(self, info: TableInfo) -> CapturedTable:
        """The table as the catalog has it: for rows read by a snapshot."""
        return self._remember(info.oid, info.schema, info.name, info.columns, info.key, info, len(info.columns), None)

    def _remember(
        self,
        oid: int,
        schema: str,
        name: str,
        columns: tuple[ColumnInfo, ...],
        key: tuple[str, ...],
        info: TableInfo | None,
        width: int,
        picks: tuple[int, ...] | None,
    ) -> CapturedTable:
        shape, masks = self._shape(schema, name, columns, key)
        if info is not None:
            self.infos[oid] = info
        names = tuple(column.name for column in columns)
        self.on_columns(oid, names)
        known = self._tables.get(oid)
        if known is not None and _same(known.shape, shape):
            shape = known.shape
            if (known.width, known.picks, known.names) == (width, picks, names):
                return known
        table = CapturedTable(oid, shape, width, picks, masks, names)
        self._tables[oid] = table
        return table

    def _shape(
        self, schema: str, name: str, columns: tuple[ColumnInfo, ...], key: tuple[str, ...]
    ) -> tuple[RowShape, dict[int, Callable[[bytes], bytes]]]:
        used = {column.type_oid for column in columns}
        # An enum may have got labels, a composite attributes; a built-in type stays as it is.
        wanted = {oid for oid in used if oid not in self._types or oid >= FIRST_USER_OID}
        if wanted:
            self._types.update(read_types(self._connection(), wanted))
        shaped = []
        masks = {}
        chosen = self._config.selection.key(schema, name, key) is not None
        names = [column.name for column in columns]
        fields = field_names(self._config.field_name_adjustment_mode, names, f"{schema}.{name}")
        for place, column in enumerate(columns):
            mapping = resolve(column.type_oid, column.typmod, self._types, self._modes)
            mask = None if column.name in key else self._config.selection.mask(schema, name, column.name)
            if mask is not None:
                mapping, apply = masked_mapping(mask, mapping, column.type_oid, column.typmod)
                if apply is not None:
                    masks[place] = apply
            mapping = self._with_source(f"{schema}.{name}", column, mapping)
            # A key that somebody chose may have NULLs; any other one cannot, whatever the catalog says by now.
            optional = not column.not_null and (chosen or column.name not in key)
            default = NO_DEFAULT if column.default is None else default_value(column.default, mapping)
            shaped.append(
                Column(
                    fields[place],
                    replace(mapping.schema, optional=optional, default=default),
                    mapping.kind,
                    mapping.params,
                )
            )
        topic = self._config.topic(schema, name)
        shape = row_shape(
            topic=topic,
            db=self._config.database_dbname,
            schema=schema,
            table=name,
            columns=tuple(shaped),
            key=tuple(names.index(part) for part in key),
            server=self._config.topic_prefix,
            compact=bool(key) and self._config.compacted,
            name=schema_name(self._config.schema_name_adjustment_mode, topic),
        )
        return shape, masks

    def _with_source(self, table: str, column: ColumnInfo, mapping: TypeMapping) -> TypeMapping:
        """The mapping with the parameters that tell the column's type in Postgres, where they are asked for."""
        type_name = self._types[column.type_oid].name if column.type_oid in self._types else ""
        if not (self._told_columns.match(f"{table}.{column.name}") or self._told_types.match(f"{table}.{type_name}")):
            return mapping
        told = source_parameters(column.name, type_name, column.typmod)
        return replace(mapping, schema=replace(mapping.schema, parameters=(*mapping.schema.parameters, *told)))


def key_is_gone(table: str) -> str:
    """Why a table whose key was dropped cannot be told."""
    return (
        f"{table} has lost its primary key: its changes cannot be told apart in a compacted topic. Remedy: give it its "
        "primary key back, and it is read again; or leave it out (table.exclude.list)"
    )


def _same(a: RowShape, b: RowShape) -> bool:
    return (a.topic, a.columns, a.key) == (b.topic, b.columns, b.key)


def require(findings: list[Finding]) -> None:
    """`FatalError` with all findings, if there are any."""
    if findings:
        raise FatalError("; ".join(str(finding) for finding in findings))
