"""Source offsets: a compacted topic, in Kafka Connect's form (key ``["<connector>",{partition}]``, value JSON)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from cdc.errors import FatalError, RetriableError
from cdc.kafka.clients import Refusal, made
from cdc.kafka.settings import client_settings, translate

__all__ = ["encode_offset", "read_offsets"]

_SLICE_S: Final = 0.5


def encode_offset(partition: str, value: Any) -> tuple[bytes, bytes | None]:
    """Key and value of a record of the offsets topic; ``None`` deletes the partition's offset."""
    return partition.encode(), None if value is None else json.dumps(value, separators=(",", ":")).encode()


def read_offsets(
    worker: Mapping[str, str],
    topic: str,
    partitions: int,
    connector: str,
    pump: Callable[[], None],
    stopping: Callable[[], bool],
) -> dict[str, Any]:
    """All offsets of ``connector``: partition (JSON text) → offset.

    Reads committed records up to where the topic ends now. An open transaction of another connector may hold that back
    for a moment: what is committed behind it is waited for, not missed.
    """
    settings = {
        **client_settings(worker, "consumer"),
        "group.id": f"cdc-offsets-{connector}",
        "enable.auto.commit": False,
    }
    ends = _ends({**settings, "isolation.level": "read_uncommitted"}, topic, partitions, pump)
    refusal = Refusal()
    reading = {
        **settings,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": 50,
    }
    consumer = made(Consumer, reading, refusal)
    found: dict[str, Any] = {}
    try:
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in ends])
        while ends:
            if stopping():
                raise RetriableError("asked to stop while reading the source offsets")
            pump()
            message = consumer.poll(_SLICE_S)
            refusal.check()
            if message is None:
                continue
            error = message.error()
            partition = message.partition() or 0
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                raise translate(error, f"reading the offsets topic {topic}")
            if error is None:
                _take(found, connector, message.key(), message.value())
            # After an aborted or control record the position runs ahead of the last message.
            position = consumer.position([TopicPartition(topic, partition)])[0].offset
            reached = max(position, (message.offset() or 0) + (1 if error is None else 0))
            if reached >= ends.get(partition, 0):
                ends.pop(partition, None)
    except KafkaException as error:
        raise translate(error, f"reading the offsets topic {topic}") from None
    finally:
        consumer.close()
    return found


def _ends(settings: dict[str, Any], topic: str, partitions: int, pump: Callable[[], None]) -> dict[int, int]:
    """Where each partition ends now. Asked read-uncommitted: the other end is before any open transaction."""
    refusal = Refusal()
    consumer = made(Consumer, settings, refusal)
    ends: dict[int, int] = {}
    try:
        for partition in range(partitions):
            pump()
            _, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=5)
            if high > 0:
                ends[partition] = high
    except KafkaException as error:
        refusal.check(consumer)
        raise translate(error, f"asking for the ends of the offsets topic {topic}") from None
    finally:
        consumer.close()
    return ends


def _take(found: dict[str, Any], connector: str, key: bytes | None, value: bytes | None) -> None:
    if key is None:
        return
    try:
        text = key.decode()
        owner, _partition = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        raise FatalError(
            f"the offsets topic has a record with the key {key[:80]!r}, which is not of Kafka Connect's form. "
            "Remedy: give this worker an offset.storage.topic of its own"
        ) from None
    if owner != connector:
        return
    if value is None:
        found.pop(text, None)
        return
    try:
        found[text] = json.loads(value)
    except (ValueError, RecursionError):
        raise FatalError(
            f"the offset that the offsets topic has for {text[:80]} is no JSON: {value[:80]!r}. It was not written by "
            "this connector: use another connector name, or delete its offsets to start over"
        ) from None
