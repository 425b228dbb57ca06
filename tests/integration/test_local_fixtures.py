"""The fixtures of ``fix_servers.py`` keep what they promise."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from fix_servers import Database, fresh_database, missing

from cdc.local import MissingPart
from cdc.local.kafka import Kafka
from cdc.local.postgres import Postgres
from cdc.local.redis import RedisServer

pytestmark = pytest.mark.integration


def test_each_postgres_is_ready_for_logical_replication(any_postgres: Postgres) -> None:
    with psycopg.connect(**any_postgres.conninfo()) as connection:
        assert connection.execute("SHOW wal_level").fetchone() == ("logical",)
        assert connection.info.server_version // 10_000 == any_postgres.major


def test_a_wrong_password_is_refused(any_postgres: Postgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(**{**any_postgres.conninfo(), "password": "wrong"})


def test_each_redis_answers(any_redis: RedisServer) -> None:
    with any_redis.client() as client:
        client.hset("test:local:fixtures", mapping={"a": "1"})
        assert client.hgetall("test:local:fixtures") == {b"a": b"1"}
        client.delete("test:local:fixtures")


def test_each_broker_creates_topics(any_kafka: Kafka) -> None:
    admin = AdminClient({"bootstrap.servers": any_kafka.bootstrap_servers})
    for created in admin.create_topics([NewTopic("test-local-fixtures", 3, 1)]).values():
        created.result(timeout=30)
    topic = admin.list_topics("test-local-fixtures", timeout=30).topics["test-local-fixtures"]
    assert len(topic.partitions) == 3
    for deleted in admin.delete_topics(["test-local-fixtures"]).values():
        deleted.result(timeout=30)


def test_a_database_executes_statements(database: Database) -> None:
    database.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2)")
    assert database.execute("SELECT a FROM t WHERE a > %s", [1]) == [(2,)]


def test_a_database_goes_away_with_its_slots_though_one_is_in_use(any_postgres: Postgres) -> None:
    with fresh_database(any_postgres) as database:
        database.execute("SELECT pg_create_logical_replication_slot('idle', 'pgoutput')")
        database.execute("SELECT pg_create_logical_replication_slot('busy', 'pgoutput')")
        database.execute("CREATE PUBLICATION p FOR ALL TABLES")
        reader = database.connect(replication="database")
        reader.pgconn.send_query(b"START_REPLICATION SLOT busy LOGICAL 0/0 (proto_version '1', publication_names 'p')")
        answer = reader.pgconn.get_result()
        assert answer is not None
        assert answer.status == psycopg.pq.ExecStatus.COPY_BOTH
    reader.close()
    with psycopg.connect(**any_postgres.conninfo()) as connection:
        left = connection.execute(
            "SELECT datname FROM pg_database WHERE datname = %(name)s UNION ALL "
            "SELECT database FROM pg_replication_slots WHERE database = %(name)s",
            {"name": database.name},
        ).fetchall()
    assert left == []


def test_more_databases_can_be_had(new_database: Callable[[Postgres], Database], postgres18: Postgres) -> None:
    one, two = new_database(postgres18), new_database(postgres18)
    assert one.execute("SELECT current_database()") == [(one.name,)]
    assert two.execute("SELECT current_database()") == [(two.name,)]


def test_a_missing_part_skips_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CI", "CDC_REQUIRE_ALL"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"Redis is not installed.*apt-get install redis-server"):
        missing(MissingPart("Redis", "apt-get install redis-server"))


@pytest.mark.parametrize(("variable", "value"), [("CI", "true"), ("CDC_REQUIRE_ALL", "1")])
def test_a_missing_part_fails_where_all_are_required(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(pytest.fail.Exception, match="apt-get install redis-server"):
        missing(MissingPart("Redis", "apt-get install redis-server"))
