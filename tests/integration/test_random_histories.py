"""Random tables and random histories through the whole bridge, Postgres being the oracle.

``HISTORIES_SEED`` (a number) replays one, ``HISTORIES_SECONDS`` draws new ones for so long. What fails says its seed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache
from typing import Any

import fastavro
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from psycopg import sql

import cdc.config
from cdc.codec.fillers import nothing
from cdc.codec.values import Inexact, reader
from cdc.local.kafka import Kafka
from cdc.local.postgres import Postgres
from cdc.local.redis import RedisServer
from cdc.operate.verify import wait_until_equal
from cdc.postgres.catalog import list_tables, qualified, read_table
from cdc.postgres.connection import Connection, connect
from cdc.postgres.tables import TableRegistry
from cdc.record import Column
from cdc.runtime.worker import Worker
from tests.fix_servers import Database
from tests.histories import History, play

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


class Topics:
    """What the topics of a bridge hold, folded by key: values as fastavro reads them."""

    def __init__(self, kafka: Kafka, registry: str) -> None:
        self._registry = registry
        self._consumer = Consumer(
            {
                "bootstrap.servers": kafka.bootstrap_servers,
                "group.id": "histories",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 20,
            }
        )
        self.schema = cache(self._schema)

    def __enter__(self) -> Topics:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def _schema(self, number: int) -> Any:
        with urllib.request.urlopen(f"{self._registry}/schemas/ids/{number}", timeout=10) as answer:  # noqa: S310
            return fastavro.parse_schema(native(json.loads(json.load(answer)["schema"])))

    def read(self, payload: bytes) -> Any:
        return fastavro.schemaless_reader(
            io.BytesIO(payload[5:]), self.schema(int.from_bytes(payload[1:5], "big")), None
        )

    def rows(self, topic: str) -> list[tuple[dict[str, Any], dict[str, Any], dict[str, str | None]]]:
        """Key, row and exact texts (header ``cdc.text``) of the last record of each key that is not deleted."""
        found: dict[tuple[int, bytes], tuple[bytes, bytes]] = {}
        partitions = self._consumer.list_topics(topic, timeout=10).topics[topic].partitions
        self._consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
        left = set(partitions)
        while left:
            for message in self._consumer.consume(500, 1.0):
                number, key, value = message.partition(), message.key(), message.value()
                if message.error():
                    assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                    left.discard(number)
                elif value is None:
                    found.pop((number, key), None)
                elif (op := self.read(value)["op"]) == "t":
                    found = {place: kept for place, kept in found.items() if place[0] != number}
                elif op == "d":
                    found.pop((number, key), None)
                else:
                    found[number, key] = value, dict(message.headers()).get("cdc.text", b"{}")
        return [
            (self.read(key), self.read(value)["after"], json.loads(exact)) for (_, key), (value, exact) in found.items()
        ]


def native(bare: Any) -> Any:
    """A schema without logical types, so that fastavro gives what is on the wire."""
    if isinstance(bare, dict):
        return {key: native(value) for key, value in bare.items() if key != "logicalType"}
    return [native(item) for item in bare] if isinstance(bare, list) else bare


def texts(connection: Connection, table: sql.Composed) -> list[dict[str, bytes | None]]:
    """All rows as Postgres prints them, with the settings that a bridge pins."""
    result = connection.execute(sql.SQL("select * from {}").format(table)).pgresult
    assert result is not None
    names = [(result.fname(number) or b"").decode() for number in range(result.nfields)]
    return [{name: result.get_value(row, number) for number, name in enumerate(names)} for row in range(result.ntuples)]


def expected(column: Column, text: bytes | None) -> tuple[Any, str | None]:
    """What the record has for a text: the native value, and the exact text where that is not it."""
    if text is None:
        return None, None
    value = reader(column.kind, column.params)(text)
    if not isinstance(value, Inexact):
        return value, None
    return (nothing(column) if value.fallback is None else value.fallback), value.text


def prove_topics(config: cdc.config.Config, topics: Topics, seed: int) -> None:
    """Compare the topics, folded by key, with the tables, value by value."""
    source: Any = config.connectors[0].connector.config
    with closing(connect(source.conninfo(), "histories")) as connection:
        tables = TableRegistry(source, lambda: connection)
        for oid, *_ in list_tables(connection):
            info = read_table(connection, oid)
            assert info is not None
            shape = tables.from_catalog(info).shape
            columns = {column.name: column for column in shape.columns}
            told = {tuple(key.values()): (row, exact) for key, row, exact in topics.rows(shape.topic)}
            for line in texts(connection, qualified(info.schema, info.name)):
                wanted = {name: expected(columns[name], text) for name, text in line.items()}
                key = tuple(wanted[name][0] for name in info.primary_key)
                assert key in told, f"seed {seed}: {info.name} has no record of {key}"
                row, exact = told.pop(key)
                for name, (value, text) in wanted.items():
                    found = row[name], exact.get(name)
                    assert repr(found) == repr((value, text)), f"seed {seed}: {info.name} {key} {name} = {line[name]!r}"
            assert not told, f"seed {seed}: the topic of {info.name} has rows that are not: {list(told)[:3]}"


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
            with Topics(kafka, worker.url) as topics:
                prove_topics(config, topics, seed)
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
