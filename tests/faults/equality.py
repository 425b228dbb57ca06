"""Is everything in Redis what Postgres has? `cdc verify` for a database at rest, cheap enough for each fault.

Tables are described once; a look is one SELECT of each, and one pipeline for all hashes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import redis

from bench.servers import DATABASE, Servers
from cdc.codec.canonical import CanonicalType
from cdc.config import Config
from cdc.mirror.keys import KeySpace
from cdc.operate.verify.compare import expected_hash
from cdc.operate.verify.modes import mirrored_type
from cdc.operate.verify.pairs import Pair, find_pairs
from cdc.operate.verify.rows import TableRows
from cdc.postgres.captured import read_captured
from cdc.postgres.catalog import qualified, read_types
from cdc.postgres.connection import Connection, connect
from cdc.postgres.pg_type import canonical_type
from tests.topic_proof import texts

__all__ = ["Equality"]

Hash = dict[bytes, bytes]


class _Table:
    def __init__(self, pair: Pair, connection: Connection) -> None:
        info = read_captured(connection, pair.source, pair.table.oid)
        assert info is not None
        types = read_types(connection, {column.type_oid for column in info.columns})
        self._columns: list[tuple[bytes, CanonicalType]] = [
            (
                column.name.encode(),
                mirrored_type(canonical_type(column.type_oid, column.typmod, types), pair.source),
            )
            for column in info.columns
        ]
        self._name = qualified(info.schema, info.name)
        self._space: KeySpace = pair.space(TableRows(connection, pair.source, pair.table.oid))

    def hashes(self, connection: Connection) -> Iterator[tuple[bytes, Hash]]:
        """What Redis must hold."""
        for row in texts(connection, self._name):
            fields = expected_hash(self._columns, [row[name.decode()] for name, _ in self._columns])
            yield self._space.render([fields[column.name.encode()] for column in self._space.columns]), fields


class Equality:
    """Compares all that a bridge mirrors, past its proxies. ``prefix`` begins all keys."""

    def __init__(self, servers: Servers, config: Config, prefix: str) -> None:
        self._servers = servers
        self._prefix = prefix
        with closing(self._connect()) as connection:
            self._tables = [_Table(pair, connection) for pair in find_pairs(config, None, None).pairs]
        assert self._tables

    def differences(self) -> list[str]:
        """One line for each key that is missing, that no row has, or whose hash is another. May raise `RedisError`."""
        wanted: dict[bytes, Hash] = {}
        with closing(self._connect()) as connection:
            for table in self._tables:
                wanted.update(table.hashes(connection))
        with self._servers.redis.client() as client:
            found = self._found(client)
        return [
            f"{key!r}: Redis has {found.get(key)}, and Postgres {wanted.get(key)}"
            for key in wanted.keys() | found.keys()
            if found.get(key) != wanted.get(key)
        ]

    def _found(self, client: redis.Redis) -> dict[bytes, Hash]:
        keys: list[bytes] = list(dict.fromkeys(client.scan_iter(match=f"{self._prefix}:*", count=5000)))
        with client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.hgetall(key)
            answers: list[Any] = pipeline.execute()
        return {key: answer for key, answer in zip(keys, answers, strict=True) if answer}

    def _connect(self) -> Connection:
        info = {key: str(value) for key, value in self._servers.postgres.conninfo(DATABASE).items()}
        return connect(info, "faults")
