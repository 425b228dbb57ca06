"""The table of signals: rows that somebody inserts are acted on at their place in the stream.

It is published with the captured tables, and told in a topic only if the lists choose it, too. What is acted on is
stored together with the position behind the row, so that no row is acted on twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from cdc.errors import Finding
from cdc.postgres.captured_table import CapturedTable
from cdc.postgres.catalog import TableInfo, list_tables, read_table
from cdc.postgres.config import PostgresConfig
from cdc.postgres.connection import Connection
from cdc.postgres.pgoutput import INSERT, Relation, read_tuple
from cdc.record import Transaction

__all__ = ["SignalTable", "find_signal_table"]

_COLUMNS: Final = ("id", "type", "data")

Act = Callable[[str, str, str | None, str], None]
"""Acts on a signal: its id, type, data and place."""


def find_signal_table(connection: Connection, config: PostgresConfig) -> tuple[TableInfo | None, list[Finding]]:
    """The table that ``signal.data.collection`` names, and what is wrong with it."""
    wanted = config.signal_table
    if wanted is None:
        return None, []
    full_name = config.signal_data_collection
    key = "signal.data.collection"
    quoted = '"{}"."{}"'.format(*wanted)
    oid = next((found for found, schema, name, *_ in list_tables(connection) if (schema, name) == wanted), None)
    info = None if oid is None else read_table(connection, oid, config.publication)
    if info is None:
        make = f"CREATE TABLE {quoted} (id varchar(64) PRIMARY KEY, type varchar(32) NOT NULL, data text);"
        return None, [Finding(f"the table of signals {full_name} does not exist", key=key, remedy=make)]
    lost = [name for name in _COLUMNS if name not in {column.name for column in info.columns}]
    if lost:
        what = f"the table of signals {full_name} lacks the column {', '.join(lost)}, or the publication leaves it out"
        return None, [Finding(what, key=key, remedy="It needs the columns id, type and data, of texts")]
    if info.replica_identity == "n" or (info.replica_identity == "d" and not info.primary_key):
        what = f"the table of signals {full_name} has no primary key: once it is published, its rows cannot be removed"
        return None, [Finding(what, key=key, remedy=f"ALTER TABLE {quoted} ADD PRIMARY KEY (id);")]
    return info, []


class SignalTable:
    """The rows of the table of signals in the stream. The decoder hands them here, and nothing else."""

    def __init__(self, info: TableInfo, act: Act) -> None:
        self._name = (info.schema, info.name)
        self._act = act
        self._places: Sequence[int] = ()
        self._table: CapturedTable | None = None
        self.oid = info.oid

    def related(self, relation: Relation) -> None:
        """A Relation message came: it may be the table's, made anew."""
        if (relation.schema, relation.name) == self._name:
            self.oid = relation.oid
            names = [column.name for column in relation.columns]
            self._places = [names.index(name) for name in _COLUMNS] if set(_COLUMNS) <= set(names) else ()

    def take(self, table: CapturedTable | None) -> None:
        """Keep how the rows are told, if they are."""
        self._table = table

    def row(self, oid: int, frame: bytes, tx: Transaction, ordinal: int) -> CapturedTable | None:
        """Act on a row that was inserted; how it is to be told."""
        if oid != self.oid:
            return None
        if frame[25] == INSERT and self._places:
            row, _, _ = read_tuple(frame, 31)
            identifier, kind, data = (row[place] for place in self._places)
            texts = [
                None if value is None else bytes(value).decode("utf-8", "replace") for value in (identifier, kind, data)
            ]
            self._act(texts[0] or "", texts[1] or "", texts[2], (tx.position_prefix + b"%08x" % ordinal).decode())
        return self._table
