"""Partitions that Kafka's client stops reading without a word: the task notices, and has them read anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from sink_feed import Bench, Schemas, Sink, eventually

from cdc.kafka.consumer import RecordConsumer
from cdc.kafka.progress import Progress
from cdc.kafka.stalls import StallWatch
from cdc.local.kafka import Kafka
from cdc.local.redis import Redis

pytestmark = pytest.mark.integration


@pytest.fixture
def bench(any_kafka: Kafka, redis7: Redis) -> Iterator[Bench]:
    schemas = Schemas()
    yield Bench(any_kafka, redis7, schemas)
    schemas.close()


class Stalling(RecordConsumer):
    """Whose client stops reading a partition without a word, as librdkafka does now and then: see `cdc.kafka.stalls`.

    A pause that nobody knows of stands for it: no error, no record, no end of the partition.
    """

    clients = 0
    bad_clients = 0
    """How many clients, from the first on, cannot be brought to read it again."""
    last: Stalling

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._progress = Progress(self._admin_client, StallWatch(1.0))
        Stalling.last = self

    def _make(self) -> Consumer:
        self.clients += 1
        return super()._make()

    def stall(self, topic: str) -> None:
        self._consumer.pause([TopicPartition(topic, 1)])

    def reposition(self, begins: Mapping[Any, int | None]) -> None:
        super().reposition(begins)
        for topic, number in begins:
            if number == 1 and self.clients <= self.bad_clients:
                self.stall(topic)


def mirrored(bench: Bench, table: Any, sink: Sink) -> None:
    table.flush()

    def equal() -> bool:
        assert not sink.ended(), sink.error
        return bench.dump() == table.expected()

    eventually(equal)


@pytest.mark.parametrize("bad_clients", [0, 1])
def test_a_partition_that_the_client_stops_reading_is_read_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, bad_clients: int
) -> None:
    """By the same client, or by a new one if that is in vain; what the other partitions hold goes on meanwhile."""
    monkeypatch.setattr(Stalling, "bad_clients", bad_clients)
    monkeypatch.setattr("cdc.runtime.sink_task.RecordConsumer", Stalling)
    users = bench.table("users", partitions=3)
    for number in range(30):
        users.put(id=number, name="before")
    with Sink(bench) as sink:
        if not bad_clients:
            mirrored(bench, users, sink)
            Stalling.last.stall(users.topic)
        for number in range(60):
            users.put(id=number, name="after")
        mirrored(bench, users, sink)
        assert Stalling.last.clients == 1 + bad_clients
