"""The source task on real servers, without Kafka: what it tells, folded by key, is what Postgres holds.

``Tail`` plays the runtime: it polls, stores what `offsets` says together with the records, and starts again from that.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from passwords import MARK, password

from cdc.errors import FatalError, RetriableError
from cdc.plugin import Sweep, TaskContext
from cdc.postgres.config import PostgresConfig
from cdc.postgres.connection import connect
from cdc.postgres.task import PostgresSourceTask
from cdc.record import RowChange
from tests.fix_servers import Database

pytestmark = pytest.mark.integration

PATIENCE_S = 30


class Tail:
    """A source task, the records it has told, and the offsets stored with them."""

    def __init__(self, database: Database, **settings: Any) -> None:
        info = database.conninfo
        self.database = database
        self.config = PostgresConfig.model_validate(
            {
                "name": "tail",
                "connector.class": "postgres",
                "database.hostname": info["host"],
                "database.port": str(info["port"]),
                "database.user": info["user"],
                "database.password": info["password"],
                "database.dbname": info["dbname"],
                "topic.prefix": "t",
                "table.include.list": r"public\..*",
                "slot.name": f"tail_{info['dbname']}"[:63],
                **{name.replace("_", "."): str(value) for name, value in settings.items()},
            }
        )
        self.stored: dict[str, Any] = {}
        self.records: list[RowChange] = []
        self.committed: list[RowChange] = []
        self.task: PostgresSourceTask | None = None
        self.reports: list[tuple[str, Any]] = []
        self.stopping = False

    def start(self) -> Tail:
        self.stop()
        context = TaskContext("tail", 0, "test", lambda *told: self.reports.append(told), lambda: self.stopping)
        self.task = PostgresSourceTask(self.config, context)
        self.task.start(self.stored)
        return self

    def poll(self) -> list[RowChange]:
        assert self.task is not None
        changes = list(self.task.poll(0.05))
        self.records += changes
        sweeps, self.task.sweeps = self.task.sweeps, []
        for sweep in sweeps:
            self.sweep(sweep)
        return changes

    def sweep(self, sweep: Sweep) -> None:
        """As the runtime does: the keys of the topic whose last record is older get a tombstone."""
        assert self.task is not None
        tx, lsn, ordinal = self.task.place()
        last: dict[tuple[Any, ...], RowChange] = {}
        for change in self.records:
            if change.shape.topic == sweep.shape.topic and change.key_row is not None:
                last[tuple(change.key_row[i] for i in change.shape.key)] = change
        ghosts = [c for c in last.values() if c.op != "" and (sweep.renew or position(c) < sweep.since)]
        for index, ghost in enumerate(ghosts):
            tombstone = RowChange(ghost.shape, "", ghost.key_row, None, None, tx, lsn, ordinal, (1 << 31) + index)
            self.records.append(tombstone)
        if sweep.renew:
            index = (1 << 31) + len(ghosts)
            self.records.append(RowChange(sweep.shape, "t", None, None, None, tx, lsn, ordinal, index, broadcast=True))
        self.task.swept(sweep)

    def commit(self) -> None:
        assert self.task is not None
        for partition, value in self.task.offsets().items():
            self.stored[partition] = value
        self.task.committed()
        self.committed = list(self.records)

    def until(self, condition: Callable[[], bool]) -> Tail:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"not reached; {len(self.records)} records so far"
            self.poll()
            self.commit()
        return self

    def snapshot(self) -> Tail:
        return self.until(self.snapshot_done)

    def crash(self) -> None:
        """As kill -9 does: what was not committed never happened."""
        assert self.task is not None
        self.records = list(self.committed)
        task, self.task = self.task, None
        if task._watch is not None:
            task._watch.stop()
        if task._snapshots.readings.reader is not None:
            task._snapshots.readings.reader.stop()
        assert task._stream is not None
        task._stream._connection.close()
        task._server.close()

    def stop(self) -> None:
        if self.task is not None:
            self.task.stop()
            self.task = None

    @property
    def waiting(self) -> str:
        """What it has told last to wait for."""
        return next((str(value) for name, value in reversed(self.reports) if name == "waiting"), "")

    @property
    def changes(self) -> list[RowChange]:
        """The records that are about rows."""
        return [record for record in self.records if isinstance(record, RowChange)]

    def rows(self, table: str) -> dict[tuple[bytes, ...], list[Any]]:
        """The topic folded by key."""
        rows: dict[tuple[bytes, ...], list[Any]] = {}
        for change in self.changes:
            if change.shape.table != table:
                continue
            if change.op == "t":
                rows.clear()
                continue
            assert change.key_row is not None
            key = tuple(change.key_row[i] for i in change.shape.key)
            if change.after is None:
                rows.pop(key, None)
            else:
                rows[key] = change.after
        return rows

    def snapshot_done(self) -> bool:
        return all(value.get("snapshot", "done") == "done" for value in self.stored.values()) and len(self.stored) > 1


def position(change: RowChange) -> bytes:
    return change.tx.position_prefix + b"%08x.%08x" % (change.ordinal, change.index)


def table_rows(database: Database, table: str, key: int = 1) -> dict[tuple[bytes, ...], list[Any]]:
    """What Postgres holds, as text, through a connection with pinned settings."""
    with connect({name: str(value) for name, value in database.conninfo.items()}, "oracle") as connection:
        result = connection.execute(f"select * from {table}").pgresult  # type: ignore[arg-type]
        assert result is not None
        rows = [[result.get_value(row, i) for i in range(result.nfields)] for row in range(result.ntuples)]
    return {tuple(row[:key]): row for row in rows}


@pytest.fixture
def tail(database: Database) -> Iterator[Callable[..., Tail]]:
    made: list[Tail] = []

    def make(**settings: Any) -> Tail:
        made.append(Tail(database, **settings))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def test_snapshot_then_stream_gives_every_row(database: Database, tail: Callable[..., Tail]) -> None:
    database.execute("create table t (id int primary key, v text)")
    database.execute("insert into t select i, 'row ' || i from generate_series(1, 2500) i")
    source = tail(snapshot_fetch_size=1000).start()
    source.until(lambda: len(source.rows("t")) == 2500)
    assert {change.op for change in source.records} == {"r"}
    source.until(source.snapshot_done)
    database.execute("update t set v = 'new' where id <= 10")
    database.execute("delete from t where id > 2490")
    database.execute("insert into t values (9999, null)")
    source.until(lambda: source.rows("t") == table_rows(database, "t"))


def test_every_kind_of_change(database: Database, tail: Callable[..., Tail]) -> None:
    database.execute("create table t (a int, b text, v text, primary key (b, a))")
    source = tail().start().snapshot()
    database.execute("insert into t values (1, 'x', 'one'), (2, 'y', null)")
    database.execute("update t set v = 'changed' where a = 1")
    database.execute("update t set a = 3 where a = 2")
    database.execute("delete from t where a = 1")
    source.until(lambda: len(source.records) >= 8)
    assert [(change.op, change.index) for change in source.records] == [
        ("c", 0),
        ("c", 0),
        ("u", 0),
        ("d", 0),
        ("", 1),
        ("c", 2),
        ("d", 0),
        ("", 1),
    ]
    assert [source.records[0].shape.columns[i].name for i in source.records[0].shape.key] == ["b", "a"]
    database.execute("truncate t")
    source.until(lambda: source.records[-1].op == "t")
    assert source.records[-1].broadcast
    positions = [change.tx.position_prefix + b"%08x.%08x" % (change.ordinal, change.index) for change in source.records]
    assert positions == sorted(set(positions))


def test_unchanged_toast_is_read_again_and_never_null(database: Database, tail: Callable[..., Tail]) -> None:
    database.execute("create table t (id int primary key, n int, big text)")
    database.execute("alter table t alter big set storage external")
    source = tail().start().snapshot()
    database.execute("insert into t values (1, 1, repeat('x', 5000)), (2, 1, repeat('y', 5000))")
    database.execute("update t set n = 2")
    source.until(lambda: source.rows("t") == table_rows(database, "t"))
    assert source.records[-1].after is not None
    assert len(source.records[-1].after[2]) == 5000


def test_unchanged_toast_of_a_row_that_is_gone_is_named_unknown(database: Database, tail: Callable[..., Tail]) -> None:
    database.execute("create table t (id int primary key, n int, big text)")
    database.execute("alter table t alter big set storage external")
    source = tail().start().snapshot()
    source.stop()
    database.execute("insert into t values (1, 1, repeat('x', 5000))")
    database.execute("update t set n = 2")
    database.execute("delete from t")
    source.start().until(lambda: len(source.records) == 4)
    update = source.records[1]
    assert (update.op, list(update.unknown)) == ("u", ["big"])


def test_replica_identity_full_gives_the_old_value_of_unchanged_toast(
    database: Database, tail: Callable[..., Tail]
) -> None:
    database.execute("create table t (id int primary key, n int, big text)")
    database.execute("alter table t alter big set storage external, replica identity full")
    database.execute("insert into t values (1, 1, repeat('x', 5000))")
    source = tail().start().snapshot()
    database.execute("update t set n = 2")
    source.until(lambda: len(source.records) == 2)
    change = source.records[-1]
    assert change.before is not None
    assert change.after is not None
    assert change.after[2] == change.before[2] == b"x" * 5000


def test_a_crash_at_any_step_loses_nothing_and_tells_nothing_twice(
    database: Database, tail: Callable[..., Tail]
) -> None:
    """The runtime stores records and offsets as one: after each crash the stream goes on at the next change."""
    database.execute("create table t (id int primary key, v text)")
    source = tail().start().snapshot()
    database.execute("insert into t select i, 'a' from generate_series(1, 40) i")
    database.execute("update t set id = id + 100 where id <= 5")
    for i in range(20):
        database.execute(f"insert into t values ({1000 + i}, 'b')")
    for step in range(6):
        for _ in range(step % 3 + 1):
            source.poll()
            if step % 2:
                source.commit()
        source.crash()
        source.start()
    source.until(lambda: source.rows("t") == table_rows(database, "t"))
    told = [(c.tx.commit_lsn, c.ordinal, c.index) for c in source.records]
    assert told == sorted(set(told))
    assert len(told) == 40 + 15 + 20


def test_a_crash_inside_a_transaction_resumes_inside_it(
    database: Database, tail: Callable[..., Tail], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdc.postgres.task.READ_BYTES", 8000)
    database.execute("create table t (id int primary key, v text)")
    source = tail().start().snapshot()
    database.execute("insert into t select i, repeat('a', 50) from generate_series(1, 500) i")
    while len(source.committed) < 500:
        known = len(source.committed)
        source.until(lambda known=known: len(source.committed) > known)  # type: ignore[misc]
        source.poll()
        source.crash()
        source.start()
    told = [(c.tx.commit_lsn, c.ordinal) for c in source.committed]
    assert told == sorted(set(told))
    assert source.rows("t") == table_rows(database, "t")


def test_a_snapshot_goes_on_after_a_crash_where_it_was(database: Database, tail: Callable[..., Tail]) -> None:
    database.execute("create table t (id int primary key, v text)")
    database.execute("insert into t select i, 'a' from generate_series(1, 5000) i")
    source = tail(snapshot_fetch_size=500).start()
    source.until(lambda: len(source.records) >= 1500)
    before = len(source.committed)
    source.crash()
    database.execute("delete from t where id <= 1000")
    database.execute("update t set v = 'b' where id > 4000")
    source.start().until(lambda: source.snapshot_done() and source.rows("t") == table_rows(database, "t"))
    snapshot_rows = [c for c in source.records if c.op == "r"]
    assert before >= 1500
    assert len(snapshot_rows) <= 5000


def test_a_snapshot_under_a_hot_update_loop_never_tells_an_older_row_after_a_newer(
    database: Database, tail: Callable[..., Tail]
) -> None:
    database.execute("create table t (id int primary key, version bigint not null)")
    database.execute("insert into t select i, 0 from generate_series(1, 300) i")
    stop = threading.Event()

    def write() -> None:
        with psycopg.connect(**database.conninfo, autocommit=True) as connection:
            number = 0
            while not stop.is_set():
                number += 1
                connection.execute("update t set version = version + 1 where id = %s", [number * 7 % 300 + 1])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        source = tail(snapshot_fetch_size=10).start().snapshot()
    finally:
        stop.set()
        writer.join()
    source.until(lambda: source.rows("t") == table_rows(database, "t"))
    seen: dict[bytes, int] = {}
    for change in source.records:
        assert change.after is not None
        key, version = change.after[0], int(change.after[1])
        assert version >= seen.get(key, 0), f"row {key!r} went back from {seen[key]} to {version}"
        seen[key] = version


def test_a_slot_made_beforehand_is_adopted_exactly(database: Database, tail: Callable[..., Tail]) -> None:
    source = tail()
    database.execute("create table t (id int primary key, v text)")
    database.execute(f"create publication {source.config.publication} for table t")
    database.execute(f"select pg_create_logical_replication_slot('{source.config.slot}', 'pgoutput')")
    database.execute("insert into t select i, 'a' from generate_series(1, 100) i")
    database.execute("delete from t where id > 50")
    source.start().snapshot()
    assert source.rows("t") == table_rows(database, "t")


def test_a_table_without_key_is_read_once_and_then_streamed(database: Database, tail: Callable[..., Tail]) -> None:
    database.execute("create table log (at int, what text)")
    database.execute("alter table log replica identity full")
    database.execute("insert into log select i, 'before' from generate_series(1, 300) i")
    source = tail(snapshot_fetch_size=100).start()
    database.execute("insert into log values (1000, 'after')")
    source.until(lambda: source.snapshot_done() and len(source.records) >= 301)
    assert sorted(int(c.after[0]) for c in source.records if c.after) == [*range(1, 301), 1000]


def test_rows_of_a_table_without_key_are_told_once_if_the_stream_has_them_too(
    database: Database, tail: Callable[..., Tail]
) -> None:
    """What was written before the snapshot's own consistent point is in both, and there is no key to fold by (H10)."""
    source = tail()
    database.execute("create table log (at int, what text)")
    database.execute("alter table log replica identity full")
    database.execute(f"create publication {source.config.publication} for table log")
    database.execute(f"select pg_create_logical_replication_slot('{source.config.slot}', 'pgoutput')")
    database.execute("insert into log select i, 'in both' from generate_series(1, 30) i")
    source.start().snapshot()
    database.execute("insert into log values (1000, 'after')")
    source.until(lambda: any(c.after and c.after[0] == b"1000" for c in source.records))
    assert sorted(int(c.after[0]) for c in source.records if c.after) == [*range(1, 31), 1000]


