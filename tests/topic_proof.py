"""What topics hold, read by libraries that are not ours, and compared with Postgres's text value by value."""

from __future__ import annotations

import io
import json
import urllib.request
from contextlib import closing
from functools import cache
from typing import Any

import fastavro
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from psycopg import sql

import cdc.config
from cdc.codec.fillers import nothing
from cdc.codec.values import Inexact, reader
from cdc.postgres.catalog import list_tables, qualified, read_table
from cdc.postgres.connection import Connection, connect
from cdc.postgres.tables import TableRegistry
from cdc.record import Column

__all__ = ["Topics", "prove_topics"]


class Topics:
    """What the topics of a bridge hold, folded by key: values as fastavro reads them."""

    def __init__(self, bootstrap_servers: str, registry: str) -> None:
        self._registry = registry
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
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
        """Key, row and exact texts (header ``cdc.text``) of the last record of each key that is not deleted.

        On the way: positions rise within a partition, so that nothing is there twice or out of order.
        """
        found: dict[tuple[int, bytes], tuple[bytes, bytes]] = {}
        reached: dict[int, bytes] = {}
        partitions = self._consumer.list_topics(topic, timeout=10).topics[topic].partitions
        self._consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
        left = set(partitions)
        while left:
            for message in self._consumer.consume(500, 0.05):  # it waits all this time for 500
                number, key, value = message.partition(), message.key(), message.value()
                if message.error():
                    assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                    left.discard(number)
                    continue
                headers = dict(message.headers())
                position = headers["cdc.position"]
                assert reached.get(number, b"") < position, f"{topic}-{number} at {message.offset()}: {position!r}"
                reached[number] = position
                if value is None:
                    found.pop((number, key), None)
                elif (op := self.read(value)["op"]) == "t":
                    found = {place: kept for place, kept in found.items() if place[0] != number}
                elif op == "d":
                    found.pop((number, key), None)
                else:
                    found[number, key] = value, headers.get("cdc.text", b"{}")
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
    source: Any = next(spec.connector.config for spec in config.connectors if spec.kind == "source")
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
