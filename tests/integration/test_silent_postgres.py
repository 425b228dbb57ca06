"""A connection to Postgres that nobody answers on any more is noticed, and one that has nothing to tell is kept."""

from __future__ import annotations

import threading
import time

import pytest

from cdc.errors import RetriableError
from tests.fix_servers import Database
from tests.integration.test_source_task import Tail
from tests.proxy import Proxy

pytestmark = pytest.mark.integration


def through(proxy: Proxy, database: Database, **settings: str) -> Tail:
    return Tail(database, database_port=str(proxy.port), database_hostname="127.0.0.1", **settings)


def test_a_half_open_connection_is_given_up_and_the_stream_goes_on_after_it(database15: Database) -> None:
    database15.execute("create table a (id int primary key)")
    with Proxy(database15.conninfo["port"]) as proxy:
        tail = through(proxy, database15, wal_receiver_timeout_ms="600").start().snapshot()
        database15.execute("insert into a values (1)")
        tail.until(lambda: len(tail.changes) == 1)
        proxy.half_open()
        database15.execute("insert into a values (2)")
        with pytest.raises(RetriableError, match="has sent nothing"):
            tail.until(lambda: False)
        tail.crash()
        tail.start().until(lambda: len(tail.changes) == 2)
        tail.stop()


def test_a_server_with_nothing_to_tell_is_not_taken_for_lost(database15: Database) -> None:
    database15.execute("create table a (id int primary key)")
    tail = Tail(database15, wal_receiver_timeout_ms="200").start().snapshot()
    until = time.monotonic() + 1.5
    while time.monotonic() < until:  # many times the limit
        tail.poll()
        tail.commit()
    database15.execute("insert into a values (1)")
    tail.until(lambda: len(tail.changes) == 1)
    tail.stop()


def test_a_table_that_is_locked_while_values_are_read_again_costs_no_walsender(database15: Database) -> None:
    """The stream is kept alive while a large value is waited for that somebody's ALTER TABLE keeps locked."""
    database15.execute(f"alter database {database15.name} set wal_sender_timeout = '1s'")
    database15.execute("create table a (id int primary key, n int, body text)")
    database15.execute("alter table a alter body set storage external")
    database15.execute("insert into a values (1, 0, repeat('x', 100000))")
    tail = Tail(database15, status_update_interval_ms="100").start().snapshot()
    told = len(tail.changes)
    database15.execute("update a set n = 1")
    with database15.connect() as holder:
        holder.execute("begin; lock table a in access exclusive mode")
        released = threading.Timer(4.0, lambda: holder.execute("commit"))
        released.start()
        tail.until(lambda: len(tail.changes) > told)
        released.join()
    after = tail.changes[-1].after
    assert after is not None
    assert [len(value or b"") for value in after] == [1, 1, 100000]
    database15.execute("update a set n = 2")
    tail.until(lambda: len(tail.changes) == told + 2)  # on the same connection: an ended one would be an error
    tail.stop()
