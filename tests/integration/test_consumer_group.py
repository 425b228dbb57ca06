"""A sink task's place in its consumer group: kept, taken back once, given up to another that holds on to it."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from cdc.errors import FatalError, RetriableError
from cdc.kafka.consumer import RecordConsumer
from cdc.local.kafka import ApacheKafka

pytestmark = pytest.mark.integration

PATIENCE_S = 30.0


@pytest.fixture
def topic(apache_kafka: ApacheKafka) -> str:
    return written(apache_kafka)


def written(kafka: ApacheKafka) -> str:
    """A topic with one record."""
    name = f"group-{uuid.uuid4().hex[:8]}"
    settings = {"bootstrap.servers": kafka.bootstrap_servers}
    admin = AdminClient(settings)
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(30)
    producer = Producer(settings)
    producer.produce(name, b"one")
    producer.flush(30)
    return name


@pytest.fixture
def member(apache_kafka: ApacheKafka, topic: str) -> Iterator[RecordConsumer]:
    worker = {"bootstrap.servers": apache_kafka.bootstrap_servers}
    consumer = RecordConsumer(worker, f"connect-{topic}", "place", lambda _: None)
    yield consumer
    consumer.close()


@contextmanager
def another(apache_kafka: ApacheKafka, topic: str) -> Iterator[None]:
    """Somebody under the same name, as a coordinator sees it, too, that has lost what it knew of us."""
    settings: dict[str, Any] = {
        "bootstrap.servers": apache_kafka.bootstrap_servers,
        "group.id": f"connect-{topic}",
        "group.instance.id": "place",
        "partition.assignment.strategy": "cooperative-sticky",
        "auto.offset.reset": "earliest",
    }
    consumer = Consumer(settings)
    try:
        consumer.subscribe([topic])
        deadline = time.monotonic() + PATIENCE_S
        while not consumer.assignment():
            assert time.monotonic() < deadline, "never assigned"
            consumer.poll(0.1)
        yield
    finally:
        consumer.close()


def read(member: RecordConsumer, topic: str) -> list[bytes | None]:
    """What it reads from the beginning, once it is assigned."""
    member.subscribe([topic])
    deadline = time.monotonic() + PATIENCE_S
    while (topic, 0) not in member.assigned:
        assert time.monotonic() < deadline, "never assigned"
        member.fetch(10, 0.1)
    member.reposition({(topic, 0): 0})
    while not (found := member.fetch(10, 0.1)):
        assert time.monotonic() < deadline, "nothing read"
    return [message.value() for message in found]


def until_raised(member: RecordConsumer, topic: str) -> None:
    """Commit and fetch, as a sink does, until that raises."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        member.commit({(topic, 0): 1})
        member.fetch(10, 0.1)


def test_a_place_that_is_lost_is_taken_back_once(member: RecordConsumer, apache_kafka: ApacheKafka, topic: str) -> None:
    """A coordinator that restarts with an older state takes the member for a stranger: that is no second worker."""
    assert read(member, topic) == [b"one"]
    with another(apache_kafka, topic), pytest.raises(RetriableError, match="joining it again"):
        until_raised(member, topic)
    assert member.changed
    assert not member.assigned
    assert read(member, topic) == [b"one"]
    with another(apache_kafka, topic), pytest.raises(FatalError, match="only one worker run the connector"):
        until_raised(member, topic)


def test_a_place_that_is_lost_again_after_the_broker_was_away_is_no_second_worker(
    launch: Callable[[ApacheKafka], ApacheKafka],
) -> None:
    kafka = launch(ApacheKafka())
    topic = written(kafka)
    member = RecordConsumer({"bootstrap.servers": kafka.bootstrap_servers}, f"connect-{topic}", "place", lambda _: None)
    try:
        for _ in range(2):
            assert read(member, topic) == [b"one"]
            with another(kafka, topic), pytest.raises(RetriableError, match="joining it again"):
                until_raised(member, topic)
            kafka.kill()
            deadline = time.monotonic() + PATIENCE_S
            while not member.away:
                assert time.monotonic() < deadline, "nobody notices"
                member.fetch(10, 0.1)
            kafka.start()
        assert read(member, topic) == [b"one"]
    finally:
        member.close()


CLOSING = """
import sys, time
from cdc.kafka.consumer import RecordConsumer
bootstrap, topic = sys.argv[1:]
member = RecordConsumer({"bootstrap.servers": bootstrap}, f"connect-{topic}", "place", lambda _: None)
member.subscribe([topic])
deadline = time.monotonic() + 60
while member.left_out({topic: 1}) is None:  # until the group has given it what it was not asked for yet
    assert time.monotonic() < deadline, "never assigned"
member.close()
"""


def test_it_can_be_closed_while_an_assignment_waits_to_be_heard(apache_kafka: ApacheKafka, topic: str) -> None:
    """The client library hangs then, with the lock of the interpreter in its hands: in a process of its own."""
    command = [sys.executable, "-c", CLOSING, apache_kafka.bootstrap_servers, topic]
    subprocess.run(command, check=True, timeout=120)


def test_its_clients_end_when_it_is_closed(apache_kafka: ApacheKafka, topic: str) -> None:
    """Those that ask for the group and for ends, too: their threads would stay for as long as the process."""
    before = kafka_threads()
    member = RecordConsumer({"bootstrap.servers": apache_kafka.bootstrap_servers}, "threads", "place", lambda _: None)
    assert read(member, topic) == [b"one"]
    deadline = time.monotonic() + PATIENCE_S
    while member.left_out({topic: 1}) is None:
        member.mend_stalls(time.monotonic())
        assert time.monotonic() < deadline, "the group never told"
    assert kafka_threads() > before
    member.close()
    while kafka_threads() > before:
        assert time.monotonic() < deadline, "threads are left"


def kafka_threads() -> int:
    """Threads of Kafka's client library in this process."""
    names = [path.read_text(encoding="ascii") for path in Path("/proc/self/task").glob("*/comm")]
    return sum(name.startswith("rdk:") for name in names)
