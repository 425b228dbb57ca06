"""The fingerprints of all tables, in one statement that takes no lock on them (EXACTNESS.md H12)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from cdc.postgres.connection import Connection, translate
from cdc.postgres.fingerprint import Attribute, Fingerprint

__all__ = ["NamedTable", "read_fingerprints"]

_QUERY = """
with recursive wanted(oid) as (select unnest({oids}::oid[])),
up(oid, above) as (
  select oid, oid from wanted
  union select up.oid, i.inhparent from up join pg_inherits i on i.inhrelid = up.above
    join pg_class p on p.oid = i.inhparent and p.relkind = 'p'),
down(oid, below) as (
  select w.oid, w.oid from wanted w
  union select d.oid, i.inhrelid from down d join pg_class p on p.oid = d.below and p.relkind = 'p'
    join pg_inherits i on i.inhparent = d.below),
made(oid, type) as (
  select a.attrelid, a.atttypid from wanted w join pg_attribute a on a.attrelid = w.oid
    where a.attnum > 0 and not a.attisdropped and a.atttypid >= 16384
  union select m.oid, part.type from made m join pg_type t on t.oid = m.type cross join lateral (
    select t.typelem union all select t.typbasetype
    union all select r.rngsubtype from pg_range r
      where r.rngtypid = t.oid or (to_jsonb(r) ->> 'rngmultitypid')::bigint::oid = t.oid
    union all select c.atttypid from pg_attribute c
      where t.typrelid <> 0 and c.attrelid = t.typrelid and c.attnum > 0 and not c.attisdropped) part(type)
    where part.type >= 16384),
members(oid, member) as (
  select up.oid, format('%s %s', r.oid, md5(coalesce(to_jsonb(r) ->> 'prqual', '')
      || coalesce(to_jsonb(r) ->> 'prattrs', '')))
    from up join pg_publication_rel r on r.prrelid = up.above
    join pg_publication p on p.oid = r.prpubid and p.pubname = {publication}
  union select w.oid, format('all %s', p.oid) from wanted w join pg_publication p on p.pubname = {publication}
    where p.puballtables
  {schemas})
select c.oid, n.nspname, c.relname, c.relpersistence,
  c.relreplident::text || coalesce((
      select string_agg(format(' %s%s%s', i.indexrelid, i.indisreplident, i.indimmediate), '' order by i.indexrelid)
      from pg_index i where i.indrelid = c.oid and i.indisunique and i.indisvalid), ''),
  coalesce((select array_agg(k.attnum::int order by k.place)
     from pg_index i cross join unnest(i.indkey::int2[]) with ordinality k(attnum, place)
     where i.indrelid = c.oid and i.indisprimary and k.place <= i.indnkeyatts), '{{}}'),
  (select coalesce(jsonb_agg(jsonb_build_array(a.attnum, a.attname, a.atttypid::bigint, a.atttypmod,
       a.xmin::text::bigint, a.atthasmissing, a.attgenerated) order by a.attnum), '[]')
     from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
  (select jsonb_object_agg(d.below::text, f.relfilenode::bigint) from down d join pg_class f on f.oid = d.below
     where d.oid = c.oid and f.relkind <> 'p'),
  (select jsonb_object_agg(e.oid::text, e.enumlabel) from made m join pg_enum e on e.enumtypid = m.type
     where m.oid = c.oid),
  array(select m.member from members m where m.oid = c.oid order by m.member),
  coalesce((select format('%s %s %s %s %s %s', pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot, xmin)
     from pg_publication where pubname = {publication}), ''),
  coalesce((select puballtables from pg_publication where pubname = {publication}), false),
  coalesce((select pubviaroot from pg_publication where pubname = {publication}), false),
  coalesce((select t.xmin::text::bigint from pg_type t where t.oid = c.reltype), 0),
  (select jsonb_object_agg(i.inhrelid::text, i.xmin::text::bigint) from pg_inherits i
     join pg_class p on p.oid = i.inhparent and p.relkind = 'p'
     where i.inhrelid in (select d.below from down d where d.oid = c.oid)
       or i.inhrelid in (select u.above from up u where u.oid = c.oid)),
  (select jsonb_object_agg(t.typrelid::text, (
       select coalesce(string_agg(format('%s %s %s %s', a.attnum, a.attname, a.atttypid, a.atttypmod), ', '
         order by a.attnum), '')
       from pg_attribute a where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped))
     from (select distinct m.type from made m where m.oid = c.oid) used
     join pg_type t on t.oid = used.type and t.typrelid <> 0),
  (select jsonb_object_agg(v.oid, v.version) from (
     select e.oid::text, e.xmin::text from made m join pg_enum e on e.enumtypid = m.type where m.oid = c.oid
     union select k.oid::text, format('%s %s', k.relnatts, (select string_agg(a.xmin::text, ' ' order by a.attnum)
         from pg_attribute a where a.attrelid = k.oid and a.attnum > 0 and not a.attisdropped))
     from made m join pg_type t on t.oid = m.type join pg_class k on k.oid = t.typrelid where m.oid = c.oid
   ) v(oid, version))
from wanted w join pg_class c on c.oid = w.oid join pg_namespace n on n.oid = c.relnamespace
"""
_SCHEMAS = """
  union select up.oid, format('schema %s', s.oid) from up join pg_class c on c.oid = up.above
    join pg_publication_namespace s on s.pnnspid = c.relnamespace
    join pg_publication p on p.oid = s.pnpubid and p.pubname = {publication}
"""
_POSTGRES_15 = 150000


@dataclass(frozen=True, slots=True)
class NamedTable:
    """A table's present name and fingerprint."""

    schema: str
    name: str
    fingerprint: Fingerprint


def read_fingerprints(connection: Connection, publication: str, oids: Sequence[int]) -> dict[int, NamedTable]:
    """The tables with these OIDs that are there. One statement, one snapshot of the catalog."""
    schemas = _SCHEMAS if connection.info.server_version >= _POSTGRES_15 else ""
    query = sql.SQL(_QUERY).format(
        oids=sql.Literal(list(oids)),
        publication=sql.Literal(publication),
        schemas=sql.SQL(schemas).format(publication=sql.Literal(publication)),
    )
    try:
        rows = connection.execute(query).fetchall()
    except psycopg.Error as error:
        raise translate(error, "reading the catalog entries of the captured tables") from None
    return {
        row[0]: NamedTable(
            row[1],
            row[2],
            Fingerprint(
                oid=row[0],
                persistence=row[3],
                identity=row[4],
                key=tuple(row[5]),
                columns=tuple(Attribute(*column) for column in row[6]),
                files={int(oid): node for oid, node in (row[7] or {}).items()},
                labels={int(oid): label for oid, label in (row[8] or {}).items()},
                # What the publication itself tells (operations, root) belongs to each of its members.
                published=(*row[9], row[10]) if row[9] else (),
                all_tables=row[11],
                rooted=row[12],
                named=row[13],
                joined={int(oid): version for oid, version in (row[14] or {}).items()},
                composites={int(oid): attributes for oid, attributes in (row[15] or {}).items()},
                types={int(oid): version for oid, version in (row[16] or {}).items()},
            ),
        )
        for row in rows
    }
