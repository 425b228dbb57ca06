"""What tests of the cluster's store share: one connector's stores on a cluster, under names of the test's own."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from cdc.local.redis_cluster import RedisCluster
from cdc.mirror.fold import DELETE, PATCH, PUT, Op
from cdc.mirror.store import Batch, Partition, Previous, StoredOffset
from cdc.plugin import TaskContext
from cdc.record import Position
from cdc.redis.cluster.slots import WITNESS_RANGES, Topology, tag_within
from cdc.redis.cluster.store import ClusterStore
from cdc.redis.cluster.witnesses import least, partition_field, witness_key
from cdc.redis.config import RedisConfig
from cdc.redis.connector import RedisSinkConnector

SOURCE = b"shop/slot"


def position(lsn: int, ordinal: int = 0, epoch: int = 1) -> bytes:
    return Position(epoch, lsn, ordinal, 0).text()


class ClusterWorld:
    """Rows are named by their key behind the connector's name; changes by the LSN of their transaction."""

    def __init__(self, cluster: RedisCluster) -> None:
        self.cluster = cluster
        self.name = f"c{uuid.uuid4().hex[:8]}"
        self.topic = f"{self.name}.public.rows"
        self.client: Any = cluster.client()
        self._stores: list[ClusterStore] = []

    def connector(self, **settings: str) -> RedisSinkConnector:
        properties = {
            "name": self.name,
            "connector.class": "redis",
            "topics": self.topic,
            "redis.uri": self.cluster.url,
            "redis.cluster.enabled": "true",
            "redis.key": self.name + ":{pk}",
            **{key.replace("_", "."): value for key, value in settings.items()},
        }
        return RedisSinkConnector(RedisConfig.model_validate(properties))

    def store(self, *numbers: int, **settings: str) -> ClusterStore:
        """A store that guards partitions, as a task has it."""
        context = TaskContext(self.name, 0, "test", lambda _name, _value: None, lambda: False)
        store = self.connector(**settings).store(context)
        assert isinstance(store, ClusterStore)
        self._stores.append(store)
        if numbers:
            store.take([self.part(number) for number in numbers])
        return store

    def part(self, number: int = 0) -> Partition:
        return Partition(self.topic, number)

    def key(self, row: str) -> bytes:
        return f"{self.name}:{row}".encode()

    def batch(
        self,
        changes: Mapping[str, tuple[int, dict[str, str | None] | None]],
        offset: int = 1,
        *,
        number: int = 0,
        previous: int | None = None,
        verb: int = PUT,
        source: bytes = SOURCE,
    ) -> Batch:
        """Row → LSN and fields; no fields is a delete, a field of None a column that is NULL."""
        ops: dict[bytes, Op] = {}
        versions: dict[bytes, tuple[bytes, bytes]] = {}
        for row, (lsn, fields) in changes.items():
            key = self.key(row)
            there = {name: value for name, value in (fields or {}).items() if value is not None}
            pairs = [part.encode() for pair in there.items() for part in pair]
            absent = tuple(name.encode() for name, value in (fields or {}).items() if value is None)
            ops[key] = (DELETE if fields is None else verb, pairs, absent, 0, offset - 1)
            versions[key] = (source, position(lsn)) if source else (b"", b"")
        held = None if previous is None else Previous(previous, {})
        offsets = {self.part(number): StoredOffset(offset, previous=held)}
        return Batch(ops=ops, sources=[self.part(number)], offsets=offsets, versions=versions)

    def write(self, store: ClusterStore, batch: Batch) -> Sequence[Any]:
        store.write(batch)
        return store.settle()

    def put(self, store: ClusterStore, row: str, lsn: int, offset: int = 1, **fields: str | None) -> None:
        assert self.write(store, self.batch({row: (lsn, fields)}, offset)) == ()

    def patch(self, store: ClusterStore, row: str, lsn: int, **fields: str | None) -> None:
        assert self.write(store, self.batch({row: (lsn, fields)}, verb=PATCH)) == ()

    def delete(self, store: ClusterStore, row: str, lsn: int) -> None:
        assert self.write(store, self.batch({row: (lsn, None)})) == ()

    def topology(self) -> Topology:
        return Topology.parse(self.cluster.run(self.cluster.nodes[0], "CLUSTER", "SLOTS"), None)  # type: ignore[arg-type]

    def witnesses(self, number: int = 0) -> list[bytes | None]:
        """What each of the fixed witnesses says about a partition."""
        field = partition_field(self.part(number))
        tags = [tag_within(*bounds) for bounds in WITNESS_RANGES]
        return [self.client.hget(witness_key(tag, self.name), field) for tag in tags]

    def offset(self, number: int = 0) -> StoredOffset | None:
        return least(self.witnesses(number))

    def rows(self) -> dict[str, dict[str, str]]:
        """All rows, without their versions."""
        found = {}
        for key in self.client.scan_iter(match=f"{self.name}:*", count=1000):
            fields = {name.decode(): value.decode() for name, value in self.client.hgetall(key).items()}
            assert fields.pop("__cdc:version")
            found[key.decode().partition(":")[2]] = fields
        return found

    def close(self) -> None:
        for store in self._stores:
            store.close()
        self.client.close()
