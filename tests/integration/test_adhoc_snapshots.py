"""Snapshots that signals ask for, on real servers, without Kafka: exact beside the stream, resumed, held, stopped."""

from __future__ import annotations

import contextlib
import json
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from cdc.errors import FatalError
from cdc.postgres import snapshot
from cdc.postgres.touched import TouchLog
from cdc.record import RowChange
from tests.fix_servers import Database
from tests.integration.test_source_task import Tail, table_rows, tail

pytestmark = pytest.mark.integration

__all__ = ["tail"]

MakeTail = Callable[..., Tail]
SIGNALS = "create table signals (id varchar(64) primary key, type varchar(32) not null, data text)"


def ask(source: Tail, place: str, kind: str = "execute-snapshot", **data: Any) -> str:
    """Give the task a signal, as the runtime does; its id."""
    assert source.task is not None
    payload = {"id": place, "type": kind, "data": {name.replace("_", "-"): value for name, value in data.items()}}
    source.task.signal(json.dumps(payload).encode(), place)
    return place


def outcome(source: Tail, identifier: str) -> dict[str, Any]:
    """What is stored of a signal."""
    for partition, value in source.stored.items():
        if '"signals"' in partition:
            found: dict[str, Any] = value["outcomes"].get(identifier, {})
            return found
    return {}


def states(source: Tail, identifier: str) -> dict[str, str]:
    return {table: told["state"] for table, told in outcome(source, identifier).get("tables", {}).items()}


def ended(source: Tail, identifier: str) -> Callable[[], bool]:
    def condition() -> bool:
        found = states(source, identifier)
        return bool(found) and "RUNNING" not in found.values()

    return condition


def read(source: Tail, table: str = "t") -> list[RowChange]:
    """The records of ad-hoc snapshots."""
    return [c for c in source.changes if c.marker == "incremental" and c.shape.table == table]


def fill(database: Database, rows: int, table: str = "t") -> None:
    database.execute(f"create table {table} (id int primary key, v text)")
    database.execute(f"insert into {table} select i, 'old' from generate_series(1, {rows}) i")


