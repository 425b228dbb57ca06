"""What Postgres can do to rows, on real servers: identities, keys, TOAST, partitions, publications, transactions.

Each history is told once as a snapshot (of what it began with) and once as a stream; the topic folded by key is what
Postgres holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from cdc.errors import FatalError
from tests.fix_servers import Database
from tests.integration.test_source_task import Tail

pytestmark = pytest.mark.integration

BIG = "repeat('x', 5000)"


@dataclass
class History:
    """Tables, what happens to them, and what the source is told; ``key`` are the columns of the record key of ``t``."""

    tables: str
    changes: list[str]
    key: tuple[str, ...] = ("id",)
    settings: dict[str, str] = field(default_factory=dict)
    table: str = "t"
    select: str = ""
    columns: str = "*"


HISTORIES = {
    "default identity": History(
        "create table t (id int primary key, a text not null, v int); insert into t values (1, 'a', 1), (2, 'b', 2)",
        ["update t set v = 10 where id = 1", "update t set id = 11 where id = 1", "delete from t where id = 2"],
    ),
    "full identity": History(
        "create table t (id int primary key, a text, v int); alter table t replica identity full;"
        " insert into t values (1, 'a', 1), (2, null, 2)",
        ["update t set v = null where id = 1", "update t set id = 11, a = 'x' where id = 1", "delete from t"],
    ),
    "index identity with the key": History(
        "create table t (id int primary key, a text not null, v int); create unique index i on t (a, id);"
        " alter table t replica identity using index i; insert into t values (1, 'a', 1), (2, 'b', 2)",
        ["update t set a = 'z' where id = 1", "update t set id = 7 where id = 1", "delete from t where id = 2"],
    ),
    "index identity without the key": History(
        "create table t (id int primary key, a text not null, v int); create unique index i on t (a);"
        " alter table t replica identity using index i; insert into t values (1, 'a', 1), (2, 'b', 2)",
        [
            "update t set v = 10 where id = 1",
            "update t set a = 'aa' where id = 1",
            "update t set id = 11 where id = 1",
            "update t set id = 12, a = 'aaa' where id = 11",
            "delete from t where id = 2",
        ],
        key=("a",),
    ),
    "swaps and moves within a transaction": History(
        "create table t (id int primary key, v int); insert into t select i, i from generate_series(1, 9) i",
        [
            "begin; update t set id = -1 where id = 1; update t set id = 1 where id = 2;"
            " update t set id = 2 where id = -1; commit",
            "begin; insert into t values (50, 1); update t set v = 2 where id = 50; delete from t where id = 50;"
            " commit",
            "begin; delete from t where id = 3; insert into t values (3, 33); update t set v = 34 where id = 3; commit",
            "begin; insert into t values (60, 1); savepoint a;"
            " insert into t select i, 0 from generate_series(100, 600) i; rollback to a;"
            " update t set v = 61 where id = 60; savepoint b; delete from t where id = 4; release b; commit",
            "begin; update t set id = id + 1000 where id > 4; update t set id = id - 1000 where id > 1005; commit",
        ],
    ),
    "partial composite changes": History(
        "create table t (v int, b text, a int, primary key (a, b)); insert into t values (1, 'x', 1), (2, 'y', 1)",
        ["update t set b = 'z' where b = 'y'", "update t set a = 2 where b = 'z'", "update t set v = 9"],
        key=("a", "b"),
    ),
    "truncate with cascade": History(
        "create table t (id int primary key, v int); create table c (id int primary key, t int references t);"
        " insert into t values (1, 1); insert into c values (1, 1)",
        [
            "begin; insert into t values (2, 2); truncate t cascade; insert into t values (3, 3); commit",
            "insert into c values (5, 3); begin; truncate t, c restart identity; insert into t values (4, 4); commit",
        ],
    ),
    "a unique index as key": History(
        "create table t (a int not null unique, b text, c int not null unique deferrable, d int unique);"
        " create unique index a_partial on t (c) where c > 0; create unique index a_expression on t ((c + 1));"
        " alter table t replica identity full; insert into t values (1, 'x', 1, null), (2, 'y', 2, null)",
        ["update t set a = 5 where a = 1", "update t set b = null where a = 2", "delete from t where a = 2"],
        key=("a",),
    ),
    "key columns of one's own": History(
        "create table t (id int primary key, b text not null, c int not null, unique (b, c));"
        " alter table t replica identity full; insert into t values (1, 'x', 10), (2, 'y', 20)",
        [
            "update t set c = 11 where id = 1",
            "update t set id = 5 where id = 1",
            "begin; update t set c = -1 where id = 2; update t set b = 'q' where id = 2; commit",
            "delete from t where id = 5",
        ],
        key=("b", "c"),
        settings={"message_key_columns": "public.T:(b|c);public.other:x"},
    ),
    "stored generated columns": History(
        "create table t (id int primary key, a int, g int generated always as (a * 2) stored);"
        " insert into t values (1, 1), (2, 2)",
        ["update t set a = 10 where id = 1", "insert into t values (3, 3)", "update t set id = 9 where id = 2"],
        columns="id, a",
    ),
    "excluded columns": History(
        "create table t (hidden text, id int primary key, a text, internal_b int); alter table t replica identity full;"
        " insert into t values ('s', 1, 'a', 1), ('s', 2, 'b', 2)",
        ["update t set hidden = 'u', a = 'aa' where id = 1", "insert into t values ('s', 3, 'c', 3)", "delete from t"],
        settings={"column_exclude_list": r"public.t.hidden,public\.(.*)\.internal_.*,public.t.id"},
        columns="id, a",
    ),
    "included columns and the key": History(
        "create table t (id int primary key, a text, b int); insert into t values (1, 'a', 1)",
        ["update t set a = 'z', b = 5", "update t set id = 4"],
        settings={"column_include_list": "public.t.a"},
        columns="id, a",
    ),
    "a row filter and a column list": History(
        "create table t (id int primary key, a int not null, b text);"
        " create unique index i on t (id, a); alter table t replica identity using index i;"
        " insert into t select i, i, 'b' from generate_series(1, 300) i; create publication made for table t (id, a)"
        " where (a % 2 = 0)",
        [
            "update t set a = a + 1 where id between 1 and 10",
            "update t set a = a + 2 where id between 20 and 30",
            "delete from t where id = 40",
            "insert into t values (1000, 3, 'no'), (1001, 4, 'yes')",
            "update t set id = 2000 where id = 100",
        ],
        settings={"publication_name": "made", "snapshot_fetch_size": "100"},
        columns="id, a",
        select="where a % 2 = 0",
    ),
    "a row filter and large values": History(
        "create table t (id int primary key, a int not null, big text); alter table t alter big set storage external;"
        " create unique index i on t (id, a); alter table t replica identity using index i;"
        f" insert into t select i, i, {BIG} || i from generate_series(1, 4) i;"
        " create publication made for table t where (a % 2 = 0)",
        ["update t set a = a + 1", "update t set a = a + 1 where id < 3", "update t set a = 7"],
        settings={"publication_name": "made"},
        select="where a % 2 = 0",
    ),
    "partitions through their root": History(
        "create table t (id int, region text, v int, big text, primary key (id, region)) partition by list (region);"
        " alter table t alter big set storage external; create table t_eu partition of t for values in ('eu');"
        " create table t_us (v int, gone int, big text, region text not null, id int not null);"
        " alter table t_us drop column gone, alter big set storage external;"
        f" alter table t attach partition t_us for values in ('us'); insert into t values (1, 'eu', 1, {BIG}),"
        f" (2, 'us', 2, {BIG}), (3, 'eu', 3, null)",
        [
            "insert into t values (4, 'us', 4, 'small'); insert into t_us (id, region, v) values (5, 'us', 5)",
            "update t set v = v + 10",
            "update t set region = 'us' where id = 1",
            "delete from t where id = 2",
            "create table t_asia partition of t for values in ('asia');"
            f" insert into t values (6, 'asia', 6, {BIG}); update t set v = 66 where id = 6",
            "begin; truncate t; insert into t values (7, 'us', 7, null); commit",
        ],
        key=("id", "region"),
    ),
    "names of every kind": History(
        'create table "Ä ""q"".d😀" ("Id" int, "id" int, "a.b" text, "😀" text, "say ""hi""" int, "'
        + "n" * 63
        + '" text, primary key ("Id", "id"));'
        ' insert into "Ä ""q"".d😀" values (1, 1, $$dots$$, $$😀 ü 漢 ع$$, 1, null)',
        [
            'update "Ä ""q"".d😀" set "a.b" = $$x$$',
            'update "Ä ""q"".d😀" set "id" = 7',
            'insert into "Ä ""q"".d😀" values (1, 2, null, $$עברית हिन्दी 𝒳$$, 3, $$n$$)',
        ],
        key=("Id", "id"),
        table='Ä "q".d😀',
    ),
}


