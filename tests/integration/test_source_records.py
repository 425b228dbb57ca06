"""Records beside those of rows, on a real server: told once, in order, also across crashes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cdc.record import ConnectRecord, RowChange
from tests.fix_servers import Database
from tests.integration.test_source_task import Tail

pytestmark = pytest.mark.integration


@pytest.fixture
def tail(database15: Database) -> Iterator[Callable[..., Tail]]:
    made: list[Tail] = []

    def make(**settings: Any) -> Tail:
        made.append(Tail(database15, **settings))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def general(records: list[Any], topic: str) -> list[ConnectRecord]:
    return [record for record in records if isinstance(record, ConnectRecord) and record.topic == topic]


def test_a_transaction_is_counted_once_across_crashes_inside_it(
    database15: Database, tail: Callable[..., Tail], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdc.postgres.task.READ_BYTES", 4000)
    database15.execute("create table t (id int primary key, v text); create table u (id int primary key)")
    source = tail(provide_transaction_metadata="true").start().snapshot()
    database15.execute(
        "begin; insert into t select i, repeat('a', 50) from generate_series(1, 200) i;insert into u values (1); commit"
    )
    while len(general(source.committed, "t.transaction")) < 2:
        known = len(source.committed)
        source.until(lambda known=known: len(source.committed) > known)  # type: ignore[misc]
        source.poll()
        source.crash()
        source.start()
    begin, end = general(source.committed, "t.transaction")
    assert (begin.value["status"], end.value["status"]) == ("BEGIN", "END")
    assert begin.key == end.key
    assert end.value["event_count"] == 201
    assert {each["data_collection"]: each["event_count"] for each in end.value["data_collections"]} == {
        "public.t": 200,
        "public.u": 1,
    }
    blocks = [change.block for change in source.committed if isinstance(change, RowChange)]
    assert [block.total_order for block in blocks if block] == list(range(1, 202))
    assert {block.id for block in blocks if block} == {begin.value["id"]}
    positions = [record.position for record in (begin, end)]
    assert positions == sorted(set(positions))


def test_messages_are_told_once_and_in_order_whatever_they_are_part_of(
    database15: Database, tail: Callable[..., Tail]
) -> None:
    database15.execute("create table t (id int primary key)")
    source = tail(message_prefix_exclude_list="secret.*").start().snapshot()
    for number in range(6):
        transactional = "true" if number % 2 else "false"
        database15.execute(f"select pg_logical_emit_message({transactional}, 'p', '{number}')")
        database15.execute("select pg_logical_emit_message(true, 'secrets', 'x')")
        source.until(lambda number=number: len(general(source.committed, "t.message")) > number)  # type: ignore[misc]
        source.poll()
        source.crash()
        source.start()
    database15.execute("insert into t values (1)")
    source.until(lambda: any(isinstance(record, RowChange) for record in source.committed))
    told = general(source.committed, "t.message")
    assert [record.value["message"]["content"] for record in told] == [b"%d" % number for number in range(6)]
    assert [record.value["source"]["txId"] is None for record in told] == [True, False] * 3
    positions = [record.position for record in told]
    assert positions == sorted(set(positions))


def test_a_heartbeat_runs_its_statement_and_moves_the_slot_of_an_idle_database(
    database15: Database, tail: Callable[..., Tail]
) -> None:
    database15.execute("create table t (id int primary key); create table beats (at timestamptz)")
    source = tail(
        table_include_list="public.t",
        heartbeat_interval_ms=50,
        heartbeat_action_query="insert into beats values (now())",
        topic_heartbeat_name="alive",
    )
    source.start().snapshot()
    source.until(lambda: len(general(source.committed, "alive")) > 2)
    source.until(lambda: database15.execute("select count(*) from beats")[0][0] > 1)
    database15.execute("select pg_logical_emit_message(true, 'cdc.other', 'x')")
    (lsn,) = database15.execute("select pg_current_wal_lsn() - '0/0'::pg_lsn")[0]

    def acknowledged() -> bool:
        query = "select confirmed_flush_lsn - '0/0'::pg_lsn from pg_replication_slots where slot_name = %s"
        return bool(database15.execute(query, [source.config.slot])[0][0] >= lsn)

    source.until(acknowledged)


def test_a_statement_that_fails_is_no_fault_of_the_stream(database15: Database, tail: Callable[..., Tail]) -> None:
    database15.execute("create table t (id int primary key)")
    source = tail(heartbeat_interval_ms=50, heartbeat_action_query="insert into nowhere values (1)").start().snapshot()
    database15.execute("insert into t values (1)")
    source.until(lambda: any(isinstance(record, RowChange) for record in source.committed))
    source.until(lambda: len(general(source.committed, "__debezium-heartbeat.t")) > 2)
