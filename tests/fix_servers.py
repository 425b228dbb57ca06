"""Fixtures: real servers, started when the first test asks and stopped with the session.

The servers of a session are shared by all its tests: use a database, topics and keys of your own, and do
not stop them. A test that stops or kills a server starts its own with ``launch``.

A server whose program is not installed skips the tests that need it, saying which part is missing and
how to install it. With ``CI`` or ``CDC_REQUIRE_ALL=1`` in the environment those tests fail instead.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import leaks
import psycopg
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from passwords import password
from psycopg import sql

from cdc.local import MissingPart, Server
from cdc.local.kafka import ApacheKafka, EmbeddedKafka, Kafka
from cdc.local.postgres import EmbeddedPostgres, Postgres, SystemPostgres
from cdc.local.redis import Redis, RedisServer, Valkey
from cdc.local.redis_cluster import RedisCluster

AnyServer = TypeVar("AnyServer", bound=Server)

# kill -9 loses nothing without fsync, only a failure of the machine does.
_POSTGRES_SETTINGS: dict[str, str | int] = {
    "fsync": "off",
    "max_replication_slots": 50,
    "max_wal_senders": 50,
    "max_prepared_transactions": 10,
}


def missing(error: MissingPart) -> NoReturn:
    """Skip the test for want of a part, or fail it where every part must be there."""
    if os.environ.get("CI") or os.environ.get("CDC_REQUIRE_ALL") == "1":
        pytest.fail(f"required here (CI or CDC_REQUIRE_ALL): {error}", pytrace=False)
    pytest.skip(str(error))


@contextlib.contextmanager
def started(server: AnyServer) -> Iterator[AnyServer]:
    """Start a server that ends with the block, or with this process if that is killed."""
    server.die_with_parent = True
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(server)
        except MissingPart as error:
            missing(error)
        stack.callback(leaks.look, server.log, f"the log of {server.name}")  # before its folder is removed
        yield server


def run_sql(server: Postgres, statement: str, **conninfo: Any) -> list[tuple[Any, ...]]:
    """Run one statement as the superuser in the database postgres; its rows."""
    with psycopg.connect(**{**server.conninfo(), **conninfo}, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def create_topic(server: Kafka, topic: str) -> None:
    """Create a topic of one partition."""
    admin = AdminClient({"bootstrap.servers": server.bootstrap_servers})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(timeout=30)


def topics(server: Kafka) -> set[str]:
    """The names of the topics that are there."""
    return set(AdminClient({"bootstrap.servers": server.bootstrap_servers}).list_topics(timeout=30).topics)


@pytest.fixture(scope="session")
def postgres15() -> Iterator[SystemPostgres]:
    with started(SystemPostgres(15, settings=_POSTGRES_SETTINGS, password=password("postgres"))) as server:
        yield server


@pytest.fixture(scope="session")
def postgres18() -> Iterator[EmbeddedPostgres]:
    with started(EmbeddedPostgres(settings=_POSTGRES_SETTINGS, password=password("postgres"))) as server:
        yield server


@pytest.fixture(scope="session")
def redis7() -> Iterator[Redis]:
    with started(Redis()) as server:
        yield server


@pytest.fixture(scope="session")
def valkey9() -> Iterator[Valkey]:
    with started(Valkey()) as server:
        yield server


@contextlib.contextmanager
def clustered(cluster: RedisCluster) -> Iterator[RedisCluster]:
    """Start a cluster that ends with the block, or with this process if that is killed."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(cluster)
        except MissingPart as error:
            missing(error)
        yield cluster


@pytest.fixture(scope="session")
def redis7_cluster() -> Iterator[RedisCluster]:
    """Three primaries."""
    with clustered(RedisCluster(Redis)) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def valkey9_cluster() -> Iterator[RedisCluster]:
    """Three primaries."""
    with clustered(RedisCluster(Valkey)) as cluster:
        yield cluster


