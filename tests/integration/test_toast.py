"""Unchanged TOAST under every replica identity and policy, TOASTed keys, and what compaction keeps."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from cdc.postgres.connection import connect
from cdc.postgres.reselect import reselect
from cdc.record import UNCHANGED
from tests.fix_servers import Database
from tests.integration.test_source_task import Tail, table_rows

pytestmark = pytest.mark.integration

TABLE = """
create table t (id int primary key, a text not null, n int, txt text, js jsonb, raw bytea, words text[], days date[]);
alter table t alter txt set storage external, alter js set storage external, alter raw set storage external,
    alter words set storage external, alter days set storage external;
create unique index i on t (a, id);
insert into t select i, 'a' || i, 0, repeat('x', 5000), jsonb_build_object('k', repeat('j', 5000)),
    decode(repeat('00ff', 2500), 'hex'), array[repeat('w', 5000)],
    (select array_agg('2026-01-01'::date + d) from generate_series(1, 1500) d) from generate_series(1, 3) i;
"""
IDENTITIES = {"default": "default", "full": "full", "index": "using index i"}
LARGE = ["txt", "js", "raw", "words", "days"]
PLACEHOLDERS = {"txt": b"<gone>", "js": b"<gone>", "raw": b"\\x3c676f6e653e", "words": b'{"<gone>"}', "days": UNCHANGED}


@pytest.mark.parametrize("identity", IDENTITIES)
@pytest.mark.parametrize("mode", ["reselect", "mark", "placeholder"])
def test_unchanged_toast_is_never_null(database18: Database, identity: str, mode: str) -> None:
    database18.execute(TABLE + f"alter table t replica identity {IDENTITIES[identity]}")
    source = Tail(database18, toast_handling_mode=mode, unavailable_value_placeholder="<gone>")
    try:
        with capture_logs() as logs:
            source.start().snapshot()
        warned = [log["event"] for log in logs if "toast.handling.mode" in log["event"]]
        assert bool(warned) == (mode != "reselect" and identity != "full")
        assert all("public.t" in warning for warning in warned)
        database18.execute("update t set n = 1 where id = 1; update t set id = 20, n = 1 where id = 2")
        database18.execute("update t set txt = 'small', n = 2 where id = 1; update t set n = null where id = 3")
        source.until(lambda: len(source.records) == 3 + 6)
        names = [column.name for column in source.records[0].shape.columns]
        if mode == "reselect" or identity == "full":
            assert source.rows("t") == table_rows(database18, "t")
            assert not any(change.unknown for change in source.records)
            return
        updates = [change for change in source.records[3:] if change.after is not None]
        unknown = [list(change.unknown) for change in updates]
        assert unknown == [LARGE, LARGE, LARGE[1:], LARGE]
        for change in updates:
            assert change.after is not None
            told = dict(zip(names, change.after, strict=True))
            for name in change.unknown:
                assert told[name] is UNCHANGED if mode == "mark" else told[name] == PLACEHOLDERS[name]
    finally:
        source.stop()


def test_the_last_record_of_a_key_alone_has_every_value(database18: Database) -> None:
    """What compaction leaves of a topic: the newest record of each key."""
    database18.execute(TABLE)
    source = Tail(database18).start()
    try:
        source.snapshot()
        for number in range(5):
            database18.execute(f"update t set n = {number}; update t set txt = repeat('{number}', 6000) where id = 2")
        database18.execute("begin; update t set n = 9; update t set js = '1' where id = 3; update t set n = 10; commit")
        source.until(lambda: len(source.records) == 3 + 5 * 4 + 7)
        last: dict[Any, Any] = {}
        for change in source.records:
            assert change.after is not None
            last[(change.after[0],)] = change.after
        assert last == table_rows(database18, "t")
    finally:
        source.stop()


@pytest.mark.parametrize("identity", ["default", "full"])
def test_a_toasted_key_is_told_with_its_value(database18: Database, identity: str) -> None:
    database18.execute("create table t (k text primary key, n int); alter table t alter k set storage external")
    database18.execute(f"alter table t replica identity {identity}")
    source = Tail(database18).start()
    try:
        database18.execute(
            "insert into t select string_agg(md5(i::text || 's' || j::text), ''), j"
            " from generate_series(1, 75) i, generate_series(1, 3) j group by j"
        )
        toasted = database18.execute(
            "select pg_relation_size(reltoastrelid) from pg_class where relname = 't' and relkind = 'r'"
        )
        assert toasted[0][0] > 0
        database18.execute("update t set n = n + 10")
        database18.execute("update t set k = 'short' where n = 11; delete from t where n = 12")
        source.until(lambda: source.rows("t") == table_rows(database18, "t"))
        for change in source.records:
            assert change.key_row is not None
            assert change.key_row[0] is not UNCHANGED
    finally:
        source.stop()


def test_a_value_read_again_is_never_of_a_commit_that_a_crash_can_lose(database18: Database) -> None:
    """An asynchronous commit is visible before it is on disk."""
    database18.execute(
        "create table t (id int primary key, n int, big text); alter table t alter big set storage external"
    )
    source = Tail(database18, toast_handling_mode="mark").start()
    try:
        database18.execute("insert into t select i, 0, repeat('x', 5000) from generate_series(1, 2) i")
        database18.execute("update t set n = 1")
        source.until(lambda: len(source.records) == 4)
        change = source.records[2]
        assert change.after is not None
        assert source.task is not None
        (table,) = source.task._decoder._relations.values()
        assert table is not None
        item = type("Item", (), {"table": table, "change": change, "columns": [2]})()
        info = {name: str(value) for name, value in database18.conninfo.items()}
        with database18.connect() as lazy, connect(info, "reselect") as connection:
            lazy.execute("set synchronous_commit = off")
            for number in range(20):
                lazy.execute("update t set big = repeat(%s, 6000) where id = 1", [str(number % 10)])
                row = lazy.execute("select pg_current_wal_insert_lsn()").fetchone()
                assert row is not None
                change.after[2] = UNCHANGED
                reselect([item], lambda: connection, source.task._tables.infos, lambda: None, lambda: False)
                flushed = lazy.execute("select pg_current_wal_flush_lsn() >= %s::pg_lsn", [row[0]]).fetchone()
                assert change.after[2] == str(number % 10).encode() * 6000
                assert flushed == (True,)
    finally:
        source.stop()


def test_rows_that_share_a_record_key_keep_their_own_values(database18: Database) -> None:
    """The key that somebody chose does not tell which row a value is to be read of."""
    database18.execute(
        "create table t (customer int, line int, n int, big text, primary key (customer, line));"
        " alter table t alter big set storage external;"
        " insert into t select 1, i, 0, repeat(i::text, 5000) from generate_series(1, 3) i;"
        " create table u (customer int, line int primary key, n int, big text); create unique index i on u (line, n);"
        " alter table u alter big set storage external, alter n set not null, replica identity using index i;"
        " insert into u select null, i, 0, repeat(i::text, 5000) from generate_series(1, 3) i"
    )
    source = Tail(
        database18,
        message_key_columns="public.t:customer;public.u:n",
        topic_creation_default_cleanup_policy="delete",
    ).start()
    try:
        source.snapshot()
        before = len(source.records)
        database18.execute("update t set n = 1; update u set customer = 1")
        source.until(lambda: len(source.records) == before + 6)
        for change in source.records[before:]:
            assert change.after is not None
            assert change.after[3] == (change.after[1] or b"") * 5000
    finally:
        source.stop()
