"""Which table is compared with which key space, as the configuration and the live databases say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import redis

from cdc.config import Config, ConnectorSpec
from cdc.errors import ConfigError, Finding
from cdc.mirror.keys import KeyColumn, KeySpace
from cdc.mirror.store import Partition, StoredOffset
from cdc.operate.verify.report import NotCompared
from cdc.operate.verify.rows import TableRows
from cdc.postgres.catalog import TableInfo
from cdc.postgres.choice import chosen_tables
from cdc.postgres.config import PostgresConfig
from cdc.postgres.connection import connect
from cdc.postgres.connector import PostgresSourceConnector
from cdc.redis.access import Access
from cdc.redis.cluster.witnesses import witnessed
from cdc.redis.config import RedisConfig
from cdc.redis.connector import RedisSinkConnector
from cdc.redis.errors import translate
from cdc.redis.fence import offset_key

__all__ = ["Pair", "Pairs", "find_pairs", "open_redis", "sink_offsets"]


@dataclass(frozen=True)
class Pair:
    """One captured table with a key, and one sink that reads its topic."""

    source: PostgresConfig
    sink: RedisConfig
    worker: Mapping[str, str] = field(repr=False)
    """The worker's properties as the sink's tasks see them."""
    table: TableInfo
    topic: str

    def space(self, rows: TableRows) -> KeySpace:
        """The keys of the table's rows. `ConfigError` when the sink's template is no key of them."""
        columns = [
            KeyColumn(name, kind if isinstance(kind, str) else "text")
            for name, kind in zip(rows.info.key, rows.key_types, strict=True)
        ]
        try:
            return self.sink.template(self.topic).bind(self.topic, columns)
        except ValueError as error:
            raise ConfigError([Finding(str(error), key=f"connectors.{self.sink.name}.redis.key")]) from None


@dataclass
class Pairs:
    """What is to be compared, and the captured tables that are not mirrored."""

    pairs: list[Pair]
    not_compared: list[NotCompared]


def find_pairs(config: Config, connector: str | None, table: str | None) -> Pairs:
    """All pairs of a configuration, or those of one sink or one table.

    `ConfigError` when there is no such connector or table, or nothing to compare; errors of `connect` when a
    database is away.
    """
    sinks = [spec for spec in config.connectors if isinstance(spec.connector, RedisSinkConnector)]
    if connector is not None:
        known = [spec.name for spec in sinks]
        sinks = [spec for spec in sinks if spec.name == connector]
        if not sinks:
            raise ConfigError(f"there is no Redis sink connector {connector!r}. Known are {', '.join(known) or 'none'}")
    found = Pairs([], [])
    for spec in config.connectors:
        if isinstance(spec.connector, PostgresSourceConnector):
            _add(spec.connector.settings, sinks, table, found)
    if table is not None and not found.pairs and not found.not_compared:
        raise ConfigError(f"no source of the configuration captures a table {table!r}; write <schema>.<table>")
    if not found.pairs and not found.not_compared:
        raise ConfigError("the configuration has no Postgres source: there is nothing to compare Redis with")
    return found


def _add(source: PostgresConfig, sinks: list[ConnectorSpec], only: str | None, found: Pairs) -> None:
    with closing(connect(source.conninfo(), "cdc/verify")) as connection:
        chosen = chosen_tables(connection, source)
    if chosen.findings:
        raise ConfigError(
            [
                Finding(finding.message, f"connectors.{source.name}.{finding.key}", finding.where, finding.remedy)
                for finding in chosen.findings
            ]
        )
    for table in chosen.tables:
        if only is not None and table.full_name != only:
            continue
        topic = source.topic(table.schema, table.name)
        readers = [(spec, sink) for spec, sink in _settings(sinks) if sink.reads(topic)]
        reason = ""
        if not table.key:
            reason = f"it has no primary key to make keys of; its changes are in the topic {topic}"
        elif not table.ordered:
            reason = f"rows can share its record key, or the key can be NULL; its changes are in the topic {topic}"
        elif not table.streamed:
            reason = "its changes are told under the names of its partitions (publish.via.partition.root=false)"
        elif not readers:
            reason = f"no Redis sink that is compared reads the topic {topic}"
        if reason:
            found.not_compared.append(NotCompared(source.name, table.full_name, reason))
            continue
        found.pairs += [Pair(source, sink, spec.worker, table, topic) for spec, sink in readers]


def _settings(sinks: list[ConnectorSpec]) -> Iterator[tuple[ConnectorSpec, RedisConfig]]:
    for spec in sinks:
        if isinstance(spec.connector, RedisSinkConnector):
            yield spec, spec.connector.settings


def open_redis(sink: RedisConfig) -> Any:
    """A client of the server, or of the cluster, that a sink writes to."""
    try:
        return Access.of(sink).client("verify")
    except redis.RedisError as error:  # a cluster's client connects when it is made
        raise translate(error, "connecting to Redis") from None


def sink_offsets(client: Any, sink: RedisConfig, topic: str) -> Callable[[int], int]:
    """Partition → the offset of its first record that the sink has not applied, 0 when it has applied none."""

    def read(partition: int) -> int:
        part = Partition(topic, partition)
        try:
            if sink.redis_cluster_enabled:
                stored = witnessed(client.hget, sink.name, part)
            else:
                value = client.get(offset_key(sink.name, part))
                stored = StoredOffset.decode(value) if isinstance(value, bytes) else None
        except redis.RedisError as error:
            raise translate(error, "reading the sink's offsets from Redis") from None
        return 0 if stored is None else stored.next

    return read
