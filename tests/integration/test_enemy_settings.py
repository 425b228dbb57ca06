"""Settings changed between two lives of a bridge, deaths amid what heals: Redis equals Postgres, or it is said why."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from fix_bridge import Bridge, bridged
from fix_servers import Database

from cdc.local.kafka import ApacheKafka
from cdc.local.redis import Redis
from cdc.local.redis_cluster import RedisCluster
from cdc.operate.slots import reset_slot
from cdc.operate.verify import wait_until_equal

pytestmark = pytest.mark.integration

PATIENCE_S = 60
RENEW = "schema.key.change.handling.mode: renew"


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)  # another process's work
    return found


def task(bridge: Bridge, connector: str) -> dict[str, Any]:
    assert bridge.worker is not None
    found: dict[str, Any] = bridge.worker.status()["connectors"][connector]["tasks"][0]
    return found


def test_another_record_key_by_setting_and_back(database18: Database, apache_kafka: ApacheKafka, redis7: Redis) -> None:
    """H14: rows get other keys, in the topic and in Redis, and those of before go; rows change while it is done."""
    database18.execute(
        "create table t (id int primary key, email text not null unique, n int); alter table t replica identity full;"
        "insert into t select i, 'e' || i, 0 from generate_series(1, 300) i"
    )
    with bridged(database18, apache_kafka, redis7, "public.t") as bridge:
        bridge.stop()
        database18.execute("update t set n = 1 where id % 2 = 0; delete from t where id % 10 = 0")
        line = "    topic.prefix:"
        bridge.reconfigure({line: f"    message.key.columns: public.t:email\n    {RENEW}\n{line}"})
        bridge.start()
        database18.execute("update t set n = 2 where id % 3 = 0; update t set email = 'f' || id where id % 7 = 0")
        report = wait_until_equal(bridge.config, PATIENCE_S)
        assert report.equal, report.as_text()
        assert not [
            key for key in bridge.redis.scan_iter(match=f"{bridge.name}:t:*") if not key.split(b":")[-1][:1].isalpha()
        ]
        bridge.stop()
        database18.execute("delete from t where id % 11 = 0; update t set n = 3 where id % 5 = 1")
        bridge.reconfigure({"    message.key.columns: public.t:email\n": ""})
        bridge.start()
        report = wait_until_equal(bridge.config, PATIENCE_S)
        assert report.equal, report.as_text()


def test_a_source_that_is_killed_again_and_again_amid_a_sweep(
    database18: Database, apache_kafka: ApacheKafka, redis7: Redis
) -> None:
    """H11: rows deleted in a gap leave the topic and Redis, whenever the one that deletes them dies."""
    database18.execute(
        "create table t (id int primary key, v text);"
        "insert into t select i, repeat('x', 100) from generate_series(1, 30000) i"
    )
    with bridged(database18, apache_kafka, redis7, "public.t") as bridge:
        bridge.stop()
        database18.execute("delete from t where id % 2 = 0")
        reset_slot(bridge.config, bridge.name)
        bridge.start()
        killed: set[int] = set()
        for share in range(1, 5):
            # While rows are read, between that and the sweep, in it, and after.
            until(
                lambda: (
                    task(bridge, bridge.name)["state"] == "RUNNING" and task(bridge, bridge.name)["pid"] not in killed
                )
            )
            pid = task(bridge, bridge.name)["pid"]
            deadline = time.monotonic() + 0.5 * share
            while time.monotonic() < deadline and task(bridge, bridge.name)["pid"] == pid:
                database18.execute(
                    f"insert into t values ({100_000 + share}, 'y') on conflict (id) do update set v = 'z'"
                )
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        report = wait_until_equal(bridge.config, PATIENCE_S)
        assert report.equal, report.as_text()
        assert len(killed) == 4


def test_columns_with_names_that_are_ours(
    database18: Database, apache_kafka: ApacheKafka, redis7_cluster: RedisCluster
) -> None:
    """A column called like the field that guards rows in a cluster is refused by name."""
    database18.execute(
        """create table t (id int primary key, "__cdc:version" text); insert into t values (1, 'mine'), (2, null)"""
    )
    database18.execute("create table u (id int primary key); insert into u values (1)")
    settings = {
        "    redis.uri: ": "    redis.cluster.enabled: true\n    redis.uri: ",
        # Avro has no such names.
        "worker:\n": "worker:\n  task.restart.policy: never\n  key.converter: json\n  value.converter: json\n",
    }
    with bridged(database18, apache_kafka, redis7_cluster, "public.u", settings) as bridge:
        bridge.stop()
        bridge.reconfigure({"public.u": "public.[tu]"})
        bridge.start()
        said = until(lambda: task(bridge, bridge.sink).get("trace"))
        assert "has a column __cdc:version, and in a cluster that is the field which guards its rows" in said
