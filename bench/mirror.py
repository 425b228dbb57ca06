"""The far end: when Redis has everything, and whether its hashes are the rows of the tables."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import redis

from bench.bridge import Bridge
from bench.servers import Servers
from bench.topics import NotEqual
from cdc.mirror.store import Partition, StoredOffset
from cdc.operate.verify import wait_until_equal
from cdc.operate.verify.kafka import TopicEnds
from cdc.redis.fence import offset_key

__all__ = ["applied", "prove_mirror", "wait_applied", "wait_field"]

_POLL_SECONDS = 0.01


def wait_field(bridge: Bridge, client: redis.Redis, key: str, name: str, value: str, seconds: float = 900.0) -> None:
    """Wait until a field of a hash has this value."""
    wanted = value.encode()

    def there() -> bool:
        with contextlib.suppress(redis.ConnectionError):  # it may be the one that was killed
            return client.hget(key, name) == wanted
        return False

    bridge.wait_for(f"{name} of {key} is {value}", there, seconds)


def applied(client: redis.Redis, connector: str, topic: str, partitions: Sequence[int]) -> dict[int, int]:
    """Partition → the offset up to which the sink has applied the topic, as Redis itself holds it."""
    values: list[Any] = client.mget([offset_key(connector, Partition(topic, number)) for number in partitions])
    return {
        number: StoredOffset.decode(value).next
        for number, value in zip(partitions, values, strict=True)
        if value is not None
    }


def wait_applied(servers: Servers, client: redis.Redis, connector: str, topics: Sequence[str], seconds: float) -> None:
    """Wait until the sink has applied all that the topics hold now. Raises `NotEqual` when it does not come to that."""
    deadline = time.monotonic() + seconds
    for topic in topics:
        with contextlib.closing(TopicEnds({"bootstrap.servers": servers.kafka.bootstrap_servers}, topic)) as reader:
            ends = reader.read(deadline)
            while True:
                held = applied(client, connector, topic, list(ends))
                behind = [
                    number
                    for number, end in ends.items()
                    if held.get(number, 0) < end and reader.has_records(number, held.get(number, 0), end)
                ]
                if not behind:
                    break
                if time.monotonic() > deadline:
                    raise NotEqual(f"the sink has applied {held} of {topic}, whose partitions end at {ends}")
                time.sleep(_POLL_SECONDS)


def prove_mirror(bridge: Bridge) -> int:
    """Compare every row of the bridge's tables with its hash, and look for hashes without rows; the number of rows.

    For a database at rest, once Redis has everything: nothing is waited for. Raises `NotEqual`.
    """
    report = wait_until_equal(bridge.config, 0)
    if not report.equal or any(table.keys != table.rows or table.rows == 0 for table in report.tables):
        raise NotEqual(report.as_text())
    return report.rows
