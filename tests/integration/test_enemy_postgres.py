"""What Postgres allows around a running mirror: DDL beside a snapshot, writers older than a publication, row security,
publications and replica identities that somebody changed. Each either ends equal or stops with its name."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from cdc.errors import FatalError, RetriableError
from cdc.postgres.snapshot import ChunkReader
from tests.fix_servers import Database
from tests.integration.test_source_task import PATIENCE_S, Tail, table_rows, tail

__all__ = ["tail"]

pytestmark = pytest.mark.integration

MakeTail = Callable[..., Tail]


def waits_for_a_lock(database: Database) -> bool:
    query = (
        "select count(*) from pg_locks l join pg_database d on d.oid = l.database where not granted and datname = %s"
    )
    return bool(database.execute(query, [database.name])[0][0])


def test_a_table_rewritten_while_it_is_being_read_is_read_whole(tail: MakeTail, database: Database) -> None:
    """A rewrite is not MVCC-safe: to a snapshot taken before it ends, the new table is empty."""
    database.execute(
        "create table t (id int primary key, v int); insert into t select i, i from generate_series(1, 500) i"
    )
    stream = tail(snapshot_fetch_size=100).start()
    stream.until(lambda: bool(stream.rows("t")))
    stream.crash()
    read = len(stream.rows("t"))
    assert 0 < read < 500
    with database.connect() as ddl:
        ddl.execute("begin; alter table t alter v type bigint")
        # Postgres 16 and later wait for the lock as soon as they are asked what is published; before, the reader waits
        # for the end of the rewriting transaction.
        starting = threading.Thread(target=stream.start)
        starting.start()
        deadline = time.monotonic() + PATIENCE_S
        while starting.is_alive() and not waits_for_a_lock(database):
            assert time.monotonic() < deadline, "nothing waits for the rewritten table"
            time.sleep(0.01)
        ddl.execute("commit")
        starting.join()
    stream.snapshot()
    assert stream.rows("t") == table_rows(database, "t")
    assert len(stream.rows("t")) == 500


def test_a_writer_older_than_the_publication_of_its_table_loses_nothing(tail: MakeTail, database: Database) -> None:
    """Its first rows are not published, and a chunk read beside it does not see them."""
    database.execute("create table a (id int primary key); insert into a values (1)")
    stream = tail().start().snapshot()
    stream.stop()
    database.execute("create table b (id int primary key, v int); insert into b values (1, 1)")
    with database.connect() as writer:
        writer.execute("begin; insert into b values (2, 2)")
        stream.start()
        for _ in range(20):
            stream.poll()
            stream.commit()
        writer.execute("insert into b values (3, 3); commit")
    stream.until(lambda: stream.snapshot_done() and len(stream.rows("b")) >= 2)
    database.execute("insert into b values (4, 4)")
    stream.until(lambda: (b"4",) in stream.rows("b"))
    assert stream.rows("b") == table_rows(database, "b")


def test_row_security_does_not_hide_rows_in_silence(tail: MakeTail, database: Database) -> None:
    name = database.name
    database.execute(
        "create table t (id int primary key, v int); insert into t values (1, 1), (2, 2);"
        " alter table t enable row level security; create policy odd on t using (id % 2 = 1);"
        f" create role {name}_reader login replication password 'reader';"
        f" grant create on database {name} to {name}_reader; grant select on t to {name}_reader;"
        f" create publication cdc_pub for table t"
    )
    try:
        stream = tail(publication_name="cdc_pub", database_user=f"{name}_reader", database_password="reader")
        with pytest.raises(FatalError, match="row-level security"):
            stream.start().snapshot()
        stream.stop()
    finally:
        database.execute(f"drop owned by {name}_reader; drop role {name}_reader")


def test_partitions_published_as_their_root_are_refused(tail: MakeTail, database: Database) -> None:
    database.execute(
        "create table r (id int primary key) partition by range (id);"
        " create table p partition of r for values from (0) to (100);"
        " create publication rooted for table r with (publish_via_partition_root)"
    )
    with pytest.raises(FatalError, match="publish_via_partition_root"):
        tail(publication_name="rooted", table_include_list=r"public\.p").start()


def test_a_publication_dropped_since_is_not_silently_made_again(tail: MakeTail, database: Database) -> None:
    database.execute("create table t (id int primary key); insert into t values (1)")
    stream = tail().start().snapshot()
    publication = stream.config.publication
    stream.stop()
    database.execute(f'drop publication "{publication}"; insert into t values (2)')
    with pytest.raises(FatalError, match=r"publication .* is gone"):
        stream.start()


@pytest.mark.parametrize(
    "change",
    [
        'alter publication "{publication}" drop table t; insert into t values (2); delete from t where id = 5',
        "drop table t; create table t (id int primary key); insert into t values (2)",
    ],
    ids=["taken out", "made anew"],
)
def test_a_table_that_left_the_publication_is_read_again(tail: MakeTail, database: Database, change: str) -> None:
    """Nobody told what happened to its rows meanwhile; those that are gone are deleted."""
    database.execute(
        "create table t (id int primary key); create table u (id int primary key); insert into t values (1), (5)"
    )
    stream = tail().start().snapshot()
    stream.stop()
    database.execute(change.format(publication=stream.config.publication))
    stream.start().until(lambda: stream.snapshot_done() and stream.rows("t") == table_rows(database, "t"))
    assert (b"2",) in stream.rows("t")
    assert (b"5",) not in stream.rows("t")


def test_a_keyless_table_with_a_gap_is_refused(tail: MakeTail, database: Database) -> None:
    """It cannot be read again: its topic holds changes, not rows."""
    database.execute(
        "create table log (v int); alter table log replica identity full; create table u (id int primary key)"
    )
    stream = tail().start().snapshot()
    stream.stop()
    database.execute("drop table log; create table log (v int); alter table log replica identity full")
    with pytest.raises(FatalError, match=r"public\.log was dropped and made anew"):
        stream.start()


@pytest.mark.parametrize("table", ["log", "parted"])
def test_a_keyless_table_rewritten_after_its_snapshot_was_exported_is_read_whole(
    tail: MakeTail, database: Database, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    """To the exported snapshot, which is older than the rewrite, the new file is empty."""
    database.execute(
        "create table log (v int); alter table log replica identity full; insert into log values (1), (2);"
        " create table parted (v int) partition by range (v);"
        " create table low partition of parted for values from (0) to (10);"
        " alter table low replica identity full; alter table parted replica identity full;"
        " insert into parted values (1), (2)"
    )
    begin = ChunkReader.start
    rewrites = [f"alter table {table} add w float8 default random()"]

    def start(reader: ChunkReader) -> None:
        if rewrites:
            database.execute(rewrites.pop())
        begin(reader)

    monkeypatch.setattr(ChunkReader, "start", start)
    stream = tail(publish_via_partition_root="true", table_include_list=rf"public\.{table}")
    try:
        stream.start().snapshot()
    except RetriableError:
        stream.start().snapshot()
    assert len([change for change in stream.changes if change.op == "r"]) == 2
