"""A table as this connector captures it: published and chosen columns, and the record key.

The record key is, in this order: what ``message.key.columns`` names; the columns of REPLICA IDENTITY USING INDEX, if
they lack the primary key (nothing else tells which row a delete was about); the primary key; the first unique index,
by name, that is whole, immediate and over NOT NULL columns. Debezium takes nullable and partial indexes too: two rows
could share such a key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from cdc.errors import Finding
from cdc.postgres.catalog import GENERATED_SINCE, TableInfo, read_table
from cdc.postgres.config import PostgresConfig
from cdc.postgres.connection import Connection
from cdc.postgres.masks import masked_mapping
from cdc.postgres.selection import Selection
from cdc.postgres.types import TypeMapping
from cdc.record import Schema

__all__ = [
    "column_masks",
    "is_hidden_otherwise",
    "narrowed",
    "read_captured",
    "selection_of",
    "table_findings",
    "table_warnings",
]


def read_captured(connection: Connection, config: PostgresConfig, oid: int) -> TableInfo | None:
    """The table as it is captured now; ``None`` when it is gone."""
    info = read_table(connection, oid, config.publication)
    return None if info is None else narrowed(info, config.selection)


def narrowed(info: TableInfo, selection: Selection) -> TableInfo:
    """The table with the chosen columns and its record key, whose columns are always in."""
    names = [column.name for column in info.columns]
    key = _key(info, selection.key(info.schema, info.name, names))
    immediate = [set(index.columns) for index in info.unique]
    if info.primary_key and not info.deferrable:
        immediate.append(set(info.primary_key))
    distinct = bool(key) and any(columns <= set(key) for columns in immediate)
    required = {column.name for column in info.columns if column.not_null}
    chosen = {name for name in names if name in key or selection.column(info.schema, info.name, name)}
    return replace(
        info,
        columns=tuple(column for column in info.columns if column.name in chosen),
        excluded=tuple(name for name in names if name not in chosen),
        key=key,
        distinct=distinct,
        ordered=distinct and set(key) <= required,
    )


def _key(info: TableInfo, ruled: tuple[str, ...] | None) -> tuple[str, ...]:
    if ruled is not None:
        return ruled
    if info.replica_identity == "i" and not set(info.primary_key) <= set(info.identity_columns):
        return info.identity_columns
    if info.primary_key:
        return info.primary_key
    if info.replica_identity == "i":
        return info.identity_columns
    return info.unique[0].columns if info.unique else ()


def selection_of(info: TableInfo, selection: Selection) -> dict[str, str]:
    """Column → how the settings hide it: it is out, or masked in some way. Those that are told as they are, are not in.

    No salt is in it, but another salt makes another text.
    """
    told = dict.fromkeys(info.excluded, "out")
    for column in info.columns:
        mask = selection.mask(info.schema, info.name, column.name)
        if mask is not None and column.name not in info.key:
            sample = mask.make(2**31 - 1)(info.full_name.encode())
            told[column.name] = f"{mask.rule} {hashlib.sha256(sample).hexdigest()[:8]}"
    return told


def is_hidden_otherwise(info: TableInfo, then: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether a column that the table has now was told in another way then."""
    names = (*info.excluded, *(column.name for column in info.columns))
    return any(then.get(name) != now.get(name) for name in names)


def column_masks(info: TableInfo, selection: Selection) -> dict[int, Callable[[bytes], bytes]]:
    """What is written for texts of the table's columns, by place; only of masked ones."""
    masks = {}
    for place, column in enumerate(info.columns):
        mask = selection.mask(info.schema, info.name, column.name)
        if mask is not None and column.name not in info.key:
            _, apply = masked_mapping(mask, TypeMapping(Schema("string"), "text"), column.type_oid, column.typmod)
            if apply is not None:
                masks[place] = apply
    return masks


