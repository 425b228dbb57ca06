"""Transforms on a real broker: what the task writes is what a consumer reads."""

from __future__ import annotations

import json
import threading
import time
import uuid
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from cdc.config import loads
from cdc.local.kafka import Kafka
from cdc.plugin import SourceConnector, TaskContext
from cdc.runtime.source_task import run_source_task
from tests.fix_servers import Database

pytestmark = pytest.mark.integration

PATIENCE_S = 60


def test_rows_go_unwrapped_into_kafka_and_truncates_into_every_partition(
    database15: Database, embedded_kafka: Kafka
) -> None:
    name = f"t{uuid.uuid4().hex[:8]}"
    info = database15.conninfo
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
        "transforms": "flat",
        "transforms.flat.type": "io.debezium.transforms.ExtractNewRecordState",
        "transforms.flat.add.headers": "op",
        "transforms.flat.predicate": "rows",
        "predicates": "rows",
        "predicates.rows.type": "TopicNameMatches",
        "predicates.rows.pattern": r".*\.rows",
    }
    form = {
        "worker": {"bootstrap.servers": embedded_kafka.bootstrap_servers, "group.id": name},
        "connectors": {name: properties},
    }
    (spec,) = loads({"bridge.yaml": json.dumps(form)}).connectors
    assert isinstance(spec.connector, SourceConnector)
    database15.execute("create table rows (id int primary key, v text); create table logs (id int primary key)")
    database15.execute("insert into rows values (1, 'one')")
    stopping, streaming = threading.Event(), threading.Event()

    def report(what: str, value: Any) -> None:
        if (what, value) == ("phase", "streaming"):
            streaming.set()

    context = TaskContext(name, 0, "test", report, stopping.is_set)
    task = threading.Thread(target=run_source_task, args=(spec.connector, context, spec.worker))
    task.start()
    try:
        assert streaming.wait(PATIENCE_S)
        database15.execute("delete from rows")
        database15.execute("truncate logs")
        rows = consumed(embedded_kafka, f"{name}.public.rows", 2)
        logs = consumed(embedded_kafka, f"{name}.public.logs", 2)
    finally:
        stopping.set()
        task.join(PATIENCE_S)
    assert [(m.key(), m.value()) for m in rows] == [(b'{"id":1}', b'{"id":1,"v":"one"}'), (b'{"id":1}', b"null")]
    assert [dict(m.headers())["__op"] for m in rows] == [b"r", b"d"]
    assert len({m.partition() for m in rows}) == 1
    assert {m.partition() for m in logs} == {0, 1}
    assert [json.loads(m.value())["op"] for m in logs] == ["t", "t"]
    assert len({m.key() for m in logs}) == 2


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
