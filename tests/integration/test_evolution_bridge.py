"""Schema changes through the whole bridge: Redis equals Postgres again, and so does the topic, for a rebuild."""

from __future__ import annotations

import contextlib
import os
import signal
import uuid
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from cdc.runtime.worker import Worker
from tests.integration.test_bridge import Bridge, apache, until

__all__ = ["apache"]

pytestmark = pytest.mark.integration

FAST = "schema.refresh.ms: 200"


def folded(bridge: Bridge, table: str) -> dict[tuple[int, bytes], list[bytes | None]]:
    """The records of a topic by partition and key, oldest first, without truncates."""
    topic = f"{bridge.name}.public.{table}"
    consumer = Consumer(
        {
            "bootstrap.servers": bridge.kafka.bootstrap_servers,
            "group.id": uuid.uuid4().hex,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
        left = set(partitions)
        found: dict[tuple[int, bytes], list[bytes | None]] = {}
        while left:
            message = consumer.poll(10)
            assert message is not None, f"{topic} cannot be read"
            if message.error() is not None:
                left.discard(message.partition() or 0)
            elif message.key() is not None:
                key: Any = message.key()
                found.setdefault((message.partition() or 0, key), []).append(message.value())
        return found
    finally:
        consumer.close()


def live(bridge: Bridge, table: str) -> int:
    """How many keys of the topic have a row."""
    return sum(values[-1] is not None for values in folded(bridge, table).values())


def tables(worker: Worker, bridge: Bridge) -> dict[str, str]:
    """What the status says of tables."""
    task = worker.status()["connectors"][bridge.name]["tasks"][0]
    found: dict[str, str] = task["metrics"].get("tables", {})
    return found


def test_a_table_made_anew_leaves_no_ghost_in_redis_nor_in_the_topic(apache: Bridge) -> None:
    """kill -9 of the source again and again on the way."""
    apache.source = FAST + "\n    snapshot.fetch.size: 50\n    schema.resnapshot.max.rows.per.second: 100"
    apache.worker_settings = "task.restart.backoff.initial.ms: 50\n  task.restart.backoff.max.ms: 200"
    apache.database.execute("create table t (id int primary key, v text); create table u (id int primary key)")
    apache.database.execute("insert into t select i, 'old' from generate_series(1, 400) i; insert into u values (1)")
    with apache.running() as worker:
        apache.equal()
        apache.database.execute(
            "drop table t; create table t (id int primary key, v text, w int);"
            " insert into t select i, 'new', i from generate_series(301, 750) i"
        )
        for _ in range(4):
            rows = _snapshot_rows(worker, apache)
            until(lambda rows=rows: _snapshot_rows(worker, apache) != rows, "some rows read again")  # type: ignore[misc]
            until(lambda: _killed(worker, apache), "a process to kill")
        until(lambda: live(apache, "t") == 450, "a topic without ghosts")
        apache.database.execute("insert into t values (1, 'again', 1); delete from t where id = 750")
        report = apache.equal()
        assert report.rows == 451
        records = folded(apache, "t").values()
        gone = [values for values in records if values[-1] is None and len(values) > 1]
        assert len(gone) == 300
        assert all(len(values) >= 3 and values[-2] for values in gone), "no delete before a tombstone"


def _snapshot_rows(worker: Worker, bridge: Bridge) -> float:
    metrics = worker.status()["connectors"][bridge.name]["tasks"][0]["metrics"].get("metrics", {})
    return float(metrics.get("snapshot_rows", 0))


def _killed(worker: Worker, bridge: Bridge) -> bool:
    task = worker.status()["connectors"][bridge.name]["tasks"][0]
    if task["state"] != "RUNNING" or not task["pid"]:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(task["pid"], signal.SIGKILL)
    return True


def test_quiet_ddl_reaches_every_hash_and_key_bytes_stay(apache: Bridge) -> None:
    apache.source = FAST
    apache.database.execute(
        "create type mood as enum ('sad', 'ok'); create table a (id varchar(5) primary key, v text, m mood);"
        " create table b (id int primary key, v text default 'x'); insert into b values (1), (2);"
        " insert into a values ('one', 'v', 'ok'), ('two', null, 'sad')"
    )
    with apache.running():
        apache.equal()
        keys = set(folded(apache, "a"))
        apache.database.execute(
            "alter table a alter id type varchar(20); alter table a alter id set default 'x';"
            " comment on column a.id is 'the key'; alter table a rename v to w; alter table a add c int default 5;"
            " alter type mood rename value 'ok' to 'fine'; alter table b drop v"
        )
        apache.equal()
        apache.database.execute("insert into a values (default, 'w', 'fine', 1); update a set c = 9 where id = 'one'")
        apache.equal()
        with apache.client() as client:
            expected = {"id": "one", "w": "v", "m": "fine", "c": "9"}
            assert client.hgetall(f"{apache.name}:a:one") == expected
            assert client.hgetall(f"{apache.name}:b:1") == {"id": "1"}
        assert {key for _, key in folded(apache, "a")} > {key for _, key in keys}
        assert len(folded(apache, "a")) == len(keys) + 1


def test_a_wider_key_stops_its_table_alone(apache: Bridge) -> None:
    apache.source = FAST
    apache.database.execute("create table t (id int primary key, v int); create table u (id int primary key)")
    apache.database.execute("insert into t select i, i from generate_series(1, 20) i; insert into u values (1)")
    with apache.running() as worker:
        apache.equal()
        apache.database.execute("alter table t alter id type bigint; insert into t values (5000000000, 1)")
        until(lambda: "FAILED" in tables(worker, apache).get("public.t", ""), "a table that says it failed")
        assert "schema.key.change.handling.mode=renew" in tables(worker, apache)["public.t"]
        apache.database.execute("insert into u values (2)")
        with apache.client() as client:
            until(lambda: client.exists(f"{apache.name}:u:2"), "a row of the other table")
            assert not client.exists(f"{apache.name}:t:5000000000")
        before = len(folded(apache, "t"))
        assert before == 20
    # Mended by the policy: all keys are deleted, and the rows get new ones.
    apache.source = FAST + "\n    schema.key.change.handling.mode: renew"
    with apache.running():
        report = apache.equal()
        assert report.rows == 23
        assert live(apache, "t") >= 21
        apache.database.execute("update t set v = v + 1; delete from t where id = 3")
        apache.equal()
        alive = [key for (_, key), values in folded(apache, "t").items() if values[-1] is not None]
        assert len({key[:5] for key in alive if len(key) > 5}) <= 2  # the new schema's, and the truncate's control keys


def test_a_key_that_two_rows_could_share_stops_its_table_alone(apache: Bridge) -> None:
    apache.source = FAST + "\n    schema.key.change.handling.mode: renew"
    apache.database.execute("create table t (id numeric primary key); create table u (id int primary key)")
    apache.database.execute("insert into t values (1.50); insert into u values (1)")
    with apache.running() as worker:
        until(lambda: "FAILED" in tables(worker, apache).get("public.t", ""), "a table that says it failed")
        assert "numeric with a scale" in tables(worker, apache)["public.t"]
        apache.database.execute("insert into u values (2)")
        with apache.client() as client:
            until(lambda: client.exists(f"{apache.name}:u:2"), "a row of the other table")
        # Mended: the key has another schema, so its rows get new keys, and are read again and followed.
        apache.database.execute("alter table t alter id type numeric(10, 2)")
        apache.equal()
        apache.database.execute("insert into t values (3)")
        assert apache.equal().rows == 4


def test_a_schema_that_the_registry_refuses_follows_the_policy(apache: Bridge) -> None:
    apache.source = FAST + "\n    schema.incompatible.handling.mode: fail"
    apache.database.execute("create table t (id int primary key, v int); create table u (id int primary key)")
    apache.database.execute("insert into t values (1, 1), (2, 2); insert into u values (1)")
    with apache.running() as worker:
        apache.equal()
        apache.database.execute("alter table t alter v type text; update t set v = 'x' where id = 1")
        until(lambda: "incompatible" in tables(worker, apache).get("public.t", ""), "a table that says it failed")
        apache.database.execute("insert into u values (2)")
        with apache.client() as client:
            until(lambda: client.exists(f"{apache.name}:u:2"), "a row of the other table")
    apache.source = FAST
    with apache.running():
        apache.equal()


def test_ddl_that_ends_where_it_began_leaves_redis_equal(apache: Bridge) -> None:
    """The rows change where the stream does not tell it, and the catalog looks almost as before."""
    apache.source = FAST
    apache.database.execute(
        "create table parted (id int primary key, v text) partition by range (id);"
        " create table low partition of parted for values from (0) to (10);"
        " create table high partition of parted for values from (10) to (20);"
        " insert into parted select i, 'v' from generate_series(1, 19) i;"
        " create table truncated (id int primary key) partition by range (id);"
        " create table leaf partition of truncated for values from (0) to (10);"
        " create table other partition of truncated for values from (10) to (20);"
        " insert into truncated select generate_series(1, 19);"
        " create table renamed (id int primary key, v text); insert into renamed values (1, 'v'), (2, 'v');"
        " create type pair as (a int, b int); create type wrap as (p pair);"
        " create table composed (id int primary key, v pair, w wrap[]);"
        " insert into composed values (1, row(1, 2), array[row(row(3, 4))::wrap]);"
        " create type mood as enum ('sad', 'ok'); create type moods as range (subtype = mood);"
        " create table spanned (id int primary key, v moods_multirange[]);"
        " insert into spanned values (1, array[moods_multirange(moods('sad', 'ok'))])"
    )
    with apache.running():
        apache.equal()
        apache.database.execute(
            "begin; alter table parted detach partition low; update low set v = 'w' where id > 2; delete from low"
            " where id = 1; alter table parted attach partition low for values from (0) to (10); commit"
        )
        apache.database.execute("truncate leaf")
        apache.database.execute(
            "begin; alter table renamed rename to elsewhere; update elsewhere set v = 'w' where id = 1;"
            " delete from elsewhere where id = 2; alter table elsewhere rename to renamed; commit"
        )
        apache.database.execute("alter type pair drop attribute a; alter type pair add attribute c text")
        apache.database.execute("alter type mood rename value 'sad' to 'blue'")
        apache.equal()
        insert = "insert into composed values (%s, row(%s, 'text'), array[row(row(3, 'in it'))::wrap])"
        with apache.redis.client() as client:  # no Relation message comes: the table is as it was
            for number in (2, 3):
                apache.database.execute(insert, [number, number])
                until(lambda row=f"{apache.name}:composed:{number}": client.exists(row), "a row of the type of now")
        apache.equal()


def test_flattened_rows_leave_no_ghost_either(apache: Bridge) -> None:
    """Transforms that keep a record's place: what is gone is deleted through them (H11)."""
    flat = "io.debezium.transforms.ExtractNewRecordState"
    apache.source = f"{FAST}\n    transforms: flat\n    transforms.flat.type: {flat}"
    apache.database.execute("create table t (id int primary key, v text)")
    apache.database.execute("insert into t select i, 'old' from generate_series(1, 40) i")
    with apache.running():
        apache.equal()
        apache.database.execute(
            "drop table t; create table t (id int primary key, v text, w int);"
            " insert into t select i, 'new', i from generate_series(31, 50) i"
        )
        until(lambda: live(apache, "t") == 20, "a topic without ghosts")
        assert apache.equal().rows == 20
