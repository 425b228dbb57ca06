"""A connection to Postgres that nobody answers on any more is noticed, and one that has nothing to tell is kept."""

from __future__ import annotations

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
