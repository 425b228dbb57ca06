"""A topic that is read to its end while records come all the time: its broker never says that this is the end."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from cdc.kafka.reading import TopicReader
from cdc.kafka.topics import COMPACTED, Topics
from cdc.local.kafka import ApacheKafka

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
    with TopicReader({"bootstrap.servers": apache_kafka.bootstrap_servers}, busy) as reader:
        deadline = time.monotonic() + PATIENCE_S
        keys = []
        for message in reader.read({0: 0}):
            keys.append(message.key())
            assert time.monotonic() < deadline, "it does not end"
        assert keys[:10] == [b"before"] * 10


def test_a_busy_partition_is_followed_from_its_end_on(apache_kafka: ApacheKafka, busy: str) -> None:
    with TopicReader({"bootstrap.servers": apache_kafka.bootstrap_servers}, busy) as reader:
        reader.follow(0, 3)
        deadline = time.monotonic() + PATIENCE_S
        read = 0
        while not reader.ended:
            read += len(reader.more(0.005))
            assert time.monotonic() < deadline, "it does not end"
        assert read >= 7
        assert reader.end >= 10
        reader.follow(0, reader.end)
        while not reader.more(0.005):
            assert time.monotonic() < deadline, "nothing comes any more"
