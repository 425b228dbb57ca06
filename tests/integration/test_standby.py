"""A standby as the source, and a primary to which nothing may be written: snapshots are placed by LSN (T27)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from cdc.errors import FatalError, RetriableError
from cdc.local.postgres import EmbeddedPostgres
from cdc.local.standby import EmbeddedStandby
from cdc.postgres.connector import PostgresSourceConnector
from cdc.postgres.touched import DatabaseSnapshot
from tests.fix_servers import Database, fresh_database, started
from tests.integration.test_bridge import until
from tests.integration.test_failover import go_on, stored
from tests.integration.test_source_task import Tail, position, table_rows, tail

__all__ = ["tail"]

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[EmbeddedPostgres, EmbeddedStandby]]:
    with started(EmbeddedPostgres(settings={"fsync": "off"})) as primary, started(EmbeddedStandby(primary)) as standby:
        yield primary, standby


@pytest.fixture
def primary(pair: tuple[EmbeddedPostgres, EmbeddedStandby]) -> Iterator[Database]:
    """A database on the primary, with the publication that a standby cannot make."""
    with fresh_database(pair[0]) as database:
        yield database


@pytest.fixture
def source(primary: Database, pair: tuple[EmbeddedPostgres, EmbeddedStandby]) -> Iterator[Tail]:
    """A source on the standby. Its slot is there when it ends, and goes with it."""
    reading = Tail(Database(pair[1], primary.name), snapshot_fetch_size=50)
    yield reading
    reading.stop()
    anywhere = Database(pair[1], "postgres")
    slots = "from pg_replication_slots where database = %s"
    until(lambda: not anywhere.execute(f"select {slots} and active", [primary.name]), "slots that nobody holds")
    anywhere.execute(f"select pg_drop_replication_slot(slot_name) {slots}", [primary.name])


class Nudge:
    """A primary that writes its running transactions down now and then, as a busy one does within 15 seconds."""

    def __init__(self, primary: Database) -> None:
        self._primary = primary
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        with self._primary.connect() as connection:
            while not self._stopping.wait(0.05):
                connection.execute("select pg_log_standby_snapshot()")


def replayed(primary: Database, source: Tail) -> None:
    """Wait until the standby shows what the primary has committed."""
    ((lsn,),) = primary.execute("select pg_current_wal_flush_lsn()::text")
    anywhere = Database(source.database.server, "postgres")  # the database itself may not be there yet
    until(lambda: anywhere.execute(f"select pg_last_wal_replay_lsn() >= '{lsn}'") == [(True,)], "replay")


class HotLoop:
    """An application that raises every row's number, over and over, in transactions short and long."""

    def __init__(self, database: Database, rows: int) -> None:
        self.rounds = 0
        self._database = database
        self._rows = rows
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(part,), daemon=True) for part in range(2)]
        for thread in self._threads:
            thread.start()

    def _run(self, part: int) -> None:
        with self._database.connect() as connection:
            while not self._stopping.is_set():
                for first in range(part, self._rows, 20):
                    ids = list(range(first, min(first + 20, self._rows), 2))
                    with connection.transaction():
                        connection.execute("update hot set n = n + 1 where id = any(%s)", [ids])
                        connection.execute("update hot set n = n + 1 where id = any(%s)", [ids[:3]])
                    if self._stopping.wait(0.01):  # no more than a loaded machine can follow
                        break
                self.rounds += 1

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()


def check_order(source: Tail) -> None:
    """Positions only rise, and no row goes back to an older number."""
    positions = [position(change) for change in source.changes]
    assert positions == sorted(set(positions))
    last: dict[bytes, int] = {}
    for change in source.changes:
        if change.shape.table == "hot" and change.after is not None:
            key, number = change.after[0], int(change.after[1])
            assert number >= last.get(key, 0), f"row {key!r} went back from {last[key]} to {number} by {change.op}"
            last[key] = number


def prepare(database: Database, publication: str) -> None:
    database.execute("create table hot (id int primary key, n int); create table empty (id int primary key)")
    database.execute("insert into hot select i, 1 from generate_series(0, 999) i")
    database.execute("create table log (v text); alter table log replica identity full")
    database.execute("insert into log values ('a'), ('b')")
    database.execute(f"create publication {publication} for table hot, log, empty")


def test_postgres_tells_no_running_transactions_on_a_standby(primary: Database, source: Tail) -> None:
    """Why its snapshots must be read otherwise: they claim to see what is still open."""
    primary.execute("create table hot (id int primary key)")
    with primary.connect(autocommit=False) as open_one:
        row = open_one.execute("insert into hot values (1) returning pg_current_xact_id()::text").fetchone()
        assert row is not None
        primary.execute("insert into hot values (2)")
        replayed(primary, source)
        ((text,),) = source.database.execute("select pg_current_snapshot()::text")
        xid = int(row[0])
        assert text.endswith(":"), "Postgres tells them by now: then a standby's snapshot can be read like any other"
        assert DatabaseSnapshot.parse(text).sees(xid)
        assert not DatabaseSnapshot.parse(text, standby=True).sees(xid)


