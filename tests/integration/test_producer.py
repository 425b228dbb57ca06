"""The source's producer, topics and offsets on real brokers (EXACTNESS.md H6, H7)."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from cdc.errors import FatalError, RetriableError
from cdc.kafka.offsets import encode_offset, read_offsets
from cdc.kafka.producer import RecordProducer
from cdc.kafka.topics import COMPACTED, Topics
from cdc.local.kafka import ApacheKafka, Kafka

pytestmark = pytest.mark.integration


def nothing() -> None:
    """Nobody to keep alive."""


def worker_of(kafka: Kafka, **more: str) -> dict[str, str]:
    return {"bootstrap.servers": kafka.bootstrap_servers, **{k.replace("_", "."): v for k, v in more.items()}}


def unique(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def read_all(kafka: Kafka, topic: str) -> list[bytes | None]:
    """All committed records of partition 0, up to where it ends now (behind open transactions, too)."""
    settings = {"bootstrap.servers": kafka.bootstrap_servers, "group.id": unique("end")}
    with contextlib.closing(Consumer({**settings, "isolation.level": "read_uncommitted"})) as uncommitted:
        _, end = uncommitted.get_watermark_offsets(TopicPartition(topic, 0), timeout=15)
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": unique("reader"),
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    values: list[bytes | None] = []
    with contextlib.closing(consumer):
        consumer.assign([TopicPartition(topic, 0, 0)])
        while True:
            message = consumer.poll(15)
            assert message is not None, f"{topic} does not end"
            if message.error() is None:
                values.append(message.value())
            elif (message.offset() or 0) >= end:
                return values


@pytest.mark.parametrize("transactional", [True, False])
def test_committed_records_are_there_with_their_headers(any_kafka: Kafka, transactional: bool) -> None:
    topic = unique("t")
    worker = worker_of(any_kafka)
    assert Topics(worker, nothing).ensure(topic, COMPACTED, partitions=1) == 1
    producer = RecordProducer(worker, unique("tx") if transactional else None, nothing)
    producer.start()
    for number in range(1000):
        producer.produce(topic, b"k%d" % number, b"v%d" % number, [("cdc.position", b"p%d" % number)])
    assert producer.records == 1000
    producer.commit()
    assert producer.records == 0
    assert read_all(any_kafka, topic) == [b"v%d" % number for number in range(1000)]
    producer.close()


@pytest.mark.parametrize("transactional", [True, False])
def test_an_oversize_record_stops_the_pipeline_and_is_not_lost_in_silence(
    apache_kafka: ApacheKafka, transactional: bool
) -> None:
    """``flush()`` alone would return 0 though the record vanished (H7)."""
    topic = unique("t")
    worker = worker_of(apache_kafka, producer_message_max_bytes="10000000")
    Topics(worker, nothing).ensure(topic, {**COMPACTED, "max.message.bytes": "100000"}, partitions=1)
    producer = RecordProducer(worker, unique("tx") if transactional else None, nothing)
    producer.start()
    producer.produce(topic, b"k", b"fits")
    producer.produce(topic, b"k", os.urandom(300_000))
    with pytest.raises((FatalError, RetriableError), match=r"delivered|MSG_SIZE|large|abort"):
        producer.commit()
    producer.close()


def test_a_zombie_is_fenced_by_its_successor(apache_kafka: ApacheKafka) -> None:
    topic, transactional_id = unique("t"), unique("tx")
    worker = worker_of(apache_kafka)
    Topics(worker, nothing).ensure(topic, COMPACTED, partitions=1)
    zombie = RecordProducer(worker, transactional_id, nothing)
    zombie.start()
    zombie.produce(topic, b"k", b"from the zombie")
    zombie.poll()
    successor = RecordProducer(worker, transactional_id, nothing)
    successor.start()
    with pytest.raises((FatalError, RetriableError)):
        zombie.commit()
    successor.produce(topic, b"k", b"from the successor")
    successor.commit()
    zombie.close()
    successor.close()
    assert read_all(apache_kafka, topic) == [b"from the successor"]


def test_offsets_come_back_with_the_last_value_and_only_the_connectors_own(any_kafka: Kafka) -> None:
    topic = unique("offsets")
    worker = worker_of(any_kafka)
    partitions = Topics(worker, nothing).ensure(topic, COMPACTED, partitions=5)
    producer = RecordProducer(worker, unique("tx"), nothing)
    producer.start()
    for number in range(3):
        for connector in ("mine", "other"):
            for part in ("a", "b", "c"):
                key, value = encode_offset(f'["{connector}",{{"server":"{part}"}}]', {"n": number})
                producer.produce(topic, key, value)
    producer.produce(topic, *encode_offset('["mine",{"server":"c"}]', None))
    producer.commit()
    producer.close()
    found = read_offsets(worker, topic, partitions, "mine", nothing, lambda: False)
    assert found == {'["mine",{"server":"a"}]': {"n": 2}, '["mine",{"server":"b"}]': {"n": 2}}


def test_offsets_behind_anothers_open_transaction_are_waited_for(apache_kafka: ApacheKafka) -> None:
    topic = unique("offsets")
    worker = worker_of(apache_kafka)
    Topics(worker, nothing).ensure(topic, COMPACTED, partitions=1)
    slow = RecordProducer(worker, unique("slow"), nothing)
    slow.start()
    slow.produce(topic, *encode_offset('["slow",{}]', {"n": 1}))
    slow._producer.flush(10)
    mine = RecordProducer(worker, unique("mine"), nothing)
    mine.start()
    mine.produce(topic, *encode_offset('["mine",{}]', {"n": 1}))
    mine.commit()
    found: dict[str, Any] = {}
    reader = threading.Thread(
        target=lambda: found.update(read_offsets(worker, topic, 1, "mine", nothing, lambda: False))
    )
    reader.start()
    reader.join(2)
    assert reader.is_alive(), "the reader did not wait for the open transaction"
    slow.commit()
    reader.join(20)
    assert found == {'["mine",{}]': {"n": 1}}
    slow.close()
    mine.close()


def test_a_broker_that_dies_and_comes_back_loses_nothing(launch: Callable[[Kafka], Kafka]) -> None:
    """The commit waits, and the source is kept alive all the while (H7, trap 3)."""
    kafka = launch(ApacheKafka())
    topic = unique("t")
    worker = worker_of(kafka)
    Topics(worker, nothing).ensure(topic, COMPACTED, partitions=1)
    pumped: list[float] = []
    producer = RecordProducer(worker, unique("tx"), lambda: pumped.append(time.monotonic()))
    producer.start()
    producer.produce(topic, b"k", b"before")
    producer.commit()
    kafka.kill()
    producer.produce(topic, b"k", b"while it is away")
    back = threading.Thread(target=kafka.start)
    back.start()
    pumped.clear()
    producer.commit()
    back.join()
    producer.close()
    assert read_all(kafka, topic) == [b"before", b"while it is away"]
    assert pumped, "the source was not kept alive during the outage"