@pytest.fixture(params=["redis7_cluster", "valkey9_cluster"])
def any_cluster(request: pytest.FixtureRequest) -> RedisCluster:
    """Each cluster in turn."""
    cluster: RedisCluster = request.getfixturevalue(request.param)
    return cluster


@pytest.fixture
def launch_cluster() -> Iterator[Callable[[RedisCluster], RedisCluster]]:
    """``launch_cluster(cluster)`` starts a cluster of the test's own, whose nodes it may stop, kill and start again."""
    with contextlib.ExitStack() as stack:
        yield lambda cluster: stack.enter_context(clustered(cluster))


@pytest.fixture(scope="session")
def embedded_kafka() -> Iterator[EmbeddedKafka]:
    with started(EmbeddedKafka()) as server:
        yield server


@pytest.fixture(scope="session")
def apache_kafka() -> Iterator[ApacheKafka]:
    with started(ApacheKafka()) as server:
        yield server


@pytest.fixture(params=["postgres15", "postgres18"])
def any_postgres(request: pytest.FixtureRequest) -> Postgres:
    """Each Postgres in turn."""
    server: Postgres = request.getfixturevalue(request.param)
    return server


@pytest.fixture(params=["redis7", "valkey9"])
def any_redis(request: pytest.FixtureRequest) -> RedisServer:
    """Each server of Redis's protocol in turn."""
    server: RedisServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture(params=["embedded_kafka", "apache_kafka"])
def any_kafka(request: pytest.FixtureRequest) -> Kafka:
    """Each broker in turn."""
    server: Kafka = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def launch() -> Iterator[Callable[[AnyServer], AnyServer]]:
    """``launch(server)`` starts a server of the test's own, which it may stop, kill and start again."""
    with contextlib.ExitStack() as stack:
        yield lambda server: stack.enter_context(started(server))


@dataclass(frozen=True)
class Database:
    """A database that lives as long as the test."""

    server: Postgres
    name: str

    @property
    def dsn(self) -> str:
        return self.server.dsn(self.name)

    @property
    def conninfo(self) -> dict[str, Any]:
        return self.server.conninfo(self.name)

    def connect(self, **options: Any) -> psycopg.Connection[tuple[Any, ...]]:
        """A new connection, in autocommit mode unless told otherwise. Close it."""
        return psycopg.connect(**{"autocommit": True, **self.conninfo, **options})

    def execute(self, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        """Run one statement, or several without parameters, and commit; the rows of the last one."""
        with self.connect() as connection:
            cursor = connection.execute(statement.encode(), parameters)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def fresh_database(server: Postgres, name: str = "") -> Iterator[Database]:
    """Create a database, of a unique name unless one is given; drop it afterwards with its slots, whoever uses them."""
    database = Database(server, name or f"test_{uuid.uuid4().hex[:12]}")
    with psycopg.connect(**server.conninfo(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database.name)))
    try:
        yield database
    finally:
        _drop(database)


def _drop(database: Database) -> None:
    name = sql.Identifier(database.name)
    with psycopg.connect(**database.server.conninfo(), autocommit=True) as admin:
        admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
        admin.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s", [database.name]
        )
        admin.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s",
            [database.name],
        )
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@pytest.fixture
def new_database() -> Iterator[Callable[[Postgres], Database]]:
    """``new_database(server)`` makes one more fresh database on a server."""
    with contextlib.ExitStack() as stack:
        yield lambda server: stack.enter_context(fresh_database(server))


@pytest.fixture
def database(any_postgres: Postgres) -> Iterator[Database]:
    """A fresh database, on each Postgres in turn."""
    with fresh_database(any_postgres) as fresh:
        yield fresh


@pytest.fixture
def database15(postgres15: Postgres) -> Iterator[Database]:
    with fresh_database(postgres15) as fresh:
        yield fresh


@pytest.fixture
def database18(postgres18: Postgres) -> Iterator[Database]:
    with fresh_database(postgres18) as fresh:
        yield fresh
