"""Transforms on a real broker: what the task writes is what a consumer reads."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from cdc.config import ConnectorSpec, loads
from cdc.local.kafka import Kafka
from cdc.plugin import SourceConnector, TaskContext
from cdc.runtime.signals import execute, send
from cdc.runtime.source_task import run_source_task
from tests.fix_servers import Database

pytestmark = pytest.mark.integration

PATIENCE_S = 60


@contextmanager
def running(database: Database, kafka: Kafka, **more: str) -> Iterator[tuple[ConnectorSpec, dict[str, Any]]]:
    """A source task that has reached the stream, and what it has reported last."""
    name = f"t{uuid.uuid4().hex[:8]}"
    info = database.conninfo
    properties = {
        "connector.class": "postgres",
        "database.hostname": info["host"],
        "database.port": str(info["port"]),
        "database.user": info["user"],
        "database.password": info["password"],
        "database.dbname": info["dbname"],
        "topic.prefix": name,
        "topic.creation.default.partitions": "2",
        "key.converter": "json",
        "key.converter.schemas.enable": "false",
        "value.converter": "json",
        "value.converter.schemas.enable": "false",
        **more,
    }
    form = {
        "worker": {"bootstrap.servers": kafka.bootstrap_servers, "group.id": name},
        "connectors": {name: properties},
    }
    (spec,) = loads({"bridge.yaml": json.dumps(form)}).connectors
    assert isinstance(spec.connector, SourceConnector)
    stopping = threading.Event()
    reported: dict[str, Any] = {}
    context = TaskContext(name, 0, "test", reported.__setitem__, stopping.is_set)
    task = threading.Thread(target=run_source_task, args=(spec.connector, context, spec.worker))
    task.start()
    try:
        until(lambda: reported.get("phase") == "streaming")
        yield spec, reported
    finally:
        stopping.set()
        task.join(PATIENCE_S)


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)  # another thread's work
    return found


def test_rows_go_unwrapped_into_kafka_and_truncates_into_every_partition(
    database15: Database, embedded_kafka: Kafka
) -> None:
    transforms = {
        "transforms": "flat",
        "transforms.flat.type": "io.debezium.transforms.ExtractNewRecordState",
        "transforms.flat.add.headers": "op",
        "transforms.flat.predicate": "rows",
        "predicates": "rows",
        "predicates.rows.type": "TopicNameMatches",
        "predicates.rows.pattern": r".*\.rows",
    }
    database15.execute("create table rows (id int primary key, v text); create table logs (id int primary key)")
    database15.execute("insert into rows values (1, 'one')")
    with running(database15, embedded_kafka, **transforms) as (spec, _):
        database15.execute("delete from rows")
        database15.execute("truncate logs")
        rows = consumed(embedded_kafka, f"{spec.name}.public.rows", 2)
        logs = consumed(embedded_kafka, f"{spec.name}.public.logs", 2)
    assert [(m.key(), m.value()) for m in rows] == [(b'{"id":1}', b'{"id":1,"v":"one"}'), (b'{"id":1}', b"null")]
    assert [dict(m.headers())["__op"] for m in rows] == [b"r", b"d"]
    assert len({m.partition() for m in rows}) == 1
    assert {m.partition() for m in logs} == {0, 1}
    assert [json.loads(m.value())["op"] for m in logs] == ["t", "t"]
    assert len({m.key() for m in logs}) == 2


def test_a_sweep_that_transforms_forbid_is_no_success(database15: Database, embedded_kafka: Kafka) -> None:
    """The rows are told, but what is too much in the topics stays: whoever asked must hear of it."""
    transforms = {
        "signal.enabled.channels": "source,kafka",
        "transforms": "other",
        "transforms.other.type": "io.debezium.transforms.ByLogicalTableRouter",
        "transforms.other.topic.regex": r"(.*)\.public\.rows",
        "transforms.other.topic.replacement": "$1.elsewhere",
    }
    database15.execute("create table rows (id int primary key, v text)")
    database15.execute("insert into rows values (1, 'one'), (2, 'two')")
    with running(database15, embedded_kafka, **transforms) as (spec, reported):
        sent = send(spec, *execute(["public.rows"], sweep=True))

        def ended() -> Any:
            found = reported.get("signals", {}).get(sent["id"])
            return found if found and "RUNNING" not in str(found) else None

        told = until(ended)["tables"]["public.rows"]
        assert (told["state"], told["rows"]) == ("FAILED", 2)
        assert (
            "all rows are told, but keys that no row of public.rows has any more are not looked for" in told["reason"]
        )
        assert until(lambda: reported["metrics"]["sweeps_declined"]) == 1


def consumed(kafka: Kafka, topic: str, count: int) -> list[Any]:
    """The first records of a topic, in the order of their partitions."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": uuid.uuid4().hex})
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in range(2)])
    found: list[Any] = []
    deadline = time.monotonic() + PATIENCE_S
    try:
        while len(found) < count:
            assert time.monotonic() < deadline, f"{len(found)} records in {topic}"
            message = consumer.poll(0.5)
            if message is not None and message.error() is None:
                found.append(message)
    finally:
        consumer.close()
    return found