def test_a_table_that_would_break_the_application_is_refused(database: Database, tail: Callable[..., Tail]) -> None:
    database.execute("create table log (at int, what text)")
    database.execute("create table d (id int primary key deferrable, v text)")
    with pytest.raises(FatalError, match=r"public\.log has no primary key.*REPLICA IDENTITY FULL") as caught:
        tail().start()
    assert "DEFERRABLE" in str(caught.value)


def test_a_lost_slot_is_an_error_that_names_the_gap(database: Database, tail: Callable[..., Tail]) -> None:
    database.execute("create table t (id int primary key)")
    source = tail().start().snapshot()
    source.stop()
    database.execute("insert into t values (1)")  # a gap for sure: the server may write WAL of its own, or not
    database.execute(f"select pg_drop_replication_slot('{source.config.slot}')")
    with pytest.raises(
        FatalError, match=r"is gone, and changes from \S+ to \S+ \(.* of WAL\) with it\. .*cdc slot reset"
    ):
        source.start()


def test_a_slot_that_somebody_advanced_is_an_error_that_names_the_gap(
    database: Database, tail: Callable[..., Tail]
) -> None:
    database.execute("create table t (id int primary key)")
    source = tail().start().snapshot()
    source.stop()
    database.execute("insert into t values (1)")
    database.execute(f"select pg_replication_slot_advance('{source.config.slot}', pg_current_wal_lsn())")
    with pytest.raises(FatalError, match="beyond the stored position"):
        source.start()


