"""What the bridge asks the catalog: tables, columns, keys, types, slots, publications.

Each function is one statement on a connection of `cdc.postgres.connection`, answered as plain data.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import sql

from cdc.postgres.connection import Connection, translate
from cdc.postgres.pg_type import PgType

__all__ = [
    "FILTERS_SINCE",
    "GENERATED_SINCE",
    "ColumnInfo",
    "TableInfo",
    "UniqueIndex",
    "list_tables",
    "publication_tables",
    "qualified",
    "read_settings",
    "read_table",
    "read_types",
    "table_bytes",
]


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """A column as the catalog has it now. ``default`` is `pg_get_expr`'s text."""

    name: str
    type_oid: int
    typmod: int
    type_name: str
    not_null: bool
    default: str | None


@dataclass(frozen=True, slots=True)
class UniqueIndex:
    """A unique index that can be a key: valid, immediate, whole, over plain columns that are NOT NULL."""

    name: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TableInfo:
    """A table as the catalog has it now.

    ``kind`` is ``pg_class.relkind`` (``r`` table, ``p`` partitioned), ``columns`` leave out dropped and unpublished
    ones, ``primary_key`` is in the key's own order; ``deferrable`` tells that its constraint can be
    broken within a statement. ``identity_columns`` are those of REPLICA IDENTITY USING INDEX. ``generated`` are
    the generated columns that are left out, ``unlisted`` those that the publication's column list leaves out.

    ``unique`` are the other unique indexes that can be a key, by name. ``row_filter`` is the publication's condition.
    ``leaves`` are the replica identities of a partitioned table's leaves.
    """

    oid: int
    schema: str
    name: str
    kind: str
    persistence: str
    replica_identity: str
    columns: tuple[ColumnInfo, ...]
    primary_key: tuple[str, ...]
    deferrable: bool
    identity_columns: tuple[str, ...]
    generated: tuple[str, ...]
    unique: tuple[UniqueIndex, ...] = ()
    unlisted: tuple[str, ...] = ()
    row_filter: str | None = None
    leaves: tuple[str, ...] = ()
    toasted: tuple[str, ...] = ()
    """Columns whose values may be stored out of line, and so be missing in an UPDATE's WAL."""
    key: tuple[str, ...] = ()
    """Columns of the record key (`cdc.postgres.captured`)."""
    distinct: bool = False
    """Whether no two rows can share a record key, at any moment."""
    ordered: bool = False
    """Whether rows can be read in ranges of the record key: it is distinct and NOT NULL."""
    published: bool = False
    """Whether somebody has published the table already."""
    streamed: bool = True
    """Whether its changes are told under its name; of a partitioned table they may be told under its partitions'."""
    excluded: tuple[str, ...] = ()
    """Columns that the settings leave out."""
    ancestors: tuple[int, ...] = ()
    """OIDs of the partitioned tables that it is a partition of."""

    @property
    def full_name(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def source(self) -> sql.Composed:
        """What to select from: its own rows, those of its partitions if it is partitioned, not of other heirs."""
        only = sql.SQL("{}") if self.kind == "p" else sql.SQL("only {}")
        return only.format(qualified(self.schema, self.name))


FILTERS_SINCE: Final = 150000
"""Publications have column lists and row filters."""
GENERATED_SINCE: Final = 180000
"""Stored generated columns can be published."""

_TABLES = """
select c.oid, n.nspname, c.relname, c.relkind, c.relpersistence, c.relreplident
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where {condition}
order by n.nspname, c.relname
"""

_COLUMNS = """
select a.attname, a.atttypid, a.atttypmod, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       case when a.attgenerated = '' then pg_get_expr(d.adbin, d.adrelid) end, a.attgenerated,
       a.attnum, a.attstorage <> 'p'
from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where a.attrelid = {oid} and a.attnum > 0 and not a.attisdropped
order by a.attnum
"""

_KEYS = """
select i.indisprimary, i.indisreplident, not i.indimmediate,
       i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null and i.indexprs is null
           and not exists (select from unnest(i.indkey::int2[]) with ordinality k(attnum, place)
               join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
               where k.place <= i.indnkeyatts and not a.attnotnull),
       c.relname,
       array(select a.attname from unnest(i.indkey::int2[]) with ordinality k(attnum, place)
           join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
           where k.place <= i.indnkeyatts order by k.place)::text[]
from pg_index i join pg_class c on c.oid = i.indexrelid
where i.indrelid = {oid} and (i.indisprimary or i.indisreplident or i.indisunique) order by c.relname
"""

_LEAVES = """
select distinct c.relreplident::text || case when c.relreplident = 'd' and not exists (
    select from pg_index i where i.indrelid = c.oid and i.indisprimary) then '-' else '' end
from pg_partition_tree({oid}) t join pg_class c on c.oid = t.relid where t.isleaf and c.relkind = 'r'
"""

_PUBLISHED = """
select {generated}, {columns}, {filter}
from pg_publication p left join pg_publication_rel r on r.prpubid = p.oid and r.prrelid = {oid}
where p.pubname = {publication}
"""

_TYPES = """
select t.oid, t.typname, n.nspname, t.typtype,
       case when e.typarray = t.oid then e.oid else 0 end, t.typbasetype, t.typtypmod, t.typdelim,
       array(select l.enumlabel from pg_enum l where l.enumtypid = t.oid order by l.enumsortorder)::text[],
       array(select a.attname from pg_attribute a where {attributes} order by a.attnum)::text[],
       array(select a.atttypid from pg_attribute a where {attributes} order by a.attnum)::int8[],
       array(select a.atttypmod from pg_attribute a where {attributes} order by a.attnum)
from pg_type t join pg_namespace n on n.oid = t.typnamespace left join pg_type e on e.oid = t.typelem
where t.oid = any({oids})
"""
_ATTRIBUTES = "t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped"


def list_tables(connection: Connection) -> list[tuple[int, str, str, str, list[int]]]:
    """All ordinary and partitioned tables outside the system schemas: oid, schema, name, relkind, ancestors' oids."""
    rows = _all(
        connection,
        sql.SQL(
            "select c.oid, n.nspname, c.relname, c.relkind, case when c.relispartition then array("
            " select a.relid::oid from pg_partition_ancestors(c.oid) a where a.relid <> c.oid) else '{{}}' end::oid[]"
            " from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where c.relkind in ('r', 'p') and c.relpersistence <> 't' and n.nspname <> 'information_schema'"
            " and n.nspname not like 'pg\\_%' order by n.nspname, c.relname"
        ).format(),
        "listing the tables",
    )
    return [(row[0], row[1], row[2], row[3], list(row[4])) for row in rows]


def read_table(connection: Connection, oid: int, publication: str | None = None) -> TableInfo | None:
    """The table as it is now; ``None`` when it is gone.

    With a ``publication``, as that publishes it: without the columns that it leaves out. One that is not there yet
    is taken for one that this connector makes (`cdc.postgres.preparation.ensure_publication`).
    """
    literal = sql.Literal(oid)
    tables = _all(
        connection, sql.SQL(_TABLES).format(condition=sql.SQL("c.oid = {}").format(literal)), "reading a table"
    )
    if not tables:
        return None
    _, schema, name, kind, persistence, identity = tables[0]
    attributes = _all(connection, sql.SQL(_COLUMNS).format(oid=literal), f"reading the columns of {schema}.{name}")
    keys = _all(connection, sql.SQL(_KEYS).format(oid=literal), f"reading the keys of {schema}.{name}")
    leaves = []
    if kind == "p":
        leaves = _all(connection, sql.SQL(_LEAVES).format(oid=literal), f"reading the partitions of {schema}.{name}")
    stored, listed, row_filter = _published(connection, oid, publication)
    told = [row for row in attributes if (row[7] in listed if listed else not row[6] or (row[6] == "s" and stored))]
    primary = next((row for row in keys if row[0]), None)
    replica = next((row for row in keys if row[1]), None)
    return TableInfo(
        oid=oid,
        schema=schema,
        name=name,
        kind=kind,
        persistence=persistence,
        replica_identity=identity,
        columns=tuple(ColumnInfo(*row[:6]) for row in told),
        primary_key=tuple(primary[5]) if primary else (),
        deferrable=bool(primary and primary[2]),
        identity_columns=tuple(replica[5]) if replica else (),
        generated=tuple(row[0] for row in attributes if row[6] and row not in told),
        unique=tuple(UniqueIndex(row[4], tuple(row[5])) for row in keys if row[3] and not row[0]),
        unlisted=tuple(row[0] for row in attributes if not row[6] and row not in told),
        row_filter=row_filter,
        leaves=tuple(row[0] for row in leaves),
        toasted=tuple(row[0] for row in told if row[8]),
    )


def _published(connection: Connection, oid: int, publication: str | None) -> tuple[bool, list[int], str | None]:
    """Whether stored generated columns are published, the numbers of a column list (empty: all), the row filter."""
    version = connection.info.server_version
    if publication is None:
        return False, [], None
    query = sql.SQL(_PUBLISHED).format(
        generated=sql.SQL("p.pubgencols = 's'" if version >= GENERATED_SINCE else "false"),
        columns=sql.SQL("r.prattrs::int2[]" if version >= FILTERS_SINCE else "null"),
        filter=sql.SQL("pg_get_expr(r.prqual, r.prrelid)" if version >= FILTERS_SINCE else "null"),
        oid=sql.Literal(oid),
        publication=sql.Literal(publication),
    )
    rows = _all(connection, query, f"reading the publication {publication}")
    if not rows:
        return version >= GENERATED_SINCE, [], None
    return bool(rows[0][0]), list(rows[0][1] or ()), rows[0][2]


def read_types(connection: Connection, oids: Iterable[int]) -> dict[int, PgType]:
    """The types with these OIDs, and all that they are made of (elements, bases, attributes)."""
    found: dict[int, PgType] = {}
    wanted = set(oids)
    while wanted:
        query = sql.SQL(_TYPES).format(oids=sql.Literal(sorted(wanted)), attributes=sql.SQL(_ATTRIBUTES))
        rows = _all(connection, query, "reading types")
        for row in rows:
            found[row[0]] = PgType(
                oid=row[0],
                name=row[1],
                namespace=row[2],
                typtype=row[3],
                element=row[4],
                base=row[5],
                base_typmod=row[6],
                delimiter=row[7],
                labels=tuple(row[8]),
                attributes=tuple(zip(row[9], row[10], row[11], strict=True)),
            )
        parts = {part for row in rows for part in (row[4], row[5], *row[10]) if part}
        wanted = parts - found.keys()
        if not rows:
            break
    return found


def read_settings(connection: Connection, names: Sequence[str]) -> dict[str, str]:
    """Server settings by name, in their base units; a setting the server does not have is left out."""
    query = sql.SQL("select name, setting from pg_settings where name = any({})").format(sql.Literal(list(names)))
    return {row[0]: row[1] for row in _all(connection, query, "reading the server's settings")}


def table_bytes(connection: Connection, oids: Sequence[int]) -> int:
    """What these tables take on disk, without their indexes."""
    query = sql.SQL("select coalesce(sum(pg_table_size(oid)), 0)::bigint from pg_class where oid = any({})").format(
        sql.Literal(list(oids))
    )
    return int(_all(connection, query, "asking for the size of tables")[0][0])


def publication_tables(connection: Connection, publication: str) -> dict[str, Any] | None:
    """``all_tables``, ``via_root``, ``operations`` (letters c u d t), ``tables`` (OIDs); ``None`` if missing.

    ``published`` are the OIDs of all tables under whose own name changes are told.
    """
    rows = _all(
        connection,
        sql.SQL(
            "select oid, puballtables, pubviaroot, pubinsert, pubupdate, pubdelete, pubtruncate from pg_publication"
            " where pubname = {}"
        ).format(sql.Literal(publication)),
        f"reading the publication {publication}",
    )
    if not rows:
        return None
    row = rows[0]
    members = _all(
        connection,
        sql.SQL("select prrelid from pg_publication_rel where prpubid = {}").format(sql.Literal(row[0])),
        f"reading the publication {publication}",
    )
    published = _all(
        connection,
        sql.SQL("select relid from pg_get_publication_tables({})").format(sql.Literal(publication)),
        f"reading the tables of the publication {publication}",
    )
    operations = "".join(letter for letter, on in zip("cudt", row[3:7], strict=True) if on)
    return {
        "all_tables": row[1],
        "via_root": row[2],
        "operations": operations,
        "tables": {member[0] for member in members},
        "published": {member[0] for member in published},
    }


def qualified(schema: str, name: str) -> sql.Composed:
    """``"schema"."name"``, quoted by psycopg."""
    return sql.SQL(".").join([sql.Identifier(schema), sql.Identifier(name)])


def _all(connection: Connection, query: sql.Composed, doing: str) -> list[tuple[Any, ...]]:
    try:
        return connection.execute(query).fetchall()
    except psycopg.Error as error:
        raise translate(error, doing) from None
