"""The whole bridge on real servers, proved equal by a comparison that shares no code with it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from confluent_kafka.admin import AdminClient, ConfigResource

import cdc.config
from cdc.errors import ConfigError
from cdc.local.kafka import ApacheKafka, Kafka
from cdc.local.postgres import Postgres
from cdc.local.redis import RedisServer
from cdc.operate.verify import wait_until_equal
from cdc.runtime.survey import survey
from cdc.runtime.worker import Worker
from tests.fix_servers import Database

pytestmark = pytest.mark.integration

PATIENCE_S = 60.0

TYPES = """
create type mood as enum ('sad', 'it''s ok', 'happy');
create domain money_amount as numeric(12, 2) check (value >= 0);
create table kinds (
  id bigint primary key, i2 smallint, i4 int, f4 real, f8 double precision, n numeric(20, 5), nn numeric,
  t text, vc varchar(40), c char(8), b boolean, d date, tm time, tz timetz, ts timestamp, tsz timestamptz, iv interval,
  u uuid, j json, jb jsonb, by bytea, m mood, dm money_amount, ia int[], ta text[], na numeric[], ma mood[],
  ba boolean[], tsa timestamptz[], nx int not null default 7
);
insert into kinds values
 (1, -32768, 2147483647, 1.1, 0.1, 12345.67890, 1.500, 'plain', 'v', 'c', true, '2026-01-31', '12:34:56.789',
  '12:34:56+02', '2026-01-31 12:00:00.5', '2026-01-31 12:00:00.123456+00', '1 year 2 mons 3 days 04:05:06.7',
  'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a": 1.10}', '{"b": [1, null], "a": "ż"}', '\\x00ff10', 'it''s ok', 9.90,
  '{1,NULL,3}', array['a', 'b "q"', 'c\\d', '', null, 'NULL'], '{1.10,NaN}', '{sad,happy}', '{t,f,NULL}',
  '{"2026-01-31 12:00:00+00",NULL}'),
 (2, 32767, -2147483648, 'NaN', '-Infinity', -0.00001, 'NaN', '', '', '', false, 'infinity', '24:00:00', '00:00:00-12',
  'infinity', '-infinity', '-1 day', '00000000-0000-0000-0000-000000000000', 'null', '123456789012345678901234567890',
  '', 'happy', 0, '{}', '{}', '{}', '{}', '{}', '{}'),
 (3, 0, 0, 1e-40, 1e300, 'NaN', 100000000000000000000.000000001, E'tab\\tnl\\nbs\\\\', '😀', '  x', null,
  '0044-03-15 BC', '00:00:00', '23:59:59.999999+15:59', '0001-01-01 00:00:00 BC',
  '294276-12-31 23:59:59.999999+00', '0', null, null, null, null, null, null,
  '{{1,2},{3,4}}', '[0:1]={a,b}', null, null, null, null);
insert into kinds (id, nx) values (4, 8);
"""

SHOP = """
create table customers (id int primary key, email text not null, tier text, prefs jsonb, bio text);
alter table customers alter bio set storage external;
create table orders (customer int, line text, quantity int not null, price numeric(10,2), primary key (customer, line));
insert into customers select i, 'c' || i || '@example.org', case when i % 3 = 0 then null else 'gold' end,
  jsonb_build_object('n', i), repeat('bio ' || i, 900) from generate_series(1, 300) i;
insert into orders select i % 100, 'li:ne\\' || i, i, i * 1.10 from generate_series(1, 500) i;
"""


@dataclass
class Bridge:
    """A bridge between a database, a broker and a Redis of this test's own keys."""

    database: Database
    kafka: Kafka
    redis: RedisServer
    name: str
    sink: str = ""
    source: str = ""
    worker_settings: str = ""

    @property
    def text(self) -> str:
        info = self.database.conninfo
        return f"""
worker:
  bootstrap.servers: {self.kafka.bootstrap_servers}
  group.id: {self.name}
  listeners: http://127.0.0.1:0
  {self.worker_settings}
connectors:
  {self.name}:
    connector.class: postgres
    database.hostname: {info["host"]}
    database.port: {info["port"]}
    database.user: {info["user"]}
    database.password: "{info["password"]}"
    database.dbname: {info["dbname"]}
    topic.prefix: {self.name}
    table.include.list: public\\..*
    {self.source}
  {self.name}-cache:
    connector.class: redis
    topics.regex: {self.name}\\.public\\..*
    redis.uri: {self.redis.url}
    {self.sink or 'redis.key: "' + self.name + ':{table}:{pk}"'}
"""

    def config(self) -> cdc.config.Config:
        return cdc.config.loads({"bridge.yaml": self.text})

    @contextlib.contextmanager
    def running(self) -> Iterator[Worker]:
        worker = Worker(self.config(), log_format="console", log_level="INFO")
        worker.start()
        try:
            yield worker
        finally:
            worker.stop()

    def equal(self, timeout: float = PATIENCE_S) -> Any:
        report = wait_until_equal(self.config(), timeout=timeout)
        assert report.equal, report.as_text()
        return report

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.redis.url, decode_responses=True)


