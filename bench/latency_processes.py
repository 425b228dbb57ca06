"""The processes of the latency measurement: who commits, who polls Redis, who consumes the topic.

Row ``n % keys`` carries the number ``n`` (from 1 on) in its column ``seq``. Times are `time.monotonic_ns`, which all
processes of a machine share.
"""

from __future__ import annotations

import socket
import time
from collections.abc import MutableMapping
from typing import Any, Final

import hiredis
import psycopg
from confluent_kafka import OFFSET_END, Consumer, KafkaException, TopicPartition

from cdc.redis.connection import pack

__all__ = ["commit_at_rate", "consume_rows", "poll_rows"]

POLL_SECONDS: Final = 0.0002
PATIENCE_SECONDS: Final = 60.0

Results = MutableMapping[str, Any]


def commit_at_rate(ready: Any, results: Results, dsn: str, table: str, keys: int, rate: int, total: int) -> None:
    """Commit ``total`` updates, each at its time whether the last one was slow or not."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("set synchronous_commit = on")
        row = connection.execute(f"select max(seq) from {table}").fetchone()
        base = int(row[0]) if row else 0
        results["base"] = base
        update = f"update {table} set seq = %s, updated_at = clock_timestamp() where id = %s"
        ready.wait()
        begin = time.monotonic_ns()
        began, commits = [], []
        for number in range(1, total + 1):
            wait = begin + number * 1_000_000_000 // rate - time.monotonic_ns()
            if wait > 0:
                time.sleep(wait / 1e9)
            began.append(time.monotonic_ns())
            connection.execute(update.encode(), [base + number, (base + number) % keys], prepare=True)
            commits.append(time.monotonic_ns())
    results["began"] = began
    results["commits"] = commits


def poll_rows(ready: Any, results: Results, host: str, port: int, table: str, keys: int, total: int) -> None:
    """Note when each update is first seen in Redis, looking for them in the order of their commits."""
    seen: list[int] = []
    intervals: list[int] = []
    reader = hiredis.Reader()
    with socket.create_connection((host, port), PATIENCE_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ready.wait()
        base = _base(results)
        for number in range(base + 1, base + total + 1):
            command = pack(("HGET", f"{table}:{number % keys}", "seq"))
            wanted = b"%d" % number
            last = 0
            deadline = time.monotonic() + PATIENCE_SECONDS
            while True:
                connection.sendall(command)
                while (answer := reader.gets()) is False:
                    reader.feed(connection.recv(4096))
                now = time.monotonic_ns()
                if last:
                    intervals.append(now - last)
                last = now
                if answer == wanted:
                    break
                if time.monotonic() > deadline:
                    raise TimeoutError(f"update {number} is not in Redis: {answer!r} is")
                time.sleep(POLL_SECONDS)
            seen.append(now)
    results["intervals"] = intervals
    results["seen"] = seen


def consume_rows(ready: Any, results: Results, brokers: str, topic: str, keys: int, total: int) -> None:
    """Note when each update reaches a consumer. A key's records are in the order of its commits."""
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": "cdc-bench-latency",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 500,
        }
    )
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, OFFSET_END) for number in partitions])
    consumer.poll(1.0)  # so that the ends are known before the first commit
    ready.wait()
    base = _base(results)
    due = {number % keys: number for number in range(base + 1, base + keys + 1)}
    consumed = [0] * total
    left = total
    deadline = time.monotonic() + PATIENCE_SECONDS + total
    while left:
        message = consumer.poll(1.0)
        if message is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{left} of {total} updates did not reach the consumer")
            continue
        if message.error() is not None:
            raise KafkaException(message.error())
        now = time.monotonic_ns()
        key = _first_long((message.key() or b"")[5:])
        consumed[due[key] - base - 1] = now
        due[key] += keys
        left -= 1
    consumer.close()
    results["consumed"] = consumed


def _base(results: Results) -> int:
    return int(results["base"])


def _first_long(data: bytes) -> int:
    """Avro's variable-length zig-zag number."""
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return (value >> 1) ^ -(value & 1)