class Oracle:
    """Rows as Postgres prints them, and rows that were told, read back by Postgres as rows of the same table."""

    def __init__(self, database: Database, history: History) -> None:
        self._connection = database.connect()
        self._history = history
        self._table = '"' + history.table.replace('"', '""') + '"'
        self.columns = history.columns
        if "generated always" in history.tables and self._connection.info.server_version >= 180000:
            self.columns = "*"  # they are published

    def close(self) -> None:
        self._connection.close()

    def held(self) -> list[str]:
        query = f"select to_jsonb(r)::text from (select {self.columns} from {self._table} {self._history.select}) r"
        return sorted(row[0] for row in self._connection.execute(query.encode()))

    def told(self, source: Tail) -> list[str]:
        shape = next((c.shape for c in reversed(source.records) if c.shape.table == self._history.table), None)
        rows = list(source.rows(self._history.table).values())
        if shape is None or not rows:
            return []
        cursor = self._connection.execute(f"select {self.columns} from {self._table} limit 0".encode())
        assert cursor.description is not None
        assert [column.name for column in cursor.description] == [column.name for column in shape.columns]
        types = [self._type(column.type_code) for column in cursor.description]
        names = ", ".join('"' + c.name.replace('"', '""').replace("%", "%%") + '"' for c in shape.columns)
        casts = ", ".join(f"%s::{type_name}" for type_name in types)
        query = f"select to_jsonb(r)::text from (values {', '.join([f'({casts})'] * len(rows))}) r ({names})"
        values = [None if value is None else value.decode() for row in rows for value in row]
        return sorted(row[0] for row in self._connection.execute(query.encode(), values))

    def _type(self, oid: int) -> str:
        row = self._connection.execute("select format_type(%s, -1)", [oid]).fetchone()
        assert row is not None
        return str(row[0])


