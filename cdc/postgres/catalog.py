"""What the bridge asks the catalog: tables, columns, keys, types, slots, publications.

Each function is one statement on a connection of `cdc.postgres.connection`, answered as plain data.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from cdc.postgres.connection import Connection, translate
from cdc.postgres.pg_type import PgType
from cdc.postgres.pgoutput import parse_lsn

__all__ = [
    "ColumnInfo",
    "SlotInfo",
    "TableInfo",
    "list_tables",
    "publication_tables",
    "qualified",
    "read_settings",
    "read_slot",
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
class TableInfo:
    """A table as the catalog has it now.

    ``kind`` is ``pg_class.relkind`` (``r`` table, ``p`` partitioned), ``columns`` leave out dropped and generated
    ones, ``primary_key`` is in the key's own order; ``deferrable`` tells that its constraint can be
    broken within a statement. ``identity_columns`` are those of REPLICA IDENTITY USING INDEX.
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

    @property
    def full_name(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class SlotInfo:
    """A row of ``pg_replication_slots``, with who holds it. LSNs are integers, ``None`` where NULL."""

    name: str
    plugin: str | None
    slot_type: str
    database: str | None
    active_pid: int | None
    restart_lsn: int | None
    confirmed_flush_lsn: int | None
    wal_status: str | None
    holder: str


_TABLES = """
select c.oid, n.nspname, c.relname, c.relkind, c.relpersistence, c.relreplident
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where {condition}
order by n.nspname, c.relname
"""

_COLUMNS = """
select a.attname, a.atttypid, a.atttypmod, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       pg_get_expr(d.adbin, d.adrelid), a.attgenerated <> ''
from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where a.attrelid = {oid} and a.attnum > 0 and not a.attisdropped
order by a.attnum
"""

_KEYS = """
select i.indisprimary, i.indisreplident, not i.indimmediate,
       array_to_string(array(
           select a.attname from unnest(i.indkey::int2[]) with ordinality k(attnum, place)
           join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
           where k.place <= i.indnkeyatts order by k.place), E'\\x01')
from pg_index i where i.indrelid = {oid} and (i.indisprimary or i.indisreplident)
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

_SLOT = """
select s.slot_name, s.plugin, s.slot_type, s.database, s.active_pid, s.restart_lsn, s.confirmed_flush_lsn, s.wal_status,
       coalesce(format('pid %s from %s, application_name %s, connected since %s', a.pid,
           coalesce(a.client_addr::text, 'a local socket'), quote_literal(a.application_name),
           date_trunc('second', a.backend_start)), '')
from pg_replication_slots s left join pg_stat_activity a on a.pid = s.active_pid
where s.slot_name = {slot}
"""


def list_tables(connection: Connection) -> list[tuple[int, str, str, str]]:
    """All ordinary and partitioned tables outside the system schemas: oid, schema, name, relkind."""
    rows = _all(
        connection,
        sql.SQL(_TABLES).format(
            condition=sql.SQL(
                "c.relkind in ('r', 'p') and c.relpersistence <> 't' and n.nspname <> 'information_schema'"
                " and n.nspname not like 'pg\\_%'"
            )
        ),
        "listing the tables",
    )
    return [(row[0], row[1], row[2], row[3]) for row in rows]


def read_table(connection: Connection, oid: int) -> TableInfo | None:
    """The table as it is now; ``None`` when it is gone."""
    literal = sql.Literal(oid)
    tables = _all(
        connection, sql.SQL(_TABLES).format(condition=sql.SQL("c.oid = {}").format(literal)), "reading a table"
    )
    if not tables:
        return None
    _, schema, name, kind, persistence, identity = tables[0]
    attributes = _all(connection, sql.SQL(_COLUMNS).format(oid=literal), f"reading the columns of {schema}.{name}")
    keys = _all(connection, sql.SQL(_KEYS).format(oid=literal), f"reading the keys of {schema}.{name}")
    primary = next((row for row in keys if row[0]), None)
    replica = next((row for row in keys if row[1]), None)
    return TableInfo(
        oid=oid,
        schema=schema,
        name=name,
        kind=kind,
        persistence=persistence,
        replica_identity=identity,
        columns=tuple(ColumnInfo(*row[:6]) for row in attributes if not row[6]),
        primary_key=tuple(primary[3].split("\x01")) if primary else (),
        deferrable=bool(primary and primary[2]),
        identity_columns=tuple(replica[3].split("\x01")) if replica else (),
        generated=tuple(row[0] for row in attributes if row[6]),
    )


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


def read_slot(connection: Connection, slot: str) -> SlotInfo | None:
    """The slot, or ``None`` when there is none of that name."""
    rows = _all(connection, sql.SQL(_SLOT).format(slot=sql.Literal(slot)), f"reading the slot {slot}")
    if not rows:
        return None
    row = rows[0]
    return SlotInfo(
        name=row[0],
        plugin=row[1],
        slot_type=row[2],
        database=row[3],
        active_pid=row[4],
        restart_lsn=None if row[5] is None else parse_lsn(row[5]),
        confirmed_flush_lsn=None if row[6] is None else parse_lsn(row[6]),
        wal_status=row[7],
        holder=row[8],
    )


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

    ``published`` are the OIDs of all tables under whose own name changes are told, ``partial`` of those of ``tables``
    that have a row filter or a column list.
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
        # Through JSON, because Postgres 14 has neither of the two columns.
        sql.SQL(
            "select prrelid, coalesce(to_jsonb(r) ->> 'prqual', to_jsonb(r) ->> 'prattrs') is not null"
            " from pg_publication_rel r where prpubid = {}"
        ).format(sql.Literal(row[0])),
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
        "partial": {member[0] for member in members if member[1]},
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
