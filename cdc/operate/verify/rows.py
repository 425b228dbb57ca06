"""Rows of one table as Postgres has them now: by ranges of the key, or by given keys.

Every statement is its own snapshot, so nothing holds back vacuum however long a comparison takes. Values come as text
under the pinned settings of `cdc.postgres.connection`, the text that the source reads too.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import sql

from cdc.codec.canonical import CanonicalType
from cdc.errors import FatalError
from cdc.operate.verify.compare import expected_hash
from cdc.operate.verify.modes import mirrored_type
from cdc.postgres.captured import column_masks, read_captured
from cdc.postgres.catalog import TableInfo, read_types
from cdc.postgres.config import PostgresConfig
from cdc.postgres.connection import Connection, translate
from cdc.postgres.copytext import parse_row
from cdc.postgres.pg_type import canonical_type

__all__ = ["Row", "TableRows"]

CHUNK_ROWS: Final = 2000
CHUNK_BYTES: Final = 4 << 20
"""A chunk ends at this size even before it has its number of rows."""
LOOKUP_KEYS: Final = 500
"""Keys looked up by one statement."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row, its version and what Redis must hold for it.

    ``key`` is Postgres's text of the key columns, ``version`` the transaction that wrote this version (xmin), ``hash``
    the fields by name.
    """

    key: tuple[str, ...]
    version: bytes
    hash: dict[bytes, bytes]


class TableRows:
    """Reads a table with a record key, as the ``source`` captures it: published rows, chosen columns, masked.

    `describe` again after DDL; psycopg's errors are translated.
    """

    def __init__(self, connection: Connection, source: PostgresConfig, oid: int) -> None:
        self._connection = connection
        self._source = source
        self._oid = oid
        self.info: TableInfo
        self._columns: list[tuple[bytes, CanonicalType]]
        self.describe()

    def describe(self) -> None:
        """Read the table's definition. `FatalError` when the table is gone or has lost its key."""
        info = read_captured(self._connection, self._source, self._oid)
        if info is None or not info.ordered:
            name = self.info.full_name if hasattr(self, "info") else f"with OID {self._oid}"
            what = "was dropped" if info is None else "has no primary key any more"
            raise FatalError(f"the table {name} {what} while it was being compared. Compare again")
        types = read_types(self._connection, {column.type_oid for column in info.columns})
        self.info = info
        self._masks = column_masks(info, self._source.selection)
        self._columns = [
            (
                column.name.encode(),
                "text"
                if place in self._masks
                else mirrored_type(canonical_type(column.type_oid, column.typmod, types), self._source),
            )
            for place, column in enumerate(info.columns)
        ]
        names = [column.name for column in info.columns]
        self._places = [names.index(name) for name in info.key]
        self.key_types = tuple(self._columns[place][1] for place in self._places)
        """The key columns' types, as `cdc.codec.canonical.from_postgres` takes them."""
        self._key_casts = [info.columns[place].type_name for place in self._places]

    @property
    def width(self) -> int:
        """How many columns are compared."""
        return len(self._columns)

    def chunk(self, after: tuple[str, ...] | None) -> list[Row]:
        """The next rows in the order of the key; empty at the end of the table."""
        places = range(self.width)
        rows: list[Row] = []
        size = 0
        try:
            with closing(self._copy(self._select(places) + self._after(after))) as lines:
                for line in lines:
                    rows.append(self._row(line, places))
                    size += len(line)
                    if size >= CHUNK_BYTES:
                        break
        except psycopg.Error as error:
            raise translate(error, f"reading {self.info.full_name}") from None
        return rows

    def find(self, keys: Sequence[tuple[str, ...]], *, keys_only: bool = False) -> list[Row]:
        """The rows that have these keys, in any order. A key that its columns' types cannot hold finds none.

        With ``keys_only`` the hashes have no more than the key columns.
        """
        places = self._places if keys_only else range(self.width)
        rows: list[Row] = []
        for start in range(0, len(keys), LOOKUP_KEYS):
            rows += self._find(keys[start : start + LOOKUP_KEYS], places)
        return rows

    def is_valid(self, key: tuple[str, ...]) -> bool:
        """Whether the key columns' types can hold these texts."""
        casts = sql.SQL(", ").join(self._casts(key))
        try:
            self._connection.execute(sql.SQL("select {}").format(casts))
        except (psycopg.DataError, UnicodeEncodeError):
            return False
        except psycopg.Error as error:
            raise translate(error, f"looking at a key of {self.info.full_name}") from None
        return True

    def condition(self, keys: Sequence[tuple[str, ...]]) -> str:
        """An SQL expression of the table's columns that the rows with these keys fulfil, and no others."""
        columns = sql.SQL(", ").join(sql.Identifier(name) for name in self.info.key)
        values = sql.SQL(", ").join(sql.SQL("({})").format(sql.SQL(", ").join(self._casts(key))) for key in keys)
        return sql.SQL("({}) in ({})").format(columns, values).as_string(self._connection)

    def _find(self, keys: Sequence[tuple[str, ...]], places: Sequence[int]) -> list[Row]:
        wanted = sql.SQL(", ").join(
            sql.SQL("({})").format(sql.SQL(", ").join(self._casts(key))) for key in dict.fromkeys(keys)
        )
        names = [sql.Identifier(f"k{place}") for place in range(len(self._places))]
        join = sql.SQL(" and ").join(
            sql.SQL("t.{} = w.{}").format(sql.Identifier(column), name)
            for column, name in zip(self.info.key, names, strict=True)
        )
        query = self._select(places) + sql.SQL(" join (values {}) w ({}) on {}").format(
            wanted, sql.SQL(", ").join(names), join
        )
        try:
            with closing(self._copy(query)) as lines:
                return [self._row(line, places) for line in lines]
        except (psycopg.DataError, UnicodeEncodeError):
            # One of the texts is no value of its column's type. Find out which by halves.
            if len(keys) == 1:
                return []
            half = len(keys) // 2
            return self._find(keys[:half], places) + self._find(keys[half:], places)
        except psycopg.Error as error:
            raise translate(error, f"reading {self.info.full_name}") from None

    def _select(self, places: Sequence[int]) -> sql.Composed:
        columns = sql.SQL(", ").join(sql.SQL("t.") + sql.Identifier(self.info.columns[i].name) for i in places)
        source = self.info.source
        if self.info.row_filter is not None:
            published = sql.SQL("(select *, xmin from {} where {})")
            source = published.format(source, sql.SQL(self.info.row_filter))
        return sql.SQL("select t.xmin::text, {} from {} t").format(columns, source)

    def _after(self, after: tuple[str, ...] | None) -> sql.Composed:
        columns = sql.SQL(", ").join(sql.SQL("t.") + sql.Identifier(name) for name in self.info.key)
        where = sql.SQL("").format()
        if after is not None:
            where = sql.SQL(" where ({}) > ({})").format(columns, sql.SQL(", ").join(self._casts(after)))
        return where + sql.SQL(" order by {} limit {}").format(columns, sql.Literal(CHUNK_ROWS))

    def _casts(self, key: tuple[str, ...]) -> list[sql.Composed]:
        # format_type() has quoted the type's name already.
        return [
            sql.SQL("{}::{}").format(sql.Literal(text), sql.SQL(type_name))
            for text, type_name in zip(key, self._key_casts, strict=True)
        ]

    def _copy(self, query: sql.Composed) -> Generator[bytes, None, None]:
        with (
            self._connection.cursor() as cursor,
            cursor.copy(sql.SQL("copy ({}) to stdout").format(query)) as copy,
        ):
            for data in copy:
                yield bytes(data)

    def _row(self, line: bytes, places: Sequence[int]) -> Row:
        version, *values = parse_row(line[:-1], len(places) + 1)
        values = [
            self._masks[place](value) if value is not None and place in self._masks else value
            for place, value in zip(places, values, strict=True)
        ]
        texts = dict(zip(places, values, strict=True))
        key = tuple(texts[place].decode() for place in self._places)
        return Row(key, version, expected_hash([self._columns[i] for i in places], values))
