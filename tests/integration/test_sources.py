"""What else a source meets: prepared transactions, foreign origins, logical messages, encodings, and its settings."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from structlog.testing import capture_logs

from cdc.errors import FatalError
from tests.fix_servers import Database
from tests.integration.test_source_task import Tail, table_rows, tail

__all__ = ["tail"]

pytestmark = pytest.mark.integration

MakeTail = Callable[..., Tail]


def publication(database: Database, source: Tail) -> list[str]:
    query = "select schemaname || '.' || tablename from pg_publication_tables where pubname = %s order by 1"
    return [row[0] for row in database.execute(query, [source.config.publication])]


def test_a_prepared_transaction_is_told_when_it_commits(database: Database, tail: MakeTail) -> None:
    """And after restarts before and after, one that is rolled back never."""
    database.execute("create table t (id int primary key, v text)")
    source = tail().start().snapshot()
    database.execute(
        f"begin; insert into t values (1, 'a'); update t set id = 2; prepare transaction 'one_{database.name}'"
    )
    database.execute(f"begin; insert into t values (5, 'never'); prepare transaction 'two_{database.name}'")
    database.execute("insert into t values (3, 'between')")
    source.until(lambda: len(source.records) == 1)
    source.crash()
    source.start()
    database.execute(f"commit prepared 'one_{database.name}'")
    database.execute(f"rollback prepared 'two_{database.name}'")
    source.until(lambda: source.rows("t") == table_rows(database, "t"))
    assert [change.op for change in source.records] == ["c", "c", "d", "", "c"]
    source.stop()
    source.start()
    database.execute("insert into t values (4, 'after')")
    source.until(lambda: source.rows("t") == table_rows(database, "t"))


def test_messages_of_anybody_are_harmless(database: Database, tail: MakeTail) -> None:
    """Any prefix, ours too; binary content; transactional or not; around rows, and across a crash inside."""
    database.execute("create table t (id int primary key, v text)")
    source = tail().start().snapshot()
    for prefix in ("", "żółw", "cdc.snapshot", "cdc.mark", "cdc.", "x" * 200):
        for transactional in ("true", "false"):
            database.execute(f"select pg_logical_emit_message({transactional}, %s, '\\x00ff10c328'::bytea)", [prefix])
            database.execute(f"select pg_logical_emit_message({transactional}, %s, 'not/a/token')", [prefix])
    database.execute(
        "begin; select pg_logical_emit_message(true, 'a', ''); insert into t values (1, 'x');"
        " select pg_logical_emit_message(false, 'b', 'c'); select pg_logical_emit_message(true, 'b', 'c');"
        " insert into t values (2, 'y'); commit"
    )
    source.until(lambda: len(source.rows("t")) == 2)
    assert [change.ordinal for change in source.changes] == [2, 4]
    source.crash()
    source.start()
    database.execute("insert into t values (3, 'z')")
    source.until(lambda: source.rows("t") == table_rows(database, "t"))
    assert len(source.changes) == 3


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_in_another_encoding_is_told_in_utf8(database18: Database, encoding: str) -> None:
    name = f"{database18.name}_e"
    database18.execute(
        f"create database {name} encoding '{encoding}' template template0 locale_provider libc"
        " lc_collate 'C' lc_ctype 'C'"
    )
    other = Database(database18.server, name)
    source = Tail(other)
    try:
        text = "ünïcode" if encoding == "LATIN1" else "plain"
        with psycopg.connect(**other.conninfo, client_encoding="utf8", autocommit=True) as connection:
            connection.execute(f'create table "{text}" (id int primary key, "{text}" text)'.encode())
            connection.execute(f"insert into \"{text}\" values (1, '{text}')".encode())
            source.start().until(lambda: len(source.records) == 1)
            connection.execute(f"insert into \"{text}\" values (2, '{text}')".encode())
            if encoding == "SQL_ASCII":
                # bytes that are no UTF-8, in a prefix that nobody asked for
                connection.execute(
                    b"select pg_logical_emit_message(true, convert_from('\\xff'::bytea, 'SQL_ASCII'), '')"
                )
            connection.execute(f"insert into \"{text}\" values (3, '{text}')".encode())
        source.until(lambda: len(source.changes) == 3)
        for change in source.changes:
            assert change.after is not None
            assert (change.shape.table, change.after[1]) == (text, text.encode())
    finally:
        source.stop()
        with psycopg.connect(**database18.server.conninfo(), autocommit=True) as admin:
            admin.execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = %s", [name]
            )
            admin.execute(f"drop database {name} with (force)".encode())


@pytest.mark.parametrize(("wanted", "told"), [("none", [b"2"]), ("any", [b"1", b"2"])])
def test_changes_of_another_origin_are_left_out_on_demand(database18: Database, wanted: str, told: list[bytes]) -> None:
    database18.execute("create table t (id int primary key)")
    database18.execute(f"select pg_replication_origin_create('{database18.name}')")
    source = Tail(database18, publish_origin=wanted).start()
    try:
        source.snapshot()
        database18.execute(
            f"select pg_replication_origin_session_setup('{database18.name}'); insert into t values (1);"
            " select pg_replication_origin_session_reset()"
        )
        database18.execute("insert into t values (2)")
        source.until(lambda: (b"2",) in source.rows("t"))
        assert [change.after[0] for change in source.records if change.after] == told
    finally:
        source.stop()
        database18.execute(f"select pg_replication_origin_drop('{database18.name}')")


def test_an_origin_filter_needs_postgres_16(database15: Database) -> None:
    database15.execute("create table t (id int primary key)")
    source = Tail(database15, publish_origin="none")
    try:
        with pytest.raises(FatalError, match=r"publish\.origin=none needs Postgres 16"):
            source.start()
    finally:
        source.stop()


def test_options_of_the_stream_belong_to_an_open_transactions_position(
    database18: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdc.postgres.task.READ_BYTES", 4000)
    database18.execute("create table t (id int primary key, v text)")
    source = Tail(database18).start()
    try:
        source.snapshot()
        database18.execute("insert into t select i, repeat('a', 50) from generate_series(1, 500) i")
        source.until(lambda: any("open" in str(value) for value in source.stored.values()))
        stored = source.stored
        source.stop()
        changed = Tail(database18, publish_origin="none")
        changed.stored = dict(stored)
        with pytest.raises(FatalError, match="stopped inside a transaction with"):
            changed.start()
        changed.stop()
    finally:
        source.stop()


def test_replica_identities_are_set_at_start(database18: Database) -> None:
    database18.execute(
        "create table a (id int primary key, v text); create table b (x int not null, v text);"
        " create unique index b_x on b (x); create table c (id int primary key);"
        " alter table c replica identity nothing;"
        " create table p (id int primary key, v text) partition by list (id);"
        " create table p_1 partition of p for values in (1)"
    )
    rules = "public.a:FULL, public.b:INDEX b_x, public.c:DEFAULT, public.p:FULL"
    source = Tail(database18, replica_identity_autoset_values=rules).start()
    try:
        query = "select relname, relreplident from pg_class where relname in ('a', 'b', 'c', 'p', 'p_1') order by 1"
        assert database18.execute(query) == [("a", "f"), ("b", "i"), ("c", "d"), ("p", "f"), ("p_1", "f")]
        source.until(lambda: source.task is not None and source.task.metrics()["snapshot_tables_left"] == 0)
        database18.execute("insert into a values (1, 'old'); update a set v = 'new'; insert into b values (1, 'v')")
        database18.execute("update b set x = 2; insert into p values (1, 'old'); update p set v = 'new'")
        source.until(lambda: len(source.records) == 8)
        assert source.records[1].before == [b"1", b"old"]
        assert source.rows("b") == {(b"2",): [b"2", b"v"]}
    finally:
        source.stop()


def test_a_filtered_publication_is_kept_to_the_chosen_tables(database18: Database) -> None:
    database18.execute("create table a (id int primary key); create table b (id int primary key)")
    source = Tail(database18, table_include_list="public.a").start()
    assert publication(database18, source) == ["public.a"]
    source.stop()
    both = Tail(database18, table_include_list="public.a,public.b")
    both.stored = source.stored
    both.start().stop()
    assert publication(database18, both) == ["public.a", "public.b"]
    source.start().stop()
    assert publication(database18, source) == ["public.a"]


def test_a_publication_of_all_tables_names_whom_it_harms(database18: Database) -> None:
    database18.execute("create table t (id int primary key); create table log (v text); create table other (v text)")
    with capture_logs() as logs:
        source = Tail(
            database18, publication_autocreate_mode="all_tables", table_include_list="public.t,public.log"
        ).start()
    try:
        told = " ".join(log["event"] for log in logs)
        assert "public.log has no primary key and no replica identity" in told
        assert "public.other" in told
        source.snapshot()  # a row that is there before its table is read would be told as read
        database18.execute("insert into log values ('x'); insert into t values (1); truncate log")
        source.until(lambda: [change.op for change in source.records] == ["c", "c", "t"])
    finally:
        source.stop()


def test_a_publication_made_empty_waits_for_its_tables(database18: Database) -> None:
    database18.execute("create table t (id int primary key)")
    source = Tail(database18, publication_autocreate_mode="no_tables")
    try:
        with pytest.raises(FatalError, match=r"lacks public\.t\. Run: ALTER PUBLICATION .* ADD TABLE") as caught:
            source.start()
        source.stop()
        database18.execute(str(caught.value).partition("Run: ")[2])
        source.start()
        assert publication(database18, source) == ["public.t"]
    finally:
        source.stop()


def test_rows_and_operations_can_be_left_out(database18: Database) -> None:
    database18.execute(
        "create table a (id int primary key, v text, w text); alter table a replica identity full;"
        " create table b (id int primary key); insert into a values (1, 'x', 'y'); insert into b values (1)"
    )
    source = Tail(
        database18,
        snapshot_include_collection_list="public.b",
        column_exclude_list="public.a.w",
        skip_messages_without_change="true",
        skipped_operations="d,t",
        tombstones_on_delete="false",
    ).start()
    try:
        source.until(lambda: len(source.records) == 1)
        assert (source.records[0].op, source.records[0].shape.table) == ("r", "b")
        database18.execute(
            "update a set w = 'z'; update a set v = 'x'; update a set v = 'q'; update a set id = 2;"
            " delete from b; truncate b; insert into b values (9)"
        )
        source.until(lambda: source.records[-1].shape.table == "b" and source.records[-1].op == "c")
        assert [(c.shape.table, c.op) for c in source.records[1:]] == [("a", "u"), ("a", "d"), ("a", "c"), ("b", "c")]
    finally:
        source.stop()


def test_a_publication_of_any_name_is_made_and_kept(database18: Database) -> None:
    database18.execute("create table t (id int primary key); insert into t values (1)")
    source = Tail(database18, publication_name='Odd "name", ü;--').start()
    try:
        source.until(lambda: len(source.records) == 1)
        database18.execute("insert into t values (2)")
        source.until(lambda: source.rows("t") == table_rows(database18, "t"))
        source.stop()
        source.start()
        assert publication(database18, source) == ["public.t"]
    finally:
        source.stop()
