"""Values of `cdc.reader`, written as literals that Postgres reads: what it then prints is what the column has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from typing import Any

from psycopg import sql

from cdc import reader
from cdc.postgres.catalog import TableInfo, qualified, read_types
from cdc.postgres.connection import Connection
from cdc.postgres.pg_type import canonical_type
from cdc.reader import ArrayOf, CanonicalType, RowOf

__all__ = ["NOT_KEPT", "literal", "made_of", "prove_rows"]

NOT_KEPT = ("timetz", "json", "jsonb")
"""Python values are not all of them: the zone, blanks, whether a null is JSON's."""


def prove_rows(connection: Connection, table: TableInfo, hashes: Iterable[Mapping[Any, Any]]) -> int:
    """Compare what the reader makes of a table's hashes with its rows, value by value; how many."""
    types = read_types(connection, {column.type_oid for column in table.columns})
    kinds = {column.name: canonical_type(column.type_oid, column.typmod, types) for column in table.columns}
    definitions = {column.name: sql.SQL(column.type_name) for column in table.columns}
    place = qualified(table.schema, table.name)
    compared = [name for name in kinds if not made_of(kinds[name], *NOT_KEPT)]
    count = 0
    for fields in hashes:
        row = reader.read(fields, kinds) or {}
        written = {name: literal(kinds[name], row[name]) for name in compared if row.get(name) is not None}
        told = [
            sql.SQL("({}::{})::text is not distinct from {}::text").format(
                sql.Literal(written.get(name)), definitions[name], sql.Identifier(name)
            )
            for name in compared
        ]
        key = sql.SQL(" and ").join(
            sql.SQL("{} = {}::{}").format(sql.Identifier(name), sql.Literal(written[name]), definitions[name])
            for name in table.primary_key
        )
        answers = connection.execute(
            sql.SQL("select {} from {} where {}").format(sql.SQL(", ").join(told), place, key)
        ).fetchall()
        assert len(answers) == 1, f"{table.full_name}: {len(answers)} rows for {row}"
        differing = {name: row[name] for name, same in zip(compared, answers[0], strict=True) if not same}
        assert not differing, f"{table.full_name}: {differing}"
        count += 1
    [(rows,)] = connection.execute(sql.SQL("select count(*) from {}").format(place)).fetchall()
    assert rows == count, f"{table.full_name}: {rows} rows, {count} hashes"
    return count


def made_of(type_: CanonicalType, *names: str) -> bool:
    """Whether a type is one of these, or made of one; or an array of arrays, where a list may be either's."""
    if isinstance(type_, ArrayOf) and isinstance(type_.element, ArrayOf):
        return True
    if isinstance(type_, ArrayOf):
        return made_of(type_.element, *names)
    return any(made_of(part, *names) for _, part in type_.fields) if isinstance(type_, RowOf) else type_ in names


def literal(type_: CanonicalType, value: Any) -> str:
    """A value as Postgres reads it."""
    match value:
        case str():
            return value
        case bool():
            return ("1" if value else "0") if type_ == "bit(1)" else str(value)
        case float():
            return repr(value)
        case date() | time() | datetime():
            return value.isoformat()
        case bytes():
            return ("\\x" if type_ == "bytea" else "") + value.hex()
        case reader.Interval():
            return f"{value.months} mons {value.days} days {value.microseconds} microseconds"
        case reader.Range():
            return _range(value)
        case tuple():
            return f"({value[0]!r},{value[1]!r})"
        case dict() if isinstance(type_, RowOf):
            kinds = dict(type_.fields)
            return f"({','.join('' if part is None else _quoted(kinds[name], part) for name, part in value.items())})"
        case dict():
            pairs = (f"{_quote(key)}=>{'NULL' if item is None else _quote(item)}" for key, item in value.items())
            return ", ".join(pairs)
        case list() if isinstance(type_, ArrayOf):
            return "{" + type_.delimiter.join(_element(type_, item) for item in value) + "}"
        case list() if isinstance(type_, str) and type_.endswith("multirange"):
            return "{" + ",".join(map(_range, value)) + "}"
        case list():
            return f"[{','.join(map(repr, value))}]"
    return str(value)


def _element(array: ArrayOf, item: Any) -> str:
    if item is None:
        return "NULL"
    nested = item[:1] and (item[0] is None or isinstance(item[0], list)) if _is_list(array.element) else True
    return literal(array, item) if isinstance(item, list) and nested else _quoted(array.element, item)


def _is_list(type_: CanonicalType) -> bool:
    """Whether elements that are lists may be no further dimension."""
    return isinstance(type_, str) and (type_.endswith("multirange") or type_ in ("vector", "halfvec"))


def _quoted(type_: CanonicalType, value: Any) -> str:
    return _quote(literal(type_, value))


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _range(value: reader.Range) -> str:
    if not value.bounds:
        return "empty"
    lower, upper = ("" if end is None else _quoted("", end) for end in (value.lower, value.upper))
    return f"{value.bounds[0]}{lower},{upper}{value.bounds[1]}"
