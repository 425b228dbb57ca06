"""The embedded registry on a worker's listener: there for tasks, patient with Kafka, gone with the worker."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from typing import Any

import pytest

import cdc.config
from cdc.config import Config
from cdc.local.kafka import EmbeddedKafka, Kafka
from cdc.runtime.worker import Worker

pytestmark = pytest.mark.integration

TIMEOUT = 60.0


def configuration(kafka: str) -> Config:
    text = f"""\
worker:
  bootstrap.servers: {kafka}
  listeners: http://127.0.0.1:0
  key.converter: plain
  value.converter: plain
connectors:
  shop: {{connector.class: sleeper}}
"""
    return cdc.config.loads({"bridge.yaml": text}, {})


def request(url: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/vnd.schemaregistry.v1+json"}
    try:
        asked = urllib.request.Request(url, data, headers)  # noqa: S310 - our own listener
        with urllib.request.urlopen(asked, timeout=TIMEOUT) as answer:  # noqa: S310
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_tasks_get_the_listeners_address_as_their_registry(dummies: tuple[str, ...], any_kafka: Kafka) -> None:
    subject = f"{uuid.uuid4().hex}-value"
    schema = {"schema": '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]}'}
    config = configuration(any_kafka.bootstrap_servers)
    with Worker(config, command=dummies) as worker:
        registry = _registry_of(worker)
        assert registry == worker.url
        assert worker.wait_for(lambda s: s["worker"]["registry"] == "ready", TIMEOUT)
        status, answer = request(f"{registry}/subjects/{subject}/versions", schema)
        assert status == 200
        assert request(f"{registry}/schemas/ids/{answer['id']}")[0] == 200
        assert request(f"{registry}/")[1]["kafka_cluster_id"]
    # Another worker on the same topic knows the schema.
    with Worker(config, command=dummies) as worker:
        assert worker.wait_for(lambda s: s["worker"]["registry"] == "ready", TIMEOUT)
        assert request(f"{worker.url}/subjects/{subject}/versions", schema) == (200, answer)


def _registry_of(worker: Worker) -> str:
    assert worker.wait_for(lambda s: "registry" in s["connectors"]["shop"]["tasks"][0]["metrics"], TIMEOUT)
    registry: str = worker.status()["connectors"]["shop"]["tasks"][0]["metrics"]["registry"]
    return registry


def test_kafka_may_come_after_the_worker(
    dummies: tuple[str, ...], launch: Callable[[EmbeddedKafka], EmbeddedKafka]
) -> None:
    kafka = launch(EmbeddedKafka())
    kafka.stop()
    with Worker(configuration(kafka.endpoint), command=dummies) as worker:
        assert worker.wait_for(lambda s: s["connectors"]["shop"]["tasks"][0]["state"] == "RUNNING", TIMEOUT)
        assert request(f"{worker.url}/health")[0] == 200
        status, error = request(f"{worker.url}/subjects/x/versions", {"schema": '"string"'})
        assert status >= 500
        assert error["error_code"] >= 50000
        kafka.start()
        assert worker.wait_for(lambda s: s["worker"]["registry"] == "ready", TIMEOUT)
        assert request(f"{worker.url}/subjects/x/versions", {"schema": '"string"'})[0] == 200
