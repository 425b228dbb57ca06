"""Failover slots, several hosts, promotions: nothing is lost, or the stream stops by name (Postgres 18)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from cdc.errors import FatalError, GapError, RetriableError
from cdc.local.postgres import EmbeddedPostgres
from cdc.local.standby import EmbeddedStandby
from cdc.postgres.connector import PostgresSourceConnector
from tests.fix_servers import Database, started
from tests.integration.test_bridge import until
from tests.integration.test_source_task import Tail, position, table_rows

pytestmark = pytest.mark.integration


@pytest.fixture
def primary() -> Iterator[EmbeddedPostgres]:
    with started(EmbeddedPostgres(settings={"fsync": "off"})) as server:
        yield server


@pytest.fixture
def standby(primary: EmbeddedPostgres) -> Iterator[EmbeddedStandby]:
    """Not started. One that is started before there is a slot looks for it seldom."""
    server = EmbeddedStandby(primary, settings={"sync_replication_slots": "on"})
    yield server
    server.close()


@pytest.fixture
def both(primary: EmbeddedPostgres, standby: EmbeddedStandby) -> Iterator[Tail]:
    """A source that knows both servers, with a failover slot."""
    database = Database(primary, "postgres")
    ports = f"{primary.port},{standby.port}"
    source = Tail(database, database_hostname="127.0.0.1,127.0.0.1", database_port=ports, slot_failover="true")
    yield source
    source.stop()


def go_on(source: Tail, condition: Callable[[], bool], what: str) -> None:
    """As the runtime does: what is away is waited for."""

    def reached() -> bool:
        try:
            if source.task is None:
                source.start()
            source.poll()
            source.commit()
        except RetriableError:
            source.stop()
            return False
        return condition()

    until(reached, what)


class Writer:
    """An application that writes to whichever server takes it, until it is stopped."""

    def __init__(self, ports: str, password: str) -> None:
        self._conninfo: dict[str, Any] = {
            "host": "127.0.0.1,127.0.0.1",
            "port": ports,
            "user": "postgres",
            "password": password,
            "dbname": "postgres",
            "target_session_attrs": "primary",
            "connect_timeout": 5,
        }
        self.written = 0
        self.outages = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._stopping.is_set():
            try:
                with psycopg.connect(**self._conninfo, autocommit=True) as connection:
                    while not self._stopping.is_set():
                        number += 1
                        connection.execute(
                            "insert into t values (%s, 'new') on conflict (id) do update set v = 'again'",
                            [number % 500],
                        )
                        connection.execute("delete from t where id = %s", [(number * 7) % 500])
                        self.written = number
            except psycopg.Error:
                self.outages += 1

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(30)


def test_the_stream_goes_on_with_the_standby_that_is_promoted(
    primary: EmbeddedPostgres, standby: EmbeddedStandby, both: Tail
) -> None:
    """kill -9 of the primary under load: the standby has the slot, and all that was told (T26)."""
    database, after = Database(primary, "postgres"), Database(standby, "postgres")
    database.execute(
        "create table t (id int primary key, v text); insert into t select i, 'old' from generate_series(1, 400) i"
    )
    both.start().snapshot()
    assert database.execute("select failover from pg_replication_slots where slot_type = 'logical'") == [(True,)]
    epoch = stored(both)["epoch"]
    standby.start()
    database.execute("alter system set synchronized_standby_slots = 'standby'")
    database.execute("select pg_reload_conf()")
    writer = Writer(f"{primary.port},{standby.port}", primary.password)
    try:
        synced = "select count(*) from pg_replication_slots where synced and not temporary"

        def in_step() -> bool:
            database.execute("select pg_log_standby_snapshot()")  # as a busy server does now and then
            return after.execute(synced) == [(1,)] and writer.written > 200

        go_on(both, in_step, "a slot kept in step")
        count = len(both.records)
        primary.kill()
        standby.promote()
        before = writer.written
        go_on(both, lambda: writer.written > before + 100 and len(both.records) > count + 100, "a stream that goes on")
    finally:
        writer.stop()
    go_on(both, lambda: both.rows("t") == table_rows(after, "t"), "equal ends")
    assert stored(both)["origin"]["timeline"] == 2
    assert stored(both)["epoch"] > epoch
    positions = [position(change) for change in both.changes]
    assert positions == sorted(positions)
    both.stop()
    primary.start()  # two primaries: the first in the list is the old one
    with pytest.raises(FatalError, match="is on timeline 2, this server is on 1: it is an old primary that came back"):
        both.start()


def stored(source: Tail) -> dict[str, Any]:
    (found,) = [value for key, value in source.stored.items() if '"table"' not in key]
    assert isinstance(found, dict)
    return found


def test_a_standby_that_was_promoted_from_behind_is_named(
    primary: EmbeddedPostgres, standby: EmbeddedStandby, both: Tail
) -> None:
    database = Database(primary, "postgres")
    database.execute("create table t (id int primary key); insert into t values (1)")
    standby.start()
    both.start().snapshot()
    standby.stop()
    database.execute("insert into t select generate_series(2, 100)")
    both.until(lambda: len(both.rows("t")) == 100)
    primary.kill()
    standby.start()
    standby.promote()
    with pytest.raises(
        GapError,
        match=r"is on timeline 1, which this server left at \S+, [\d.]+ kB of WAL before it: this server "
        r"\(timeline 2\) was promoted without having received all that was streamed\. Remedy: cdc slot reset",
    ):
        both.start()


def test_what_a_failover_needs_is_checked(primary: EmbeddedPostgres, standby: EmbeddedStandby, both: Tail) -> None:
    """And a slot that was made without it is made one that standbys keep in step."""
    database = Database(primary, "postgres")
    database.execute("create table t (id int primary key)")
    connector = PostgresSourceConnector(both.config)
    (finding,) = connector.check()
    assert "no standby replicates through a physical slot" in finding.message
    standby.start()
    (finding,) = connector.check()
    assert "synchronized_standby_slots lacks standby" in finding.message
    assert "ALTER SYSTEM SET synchronized_standby_slots = 'standby';" in finding.remedy
    database.execute("alter system set synchronized_standby_slots = 'standby'")
    database.execute("select pg_reload_conf()")
    until(lambda: connector.check() == [], "nothing to say")
    plain = Tail(database)
    plain.config = plain.config.model_copy(update={"slot_name": both.config.slot})
    plain.start().snapshot().stop()
    both.stored = plain.stored
    both.start()
    assert database.execute("select failover from pg_replication_slots where slot_type = 'logical'") == [(True,)]
    both.stop()
    synced = "select count(*) from pg_replication_slots where synced"
    until(lambda: Database(standby, "postgres").execute(synced) == [(1,)], "a slot kept in step")
    both.config = both.config.model_copy(update={"database_hostname": "127.0.0.1", "database_port": str(standby.port)})
    with pytest.raises(RetriableError, match=r"keeps the replication slot .* in step with its primary's"):
        both.start()
