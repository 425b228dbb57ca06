"""Which tables are captured: what the lists choose, as the publication tells it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import psycopg
from psycopg import sql

from cdc.errors import FatalError, Finding
from cdc.postgres.captured import narrowed
from cdc.postgres.catalog import TableInfo, list_tables, publication_tables, qualified, read_table
from cdc.postgres.config import PostgresConfig
from cdc.postgres.connection import Connection, translate
from cdc.postgres.selection import Names, identity_rules, split_list

__all__ = ["Chosen", "Place", "chosen_tables", "places", "set_identities"]

_PLAIN_NAME: Final = re.compile(r"[\w.$-]+")
_LETTERS: Final = {"FULL": "f", "DEFAULT": "d", "NOTHING": "n"}


@dataclass(frozen=True, slots=True)
class Chosen:
    """The captured tables, what is wrong with the lists that chose them, and the replica identities to set first."""

    tables: list[TableInfo]
    findings: list[Finding]
    alterations: list[sql.Composed] = field(default_factory=list)


def chosen_tables(connection: Connection, config: PostgresConfig, told: Collection[str] = ()) -> Chosen:
    """Tables chosen by the include and exclude lists; a plain name that does not exist is a finding.

    Tables are told as they will be once ``alterations`` are done. A table whose changes are told under another's name
    (a partition under its root's, or the other way round) is not among them; but with
    ``publish.via.partition.root=false`` a partitioned table is, for its snapshot, as in Debezium. ``told`` are full
    names of tables that were captured before: that they are gone is no fault of the lists.
    """
    existing = list_tables(connection)
    names = [f"{schema}.{name}" for _, schema, name, *_ in existing]
    findings = []
    for expression in split_list(config.table_include_list):
        if not any(map(Names([expression]).match, [*names, *told])):
            near = difflib.get_close_matches(expression.replace("\\", ""), names, n=1, cutoff=0.5)
            plain = _PLAIN_NAME.fullmatch(expression.replace("\\.", "."))
            what = f"the table {expression} does not exist" if plain else f"{expression} matches no table"
            hint = f"; did you mean {near[0]}?" if near else ""
            findings.append(Finding(f"{what} in database {config.database_dbname}{hint}", key="table.include.list"))
    found = publication_tables(connection, config.publication)
    every = config.publication_autocreate_mode == "all_tables"
    listed = {oid: kind for oid, schema, name, kind, _ in existing if config.captures(schema, name)}
    rooted = _rooted(config, found, "p" in listed.values())
    tables, alterations = [], []
    for oid, _, _, kind, ancestors in existing:
        if oid not in listed or (rooted and not listed.keys().isdisjoint(ancestors)):
            continue
        if kind == "p" and not rooted and config.publish_via_partition_root is None:
            findings += _unchosen_partitions(oid, existing, listed)
            continue
        info = read_table(connection, oid, config.publication)
        if info is None:
            continue
        info, statements = _with_identity(connection, info, config)
        alterations += statements
        tables.append(
            replace(
                narrowed(info, config.selection),
                published=every or (found is not None and oid in found["published"]),
                streamed=kind != "p" or rooted,
                ancestors=tuple(ancestors),
            )
        )
    findings += _shared_topics(config, tables)
    if not tables and not findings and not told:
        findings.append(
            Finding(f"no table of database {config.database_dbname} is chosen by the lists", key="table.include.list")
        )
    return Chosen(tables, findings, alterations)


@dataclass(frozen=True, slots=True)
class Place:
    """A captured table among partitions, as in `cdc.postgres.catalog.TableInfo`."""

    streamed: bool
    ancestors: tuple[int, ...]


def places(connection: Connection, config: PostgresConfig) -> dict[int, Place]:
    """The OIDs of the tables that the lists choose now, by the rules of `chosen_tables`, in two statements."""
    existing = list_tables(connection)
    listed = {oid: kind for oid, schema, name, kind, _ in existing if config.captures(schema, name)}
    asked = "select pubviaroot from pg_publication where pubname = %s"
    row = connection.execute(asked, [config.publication]).fetchone()
    rooted = _rooted(config, None if row is None else {"via_root": row[0]}, "p" in listed.values())
    return {
        oid: Place(kind != "p" or rooted, tuple(ancestors))
        for oid, _, _, kind, ancestors in existing
        if oid in listed
        and not (rooted and not listed.keys().isdisjoint(ancestors))
        and not (kind == "p" and not rooted and config.publish_via_partition_root is None)
    }


def _rooted(config: PostgresConfig, found: Mapping[str, Any] | None, partitioned: bool) -> bool:
    """Whether changes of partitions are told under the names of the partitioned tables."""
    if config.publish_via_partition_root is not None:
        return config.publish_via_partition_root
    return partitioned if found is None else bool(found["via_root"])


def _unchosen_partitions(
    oid: int, existing: Sequence[tuple[int, str, str, str, list[int]]], listed: Mapping[int, str]
) -> list[Finding]:
    """A partitioned table is told by its partitions: then all of them must be chosen."""
    name = next(f"{schema}.{name}" for known, schema, name, *_ in existing if known == oid)
    lost = [
        f"{schema}.{leaf}"
        for known, schema, leaf, kind, ancestors in existing
        if oid in ancestors and kind == "r" and known not in listed
    ]
    if not lost:
        return []
    return [
        Finding(
            f"the publication tells changes of {name} under the names of its partitions, and of those the lists do not "
            f"choose {', '.join(lost[:5])}",
            key="table.include.list",
            remedy="Choose them too; or let the publication's owner run ALTER PUBLICATION … SET "
            "(publish_via_partition_root = true); before the first start",
        )
    ]


def _with_identity(
    connection: Connection, info: TableInfo, config: PostgresConfig
) -> tuple[TableInfo, list[sql.Composed]]:
    """The table with the replica identity that ``replica.identity.autoset.values`` wants, and what makes it so."""
    rules = identity_rules(config.replica_identity_autoset_values)
    wanted = next((identity for tables, identity in rules if tables.match(info.full_name)), None)
    if wanted is None or info.persistence == "u":
        return info, []
    if wanted in _LETTERS:
        letter, clause = _LETTERS[wanted], sql.SQL(wanted).format()
        identities = set(info.leaves) if info.kind == "p" else {info.replica_identity}
        if {identity[0] for identity in identities} == {letter} and info.replica_identity == letter:
            return info, []
        changed = replace(info, replica_identity=letter, leaves=(letter,) if info.leaves else ())
    else:
        index = wanted.removeprefix("USING INDEX ")
        columns = next((known.columns for known in info.unique if known.name == index), ())
        if info.replica_identity == "i" and info.identity_columns == columns:
            return info, []
        letter, clause = "i", sql.SQL("USING INDEX {}").format(sql.Identifier(index))
        changed = replace(info, replica_identity=letter, identity_columns=columns)
    targets = [qualified(info.schema, info.name)]
    if info.kind == "p" and letter != "i":  # an index has another name in each partition
        targets += [qualified(schema, name) for schema, name in _leaves(connection, info.oid)]
    statement = sql.SQL("ALTER TABLE {} REPLICA IDENTITY {}")
    return changed, [statement.format(target, clause) for target in targets]


def _leaves(connection: Connection, oid: int) -> list[tuple[str, str]]:
    rows = connection.execute(
        "select n.nspname, c.relname from pg_partition_tree(%s) t join pg_class c on c.oid = t.relid"
        " join pg_namespace n on n.oid = c.relnamespace where t.isleaf and c.relkind = 'r' order by 1, 2",
        [oid],
    ).fetchall()
    return [(row[0], row[1]) for row in rows]


def set_identities(connection: Connection, statements: Sequence[sql.Composed]) -> None:
    """Run the alterations. `RetriableError` while somebody holds the table, `FatalError` without the right to."""
    for statement in statements:
        text = statement.as_string(connection)
        try:
            with connection.transaction():
                # ALTER TABLE waits for whoever uses the table, and everybody else waits for it.
                connection.execute("set local lock_timeout = '5s'")
                connection.execute(statement)
        except psycopg.errors.InsufficientPrivilege as error:
            raise FatalError(
                f"setting a replica identity (replica.identity.autoset.values): {' '.join(str(error).split())}. "
                f"Remedy: let the owner of the table run: {text};"
            ) from None
        except psycopg.errors.ReadOnlySqlTransaction:
            raise FatalError(
                "this server is a standby, where no replica identity can be set (replica.identity.autoset.values). "
                f"Remedy: run on its primary: {text};"
            ) from None
        except psycopg.Error as error:
            raise translate(error, f"running {text}") from None


def _shared_topics(config: PostgresConfig, tables: Sequence[TableInfo]) -> list[Finding]:
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
