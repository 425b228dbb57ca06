"""Rows of letters that only their source can tell: which they are, and the order that has them read again."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg import sql

from cdc.codec.told_schema import parse_told
from cdc.config import Config, converter_properties, find_converter
from cdc.errors import CdcError, ConfigError, DataError
from cdc.operate.dlq.letters_of import Rows
from cdc.operate.dlq.queue import Entry
from cdc.operate.snapshot import await_outcome, order_of, send_order, succeeded
from cdc.postgres.config import PostgresConfig
from cdc.postgres.connector import PostgresSourceConnector
from cdc.record import HEADER_SCHEMA

__all__ = ["Reread", "read_again", "reread_of"]

PATIENCE_S: Final = 60.0
"""How long the source may take to read rows again before they are left for the next run."""
ROWS: Final = 200
"""Conditions of one order; more rows than that are several orders."""


@dataclass(frozen=True, slots=True)
class Reread:
    """Rows to be read again: of a source's table, those that a condition finds."""

    connector: str
    table: str
    where: str

    @property
    def command(self) -> str:
        """For a shell; FILE is the configuration."""
        told = f"cdc snapshot FILE --connector {shlex.quote(self.connector)} --table {shlex.quote(self.table)}"
        return f"{told} --where {shlex.quote(self.where)}" if self.where else told


def reread_of(config: Config, rows: Rows, entry: Entry) -> Reread | str:
    """What to read again for a letter; or why that cannot be said."""
    for spec in config.connectors:
        if isinstance(spec.connector, PostgresSourceConnector):
            table = _table(spec.connector.settings, entry.letter.topic)
            if table:
                return Reread(spec.name, table, _where(rows, entry))
    return f"no source of this configuration writes {entry.letter.topic}: have its source write the row again"


def read_again(config: Config, rows: Sequence[Reread]) -> dict[Reread, str]:
    """Have their sources read rows again, and wait for it; for each why it is not done, empty if it is."""
    outcomes: dict[Reread, str] = {}
    tables: dict[tuple[str, str], list[Reread]] = {}
    for row in dict.fromkeys(rows):
        tables.setdefault((row.connector, row.table), []).append(row)
    deadline = time.monotonic() + PATIENCE_S
    for (connector, table), asked in tables.items():
        whole = any(not row.where for row in asked)
        for begin in range(0, 1 if whole else len(asked), ROWS):
            part = asked if whole else asked[begin : begin + ROWS]
            where = "" if whole else " or ".join(f"({row.where})" for row in part)
            outcomes.update(dict.fromkeys(part, _order(config, connector, table, where, deadline)))
    return outcomes


def _order(config: Config, connector: str, table: str, where: str, deadline: float) -> str:
    expression = table if re.fullmatch(table, table) else re.escape(table)
    try:
        sent = send_order(config, connector, order_of([expression], where))
    except ConfigError as error:
        return str(error)
    outcome = await_outcome(config, connector, sent["id"], deadline - time.monotonic())
    if outcome is None:
        return (
            f"the source {connector} was asked for it (signal {sent['id']}) and has not done it yet. Run it, and "
            "replay again then"
        )
    if succeeded(outcome):
        return ""
    told = outcome.get("error") or "; ".join(
        f"{each.get('reason') or each['state']}" for each in outcome["tables"].values()
    )
    return f"the source {connector} did not read it again: {told}"


def _table(source: PostgresConfig, topic: str) -> str:
    """The table of a topic, as ``schema.table``; empty if it is none of the source's."""
    begin = source.topic_prefix + source.topic_delimiter
    schema, found, table = topic.removeprefix(begin).partition(source.topic_delimiter)
    if not topic.startswith(begin) or not found or source.topic(schema, table) != topic:
        return ""
    return f"{schema}.{table}"


def _where(rows: Rows, entry: Entry) -> str:
    """The condition for the row of a letter; empty, for all rows, if its key does not tell."""
    key = _key(rows, entry)
    if not isinstance(key, dict) or not key:
        return ""
    parts = []
    for name, value in key.items():
        if not isinstance(value, str | int) or isinstance(value, bool):
            return ""  # bytes of a decimal, days of a date: as whatever type the column has, it may be another row
        parts.append(sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(value)))
    return sql.SQL(" and ").join(parts).as_string(None)


def _key(rows: Rows, entry: Entry) -> Any:
    if entry.key is None:
        return None
    if entry.letter.form:
        try:
            found = json.loads(entry.key)
        except ValueError:
            return None
        return found.get("payload", found) if isinstance(found, dict) else None
    converter = find_converter(rows.spec.connector.config.key_converter)()
    try:
        converter.configure(converter_properties(rows.worker, is_key=True), is_key=True)
        schema, value = converter.to_connect(entry.letter.topic, entry.key)
    except CdcError:
        return None
    finally:
        converter.close()
    if schema is not None and any(field.schema.name for field in schema.fields):
        return None  # a date or a decimal in its number's form is not what Postgres compares with
    if schema is None and _told(entry):
        return None  # nor is what only a header tells the type of
    return value


def _told(entry: Entry) -> bool:
    """Whether a header tells types of the key that its bytes do not say. One that cannot be read may."""
    header = dict(entry.headers).get(HEADER_SCHEMA)
    try:
        return header is not None and bool(parse_told(header).key)
    except DataError:
        return True
