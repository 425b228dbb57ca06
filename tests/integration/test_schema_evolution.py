"""Every kind of DDL at every moment, without Kafka: what the source tells, folded by key, is what Postgres holds.

Each situation is one test, in which each kind of DDL has a table of its own; so they share a slot and a look at the
catalog, as they would in life.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from psycopg import sql

from cdc.errors import FatalError
from cdc.postgres import snapshot
from cdc.postgres.connection import connect
from tests.fix_servers import Database
from tests.integration.test_source_task import Tail, tail

__all__ = ["tail"]

pytestmark = pytest.mark.integration

MakeTail = Callable[..., Tail]
Rows = dict[tuple[bytes, ...], dict[str, bytes]]

KINDS: dict[str, str] = {
    "added": "alter table {t} add c text",
    "added_default": "alter table {t} add c text default 'dflt'",
    "added_volatile": "alter table {t} add c float8 default random()",
    "added_not_null": "alter table {t} add c int not null default 7",
    "added_twice": "alter table {t} add c int default 1; alter table {t} add d int default 2",
    "dropped": "alter table {t} drop b",
    "dropped_and_added": "alter table {t} drop b; alter table {t} add b int default 5",
    "renamed": "alter table {t} rename b to c",
    "renamed_and_added": "alter table {t} rename b to c; alter table {t} add b text default 'new b'",
    "swapped": "alter table {t} rename a to x; alter table {t} rename b to a; alter table {t} rename x to b",
    "type_using": "alter table {t} alter n type text using 'n' || n",
    "type_widened": "alter table {t} alter n type bigint",
    "type_same": "alter table {t} alter n type int using n * 100",
    "varchar_wider": "alter table {t} alter v type varchar(20)",
    "varchar_to_text": "alter table {t} alter v type text",
    "not_null": "alter table {t} alter n set not null",
    "nullable": "alter table {t} alter a drop not null",
    "defaulted": "alter table {t} alter n set default 99; alter table {t} alter v drop default",
    "enum_renamed": "alter type mood_{t} rename value 'ok' to 'fine'",
    "key_rewritten": "alter table {t} alter id type int using id + 1000",
    "vacuumed": "",
    "full_identity": "alter table {t} rename b to c",
}
OUTSIDE_TRANSACTIONS = {"vacuumed": "vacuum full {t}", "made_anew": "drop table {t}; {create}; {rows}"}
TABLES = [*KINDS, "made_anew"]


def create(name: str) -> str:
    identity = f"; alter table {name} replica identity full" if name == "full_identity" else ""
    return (
        f"create table {name} (id int primary key, a text not null, b text, n int default 3, "
        f"v varchar(10) default 'v', m mood_{name}){identity}"
    )


def rows(name: str, first: int, last: int) -> str:
    return (
        f"insert into {name} select i, 'a' || i, nullif('b' || i, 'b2'), i, 'v' || i, 'ok' "
        f"from generate_series({first}, {last}) i"
    )


def prepare(database: Database, count: int = 3) -> None:
    for name in TABLES:
        database.execute(f"create type mood_{name} as enum ('sad', 'ok'); {create(name)}; {rows(name, 1, count)}")


def change(database: Database) -> None:
    """All kinds of DDL, each in a transaction of its own."""
    for name, statement in KINDS.items():
        if statement:
            database.execute(statement.format(t=name))
    for name, statement in OUTSIDE_TRANSACTIONS.items():
        for part in statement.format(t=name, create=create(name), rows=rows(name, 2, 2)).split("; "):
            database.execute(part)


def write(database: Database, identity: int) -> None:
    """A row with all columns of now, and an update and a delete."""
    for name in TABLES:
        values = ", ".join(VALUES[row[1]].format(i=identity) for row in database.execute(COLUMNS, [name]))
        database.execute(f"insert into {name} values ({values})")
        database.execute(f"update {name} set v = 'upd' where id = {identity - 1}")
        database.execute(f"delete from {name} where id = {identity - 2}")


COLUMNS = (
    "select attname, regexp_replace(format_type(atttypid, null), '^mood.*', 'enum') from"
    " pg_attribute where attrelid = %s::text::regclass and attnum > 0 and not attisdropped order by attnum"
)
VALUES = {
    "integer": "{i}",
    "bigint": "{i}",
    "text": "'t{i}'",
    "character varying": "'v{i}'",
    "enum": "'sad'",
    "double precision": "{i}.5",
}


def told(source: Tail, table: str) -> Rows:
    """The topic folded by key, with the columns that are not NULL by name."""
    found: Rows = {}
    for record in source.records:
        if record.shape.table != table:
            continue
        if record.op == "t":
            found.clear()
            continue
        assert record.key_row is not None
        key = tuple(record.key_row[i] for i in record.shape.key)
        if record.after is None:
            found.pop(key, None)
        else:
            names = [column.name for column in record.shape.columns]
            found[key] = {name: text for name, text in zip(names, record.after, strict=True) if text is not None}
    return found


def held(database: Database, *tables: str) -> list[Rows]:
    """What Postgres holds, in the same form; all tables in one connection."""
    found = []
    with connect({name: str(value) for name, value in database.conninfo.items()}, "oracle") as connection:
        for table in tables:
            result = connection.execute(sql.SQL("select * from {}").format(sql.Identifier(table))).pgresult
            assert result is not None
            names = [(result.fname(i) or b"").decode() for i in range(result.nfields)]
            rows_ = [[result.get_value(row, i) for i in range(result.nfields)] for row in range(result.ntuples)]
            found.append(
                {
                    (row[0] or b"",): {name: text for name, text in zip(names, row, strict=True) if text is not None}
                    for row in rows_
                }
            )
    return found


def equal(source: Tail, database: Database, table: str) -> bool:
    return [told(source, table)] == held(database, table)


def settle(source: Tail, database: Database) -> None:
    """Poll until every table is equal."""
    expected: list[Rows] = held(database, *TABLES)
    try:
        source.until(lambda: source.snapshot_done() and [told(source, name) for name in TABLES] == expected)
    except AssertionError:
        different = {
            name: (told(source, name), rows_)
            for name, rows_ in zip(TABLES, expected, strict=True)
            if told(source, name) != rows_
        }
        raise AssertionError(f"not equal: {different}") from None


def in_order(source: Tail) -> None:
    positions: dict[str, bytes] = {}
    for record in source.records:
        position = record.tx.position_prefix + b"%08x.%08x" % (record.ordinal, record.index)
        assert position > positions.get(record.shape.topic, b"")
        positions[record.shape.topic] = position


@pytest.fixture
def evolving(database: Database, tail: MakeTail) -> Tail:
    prepare(database)
    return tail(schema_refresh_ms=100, snapshot_fetch_size=2)


def test_on_quiet_tables(database: Database, evolving: Tail) -> None:
    evolving.start().snapshot()
    settle(evolving, database)
    change(database)
    settle(evolving, database)
    in_order(evolving)
    reads = {name: sum(r.op == "r" for r in evolving.records if r.shape.table == name) for name in TABLES}
    for name in ("added", "varchar_wider", "varchar_to_text", "not_null", "nullable", "defaulted", "vacuumed"):
        assert reads[name] == 3, f"{name} was read again, though no row changed"


def test_between_transactions_with_rows_on_both_sides(database: Database, evolving: Tail) -> None:
    evolving.start().snapshot()
    write(database, 10)
    change(database)
    write(database, 20)
    settle(evolving, database)
    in_order(evolving)


def test_inside_one_transaction_with_rows_on_both_sides(database: Database, evolving: Tail) -> None:
    evolving.start().snapshot()
    for name, statement in KINDS.items():
        database.execute(
            f"begin; {rows(name, 10, 12)}; {statement.format(t=name)}{';' if statement else ''} "
            f"delete from {name} where id in (11, 1011); update {name} set v = 'upd' where id in (1, 10, 1010); commit"
        )
    settle(evolving, database)
    in_order(evolving)


def test_while_the_worker_is_down(database: Database, evolving: Tail) -> None:
    evolving.start().snapshot()
    evolving.stop()
    write(database, 10)
    change(database)
    write(database, 20)
    evolving.start()
    settle(evolving, database)
    in_order(evolving)


def test_quiet_tables_while_the_worker_is_down(database: Database, evolving: Tail) -> None:
    """Nothing is in the WAL: the fingerprint stored with the offsets shows it."""
    evolving.start().snapshot()
    evolving.stop()
    change(database)
    evolving.start()
    settle(evolving, database)


def test_while_tables_are_being_read(database: Database, tail: MakeTail) -> None:
    prepare(database, 9)
    source = tail(schema_refresh_ms=100, snapshot_fetch_size=2).start()
    source.until(lambda: len(source.records) > 20)
    change(database)
    write(database, 20)
    settle(source, database)
    in_order(source)


@pytest.mark.parametrize("statement", ["detach", "attach"])
def test_partitions_that_come_and_go_while_the_table_is_being_read(
    database: Database, tail: MakeTail, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    """Before and behind the chunk that is being read, with another order of columns; rows of neither are in the WAL."""
    monkeypatch.setattr(snapshot, "READY_BYTES", 1)
    database.execute("create table parted (id int primary key, v text) partition by range (id)")
    for name, low in (("middle", 100), ("top", 300)):
        database.execute(f"create table {name} partition of parted for values from ({low}) to ({low + 100})")
        database.execute(f"insert into parted select i, 'a' from generate_series({low}, {low + 99}) i")
    for name, low in (("low", 0), ("high", 200)):
        database.execute(f"create table {name} (v text, id int primary key)")
        database.execute(f"insert into {name} select 'b', i from generate_series({low}, {low + 99}) i")
    source = tail(schema_refresh_ms=100, snapshot_fetch_size=10, table_include_list="public.parted").start()
    source.until(lambda: len(told(source, "parted")) > 20)
    assert not source.snapshot_done()
    if statement == "attach":
        database.execute("alter table parted attach partition low for values from (0) to (100)")
        database.execute("alter table parted attach partition high for values from (200) to (300)")
    else:
        database.execute("alter table parted detach partition top")
    database.execute("update parted set v = 'c' where id % 10 = 0")
    source.until(lambda: source.snapshot_done() and equal(source, database, "parted"))
    assert len(told(source, "parted")) == (400 if statement == "attach" else 100)


def test_an_extension_that_is_moved_dropped_and_made_again(database: Database, tail: MakeTail) -> None:
    """Its types get other names, then go with their columns, then come back under other OIDs."""
    database.execute("create schema elsewhere; create extension hstore; create extension citext")
    database.execute("create table t (id int primary key, h hstore, c citext)")
    database.execute("insert into t values (1, 'a=>1', 'One')")
    source = tail(schema_refresh_ms=100).start().snapshot()
    database.execute("alter extension hstore set schema elsewhere; alter extension citext set schema elsewhere")
    database.execute("insert into t values (2, 'b=>2', 'Two')")
    source.until(lambda: equal(source, database, "t"))
    database.execute("drop extension hstore cascade; drop extension citext cascade")
    database.execute("insert into t values (3)")
    source.until(lambda: equal(source, database, "t"))
    assert set(told(source, "t")[(b"1",)]) == {"id"}
    database.execute("create extension hstore; create extension citext")
    database.execute("alter table t add h hstore default 'n=>0', add c citext")
    database.execute("insert into t values (4, 'd=>4', 'Four')")
    source.until(lambda: equal(source, database, "t"))
    assert told(source, "t")[(b"4",)] == {"id": b"4", "h": b'"d"=>"4"', "c": b"Four"}


def test_a_crash_at_any_step_of_reading_again_loses_nothing(database: Database, tail: MakeTail) -> None:
    database.execute(
        "create table t (id int primary key, v text); insert into t select i, 'a' from generate_series(1, 40) i"
    )
    source = tail(schema_refresh_ms=100, snapshot_fetch_size=4).start().snapshot()
    database.execute("drop table t; create table t (id int primary key, w int)")
    database.execute("insert into t select i, i from generate_series(11, 30) i")
    for step in range(8):
        for _ in range(step + 2):
            source.poll()
            if step % 2:
                source.commit()
        source.crash()
        source.start()
    source.until(lambda: source.snapshot_done() and equal(source, database, "t"))
    assert len(told(source, "t")) == 20


def test_it_can_be_turned_off(database: Database, tail: MakeTail) -> None:
    database.execute("create table t (id int primary key, b text); insert into t values (1, 'x')")
    source = tail(schema_refresh_ms=100, schema_resnapshot_enabled="false").start().snapshot()
    database.execute("alter table t rename b to c; insert into t values (2, 'y')")
    source.until(lambda: len(told(source, "t")) == 2)
    database.execute("insert into t values (3, 'z')")
    source.until(lambda: len(told(source, "t")) == 3)
    assert sum(record.op == "r" for record in source.records) == 1
    source.stop()
    database.execute("drop table t; create table t (id int primary key)")
    with pytest.raises(FatalError, match=r"public\.t"):
        source.start()


def failed(source: Tail) -> dict[str, str]:
    return {p: v["failed"] for p, v in source.stored.items() if isinstance(v, dict) and v.get("failed")}


@pytest.mark.parametrize(
    ("harm", "reason", "mend"),
    [
        ("alter table t replica identity using index t_m_key", "record key", "replica identity default"),
        ("alter table t drop constraint t_pkey", "record key", "add primary key (id)"),
        ("alter publication {publication} drop table t", "taken out of the publication", ""),
    ],
    ids=["identity", "key dropped", "unpublished"],
)
def test_a_table_that_must_stop_does_not_stop_others_and_comes_back_when_mended(
    database: Database, tail: MakeTail, harm: str, reason: str, mend: str
) -> None:
    database.execute("create table t (id int primary key, m text not null unique); create table u (id int primary key)")
    database.execute("insert into t values (1, 'a'), (2, 'b'); insert into u values (1)")
    source = tail(schema_refresh_ms=100).start().snapshot()
    publication = source.config.publication
    database.execute(harm.format(publication=publication))
    source.until(lambda: any(reason in text for text in failed(source).values()))
    database.execute("insert into u values (2)")
    source.until(lambda: equal(source, database, "u"))
    source.crash()
    source.start()
    database.execute("insert into u values (3); insert into t values (3, 'c')")
    source.until(lambda: equal(source, database, "u"))
    source.stop()
    database.execute(f"alter table t {mend}" if mend else "select 1")
    database.execute("delete from t where id = 1")
    source.start().until(lambda: source.snapshot_done() and equal(source, database, "t"))
    assert not failed(source)


def test_tables_that_appear_are_captured_and_those_that_go_are_left(database: Database, tail: MakeTail) -> None:
    database.execute("create table a (id int primary key); insert into a values (1)")
    source = tail(schema_refresh_ms=100).start().snapshot()
    database.execute("create table b (id int primary key, v int); insert into b values (1, 1), (2, 2)")
    source.until(lambda: equal(source, database, "b"))
    database.execute("insert into b values (3, 3); drop table a")
    source.until(lambda: equal(source, database, "b"))
    source.until(lambda: "stopped" in [v.get("snapshot") for v in source.stored.values()])
    database.execute("alter table b rename to c; insert into c values (4, 4)")
    source.until(lambda: equal(source, database, "c"))
    database.execute("create table a (id int primary key); insert into a values (7)")
    source.until(lambda: equal(source, database, "a"))


def test_a_table_taken_from_the_lists_and_given_back_is_read_again(database: Database, tail: MakeTail) -> None:
    database.execute("create table a (id int primary key); create table b (id int primary key)")
    database.execute("insert into a values (1), (2); insert into b values (1)")
    both = tail(schema_refresh_ms=100).start().snapshot()
    both.stop()
    one: Any = tail(schema_refresh_ms=100, table_include_list=r"public\.b")
    one.stored, one.records = both.stored, both.records
    one.start().until(lambda: "stopped" in [v.get("snapshot") for v in one.stored.values()])
    database.execute("delete from a where id = 1; insert into a values (3)")
    one.stop()
    both.start().until(lambda: both.snapshot_done() and equal(both, database, "a"))


@pytest.mark.parametrize("mode", ["renew", "fail"])
def test_a_full_identity_and_a_key_renamed_behind_a_backlog(database: Database, tail: MakeTail, mode: str) -> None:
    """All columns are flagged as key, and the catalog's key is no column of the backlog: no record gets a null key."""
    database.execute("create table t (k int primary key, id int, v text); create table u (id int primary key)")
    database.execute("alter table t replica identity full; insert into t values (1, 10, 'a'), (2, 20, 'b')")
    source = tail(schema_refresh_ms=100, schema_key_change_handling_mode=mode).start().snapshot()
    source.stop()
    database.execute("update t set v = 'c' where k = 1; delete from t where k = 2; insert into t values (3, 30, 'd')")
    database.execute("alter table t rename k to x; alter table t rename id to k; insert into t values (4, 40, 'e')")
    database.execute("insert into u values (1)")
    source.start()
    if mode == "renew":
        source.until(lambda: source.snapshot_done() and equal(source, database, "t"))
    source.until(lambda: equal(source, database, "u"))
    assert all(record.shape.key for record in source.records)
    if mode == "fail":
        assert ["was (k) and is (x)" in reason for reason in failed(source).values()] == [True]


def test_a_value_is_never_read_again_from_another_column_of_the_name(database: Database, tail: MakeTail) -> None:
    """Unchanged TOAST behind a backlog, the names swapped since."""
    database.execute("create table t (id int primary key, n int, a text, b text)")
    database.execute("alter table t alter a set storage external, alter b set storage external")
    database.execute("insert into t values (1, 1, repeat('a', 5000), repeat('b', 5000))")
    source = tail(schema_refresh_ms=100).start().snapshot()
    source.stop()
    database.execute("update t set n = 2")
    database.execute("alter table t rename a to x; alter table t rename b to a; alter table t rename x to b")
    before = len(source.records)
    source.start().until(lambda: source.snapshot_done() and equal(source, database, "t"))
    update = source.records[before]
    assert (update.op, sorted(update.unknown)) == ("u", ["a", "b"])
