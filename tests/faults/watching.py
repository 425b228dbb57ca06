"""Readers that look on while faults happen: one polls Redis, one follows the topics. Neither may see a step back."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Collection, Iterator
from typing import Final

import redis
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition

from cdc.record import HEADER_POSITION, HEADER_SOURCE

__all__ = ["Follower", "Watcher"]

_LOOK_S: Final = 0.02
_TOPICS_S: Final = 0.5


class Watcher:
    """Looks at every key again and again: a row's ``version`` never falls."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._client = client
        self._match = f"{prefix}:*"
        self._seen: dict[bytes, int] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher")
        self.looks = 0
        self.fallen: list[str] = []

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @contextlib.contextmanager
    def emptied(self) -> Iterator[None]:
        """The store is emptied in the block: after it, keys may come back from their first version on."""
        with self._lock:
            yield
            self._seen.clear()

    def _run(self) -> None:
        while not self._over.is_set():
            with self._lock, contextlib.suppress(redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError):
                self._look()
            self._over.wait(_LOOK_S)

    def _look(self) -> None:
        keys = list(self._client.scan_iter(match=self._match, count=1000))
        with self._client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.hget(key, "version")
            versions = pipeline.execute()
        for key, version in zip(keys, versions, strict=True):
            if version is None:
                continue
            if int(version) < self._seen.get(key, 0):
                self.fallen.append(f"{key!r}: {int(version)} after {self._seen[key]}")
            self._seen[key] = int(version)
        self.looks += 1


class Follower:
    """Reads all committed records of the topics that match: positions strictly rise per partition and source."""

    def __init__(self, bootstrap_servers: str, topics: str) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": "follower",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 50,
                "reconnect.backoff.max.ms": 500,
                "topic.metadata.refresh.interval.ms": 1000,
                "log_level": 0,
            }
        )
        self._topics = re.compile(topics)
        self._assigned: set[tuple[str, int]] = set()
        self._reached: dict[tuple[str, int, bytes], bytes] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower")
        self.records = 0
        self.fallen: list[str] = []

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._consumer.close()

    def _run(self) -> None:
        waited = _TOPICS_S
        while not self._over.is_set():
            if waited >= _TOPICS_S:
                waited = 0.0
                self._find_topics()
            messages = self._consumer.consume(1000, 0.05)
            waited += 0.05
            self._take(messages)

    def _find_topics(self) -> None:
        try:
            found = self._consumer.list_topics(timeout=2).topics
        except KafkaException:
            return  # away: what is assigned goes on when it is back
        parts = {(name, number) for name in found if self._topics.fullmatch(name) for number in found[name].partitions}
        new = [TopicPartition(*part, OFFSET_BEGINNING) for part in parts - self._assigned]
        if new:
            self._consumer.incremental_assign(new)
            self._assigned |= parts

    def _take(self, messages: Collection[Message]) -> None:
        for message in messages:
            if message.error():
                continue  # a broker that is away
            headers = dict(message.headers() or [])
            position, source = headers.get(HEADER_POSITION), headers.get(HEADER_SOURCE)
            if not isinstance(position, bytes) or not isinstance(source, bytes):
                continue
            place = (message.topic() or "", message.partition() or 0, source)
            if position <= self._reached.get(place, b""):
                self.fallen.append(f"{place} offset {message.offset()}: {position!r} after {self._reached[place]!r}")
            self._reached[place] = position
            self.records += 1
