"""What is kept of a round that did not end equal: all records of its topics, and what the store says of its offsets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import redis
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

__all__ = ["keep"]


def keep(folder: Path, name: str, bootstrap_servers: str, store: redis.Redis, told: str) -> Path:
    """Write it into a new file of the folder; its place. ``name`` begins the names of the round's topics."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps({"told": told}) + "\n")
        for key in store.scan_iter(match="__cdc:*", count=1000):
            file.write(json.dumps({"store": str(key), "holds": str(_held(store, key))}) + "\n")
        _topics(file, name, bootstrap_servers)
    return path


def _held(store: Any, key: bytes) -> Any:
    return store.get(key) if store.type(key) == b"string" else store.hgetall(key)


def _topics(file: Any, name: str, bootstrap_servers: str) -> None:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "evidence",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    found = consumer.list_topics(timeout=10).topics
    left = {(topic, number) for topic in found if topic.startswith(f"{name}.") for number in found[topic].partitions}
    consumer.assign([TopicPartition(*part, OFFSET_BEGINNING) for part in left])
    while left:
        for message in consumer.consume(1000, 0.2):
            part = message.topic() or "", message.partition() or 0
            error = message.error()
            if error is not None:
                assert error.code() == KafkaError._PARTITION_EOF, error
                left.discard(part)
                continue
            record = {
                "place": [*part, message.offset()],
                "key": repr(message.key()),
                "value": repr(message.value()),
                "headers": repr(message.headers()),
                "timestamp": message.timestamp()[1],
            }
            file.write(json.dumps(record) + "\n")
    consumer.close()