@pytest.fixture(params=["apache", "embedded"])
def bridge(request: pytest.FixtureRequest, new_database: Callable[[Postgres], Database]) -> Bridge:
    """Postgres 15, Apache Kafka and Redis 7; then Postgres 18, the embedded broker and Valkey 9."""
    names = (
        ("postgres15", "apache_kafka", "redis7")
        if request.param == "apache"
        else ("postgres18", "embedded_kafka", "valkey9")
    )
    server, kafka, store = (request.getfixturevalue(name) for name in names)
    database = new_database(server)
    return Bridge(database, kafka, store, database.name)


@pytest.fixture
def apache(database15: Database, apache_kafka: ApacheKafka, redis7: RedisServer) -> Bridge:
    return Bridge(database15, apache_kafka, redis7, database15.name)


def until(condition: Callable[[], object], what: str, patience: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about within {patience:.0f} s"
        time.sleep(0.02)


def test_every_common_type_reaches_redis_exactly_from_snapshot_and_stream(bridge: Bridge) -> None:
    bridge.database.execute(TYPES)
    with bridge.running():
        bridge.equal()
        bridge.database.execute(
            "create temp table c as table kinds; update c set id = id + 100; insert into kinds table c"
        )
        bridge.database.execute("update kinds set nx = nx + 1")
        report = bridge.equal()
    assert report.rows == 8
    with bridge.client() as client:
        name = bridge.name
        first = client.hgetall(f"{name}:kinds:1")
        again = client.hgetall(f"{name}:kinds:101")
        assert {**first, "id": "101"} == again
        assert first["n"] == "12345.67890"
        assert first["nn"] == "1.500"
        assert first["tsz"] == "2026-01-31T12:00:00.123456Z"
        assert first["ta"] == r'["a","b \"q\"","c\\d","",null,"NULL"]'
        assert client.hgetall(f"{name}:kinds:3")["d"] == "0044-03-15 BC"
        assert client.hgetall(f"{name}:kinds:4") == {"id": "4", "nx": "9"}


def test_every_kind_of_change_ends_equal(bridge: Bridge) -> None:
    bridge.database.execute(SHOP)
    with bridge.running():
        bridge.equal()
        for statement in (
            "update customers set tier = null where id % 2 = 0",
            "update customers set tier = 'silver', prefs = prefs || '{\"x\": true}' where id % 5 = 0",
            "update customers set id = id + 1000 where id <= 20",
            "delete from customers where id between 50 and 60",
            "begin; insert into customers values (5000, 'e', 't', null, 'b');"
            " update customers set tier = 'u' where id = 5000; delete from customers where id = 5000;"
            " insert into customers values (5000, 'again', null, null, null); commit",
            "begin; update customers set id = -1 where id = 100; update customers set id = 100 where id = 101;"
            " update customers set id = 101 where id = -1; commit",
            "begin; insert into customers values (6000, 'x', null, null, null); savepoint a;"
            " insert into customers select i, 'rolled back', null, null, null from generate_series(7000, 7500) i;"
            " rollback to a; insert into customers values (6001, 'y', null, null, null); commit",
            "update orders set line = line || ':' where customer < 10",
        ):
            bridge.database.execute(statement)
        bridge.equal()
        bridge.database.execute("truncate orders")
        bridge.database.execute("insert into orders values (1, 'after', 1, 1)")
        report = bridge.equal()
    assert report.rows == bridge.database.execute("select count(*) from customers")[0][0] + 1


def test_a_change_of_the_schema_is_followed(bridge: Bridge) -> None:
    bridge.database.execute("create table t (id int primary key, a text, b int)")
    bridge.database.execute("insert into t values (1, 'one', 1), (2, 'two', 2)")
    with bridge.running():
        bridge.equal()
        bridge.database.execute("alter table t add column c text")
        bridge.database.execute("update t set c = 'c' || id")
        bridge.equal()
        bridge.database.execute("alter table t drop column b")
        bridge.database.execute("update t set a = upper(a)")
        bridge.equal()
        bridge.database.execute("alter table t alter a type int using length(a)")
        bridge.database.execute("update t set a = a + 1")
        bridge.equal()
        with bridge.client() as client:
            assert client.hgetall(f"{bridge.name}:t:1") == {"id": "1", "a": "4", "c": "c1"}


def test_several_topics_go_to_several_key_spaces(apache: Bridge) -> None:
    apache.database.execute(SHOP)
    apache.sink = (
        f'redis.key.{apache.name}.public.customers: "{apache.name}:user:{{id}}"\n    '
        f'redis.key.{apache.name}.public.orders: "{apache.name}:order:{{pk}}"'
    )
    with apache.running():
        apache.equal()
        with apache.client() as client:
            assert client.hget(f"{apache.name}:user:7", "email") == "c7@example.org"
            assert client.hget(rf"{apache.name}:order:7:li\:ne\\7", "quantity") == "7"


def test_a_keyless_table_is_streamed_with_null_keys_and_not_mirrored(apache: Bridge) -> None:
    """The stated policy: refused until it has REPLICA IDENTITY FULL, then a stream of changes in a topic that is
    never compacted."""
    apache.database.execute("create table log (at int, what text); create table t (id int primary key)")
    assert any("public.log has no primary key" in str(finding) for finding in survey(apache.config()))
    apache.database.execute(
        "alter table log replica identity full; insert into log values (1, 'a'); insert into t values (1)"
    )
    with apache.running() as worker:
        apache.equal()
        apache.database.execute(
            "insert into log values (2, 'b'); update log set what = 'c'; delete from log; truncate log"
        )

        def keyless() -> int:
            task = worker.status()["connectors"][f"{apache.name}-cache"]["tasks"][0]
            return sum(task.get("metrics", {}).get("metrics", {}).get("keyless", {}).values())

        until(lambda: keyless() >= 6, "six records without key")
        admin = AdminClient({"bootstrap.servers": apache.kafka.bootstrap_servers})
        topic = ConfigResource(ConfigResource.Type.TOPIC, f"{apache.name}.public.log")
        assert admin.describe_configs([topic])[topic].result(10)["cleanup.policy"].value == "delete"
        with apache.client() as client:
            assert not list(client.scan_iter(f"{apache.name}:log*"))


@pytest.mark.parametrize("support", ["enabled", "disabled"])
def test_tasks_killed_at_work_lose_nothing(apache: Bridge, support: str) -> None:
    """kill -9 of either task, again and again, in the snapshot and in the stream."""
    apache.worker_settings = (
        f"exactly.once.source.support: {support}\n  task.restart.backoff.initial.ms: 50\n"
        "  task.restart.backoff.max.ms: 200"
    )
    apache.database.execute("create table t (id int primary key, v int, w text)")
    apache.database.execute("insert into t select i, 0, repeat('w', 100) from generate_series(1, 20000) i")
    with apache.running() as worker, apache.database.connect() as connection:
        for round_ in range(6):
            connector = apache.name if round_ % 2 else f"{apache.name}-cache"
            until(lambda c=connector: _pid(worker, c), f"a process of {connector}")  # type: ignore[misc]
            for number in range(200):
                connection.execute("update t set v = v + 1 where id = %s", [(round_ * 997 + number * 31) % 20000 + 1])
            connection.execute(
                "insert into t select i, 1, 'new' from generate_series(%s::int, %s::int) i",
                [100000 + round_ * 100, 100050 + round_ * 100],
            )
            connection.execute("delete from t where id = %s", [round_ * 50 + 1])
            with contextlib.suppress(ProcessLookupError):
                os.kill(_pid(worker, connector), signal.SIGKILL)
        apache.equal()


def _pid(worker: Worker, connector: str) -> int:
    task = worker.status()["connectors"][connector]["tasks"][0]
    return int(task["pid"] or 0) if task["state"] == "RUNNING" else 0


def test_a_table_that_does_not_exist_is_refused_with_its_place_in_the_file(apache: Bridge) -> None:
    apache.database.execute("create table customers (id int primary key, email text)")
    apache.source = "schema.include.list: public"
    text = apache.text.replace("table.include.list: public\\..*", "table.include.list: public.custmers")
    (finding,) = survey(cdc.config.loads({"bridge.yaml": text}))
    assert str(finding).startswith(f"bridge.yaml:16: connectors.{apache.name}.table.include.list: ")
    assert "public.custmers does not exist" in str(finding)
    assert "did you mean public.customers" in str(finding)


def test_a_template_that_is_not_a_key_is_refused(apache: Bridge) -> None:
    apache.database.execute("create table customers (id int primary key, email text)")
    apache.sink = f'redis.key: "{apache.name}:{{email}}"'
    findings = survey(apache.config())
    assert len(findings) == 1
    assert "email" in str(findings[0])
    assert str(findings[0]).startswith(f"bridge.yaml:22: connectors.{apache.name}-cache.redis.key")


def test_two_tables_in_one_key_space_are_refused(apache: Bridge) -> None:
    apache.database.execute("create table a (id int primary key); create table b (id int primary key)")
    apache.sink = f'redis.key: "{apache.name}:{{id}}"'
    findings = survey(apache.config())
    assert findings
    assert all("redis.key" in finding.key for finding in findings)


def test_a_wrong_password_is_refused_without_telling_it(apache: Bridge) -> None:
    password = apache.database.conninfo["password"]
    text = apache.text.replace(f'"{password}"', '"hunter2-not-it"')
    (finding,) = survey(cdc.config.loads({"bridge.yaml": text}))
    assert "password authentication failed" in str(finding)
    assert "hunter2" not in str(finding)


def test_without_configured_tables_nothing_starts(apache: Bridge) -> None:
    with pytest.raises(ConfigError, match=r"topic\.prefx"):
        cdc.config.loads({"bridge.yaml": apache.text.replace("topic.prefix", "topic.prefx")})