def follow(database: Database, source: Tail, history: History) -> None:
    """The history ends equal after the snapshot and after each of its changes."""
    oracle = Oracle(database, history)
    try:
        source.until(lambda: oracle.told(source) == oracle.held())
        for statements in history.changes:
            database.execute(statements)
            source.until(lambda: oracle.told(source) == oracle.held())
    finally:
        oracle.close()
    shape = next(c.shape for c in reversed(source.records) if c.shape.table == history.table)
    assert tuple(shape.columns[i].name for i in shape.key) == history.key
    positions = [c.tx.position_prefix + b"%08x.%08x" % (c.ordinal, c.index) for c in source.records]
    assert positions == sorted(set(positions))


def started(database: Database, history: History) -> Tail:
    database.execute(history.tables)
    return Tail(database, **history.settings).start()


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES.keys())
def test_a_history_ends_equal(database18: Database, history: History) -> None:
    source = started(database18, history)
    try:
        follow(database18, source, history)
    finally:
        source.stop()


@pytest.mark.parametrize(
    "name", ["stored generated columns", "a row filter and a column list", "partitions through their root"]
)
def test_a_history_ends_equal_on_postgres_15(database15: Database, name: str) -> None:
    source = started(database15, HISTORIES[name])
    try:
        follow(database15, source, HISTORIES[name])
    finally:
        source.stop()


@pytest.mark.parametrize(
    ("tables", "settings", "said"),
    [
        (
            "create table t (id int primary key, b text not null); alter table t replica identity full",
            {"message_key_columns": "public.t:b"},
            r"no unique constraint keeps two rows of public\.t from sharing the record key \(b\)",
        ),
        (
            "create table t (id int primary key, b text not null unique)",
            {"message_key_columns": "public.t:b"},
            r"replica identity of public\.t does not tell the old values of the record key \(b\)",
        ),
        (
            "create table t (id int primary key)",
            {"message_key_columns": "public.t:nope"},
            r"message\.key\.columns names no column of public\.t",
        ),
        (
            "create table t (id int primary key, b text unique); alter table t replica identity full",
            {"message_key_columns": "public.t:b"},
            "no unique constraint",
        ),
        (
            "create table t (id int primary key, v text)",
            {"column_mask_with_3_chars": "public.t.id"},
            r"public\.t\.id, a column of the record key",
        ),
        (
            "create table t (id int primary key) ; alter table t replica identity nothing",
            {},
            "REPLICA IDENTITY NOTHING",
        ),
        (
            "create table t (id int) partition by list (id); create table p partition of t for values in (1)",
            {},
            r"public\.t has no primary key and no replica identity",
        ),
        (
            "create table t (id int primary key) partition by list (id);"
            " create table p partition of t for values in (1);"
            " create publication by_hand for table t",
            {"publication_name": "by_hand", "table_include_list": "public.t"},
            r"under the names of its partitions, and of those the lists do not choose public\.p",
        ),
    ],
)
def test_what_could_not_be_exact_is_refused_by_name(
    database18: Database, tables: str, settings: dict[str, str], said: str
) -> None:
    database18.execute(tables)
    source = Tail(database18, **settings)
    try:
        with pytest.raises(FatalError, match=said):
            source.start()
    finally:
        source.stop()
