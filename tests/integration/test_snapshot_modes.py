"""Which rows are read at a start, by mode, by statement, and when the lists change; on real servers, without Kafka."""

from __future__ import annotations

import pytest

from cdc.errors import FatalError
from cdc.postgres import snapshot
from tests.fix_servers import Database
from tests.integration.test_adhoc_snapshots import MakeTail, ask, ended, fill
from tests.integration.test_source_task import Tail, table_rows, tail

pytestmark = pytest.mark.integration

__all__ = ["tail"]

KEY = "snapshot.select.statement.overrides"


def told(source: Tail) -> int:
    return sum(c.op == "r" for c in source.changes)


def test_always_reads_at_every_start_and_initial_only_once(database18: Database) -> None:
    fill(database18, 10)
    source = Tail(database18, snapshot_mode="always").start().snapshot()
    for times in (2, 3):
        source.stop()
        source.start().until(lambda times=times: told(source) == 10 * times)
    source.stop()
    source = Tail(database18, snapshot_mode="initial_only", slot_name="second").start().snapshot()
    assert source.task is not None
    assert source.task.finished
    source.stop()
    source.start()
    assert source.task.finished
    assert told(source) == 10
    source.stop()
    source = Tail(database18, snapshot_mode="schema_only", slot_name="third").start()
    database18.execute("insert into t values (11, 'x')")
    source.until(lambda: len(source.changes) == 1)
    source.stop()
    assert told(source) == 0


@pytest.mark.parametrize("gap", ["dropped", "advanced", "publication"])
def test_when_needed_reads_all_again_after_a_gap_and_removes_what_is_gone(database18: Database, gap: str) -> None:
    fill(database18, 30)
    source = Tail(database18, snapshot_mode="when_needed").start().snapshot()
    database18.execute("insert into t values (31, 'x')")
    source.until(lambda: len(source.rows("t")) == 31)
    source.stop()
    source.start()
    source.until(lambda: source.task is not None and source.task._tracker.received > 0)
    source.stop()
    assert told(source) == 30, "nothing was missed, and all was read again"
    database18.execute("delete from t where id > 20; update t set v = 'missed' where id = 5")
    slot, publication = source.config.slot, source.config.publication
    database18.execute(
        {
            "dropped": f"select pg_drop_replication_slot('{slot}')",
            "advanced": f"select pg_replication_slot_advance('{slot}', pg_current_wal_lsn())",
            "publication": f"drop publication {publication}",
        }[gap]
    )
    source.start()
    source.until(lambda: source.rows("t") == table_rows(database18, "t"))
    source.snapshot()
    database18.execute("delete from t where id = 1")
    source.until(lambda: source.rows("t") == table_rows(database18, "t"))
    source.stop()
    positions = [(c.tx.position_prefix, c.ordinal, c.index) for c in source.changes]
    assert positions == sorted(positions)


def test_a_statement_chooses_the_rows_that_are_read_first(database: Database, tail: MakeTail) -> None:
    fill(database, 100)
    database.execute("create table log (v text); alter table log replica identity full")
    database.execute("insert into log select i::text from generate_series(1, 10) i")
    statements = {
        KEY: "public.t, public.log",
        f"{KEY}.public.t": "select * from public.t where id % 2 = 0 and v like '%l%' -- even",
        f"{KEY}.public.log": "select v from public.log where v > '8'",
    }
    source = tail(snapshot_fetch_size=10, **{name.replace(".", "_"): value for name, value in statements.items()})
    source.start().until(source.snapshot_done)
    assert sorted(int(key[0]) for key in source.rows("t")) == list(range(2, 101, 2))
    assert [c.after for c in source.changes if c.shape.table == "log"] == [[b"9"]]
    database.execute("update t set v = 'new' where id = 3")
    source.until(lambda: (b"3",) in source.rows("t"))
    ask(source, "all", data_collections=["public.t"])
    source.until(ended(source, "all"))
    assert source.rows("t") == table_rows(database, "t")


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("select id from public.t", 'column "v" does not exist'),
        ("select * from public.nothing", "does not exist"),
        ("delete from public.t returning *", "syntax error"),
        ("select * from public.t) x; drop table t; --", "multiple commands|syntax error"),
    ],
)
def test_a_broken_statement_is_named(database18: Database, statement: str, message: str) -> None:
    fill(database18, 3)
    source = Tail(database18, **{KEY.replace(".", "_"): "public.t", f"{KEY}.public.t".replace(".", "_"): statement})
    try:
        source.start()
        with pytest.raises(FatalError, match=message) as raised:
            source.until(source.snapshot_done)
        assert f"{KEY}.public.t" in str(raised.value)
        assert len(table_rows(database18, "t")) == 3
    finally:
        source.stop()


def test_lists_that_change_with_restarts_in_the_middle(
    database: Database, tail: MakeTail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "READY_BYTES", 1)
    for name in ("a", "b"):
        fill(database, 200, name)
    source = tail(snapshot_fetch_size=10, table_include_list="public.a").start()
    source.until(lambda: len(source.changes) >= 50)
    source.crash()

    def lists(tables: str) -> None:
        changed = source.config.model_copy(update={"table_include_list": tables})
        changed.__dict__.pop("selection", None)
        source.config = changed

    lists("public.a,public.b")
    for least in (30, 100):  # b is new, and the crashes come while it is read
        source.start().until(lambda least=least: len([c for c in source.changes if c.shape.table == "b"]) >= least)
        source.crash()
    database.execute("update a set v = 'new' where id in (1, 150); delete from b where id in (2, 190)")
    source.start().snapshot()
    source.until(lambda: all(source.rows(name) == table_rows(database, name) for name in ("a", "b")))
    told = [(c.shape.table, c.after[0]) for c in source.changes if c.op == "r" and c.after]
    assert len(told) == len(set(told)), "rows were read again"
    source.stop()
    lists("public.a")
    source.start()
    database.execute("update b set v = 'not told'; update a set v = 'told' where id = 7")
    source.until(lambda: source.rows("a") == table_rows(database, "a"))
    assert not any(c.after and c.after[1] == b"not told" for c in source.changes)
    source.stop()
    lists("public.a,public.b")
    source.start().until(lambda: source.rows("b") == table_rows(database, "b"))