def test_a_position_of_another_system_or_beyond_the_wal_is_an_error(
    database: Database, tail: Callable[..., Tail]
) -> None:
    database.execute("create table t (id int primary key)")
    source = tail().start().snapshot()
    source.stop()
    (partition,) = [key for key in source.stored if '"table"' not in key]
    good = source.stored[partition]
    source.stored[partition] = {**good, "lsn": good["lsn"] + (1 << 40)}
    with pytest.raises(FatalError, match="beyond the end of the server's WAL"):
        source.start()
    source.stored[partition] = {**good, "origin": {**good["origin"], "system_identifier": "1"}}
    with pytest.raises(FatalError, match="belongs to the Postgres system 1"):
        source.start()


def test_a_slot_in_use_names_its_holder(
    database: Database, tail: Callable[..., Tail], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdc.postgres.preparation.HOLDER_GRACE_S", -59.0)
    database.execute("create table t (id int primary key)")
    holder = tail().start().snapshot()
    second = tail()
    second.stored = dict(holder.stored)
    with pytest.raises(FatalError, match=r"held by pid \d+ .*application_name 'cdc/tail/test'"):
        second.start()
    ((waiting, cause),) = second.reports
    assert waiting == "waiting"
    assert re.search(r"slot \w+ is held by pid \d+ .*application_name 'cdc/tail/test'", cause)


def test_a_slot_in_use_is_waited_for_and_said(
    database: Database, tail: Callable[..., Tail], monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute("create table t (id int primary key)")
    holder = tail().start().snapshot()
    second = tail()
    second.stored = dict(holder.stored)
    monkeypatch.setattr("cdc.postgres.preparation.time.sleep", lambda _seconds: holder.stop())
    second.start()
    assert [told for told in second.reports if told[0] == "waiting"][-1] == ("waiting", "")


def test_a_table_that_does_not_exist_is_named_with_its_neighbour(database: Database, tail: Callable[..., Tail]) -> None:
    database.execute("create table customers (id int primary key)")
    with pytest.raises(FatalError, match=r"public\.custmers does not exist.*did you mean public\.customers"):
        tail(table_include_list="public.custmers").start()


def test_names_that_kafka_cannot_have_are_replaced_and_never_shared(
    database: Database, tail: Callable[..., Tail]
) -> None:
    database.execute('create table "Odd name" (id int primary key); insert into "Odd name" values (1)')
    source = tail().start().snapshot()
    assert source.records[0].shape.topic == "t.public.Odd_name"
    source.stop()
    database.execute('create table "Odd_name" (id int primary key)')
    with pytest.raises(FatalError, match=r"would share the topic t\.public\.Odd_name"):
        source.start()


def test_a_wrong_password_is_refused_without_telling_it(database: Database, tail: Callable[..., Tail]) -> None:
    with pytest.raises(FatalError, match="password authentication failed") as caught:
        tail(database_password=password("wrong")).start()
    assert MARK not in str(caught.value)


def test_a_role_with_no_more_rights_than_needed_streams(database: Database, tail: Callable[..., Tail]) -> None:
    """REPLICATION and SELECT, with a publication that the owner of the tables made, one table too many in it."""
    role = f"least_{database.name}"
    database.execute("create table t (id int primary key, v text); create table other (id int primary key)")
    database.execute(f"create role {role} login replication password 'least'; grant select on t to {role}")
    source = tail(database_user=role, database_password="least", table_include_list="public.t")
    try:
        with pytest.raises(FatalError, match=r"let the owner of the tables run: create publication"):
            source.start()
        source.stop()
        database.execute(f"create publication {source.config.publication} for table t, other")
        database.execute("insert into t values (1, 'a')")
        source.start().snapshot()
        database.execute("update t set v = 'b'; insert into other values (1)")
        source.until(lambda: source.rows("t") == table_rows(database, "t"))
        assert {change.shape.table for change in source.records} == {"t"}
    finally:
        source.stop()
        database.execute(f"drop owned by {role}; drop role {role}")


def test_a_server_that_is_away_is_worth_waiting_for(database: Database, tail: Callable[..., Tail]) -> None:
    with pytest.raises(RetriableError, match="connecting to Postgres"):
        tail(database_port=1).start()


def test_an_idle_database_retains_no_wal(
    database: Database, tail: Callable[..., Tail], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other tables are busy, ours is quiet: the slot follows (H3, reference trap 6)."""
    monkeypatch.setattr("cdc.postgres.position.IDLE_SECONDS", 0.0)
    database.execute("create table t (id int primary key)")
    database.execute("create schema other")
    database.execute("create table other.busy (id int primary key, v text)")
    source = tail().start().snapshot()
    database.execute("insert into other.busy select i, repeat('x', 500) from generate_series(1, 20000) i")
    ((target,),) = database.execute("select pg_current_wal_flush_lsn()::text")

    def confirmed() -> bool:
        query = f"select confirmed_flush_lsn >= '{target}' from pg_replication_slots where slot_name = %s"
        with psycopg.connect(**database.conninfo, autocommit=True) as connection:
            row = connection.execute(query, [source.config.slot]).fetchone()  # type: ignore[arg-type]
        return bool(row and row[0])

    source.until(confirmed)


def test_hostile_settings_of_role_and_database_change_no_text(database: Database, tail: Callable[..., Tail]) -> None:
    name = database.conninfo["dbname"]
    for setting in (
        "datestyle = 'SQL, DMY'",
        "timezone = 'Asia/Kathmandu'",
        "intervalstyle = 'sql_standard'",
        "extra_float_digits = -3",
        "bytea_output = 'escape'",
    ):
        database.execute(f"alter database {name} set {setting}")
    database.execute("create table t (id int primary key, d date, ts timestamptz, i interval, f float8, b bytea)")
    insert = "insert into t values ({}, '2026-01-31', '2026-01-31 12:00:00+00', '1 day 2 hours', 0.1, '\\xff00')"
    database.execute(insert.format(1))
    source = tail().start().snapshot()
    database.execute(insert.format(2))
    source.until(lambda: len(source.records) == 2)
    first, second = (change.after for change in source.records)
    assert first is not None
    assert second is not None
    assert first[1:] == second[1:] == [b"2026-01-31", b"2026-01-31 12:00:00+00", b"1 day 02:00:00", b"0.1", b"\\xff00"]
