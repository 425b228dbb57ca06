"""What the catalog does not show, or shows too late: names that are another's by now, DDL that was undone, publications
that tell less. What the source tells, folded by key, is what Postgres holds, or the table stops by name."""

from __future__ import annotations

import pytest

from tests.fix_servers import Database
from tests.integration.test_schema_evolution import MakeTail, equal, failed, held, told
from tests.integration.test_source_task import tail

__all__ = ["tail"]

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("change", ["alter table t rename to x; alter table u rename to t", "drop table t; {create}"])
def test_a_value_is_never_read_again_from_another_table_of_the_name(
    database: Database, tail: MakeTail, change: str
) -> None:
    """Unchanged TOAST of a table whose Relation message came before its name was another's."""
    create = (
        "create table t (id int primary key, n int, a text); alter table t alter a set storage external;"
        " insert into t values (1, 1, repeat('{value}', 5000))"
    )
    database.execute(create.format(value="a"))
    database.execute(create.format(value="b").replace("table t", "table u").replace("into t", "into u"))
    source = tail(schema_refresh_ms=60_000).start().snapshot()
    database.execute("insert into t values (2, 1, 'small')")
    source.until(lambda: (b"2",) in told(source, "t"))
    before = len(source.records)
    database.execute("update t set n = 2 where id = 1")
    database.execute(change.format(create=create.format(value="c")))
    source.until(lambda: len(source.records) > before)
    update = source.records[before]
    assert (update.op, update.shape.table, list(update.unknown)) == ("u", "t", ["a"])
    source.stop()
    source.start().until(lambda: equal(source, database, "t"))


def test_a_publication_that_tells_less_stops_its_tables_until_it_is_mended(database: Database, tail: MakeTail) -> None:
    database.execute("create table t (id int primary key); insert into t values (1), (2)")
    source = tail(schema_refresh_ms=100).start().snapshot()
    publication = source.config.publication
    database.execute(f"alter publication {publication} set (publish = 'insert, update')")
    source.until(lambda: any("leaves out d, t" in text for text in failed(source).values()))
    database.execute("delete from t where id = 1")
    database.execute(f"alter publication {publication} set (publish = 'insert, update, delete, truncate')")
    source.until(lambda: source.snapshot_done() and equal(source, database, "t"))
    assert not failed(source)


def test_partitions_told_under_other_names_stop_their_table(database: Database, tail: MakeTail) -> None:
    database.execute(
        "create table t (id int primary key) partition by range (id);"
        " create table p partition of t for values from (0) to (100); insert into t values (1)"
    )
    source = tail(schema_refresh_ms=100, publish_via_partition_root="true").start().snapshot()
    publication = source.config.publication
    database.execute(f"alter publication {publication} set (publish_via_partition_root = false)")
    source.until(lambda: any("under other names" in text for text in failed(source).values()))
    database.execute("insert into t values (2)")
    database.execute(f"alter publication {publication} set (publish_via_partition_root = true)")
    source.until(lambda: source.snapshot_done() and equal(source, database, "t"))


def test_a_replica_identity_of_a_moment_leaves_no_ghost(database: Database, tail: MakeTail) -> None:
    """Meanwhile an UPDATE of the record key does not tell which key it was."""
    database.execute(
        "create table t (email text not null unique, id int primary key); alter table t replica identity full;"
        " insert into t values ('a', 1), ('b', 2)"
    )
    source = tail(schema_refresh_ms=60_000, message_key_columns="public.t:email").start().snapshot()
    database.execute(
        "alter table t replica identity default; update t set email = 'z' where id = 1;"
        " alter table t replica identity full"
    )
    source.until(lambda: (b"z",) in told(source, "t"))
    source.until(lambda: source.snapshot_done() and equal(source, database, "t"))


UNDONE = {
    "added": "alter table {t} add c text; update {t} set c = 'x' where id = 1; alter table {t} drop c",
    "renamed": "alter table {t} rename a to x; update {t} set x = 'x' where id = 1; alter table {t} rename x to a",
    "swapped": "{swap}; update {t} set a = 'x' where id = 1; {swap}",
    "label": "alter type mood_{t} rename value 'ok' to 'fine'; update {t} set a = 'x' where id = 1;"
    " alter type mood_{t} rename value 'fine' to 'ok'",
    "attribute": "alter type pair_{t} add attribute z int; update {t} set p = (1, 2, 3) where id = 1;"
    " alter type pair_{t} drop attribute z",
}
SWAP = "alter table {t} rename a to x; alter table {t} rename b to a; alter table {t} rename x to b"


@pytest.mark.parametrize("moment", ["in one transaction", "one by one", "while the worker is down"])
def test_ddl_that_was_undone_leaves_nothing_in_rows_told_meanwhile(
    database: Database, tail: MakeTail, moment: str
) -> None:
    """The catalog names the same columns, labels and attributes as before."""
    for name in UNDONE:
        database.execute(
            f"create type mood_{name} as enum ('sad', 'ok'); create type pair_{name} as (x int, y int);"
            f" create table {name} (id int primary key, a text, b text, m mood_{name}, p pair_{name});"
            f" insert into {name} values (1, 'a', 'b', 'ok', (1, 2)), (2, 'a', 'b', 'ok', (1, 2))"
        )
    source = tail(schema_refresh_ms=200).start().snapshot()
    if moment == "while the worker is down":
        source.stop()
    for name, statements in UNDONE.items():
        written = statements.format(t=name, swap=SWAP.format(t=name))
        for statement in [written] if moment == "in one transaction" else written.split("; "):
            database.execute(statement)
            if moment == "one by one" and statement.startswith("update"):  # told while the catalog is so
                count = len(source.records)
                source.until(lambda count=count: len(source.records) > count)
    if moment == "while the worker is down":
        source.start()
    expected = held(database, *UNDONE)
    source.until(lambda: source.snapshot_done() and [told(source, name) for name in UNDONE] == expected)