def test_what_a_standby_cannot_do_is_named_with_its_remedy(primary: Database, source: Tail) -> None:
    """The publication is made on the primary; a slot waits for a record that the primary writes."""
    primary.execute("create table t (id int primary key); insert into t values (1)")
    replayed(primary, source)
    with pytest.raises(FatalError, match=r"this server is a standby.* Remedy: run on its primary: create publication"):
        source.start()
    primary.execute(f"create publication {source.config.publication} for table t")
    replayed(primary, source)
    ended: list[BaseException | None] = []
    thread = threading.Thread(target=lambda: ended.append(source.start() and None), daemon=True)
    thread.start()
    until(lambda: "run on the primary: SELECT pg_log_standby_snapshot();" in source.waiting, "a word about the primary")
    with Nudge(primary):
        thread.join(30)
    assert ended == [None]
    source.snapshot()
    assert list(source.rows("t")) == [(b"1",)]
    assert PostgresSourceConnector(source.config).check() == []
    source.database.execute("alter system set hot_standby_feedback = off")
    source.database.execute("select pg_reload_conf()")
    try:
        until(lambda: PostgresSourceConnector(source.config).check(), "a finding")
        (finding,) = PostgresSourceConnector(source.config).check()
        assert "hot_standby_feedback is off" in finding.message
    finally:
        source.database.execute("alter system reset hot_standby_feedback")
        source.database.execute("select pg_reload_conf()")


def test_a_standby_is_read_exactly_while_its_primary_is_busy(primary: Database, source: Tail) -> None:
    """Under a hot update loop, with crashes between the chunks; idle afterwards; and read again after DDL."""
    prepare(primary, source.config.publication)
    replayed(primary, source)
    source.config = source.config.model_copy(update={"schema_refresh_ms": 100})
    loop = HotLoop(primary, 1000)
    try:
        with Nudge(primary):
            source.start()
        for rows in (200, 600):
            source.until(lambda rows=rows: _read(source) >= rows)  # type: ignore[misc]
            source.crash()
            source.start()
        source.snapshot()
        before = loop.rounds
        source.until(lambda: loop.rounds > before + 2)
    finally:
        loop.stop()
    source.until(lambda: source.rows("hot") == table_rows(primary, "hot"))
    check_order(source)
    assert sorted(change.after for change in source.changes if change.shape.table == "log") == [[b"a"], [b"b"]]
    # Nothing is written any more: a table is read again nevertheless, and its ghosts are removed.
    primary.execute("drop table empty; create table empty (id int primary key); insert into empty values (1)")
    primary.execute("alter table hot add c int default 7")
    primary.execute(f"alter publication {source.config.publication} add table empty")
    source.until(lambda: source.rows("hot") == table_rows(primary, "hot"))
    source.until(lambda: list(source.rows("empty")) == [(b"1",)])
    source.crash()
    source.start()
    primary.execute("insert into empty values (2)")
    source.until(lambda: len(source.rows("empty")) == 2)
    check_order(source)


def _read(source: Tail) -> int:
    return sum(int(value.get("rows", 0)) for key, value in source.stored.items() if '"table"' in key)


def test_a_promotion_while_it_streams_loses_nothing(
    primary: Database, launch: Callable[[EmbeddedStandby], EmbeddedStandby]
) -> None:
    """Also in the middle of a snapshot; no position is stored that would belong to another timeline (H4)."""
    server = primary.server
    assert isinstance(server, EmbeddedPostgres)
    standby = launch(EmbeddedStandby(server, slot="to_be_promoted"))
    after = Database(standby, primary.name)
    source = Tail(after, snapshot_fetch_size=50)
    prepare(primary, source.config.publication)
    replayed(primary, source)
    try:
        with Nudge(primary):
            source.start()
        source.until(lambda: _read(source) >= 200)
        epoch = stored(source)["epoch"]
        assert stored(source)["origin"]["timeline"] == 1
        primary.execute("update hot set n = n + 1; delete from hot where id < 20")
        replayed(primary, source)
        standby.promote()
        after.execute("update hot set n = n + 1 where id < 500; insert into hot values (5, 10)")
        with pytest.raises(RetriableError, match="follows timeline 2, no longer 1"):
            source.until(lambda: False)
        assert stored(source)["origin"]["timeline"] == 1
        source.records = list(source.committed)  # as Kafka's transaction is aborted
        source.stop()
        go_on(source, source.snapshot_done, "the rest of the snapshot")
        after.execute("update hot set n = n + 1 where id = 700")
        source.until(lambda: source.rows("hot") == table_rows(after, "hot"))
        assert stored(source)["origin"]["timeline"] == 2
        assert stored(source)["epoch"] > epoch
        check_order(source)
    finally:
        source.stop()
        standby.kill()
        slot = "from pg_replication_slots where slot_name = 'to_be_promoted'"
        until(lambda: primary.execute(f"select active {slot}") == [(False,)], "a slot that nobody holds")
        primary.execute(f"select pg_drop_replication_slot(slot_name) {slot}")


def test_a_role_that_may_not_write_messages_reads_exactly(database: Database, tail: Callable[..., Tail]) -> None:
    for (function,) in database.execute(
        "select oid::regprocedure::text from pg_proc where proname = 'pg_logical_emit_message'"
    ):
        database.execute(f"revoke execute on function {function} from public")
    role = f"reader_{database.name}"
    database.execute(f"create role {role} login replication password 'reader'")
    source = tail(database_user=role, database_password="reader", snapshot_fetch_size=50, read_only="true")
    prepare(database, source.config.publication)
    database.execute(f"grant select on hot, log, empty to {role}")
    loop = HotLoop(database, 1000)
    try:
        source.start()
        source.until(lambda: _read(source) >= 300)
        source.crash()
        source.start().snapshot()
        loop.stop()
        source.until(lambda: source.rows("hot") == table_rows(database, "hot"))
        check_order(source)
        source.stop()
        source.stored.clear()
        source.config = source.config.model_copy(update={"read_only": False})
        with pytest.raises(FatalError, match="permission denied for function pg_logical_emit_message"):
            source.start().until(lambda: False)
    finally:
        loop.stop()
        source.stop()
        database.execute(f"drop owned by {role}; drop role {role}")