def table_findings(tables: Iterable[TableInfo], config: PostgresConfig, server_version: int = 0) -> list[Finding]:
    """Tables that cannot be captured without harm, each with its remedy (EXACTNESS.md H15, DESIGN.md §4)."""
    findings = []
    for table in tables:
        found = _unpublishable(table) or _bad_key(table, config)
        if found is None and not table.published:
            found = _harm(table, server_version)
        if found is not None:
            findings.append(found)
    return findings


def table_warnings(tables: Iterable[TableInfo], config: PostgresConfig, server_version: int = 0) -> list[str]:
    """What somebody who reads these tables' topics should know, in plain words."""
    told = []
    lossy = []
    for table in tables:
        name = table.full_name
        harm = _harm(table, server_version) if table.published else None
        if harm is not None:
            told.append(str(harm))
        if table.generated:
            told.append(
                f"{name}: the generated columns {', '.join(table.generated)} are left out: the server does not send "
                "their values in the stream"
            )
        if table.unlisted:
            told.append(f"{name}: the publication's column list leaves out {', '.join(table.unlisted)}")
        if table.row_filter:
            told.append(f"{name}: only rows with {table.row_filter} are told, as the publication's row filter says")
        if table.replica_identity == "i" and table.primary_key and table.key != table.primary_key:
            told.append(
                f"{name}: the record key is ({', '.join(table.key)}), because REPLICA IDENTITY USING INDEX does not "
                "tell the primary key of rows that are deleted"
            )
        if table.key and not table.distinct:
            told.append(
                f"{name}: rows can share the record key ({', '.join(table.key)}): its topic is a log of changes"
            )
        for column in table.columns:
            mask = config.selection.mask(table.schema, table.name, column.name)
            if mask is not None and not mask.hides and column.type_oid not in _TEXTS:
                told.append(
                    f"{name}.{column.name}: {mask.rule} cuts only text, and the column is of type {column.type_name}: "
                    "it is told whole; column.mask.with or column.mask.hash hide any type"
                )
        if table.key and set(table.toasted) - set(table.key) and not _full(table):
            lossy.append(name)
    if lossy and config.toast_handling_mode != "reselect" and config.compacted:
        told.append(
            f"toast.handling.mode is {config.toast_handling_mode} and topics are compacted: every rebuild will lack "
            f"large values that an UPDATE leaves alone, in {', '.join(lossy)}. Use reselect, or make the tables "
            "REPLICA IDENTITY FULL"
        )
    if unsaid := config.skipped & {"d", "t"}:
        words = " and ".join(word for op, word in (("d", "DELETE"), ("t", "TRUNCATE")) if op in unsaid)
        told.append(
            f"skipped.operations leaves out {', '.join(sorted(unsaid))}: rows that {words} removes stay in topics and "
            "sinks. Set skipped.operations=none for a mirror"
        )
    return told


_TEXTS = frozenset({18, 19, 25, 1042, 1043})


def _full(table: TableInfo) -> bool:
    identities = table.leaves if table.kind == "p" else (table.replica_identity,)
    return all(identity == "f" for identity in identities)


def _quoted(table: TableInfo) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in (table.schema, table.name))


def _finding(problem: str, remedy: str) -> Finding:
    return Finding(problem, key="table.include.list", remedy=remedy)


def _unpublishable(table: TableInfo) -> Finding | None:
    if table.persistence == "u":
        return _finding(
            f"{table.full_name} is UNLOGGED: its changes are not in the WAL",
            f"ALTER TABLE {_quoted(table)} SET LOGGED; or leave it out of table.include.list",
        )
    return None


