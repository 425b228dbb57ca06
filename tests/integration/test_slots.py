"""Slots that are lost, and what is done about it: the gap is named, and a reset ends equal, ghosts removed.

`Tail` plays the runtime (`tests.integration.test_source_task`). A server whose settings are changed is the test's own.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cdc.errors import CdcError, FatalError, GapError, RetriableError
from cdc.local.postgres import EmbeddedPostgres, Postgres, SystemPostgres
from cdc.postgres.position import Reset
from cdc.postgres.preparation import next_epoch
from tests.fix_servers import Database, fresh_database, started
from tests.integration.test_bridge import until
from tests.integration.test_source_task import PATIENCE_S, Tail, position, table_rows, tail

__all__ = ["tail"]

pytestmark = pytest.mark.integration

MakeTail = Callable[..., Tail]


@pytest.fixture(scope="module", params=[SystemPostgres, EmbeddedPostgres])
def small(request: pytest.FixtureRequest) -> Iterator[Postgres]:
    """A server that keeps next to no WAL for slots, of each version."""
    settings = {"fsync": "off", "max_slot_wal_keep_size": "16MB", "min_wal_size": "32MB", "max_wal_size": "32MB"}
    server = (
        SystemPostgres(15, settings=settings) if request.param is SystemPostgres else request.param(settings=settings)
    )
    with started(server) as running:
        yield running


@pytest.fixture
def own(small: Postgres) -> Iterator[Database]:
    with fresh_database(small) as database:
        yield database


@pytest.fixture
def stranger(own: Database) -> Iterator[Tail]:
    """A source on the server that keeps no WAL, with a table of 100 rows."""
    own.execute(
        "create table t (id int primary key, v text); insert into t select i, 'old' from generate_series(1, 100) i"
    )
    source = Tail(own)
    yield source
    source.stop()


def outgrow(database: Database) -> None:
    """Write so much WAL that no slot which does not move can keep up."""
    for _ in range(5):
        database.execute("select pg_logical_emit_message(true, 'x', 'x')")
        database.execute("select pg_switch_wal()")
    database.execute("checkpoint")


def reset(source: Tail) -> None:
    """As `cdc slot reset` does."""
    (partition,) = [key for key in source.stored if '"table"' not in key]
    stored = source.stored[partition]
    source.stored[partition] = Reset(next_epoch(stored["epoch"]), stored["lsn"]).to_json()


def test_a_slot_that_outgrew_its_wal_names_gap_reason_and_remedy(own: Database, stranger: Tail) -> None:
    stranger.start().snapshot().stop()
    outgrow(own)
    with pytest.raises(
        GapError,
        match=r"was invalidated by the server .*: changes from \S+ to \S+ \([\d.]+ MB of WAL\) are lost\. "
        r"The reason: .*max_slot_wal_keep_size.* Remedy: cdc slot reset FILE --connector tail",
    ):
        stranger.start()


def test_a_slot_lost_while_it_streams_is_named_at_once(own: Database, stranger: Tail) -> None:
    stranger.start().snapshot()
    outgrow(own)  # the walsender is ended: nobody has acknowledged anything meanwhile
    with pytest.raises(RetriableError, match="terminating connection"):
        until(stranger.poll, "the end of the stream")
    with pytest.raises(GapError, match="was invalidated by the server"):
        stranger.start()


def test_a_slot_that_timed_out_names_the_setting(
    launch: Callable[[Postgres], Postgres], new_database: Callable[[Postgres], Database]
) -> None:
    server = launch(EmbeddedPostgres(settings={"fsync": "off", "idle_replication_slot_timeout": "1s"}))
    database = new_database(server)
    database.execute("create table t (id int primary key)")
    source = Tail(database).start().snapshot()
    source.stop()

    def invalidated() -> bool:
        database.execute("checkpoint")
        return database.execute("select wal_status from pg_replication_slots") == [("lost",)]

    until(invalidated, "a slot that has timed out")
    with pytest.raises(GapError, match="idle_replication_slot_timeout"):
        source.start()
    source.stop()


def test_a_reset_after_a_lost_slot_ends_equal_without_ghosts(own: Database, stranger: Tail) -> None:
    """Crashes on the way: before anything is stored, between chunks, and before the sweep is told done."""
    stranger = Tail(own, snapshot_fetch_size=20)
    stranger.start().snapshot()
    before = max(position(change) for change in stranger.changes)
    stranger.stop()
    own.execute("delete from t where id <= 30; update t set v = 'new' where id between 40 and 50")
    outgrow(own)
    with pytest.raises(GapError):
        stranger.start()
    reset(stranger)
    stranger.start()
    stranger.poll()
    stranger.crash()
    assert "reset" in json.dumps(stranger.stored), "a crash before the first commit begins the reset again"
    stranger.start().until(lambda: "reset" not in json.dumps(stranger.stored) and _rows_read(stranger) >= 40)
    stranger.crash()
    own.execute("insert into t values (5, 'again'), (500, 'later'); delete from t where id = 99")
    stranger.start()
    until(lambda: stranger.poll() or (True and _swept(stranger)), "a sweep")
    stranger.crash()
    stranger.start().snapshot()
    stranger.until(lambda: stranger.rows("t") == table_rows(own, "t"))
    again = [change for change in stranger.changes if position(change) > before]
    assert {change.key_row[0] for change in again if change.op == "" and change.key_row} >= {b"1", b"30"}
    positions = [position(change) for change in stranger.changes]
    assert positions == sorted(positions)
    own.execute("delete from t where id = 60")
    stranger.until(lambda: stranger.rows("t") == table_rows(own, "t"))
    stranger.stop()


def _rows_read(source: Tail) -> int:
    return sum(int(value.get("rows", 0)) for key, value in source.stored.items() if '"table"' in key)


def _swept(source: Tail) -> bool:
    return any(change.op == "" and change.index >= 1 << 31 for change in source.changes)


@pytest.mark.parametrize("harm", ["drop", "advance", "forget"])
def test_a_reset_mends_every_gap(database: Database, tail: MakeTail, harm: str) -> None:
    database.execute("create table t (id int primary key, v text); create table empty (id int primary key)")
    database.execute("create table log (v text); alter table log replica identity full; insert into log values ('a')")
    database.execute("insert into t select i, 'old' from generate_series(1, 50) i")
    source = tail().start().snapshot()
    source.stop()
    database.execute("delete from t where id <= 10; update t set v = 'new' where id > 40; insert into log values ('b')")
    slot = source.config.slot
    if harm == "drop":
        database.execute(f"select pg_drop_replication_slot('{slot}')")
    elif harm == "advance":
        database.execute(f"select pg_replication_slot_advance('{slot}', pg_current_wal_lsn())")
    else:
        database.execute(f"drop publication {source.config.publication}")
    with pytest.raises(GapError, match=r"Remedy: .*cdc slot reset FILE --connector tail"):
        source.start()
    reset(source)
    source.start().snapshot()
    source.until(lambda: source.rows("t") == table_rows(database, "t"))
    database.execute("insert into t values (1, 'again')")
    source.until(lambda: source.rows("t") == table_rows(database, "t"))
    assert [change.after for change in source.changes if change.shape.table == "log"].count([b"b"]) == 1


def test_a_reset_without_snapshots_goes_on_from_now(database: Database, tail: MakeTail) -> None:
    database.execute("create table t (id int primary key)")
    source = tail(snapshot_mode="no_data").start()
    source.until(lambda: bool(source.stored))
    source.stop()
    database.execute(f"insert into t values (1); select pg_drop_replication_slot('{source.config.slot}')")
    reset(source)
    source.start().until(lambda: '"reset"' not in json.dumps(source.stored))
    database.execute("insert into t values (2)")
    source.until(lambda: list(source.rows("t")) == [(b"2",)])


def test_a_reset_does_not_take_a_slot_that_is_somebody_elses(database: Database, tail: MakeTail) -> None:
    database.execute("create table t (id int primary key)")
    source = tail().start().snapshot()
    source.stop()
    slot = source.config.slot
    database.execute(f"select pg_drop_replication_slot('{slot}')")
    database.execute(f"select pg_create_physical_replication_slot('{slot}')")
    reset(source)
    try:
        with pytest.raises(FatalError, match="is physical with plugin None"):
            source.start()
    finally:
        database.execute(f"select pg_drop_replication_slot('{slot}')")


def test_a_publication_dropped_while_it_streams_is_named(database: Database, tail: MakeTail) -> None:
    """Postgres 15 ends the stream; 18 goes on without its tables, which stop by name until it is back."""
    database.execute("create table t (id int primary key)")
    source = tail(schema_refresh_ms=100).start().snapshot()
    name = source.config.publication
    database.execute(f"drop publication {name}; insert into t values (1)")

    def told() -> dict[str, Any]:
        return next((value for key, value in reversed(source.reports) if key == "tables"), {})

    def named() -> bool:
        source.poll()
        source.commit()
        return f"publication {name}" in told().get("public.t", "")

    if database.server.major < 18:
        with pytest.raises(GapError, match=f"The publication {name} was dropped.* Remedy: cdc slot reset"):
            until(named, "an end of the stream")
        with pytest.raises(GapError, match=f"the publication {name} is gone"):
            source.start()
    else:
        until(named, "a table that says so")
        database.execute(f"create publication {name} for table t; delete from t; insert into t values (2)")
        source.until(lambda: source.rows("t") == table_rows(database, "t"))


def test_a_publication_made_anew_has_its_tables_read_again(database: Database, tail: MakeTail) -> None:
    database.execute("create table t (id int primary key, v text); insert into t values (1, 'old'), (2, 'old')")
    source = tail(schema_refresh_ms=100).start().snapshot()
    name = source.config.publication
    source.stop()
    database.execute(f"drop publication {name}; update t set v = 'new' where id = 1; delete from t where id = 2")
    database.execute(f"create publication {name} for table t")
    if database.server.major < 18:  # the server cannot get past what was changed in between
        with pytest.raises(GapError, match=f"The publication {name} was dropped.* Remedy: cdc slot reset"):
            source.start().until(lambda: False)
        reset(source)
    source.start().until(lambda: source.rows("t") == table_rows(database, "t"))


def test_a_slot_that_waits_for_a_transaction_names_its_session_and_can_be_stopped(
    database: Database, tail: MakeTail
) -> None:
    """Also of a snapshot for a table without key, for which a slot is made too (T25)."""
    database.execute("create table t (id int primary key); create table log (v text)")
    database.execute("alter table log replica identity full; insert into log values ('a')")
    holder = database.connect(autocommit=False, application_name="a long report")
    holder.execute("insert into t values (1)")
    pid = holder.info.backend_pid
    source = tail()
    thread, ended = _starting(source)
    try:
        expected = rf"waits for transactions that were open before it: pid {pid} \(role \w+, application_name "
        expected += r"'a long report', .*idle in transaction, transaction open for \d+ s, last query begun at 20\S+ "
        until(lambda: re.search(expected, source.waiting), "a word about who is waited for")
        assert f"SELECT pg_terminate_backend({pid});" in source.waiting
        source.stopping = True
        thread.join(PATIENCE_S)
        assert isinstance(ended[0], RetriableError)
        assert "asked to stop while the replication slot" in str(ended[0])
        slot = source.config.slot
        held = "select count(*) from pg_replication_slots where slot_name = %s"
        until(lambda: database.execute(held, [slot]) == [(0,)], "no slot half made")
        source.stopping = False
        source.reports.clear()
        thread, ended = _starting(source)
        until(lambda: f"pid {pid}" in source.waiting, "a word about who is waited for")
        holder.commit()
        thread.join(PATIENCE_S)
        assert ended == [None]
        assert source.waiting == ""
    finally:
        source.stopping = True
        holder.close()
        thread.join(PATIENCE_S)
    source.stopping = False
    source.snapshot()
    assert source.rows("t") == table_rows(database, "t")
    holder = database.connect(autocommit=False, application_name="another report")
    holder.execute("insert into t values (2)")
    source.stop()
    source.stored = {key: value for key, value in source.stored.items() if "public.log" not in key}
    thread, ended = _starting(source)
    try:
        until(lambda: "application_name 'another report'" in source.waiting, "a word about who is waited for")
    finally:
        holder.close()
        thread.join(PATIENCE_S)
    assert ended == [None]


def _starting(source: Tail) -> tuple[threading.Thread, list[BaseException | None]]:
    """Start the source in a thread; what that ended with."""
    ended: list[BaseException | None] = []

    def run() -> None:
        try:
            source.start()
        except CdcError as error:
            ended.append(error)
        else:
            ended.append(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, ended


def test_neither_other_tables_nor_other_databases_make_an_idle_slot_retain_wal(
    database: Database, tail: MakeTail, new_database: Callable[[Postgres], Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is confirmed and, with the server's next record of running transactions, what is kept too (H3, T6)."""
    monkeypatch.setattr("cdc.postgres.position.IDLE_SECONDS", 0.0)
    database.execute("create table t (id int primary key); create schema other")
    source = tail().start().snapshot()
    busy = "insert into {} select i, repeat('x', 500) from generate_series(1, 10000) i"
    for where, table in ((new_database(database.server), "public.busy"), (database, "other.busy")):
        where.execute(f"create table {table} (id int primary key, v text)")
        where.execute(busy.format(table))
        ((target,),) = database.execute("select pg_current_wal_flush_lsn()::text")
        kept = f"select confirmed_flush_lsn >= '{target}' and restart_lsn >= '{target}' from pg_replication_slots"

        def moved(kept: str = kept) -> bool:
            database.execute("checkpoint")
            return database.execute(f"{kept} where slot_name = %s", [source.config.slot]) == [(True,)]

        source.until(moved)


def test_when_needed_passes_a_publication_that_was_made_anew(database15: Database) -> None:
    """Up to Postgres 17 the stream ends there, time and again: what cannot be told is read (T24)."""
    database = database15
    database.execute("create table t (id int primary key, v text); insert into t values (1, 'old'), (2, 'old')")
    source = Tail(database, snapshot_mode="when_needed").start().snapshot()
    name = source.config.publication
    source.stop()
    database.execute(f"drop publication {name}; update t set v = 'new' where id = 1; delete from t where id = 2")
    database.execute(f"create publication {name} for table t")
    try:
        with pytest.raises(RetriableError, match="every table is read again"):
            source.start().until(lambda: False)
        assert "reset" in json.dumps(source.stored)
        source.start().until(lambda: source.rows("t") == table_rows(database, "t"))
    finally:
        source.stop()
