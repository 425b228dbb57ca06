"""What Redis holds: hashes by key, in pipelines, and the keys of a key space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import redis

from cdc.operate.verify.compare import Found, NotAHash
from cdc.redis.cluster.versions import VERSION_FIELD
from cdc.redis.errors import translate

__all__ = ["Hashes"]

PIPELINE_KEYS: Final = 500
SCAN_COUNT: Final = 1000


class Hashes:
    """Reads with a client of redis-py, standalone or Cluster, that answers in bytes."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def read(self, keys: Sequence[bytes]) -> list[Found]:
        """What each key holds now, in the order of the keys."""
        found: list[Found] = []
        for start in range(0, len(keys), PIPELINE_KEYS):
            found += self._read(keys[start : start + PIPELINE_KEYS])
        return found

    def scan(self, match: bytes) -> Iterator[list[bytes]]:
        """All keys that match the glob, in batches. A key may come twice."""
        batch: list[bytes] = []
        try:
            for key in self._client.scan_iter(match=match, count=SCAN_COUNT):
                batch.append(key)
                if len(batch) >= SCAN_COUNT:
                    yield batch
                    batch = []
        except redis.RedisError as error:
            raise translate(error, "scanning the keys of Redis") from None
        if batch:
            yield batch

    def _read(self, keys: Sequence[bytes]) -> list[Found]:
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.hgetall(key)
        try:
            answers = pipeline.execute(raise_on_error=False)
        except redis.RedisError as error:
            raise translate(error, "reading hashes from Redis") from None
        return [_found(answer) for answer in answers]


def _found(answer: Any) -> Found:
    if isinstance(answer, dict):
        answer.pop(VERSION_FIELD, None)
        return answer or None
    if isinstance(answer, redis.ResponseError) and str(answer).startswith("WRONGTYPE"):
        return NotAHash("another type of value")
    if isinstance(answer, redis.RedisError):
        raise translate(answer, "reading hashes from Redis")
    raise TypeError(f"HGETALL answered {type(answer).__name__}")
