"""Topics that are read without a group: to their end while records come, past stalls, from where they begin."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from cdc.errors import FatalError
from cdc.kafka.reader import TopicReader
from cdc.kafka.stalls import StallWatch
from cdc.kafka.topics import COMPACTED, Topics
from cdc.local.kafka import ApacheKafka, Kafka

pytestmark = pytest.mark.integration

PATIENCE_S = 30.0


@pytest.fixture
def busy(apache_kafka: ApacheKafka) -> Iterator[str]:
    """A topic that gets a record each 20 ms, sooner than a broker answers without one; it has some already."""
    topic = f"busy-{uuid.uuid4().hex[:8]}"
    Topics({"bootstrap.servers": apache_kafka.bootstrap_servers}, lambda: None).ensure(topic, COMPACTED, partitions=1)
    producer = Producer({"bootstrap.servers": apache_kafka.bootstrap_servers, "linger.ms": 0})
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.wait(0.02):
            producer.produce(topic, b"x", str(number).encode())
            producer.poll(0)
            number += 1

    for _ in range(10):
        producer.produce(topic, b"x", b"before")
    assert producer.flush(PATIENCE_S) == 0
    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield topic
    finally:
        stop.set()
        writer.join()
        producer.flush(PATIENCE_S)


def test_a_busy_topic_is_read_to_where_it_ended(apache_kafka: ApacheKafka, busy: str) -> None:
    with TopicReader({"bootstrap.servers": apache_kafka.bootstrap_servers}, busy, "test") as reader:
        deadline = time.monotonic() + PATIENCE_S
        keys = []
        for message in reader.read({0: None}):
            keys.append(message.key())
            assert time.monotonic() < deadline, "it does not end"
        assert keys[:10] == [b"before"] * 10


def test_a_busy_partition_is_read_on_behind_its_end(apache_kafka: ApacheKafka, busy: str) -> None:
    with TopicReader({"bootstrap.servers": apache_kafka.bootstrap_servers}, busy, "test") as reader:
        [(_, high)] = reader.bounds([0]).values()
        reader.go({0: 3})
        reader.expect({0: high})
        deadline = time.monotonic() + PATIENCE_S
        read = 0
        while reader.left:
            read += len(reader.fetch(1000, 0.005))
            assert time.monotonic() < deadline, "it does not end"
        assert read >= high - 3
        assert reader.positions[0] >= high >= 10
        while not reader.fetch(1000, 0.005):
            assert time.monotonic() < deadline, "nothing comes any more"


class Stalling(TopicReader):
    """Whose client stops reading a partition without a word: a pause that nobody knows of stands for it."""

    def __init__(self, *arguments: Any, bad_clients: int, **options: Any) -> None:
        self.clients: set[int] = set()
        self.bad_clients = bad_clients
        super().__init__(*arguments, watch=StallWatch(2.0), **options)

    def _assign(self) -> None:
        super()._assign()
        self.clients.add(id(self._consumer))
        if len(self.clients) <= self.bad_clients:
            self.stall()

    def stall(self) -> None:
        self._consumer.pause([TopicPartition(self.topic, 1)])


@pytest.fixture
def topic(any_kafka: Kafka) -> str:
    """Ten records in each of two partitions."""
    topic = f"stalls-{uuid.uuid4().hex[:8]}"
    Topics({"bootstrap.servers": any_kafka.bootstrap_servers}, lambda: None).ensure(topic, COMPACTED, partitions=2)
    write(any_kafka, topic)
    return topic


def write(kafka: Kafka, topic: str, key: bytes = b"k") -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for number in range(20):
        producer.produce(topic, b"x", key, partition=number % 2)
    assert producer.flush(PATIENCE_S) == 0


@pytest.mark.parametrize("bad_clients", [0, 1])
def test_a_partition_that_the_client_stops_reading_is_read_anew(any_kafka: Kafka, topic: str, bad_clients: int) -> None:
    worker = {"bootstrap.servers": any_kafka.bootstrap_servers}
    with Stalling(worker, topic, "test", bad_clients=bad_clients) as reader:
        reader.go({0: None, 1: None})
        if not bad_clients:
            reader.stall()
        reader.expect({0: 10, 1: 10})
        deadline = time.monotonic() + PATIENCE_S
        offsets = []
        while reader.left:
            offsets += [(message.partition(), message.offset()) for message in reader.fetch(1000, 0.05)]
            assert time.monotonic() < deadline, "it stands still"
        assert sorted(offsets) == [(part, offset) for part in range(2) for offset in range(10)]
        assert len(reader.clients) == 1 + bad_clients


def test_without_end_the_broker_is_asked_where_that_is(any_kafka: Kafka, topic: str) -> None:
    worker = {"bootstrap.servers": any_kafka.bootstrap_servers}
    with Stalling(worker, topic, "test", bad_clients=0, endless=True) as reader:
        reader.go({0: 10, 1: 10})
        deadline = time.monotonic() + PATIENCE_S
        while reader.positions != {0: 10, 1: 10} or reader.fetch(1000, 0.05):
            assert time.monotonic() < deadline
        reader.stall()
        write(any_kafka, topic, b"later")
        read = []
        while len(read) < 20:
            read += reader.fetch(1000, 0.05)
            assert time.monotonic() < deadline, "it stands still"
        assert {message.key() for message in read} == {b"later"}


def test_an_offset_that_is_gone_is_an_error_or_the_beginning(apache_kafka: ApacheKafka) -> None:
    worker = {"bootstrap.servers": apache_kafka.bootstrap_servers}
    topic = f"gone-{uuid.uuid4().hex[:8]}"
    Topics(worker, lambda: None).ensure(topic, {"cleanup.policy": "delete"}, partitions=2)
    write(apache_kafka, topic)
    admin = AdminClient(worker)
    admin.delete_records([TopicPartition(topic, 0, 4)])[TopicPartition(topic, 0, 4)].result(PATIENCE_S)
    with TopicReader(worker, topic, "test") as reader, pytest.raises(FatalError, match="does not have the offset 2"):
        list(reader.read({0: 2}))
    with TopicReader(worker, topic, "test") as reader:
        assert [message.offset() for message in reader.read({0: None})] == [4, 5, 6, 7, 8, 9]
    with TopicReader(worker, topic, "test", reset=True) as reader:
        assert [message.offset() for message in reader.read({0: 2})] == [4, 5, 6, 7, 8, 9]
