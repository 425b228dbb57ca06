"""Random tables and random histories through the whole bridge, Postgres being the oracle.

``HISTORIES_SEED`` (a number) replays one, ``HISTORIES_SECONDS`` draws new ones for so long. What fails says its seed.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

import cdc.config
from cdc.local.kafka import Kafka
from cdc.local.postgres import Postgres
from cdc.local.redis import RedisServer
from cdc.operate.verify import wait_until_equal
from cdc.postgres.catalog import list_tables, read_table
from cdc.postgres.connection import connect
from cdc.runtime.worker import Worker
from tests.fix_servers import Database
from tests.histories import History, play
from tests.reader_proof import prove_rows
from tests.topic_proof import Topics, prove_topics

pytestmark = pytest.mark.integration

FIXED = 20261122
"""The seed of every run of the tests."""


def seeds() -> Iterator[int]:
    if os.environ.get("HISTORIES_SEED"):
        yield int(os.environ["HISTORIES_SEED"])
        return
    yield FIXED
    until = time.monotonic() + float(os.environ.get("HISTORIES_SECONDS", "0"))
    while time.monotonic() < until:
        yield random.SystemRandom().randrange(10**9)


def bridge(name: str, database: Database, kafka: Kafka, store: RedisServer) -> cdc.config.Config:
    info = database.conninfo
    return cdc.config.loads(
        {
            "bridge.yaml": f"""
worker:
  bootstrap.servers: {kafka.bootstrap_servers}
  group.id: {name}
  listeners: http://127.0.0.1:0
connectors:
  {name}:
    connector.class: postgres
    database.hostname: {info["host"]}
    database.port: {info["port"]}
    database.user: {info["user"]}
    database.password: "{info["password"]}"
    database.dbname: {info["dbname"]}
    topic.prefix: {name}
    table.include.list: public\\..*
    snapshot.fetch.size: 7
  {name}-cache:
    connector.class: redis
    topics.regex: {name}\\.public\\..*
    redis.uri: {store.url}
    redis.key: "{name}:{{table}}:{{pk}}"
"""
        }
    )


def settled(config: cdc.config.Config, seed: int) -> None:
    report = wait_until_equal(config, 60)
    assert report.equal, f"seed {seed}: {report.as_text()}"


def hashes(store: RedisServer, name: str) -> dict[bytes, dict[bytes, bytes]]:
    """All hashes of a bridge, by their keys without its name."""
    with store.client() as client:
        return {
            key.removeprefix(name.encode()): client.hgetall(key)
            for key in client.scan_iter(match=f"{name}:*", count=1000)
        }


def prove_reader(config: cdc.config.Config, store: RedisServer, name: str) -> None:
    """Compare what `cdc.reader` gives with the tables."""
    source: Any = config.connectors[0].connector.config
    found = hashes(store, name)
    with closing(connect(source.conninfo(), "histories")) as connection:
        for oid, *_ in list_tables(connection):
            table = read_table(connection, oid)
            assert table is not None
            # {table} of a key is the last part of the topic's name
            prefix = f":{source.topic(table.schema, table.name).rpartition('.')[2]}:".encode()
            prove_rows(connection, table, [fields for key, fields in found.items() if key.startswith(prefix)])


@pytest.fixture(params=["apache", "embedded"])
def servers(request: pytest.FixtureRequest) -> tuple[Postgres, Kafka, RedisServer]:
    names = {
        "apache": ("postgres15", "apache_kafka", "redis7"),
        "embedded": ("postgres18", "embedded_kafka", "valkey9"),
    }[request.param]
    postgres, kafka, store = (request.getfixturevalue(name) for name in names)
    return postgres, kafka, store


def run(seed: int, database: Database, kafka: Kafka, store: RedisServer) -> None:
    """One history: rows before the start, while running, after a restart; then everything again by a snapshot."""
    history = History.draw(seed)
    name = database.name
    before, running, after = history.phases
    with database.connect() as connection:
        for statement in history.create():
            connection.execute(statement)
        play(connection, before)
        config = bridge(name, database, kafka, store)
        with working(config):
            play(connection, running)
            settled(config, seed)
        play(connection, after[: len(after) // 2])
        with working(config) as worker:
            play(connection, after[len(after) // 2 :])
            settled(config, seed)
            with Topics(kafka.bootstrap_servers, worker.url) as topics:
                prove_topics(config, topics, seed)
            prove_reader(config, store, name)
    anew = f"{name}_anew"
    config = bridge(anew, database, kafka, store)
    with working(config):
        settled(config, seed)
    streamed, read = hashes(store, name), hashes(store, anew)
    assert streamed == read, f"seed {seed}: the stream made other hashes than the snapshot"


@contextlib.contextmanager
def working(config: cdc.config.Config) -> Iterator[Worker]:
    worker = Worker(config, log_level="WARNING")
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def test_random_histories_end_equal_everywhere(
    servers: tuple[Postgres, Kafka, RedisServer], new_database: Callable[[Postgres], Database]
) -> None:
    postgres, kafka, store = servers
    for seed in seeds():
        try:
            run(seed, new_database(postgres), kafka, store)
        except Exception as error:
            raise AssertionError(f"HISTORIES_SEED={seed}") from error