def _harm(table: TableInfo, server_version: int) -> Finding | None:
    """What makes the application's UPDATE and DELETE fail once the table is published."""
    name, quoted = table.full_name, _quoted(table)
    fails = "publishing it makes the application's UPDATE and DELETE fail"
    identities = table.leaves if table.kind == "p" else (table.replica_identity + _no_key(table),)
    if any(identity.startswith("n") for identity in identities):
        where = "a partition with" if table.kind == "p" else "REPLICA IDENTITY NOTHING"
        where += " REPLICA IDENTITY NOTHING" if table.kind == "p" else ""
        return _finding(f"{name} has {where}: {fails}", f"ALTER TABLE {quoted} REPLICA IDENTITY DEFAULT;")
    if "d-" in identities:
        return _finding(
            f"{name} has no primary key and no replica identity: {fails}",
            f"Add a primary key; or ALTER TABLE {quoted} REPLICA IDENTITY FULL; "
            + ("" if table.key else "(it is then a stream of changes without keys, not mirrored by sinks); ")
            + "or leave it out of table.include.list",
        )
    identity = table.replica_identity
    told = {"f": None, "i": set(table.identity_columns), "d": set(table.primary_key)}.get(identity, set())
    missing = [column for column in table.generated if told is None or column in told]
    if missing and server_version >= GENERATED_SINCE:
        return _finding(
            f"the replica identity of {name} has the generated columns {', '.join(missing)}, which are not published: "
            f"{fails}",
            f"ALTER PUBLICATION … SET (publish_generated_columns = stored); or ALTER TABLE {quoted} REPLICA IDENTITY "
            "DEFAULT;",
        )
    unlisted = [column for column in table.unlisted if told is None or column in told]
    if unlisted:
        return _finding(
            f"the publication's column list leaves out {', '.join(unlisted)} of the replica identity of {name}: "
            f"{fails}",
            "Take the table out of the publication and add it again with these columns",
        )
    return None


def _no_key(table: TableInfo) -> str:
    return "-" if table.replica_identity == "d" and not table.primary_key else ""


def _bad_key(table: TableInfo, config: PostgresConfig) -> Finding | None:
    name, quoted, key = table.full_name, _quoted(table), table.key
    shown = f"({', '.join(key)})"
    if config.selection.key(table.schema, table.name, ["?"]) is not None and not key:
        return Finding(f"message.key.columns names no column of {name}", key="message.key.columns")
    if not key:
        return None
    if table.deferrable and not table.distinct:
        return _finding(
            f"the primary key of {name} is DEFERRABLE: within a statement two rows may bear one key, and their "
            "records would overtake each other",
            "Make the constraint NOT DEFERRABLE, or leave the table out of table.include.list",
        )
    lost = [column for column in key if column not in {known.name for known in table.columns}]
    if lost:
        return _finding(
            f"the publication's column list leaves out {', '.join(lost)} of the record key of {name}",
            "Take the table out of the publication and add it again with these columns",
        )
    for column in key:
        mask = config.selection.mask(table.schema, table.name, column)
        if mask is not None:
            return Finding(
                f"{mask.rule} names {name}.{column}, a column of the record key: masked, rows would share keys, and "
                "in the clear it would be told",
                key=mask.rule,
                remedy="Leave the column out of the rule, or choose other key columns with message.key.columns",
            )
    if not table.distinct and config.compacted:
        return Finding(
            f"no unique constraint keeps two rows of {name} from sharing the record key {shown}: compaction and sinks "
            "would keep one of them",
            key="message.key.columns",
            remedy=f"CREATE UNIQUE INDEX ON {quoted} {shown}; over columns that are NOT NULL; or "
            "topic.creation.default.cleanup.policy=delete, for a log of changes",
        )
    told = {"f": set(key), "n": set(key), "i": set(table.identity_columns), "d": set(table.primary_key)}
    identities = {identity[0] for identity in table.leaves} or {table.replica_identity}
    if table.primary_key and any(not set(key) <= told[identity] for identity in identities):
        return Finding(
            f"the replica identity of {name} does not tell the old values of the record key {shown}: a change of it "
            "would leave the old row",
            key="message.key.columns",
            remedy=f"ALTER TABLE {quoted} REPLICA IDENTITY FULL;",
        )
    return None