@pytest.fixture
def one_chunk_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader has only one chunk ready: what a test does happens in the middle."""
    monkeypatch.setattr(snapshot, "READY_BYTES", 1)


def test_named_tables_are_read_again_beside_the_stream(database: Database, tail: MakeTail) -> None:
    for name in ("orders", "orders_old", "other"):
        fill(database, 30, name)
    source = tail(snapshot_fetch_size=7, snapshot_mode="no_data").start()
    source.until(source.snapshot_done)
    assert source.changes == []
    ask(source, "one", data_collections=["PUBLIC.orders(_old)?"])
    database.execute("update orders set v = 'new' where id = 3; delete from orders where id = 4")
    source.until(ended(source, "one"))
    source.until(lambda: source.rows("orders") == table_rows(database, "orders"))
    assert states(source, "one") == {"public.orders": "COMPLETED", "public.orders_old": "COMPLETED"}
    assert source.rows("orders_old") == table_rows(database, "orders_old")
    assert source.rows("other") == {}
    assert {c.op for c in source.changes if c.marker == "incremental"} == {"r"}
    told = [(c.tx.commit_lsn, c.ordinal, c.index) for c in source.changes]
    assert told == sorted(told), "a position fell"


def test_a_condition_reads_only_its_rows(database: Database, tail: MakeTail) -> None:
    fill(database, 100)
    source = tail(snapshot_fetch_size=10).start().snapshot()
    where = "id % 10 = 3 and v like 'o%' -- a comment"
    ask(
        source,
        "one",
        data_collections=["public.t"],
        additional_conditions=[{"data-collection": "public.t", "filter": where}],
    )
    source.until(ended(source, "one"))
    assert [int(c.after[0]) for c in read(source) if c.after] == list(range(3, 100, 10))
    assert outcome(source, "one")["tables"]["public.t"]["rows"] == 10


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("nothing = 1", "nothing"),
        ("id / 0 = 1", "division by zero"),
        ("true) union select 1, 'x' where (true", "syntax error"),
        ("true)) to stdout; create table broken (i int); --", "syntax error"),
        ("true) --", "syntax error"),
        ("id", "boolean"),
        ("set_config('transaction_read_only', 'off', false) = 'off' and nextval('counter') > 0", "transaction"),
    ],
)
def test_a_broken_condition_is_an_error_of_its_signal_alone(
    database18: Database, tail: MakeTail, where: str, told: str
) -> None:
    fill(database18, 10)
    database18.execute("create sequence counter")
    source = Tail(database18).start().snapshot()
    try:
        condition = [{"data-collection": "public.t", "filter": where}]
        with capture_logs() as logs:
            ask(source, "bad", data_collections=["public.t"], additional_conditions=condition)
            source.until(ended(source, "bad"))
        assert states(source, "bad") == {"public.t": "FAILED"}
        assert told in outcome(source, "bad")["tables"]["public.t"]["reason"]
        assert any(told in str(log.get("reason")) for log in logs if log["log_level"] == "error")
        database18.execute("insert into t values (11, 'after')")
        source.until(lambda: source.rows("t") == table_rows(database18, "t"))
        assert read(source) == []
        assert database18.execute("select to_regclass('broken')") == [(None,)]
        ask(source, "good", data_collections=["public.t"])
        source.until(ended(source, "good"))
        assert len(read(source)) == 11
    finally:
        source.stop()


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (b"\xff", "JSON"),
        (b"[1]", "JSON object"),
        (b'{"type": "execute-snapshots", "data": {}}', "did you mean execute-snapshot?"),
        (b'{"type": "execute-snapshot", "data": {"data-collection": ["public.t"]}}', "did you mean data-collections?"),
        (b'{"type": "execute-snapshot", "data": {"data-collections": ["public.x"]}}', "captured are public.t"),
        (b'{"type": "execute-snapshot", "data": {"data-collections": ["("]}}', "not a regular expression"),
        (
            b'{"type": "execute-snapshot", "data": {"data-collections": ["public.t"], "surrogate-key": "v"}}',
            "surrogate",
        ),
        (b'{"type": "stop-snapshot", "data": "{"}', "not JSON"),
    ],
)
def test_a_signal_that_cannot_be_acted_on_is_said_and_harmless(database18: Database, payload: bytes, told: str) -> None:
    fill(database18, 3)
    source = Tail(database18).start().snapshot()
    try:
        assert source.task is not None
        with capture_logs() as logs:
            source.task.signal(payload, "signals[0]@7")
        (log,) = [log for log in logs if log["log_level"] == "error"]
        assert told in log["reason"]
        assert log["place"] == "signals[0]@7"
        source.commit()
        assert told in outcome(source, "signals[0]@7")["error"]
        database18.execute("delete from t where id = 2")
        source.until(lambda: source.rows("t") == table_rows(database18, "t"))
    finally:
        source.stop()


def test_the_table_of_signals(database: Database, tail: MakeTail) -> None:
    """A row is acted on at its place, once, also when the task was down; its table is not told unless it is chosen."""
    fill(database, 20)
    database.execute(SIGNALS)
    source = tail(table_include_list="public.t", signal_data_collection="public.signals").start().snapshot()
    database.execute(
        "insert into signals values ('one', 'execute-snapshot', '{\"data-collections\": [\"public.t\"]}');"
        "insert into signals values ('two', 'log', '{\"message\": \"at {}\"}')"
    )
    with capture_logs() as logs:
        source.until(ended(source, "one"))
    assert len(read(source)) == 20
    assert any(re.fullmatch(r"at [0-9a-f]{8}\.[0-9a-f]{16}\.[0-9a-f]{8}", str(log.get("message"))) for log in logs)
    source.crash()
    database.execute("delete from signals where id = 'one'")
    database.execute("insert into signals values ('three', 'execute-snapshot', '{\"data-collections\": [\".*\"]}')")
    database.execute("update signals set type = 'log'")
    source.start().until(ended(source, "three"))
    assert len(read(source)) == 40
    assert {c.shape.table for c in source.changes} == {"t"}
    source.stop()
    source = tail(table_include_list=r"public\..*", signal_data_collection="public.signals", slot_name="second")
    source.start().snapshot()
    database.execute("insert into signals values ('four', 'log', '{\"message\": \"x\"}')")
    source.until(lambda: bool(outcome(source, "four")))
    source.until(lambda: source.rows("signals") == table_rows(database, "signals"))


def test_a_table_of_signals_that_cannot_be_used_is_named_with_its_remedy(database18: Database) -> None:
    fill(database18, 1)
    source = Tail(database18, table_include_list="public.t", signal_data_collection="public.signals")
    with pytest.raises(FatalError, match=r'CREATE TABLE "public"."signals" \(id'):
        source.start()
    source.stop()
    database18.execute("create table signals (id int, kind text)")
    with pytest.raises(FatalError, match="lacks the column type, data"):
        source.start()
    source.stop()
    database18.execute("drop table signals; create table signals (id int, type text, data text)")
    with pytest.raises(FatalError, match="ADD PRIMARY KEY"):
        source.start()
    source.stop()


@pytest.mark.usefixtures("one_chunk_ahead")
def test_it_goes_on_after_a_crash_where_it_was(database: Database, tail: MakeTail) -> None:
    fill(database, 400)
    source = tail(snapshot_fetch_size=20).start().snapshot()
    ask(source, "one", data_collections=["public.t"])
    source.commit()
    source.crash()  # accepted, not begun
    source.start().until(lambda: len(read(source)) >= 100)
    source.crash()
    before = len(read(source))
    database.execute("update t set v = 'new' where id <= 20 or id > 390; delete from t where id = 1")
    source.start()
    ask(source, "one", data_collections=["public.t"])  # as if its place had not been stored: it is the same signal
    source.until(ended(source, "one"))
    source.until(lambda: source.rows("t") == table_rows(database, "t"))
    assert before >= 100
    keys = [c.after[0] for c in read(source) if c.after]
    assert len(keys) == len(set(keys)), "rows were read again"
    assert states(source, "one") == {"public.t": "COMPLETED"}


@pytest.mark.usefixtures("one_chunk_ahead")
@pytest.mark.parametrize("seed", range(3))
def test_a_crash_at_any_step_acts_once_on_a_signal_and_reads_each_row_once(database18: Database, seed: int) -> None:
    fill(database18, 120)
    database18.execute(SIGNALS)
    source = Tail(
        database18, table_include_list="public.t", signal_data_collection="public.signals", snapshot_fetch_size=10
    )
    source.start().snapshot()
    database18.execute("insert into signals values ('one', 'execute-snapshot', '{\"data-collections\": [\".*\"]}')")
    steps = random.Random(seed)
    crashes = 0
    try:
        while not ended(source, "one")():
            for _ in range(steps.randrange(1, 8)):
                source.poll()
                if steps.random() < 0.7:
                    source.commit()
            if crashes < 12:
                source.crash()
                source.start()
                crashes += 1
        keys = Counter(c.after[0] for c in read(source) if c.after)
        assert crashes >= 3
        assert len(keys) == 120
        assert set(keys.values()) == {1}
    finally:
        source.stop()


@pytest.mark.usefixtures("one_chunk_ahead")
def test_it_can_be_held_and_stopped(database: Database, tail: MakeTail) -> None:
    for name in ("t", "u"):
        fill(database, 300, name)
    source = tail(snapshot_fetch_size=10).start().snapshot()
    ask(source, "one", data_collections=["public.t", "public.u"])
    ask(source, "more", data_collections=["public.t"])
    source.until(lambda: len(read(source)) >= 50)
    ask(source, "hold", "pause-snapshot")
    held = len(read(source)) + len(read(source, "u"))
    database.execute("update t set v = 'while held' where id in (1, 299)")
    source.until(lambda: source.rows("t") == table_rows(database, "t"))
    source.crash()
    source.start()
    database.execute("update u set v = 'while held' where id in (1, 299)")
    source.until(lambda: source.rows("u") == table_rows(database, "u"))
    assert len(read(source)) + len(read(source, "u")) == held
    ask(source, "go", "resume-snapshot")
    source.until(lambda: len(read(source)) + len(read(source, "u")) >= held + 20)
    ask(source, "halt", "stop-snapshot", data_collections=["public.t"])
    source.until(ended(source, "one"))
    assert states(source, "one") == {"public.t": "STOPPED", "public.u": "COMPLETED"}
    assert states(source, "more") == {"public.t": "STOPPED"}
    assert len(read(source, "u")) == 300
    assert len(read(source)) < 300
    ask(source, "again", data_collections=["public.t"])
    source.until(ended(source, "again"))
    assert source.rows("t") == table_rows(database, "t")
    assert not any(value.get("adhoc") for value in source.stored.values())


def test_with_a_sweep_missed_deletes_are_made_up_for(database: Database, tail: MakeTail) -> None:
    fill(database, 50)
    # No look at the catalog comes in between: it would find what was done to the publication, and mend it by itself.
    source = tail(snapshot_fetch_size=10, schema_refresh_ms=600_000).start().snapshot()
    everything = "insert, update, delete, truncate"
    with database.connect() as connection:
        # Changes that nobody tells: as after deletes that were missed, with the stream in order.
        connection.execute(f"alter publication {source.config.publication} set (publish = 'insert')")
        connection.execute("delete from t where id > 40; update t set v = 'missed' where id < 5")
        connection.execute("insert into t values (99, 'mark')")
        source.until(lambda: (b"99",) in source.rows("t"))
        connection.execute(f"alter publication {source.config.publication} set (publish = '{everything}')")
    ask(source, "plain", data_collections=["public.t"])
    source.until(ended(source, "plain"))
    assert len(source.rows("t")) == 51
    ask(source, "sweep", data_collections=["public.t"], sweep=True)
    source.until(ended(source, "sweep"))
    assert source.rows("t") == table_rows(database, "t")
    with capture_logs() as logs:
        ask(
            source,
            "both",
            data_collections=["public.t"],
            sweep=True,
            additional_conditions=[{"data-collection": "public.t", "filter": "id < 5"}],
        )
    assert "cannot be had with additional-conditions" in str(logs)


def test_a_blocking_one_is_marked_as_an_initial_one(database: Database, tail: MakeTail) -> None:
    fill(database, 25)
    source = tail(snapshot_fetch_size=10).start().snapshot()
    before = len(source.changes)
    ask(source, "one", data_collections=["public.t"], type="BLOCKING")
    source.until(ended(source, "one"))
    markers = [c.marker for c in source.changes[before:]]
    assert markers == ["first_in_data_collection", *["true"] * 23, "last_in_data_collection"]


def test_tables_that_cannot_be_read_beside_the_stream_are_refused_by_name(database: Database, tail: MakeTail) -> None:
    fill(database, 5)
    database.execute("create table keyless (v text); insert into keyless values ('a')")
    database.execute("alter table keyless replica identity full")
    source = tail().start()
    source.until(source.snapshot_done)
    ask(source, "one", data_collections=[".*"])
    source.until(ended(source, "one"))
    assert states(source, "one") == {"public.keyless": "FAILED", "public.t": "COMPLETED"}
    assert "no key" in outcome(source, "one")["tables"]["public.keyless"]["reason"]


@contextlib.contextmanager
def hot(database: Database, rows: int) -> Iterator[None]:
    """Updates without pause, until the block ends."""
    stop = threading.Event()

    def write() -> None:
        with psycopg.connect(**database.conninfo, autocommit=True) as connection:
            number = 0
            while not stop.is_set():
                number += 1
                connection.execute(
                    "update t set v = (coalesce(nullif(v, 'old'), '0')::int + 1)::text where id = %s",
                    [number * 7 % rows + 1],
                )

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()


def went_back(source: Tail, table: str = "t") -> list[bytes]:
    """Keys of which an older value follows a newer one. Values are numbers that rise."""
    seen: dict[bytes, int] = {}
    found = []
    for change in source.changes:
        if change.shape.table != table:
            continue
        assert change.after is not None
        key, value = change.after[0], change.after[1]
        version = int(value) if value.isdigit() else 0
        if version < seen.get(key, 0):
            found.append(key)
        seen[key] = max(version, seen.get(key, 0))
    return found


def test_under_a_hot_update_loop_no_older_row_follows_a_newer(database: Database, tail: MakeTail) -> None:
    fill(database, 300)
    source = tail(snapshot_fetch_size=10).start().snapshot()
    with hot(database, 300):
        for place in ("one", "two"):
            ask(source, place, data_collections=["public.t"])
            source.until(ended(source, place))
    source.until(lambda: source.rows("t") == table_rows(database, "t"))
    assert read(source)
    assert went_back(source) == []


@contextlib.contextmanager
def held_commit(database: Database, statement: str) -> Iterator[Callable[[], None]]:
    """A statement whose commit waits for a synchronous standby that is not there: in the WAL, and not visible.

    The block is given what lets it end.
    """
    with database.connect() as admin:
        admin.execute("alter system set synchronous_standby_names = 'nobody'")
        admin.execute("select pg_reload_conf()")
        holder = psycopg.connect(**database.conninfo, autocommit=True)
        waiting = threading.Thread(target=holder.execute, args=(statement.encode(),))
        query = "select count(*) from pg_stat_activity where pid = %s and wait_event = 'SyncRep'"
        pid = holder.info.backend_pid

        def let_go() -> None:
            admin.execute("select pg_cancel_backend(%s)", [pid])
            waiting.join()

        try:
            while admin.execute("show synchronous_standby_names").fetchone() != ("nobody",):
                pass
            waiting.start()
            while admin.execute(query, [pid]).fetchone() != (1,):
                pass
            yield let_go
        finally:
            let_go()
            holder.close()
            admin.execute("alter system reset synchronous_standby_names")
            admin.execute("select pg_reload_conf()")


@pytest.mark.usefixtures("one_chunk_ahead")
@pytest.mark.parametrize("adhoc", [True, False], ids=["adhoc", "initial"])
@pytest.mark.parametrize("rule", [True, False], ids=["", "without the rule"])
def test_a34_a_commit_held_in_syncrep_is_never_overtaken_by_its_older_row(
    database18: Database, monkeypatch: pytest.MonkeyPatch, rule: bool, adhoc: bool
) -> None:
    """EXACTNESS.md H9. The change is streamed while the chunks that follow still see the old row."""
    if not rule:
        monkeypatch.setattr(TouchLog, "newer", lambda *_: set())
    fill(database18, 2000)
    source = Tail(database18, snapshot_fetch_size=10, snapshot_mode="no_data" if adhoc else "initial").start()
    try:
        if adhoc:
            source.until(source.snapshot_done)
            ask(source, "one", data_collections=["public.t"])
        source.until(lambda: len(source.changes) >= 10)
        with held_commit(database18, "update t set v = '1' where id = 1995") as let_go:
            source.until(lambda: any(c.op == "u" for c in source.changes))
            assert len(source.changes) < 1900, "all was read before the commit was held"
            source.until(ended(source, "one") if adhoc else source.snapshot_done)
            let_go()
        assert went_back(source) == ([] if rule else [b"1995"])
        if rule:
            assert source.rows("t") == table_rows(database18, "t")
    finally:
        source.stop()


@pytest.mark.parametrize("rule", [True, False], ids=["", "without the rule"])
def test_a34_a_commit_held_before_the_reading_began_is_waited_for(
    database18: Database, monkeypatch: pytest.MonkeyPatch, rule: bool
) -> None:
    """It was streamed before anybody noted which keys are touched."""
    if not rule:
        monkeypatch.setattr(snapshot, "writers", lambda *_: {})
    fill(database18, 20)
    fill(database18, 20, "free")
    source = Tail(database18, snapshot_max_threads=2).start().snapshot()
    try:
        with held_commit(database18, "update t set v = '1' where id = 5") as let_go:
            source.until(lambda: any(c.op == "u" for c in source.changes))
            ask(source, "one", data_collections=["public.t"])
            ask(source, "free", data_collections=["public.free"])
            source.until(ended(source, "free"))
            if rule:
                assert states(source, "one") == {"public.t": "RUNNING"}
                assert read(source) == []
            else:
                source.until(ended(source, "one"))
            let_go()
        source.until(ended(source, "one"))
        assert went_back(source) == ([] if rule else [b"5"])
    finally:
        source.stop()


@pytest.mark.usefixtures("one_chunk_ahead")
def test_a_truncate_under_it_has_its_chunk_read_again(
    database: Database, tail: MakeTail, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database, 300)
    source = tail(snapshot_fetch_size=10).start().snapshot()
    ask(source, "one", data_collections=["public.t"])
    source.until(lambda: len(read(source)) >= 50)
    database.execute("truncate t; insert into t values (1, 'after'), (250, 'after')")
    source.until(ended(source, "one"))
    source.until(lambda: source.rows("t") == table_rows(database, "t"))
    assert states(source, "one") == {"public.t": "COMPLETED"}
    monkeypatch.setattr(TouchLog, "newer", lambda *_: None)
    ask(source, "two", data_collections=["public.t"])
    source.until(ended(source, "two"))
    assert "lower snapshot.fetch.size" in outcome(source, "two")["tables"]["public.t"]["reason"]


@pytest.mark.usefixtures("one_chunk_ahead")
def test_ddl_under_it_begins_it_anew_after_the_table_is_read_again(database: Database, tail: MakeTail) -> None:
    fill(database, 200)
    source = tail(snapshot_fetch_size=10, schema_refresh_ms=100).start().snapshot()
    ask(source, "one", data_collections=["public.t"])
    database.execute("alter table t add column extra int not null default 7")
    source.until(ended(source, "one"))
    source.until(lambda: source.rows("t") == table_rows(database, "t"))
    assert states(source, "one") == {"public.t": "COMPLETED"}
    ask(source, "two", data_collections=["public.t"])
    ask(source, "hold", "pause-snapshot")
    database.execute("drop table t")
    source.until(ended(source, "two"))
    assert states(source, "two") == {"public.t": "FAILED"}
