"""Source offsets: a compacted topic, in Kafka Connect's form (key ``["<connector>",{partition}]``, value JSON)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from cdc.errors import FatalError, RetriableError
from cdc.kafka.reader import TopicReader

__all__ = ["encode_offset", "read_offsets"]

_SLICE_S: Final = 0.5
_BATCH: Final = 1000


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
    with TopicReader(worker, topic, "offsets", committed=False) as asking:
        ends = {}
        for partition in range(partitions):
            pump()
            # The other end, asked read-committed, is before any open transaction.
            ends[partition] = asking.bounds([partition])[partition][1]
    found: dict[str, Any] = {}
    with TopicReader(worker, topic, "offsets") as reader:
        reader.go(dict.fromkeys(ends))
        reader.expect(ends)
        while reader.left:
            if stopping():
                raise RetriableError("asked to stop while reading the source offsets")
            pump()
            for message in reader.fetch(_BATCH, _SLICE_S):
                _take(found, connector, message.key(), message.value())
    return found


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
