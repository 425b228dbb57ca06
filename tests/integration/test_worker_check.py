"""`cdc check` against real brokers: what is wrong is found, what is right is not, and nothing is changed."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Mapping

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

import cdc.config
from cdc.config import Config
from cdc.local.kafka import ApacheKafka, Kafka
from cdc.operate.check_kafka import BOOTSTRAP, check_kafka
from cdc.operate.check_registry import check_registry
from cdc.runtime.worker import Worker

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("dummies")]

Findings = list[tuple[str, str, str]]

REPLICATION = "Set the replication factor to at most the number of brokers, or to -1 for the brokers' default"


def configuration(
    kafka: str, group: str, worker: str = "", connectors: str = "", listeners: str = "http://127.0.0.1:0"
) -> Config:
    text = f"""\
worker:
  bootstrap.servers: {kafka}
  group.id: {group}
  listeners: {listeners}
  key.converter: plain
  value.converter: plain
{worker}
connectors:
  shop: {{connector.class: sleeper, topic.prefix: {group}}}
{connectors}
"""
    return cdc.config.loads({"bridge.yaml": text}, {})


def found(config: Config) -> Findings:
    return [(finding.key, finding.message, finding.remedy) for finding in check_kafka(config)]


def create(kafka: Kafka, topic: str, partitions: int = 1, **settings: str) -> None:
    config = {name.replace("_", "."): value for name, value in settings.items()}
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    admin.create_topics([NewTopic(topic, partitions, 1, config=config)])[topic].result(30)


def topics(kafka: Kafka) -> Mapping[str, object]:
    return AdminClient({"bootstrap.servers": kafka.bootstrap_servers}).list_topics(timeout=30).topics


@pytest.fixture
def group() -> str:
    return f"check-{uuid.uuid4().hex[:8]}"


def test_a_ready_broker_has_no_findings(any_kafka: Kafka, group: str) -> None:
    before = topics(any_kafka).keys()
    assert found(configuration(any_kafka.bootstrap_servers, group)) == []
    assert topics(any_kafka).keys() == before


def test_topics_made_by_others_are_looked_at(apache_kafka: ApacheKafka, group: str) -> None:
    create(apache_kafka, f"{group}-offsets", cleanup_policy="delete")
    create(apache_kafka, f"{group}.public.keyed", partitions=2, cleanup_policy="compact,delete")
    create(apache_kafka, f"{group}.public.keyless", cleanup_policy="delete")
    create(apache_kafka, f"{group}.public.empty", cleanup_policy="delete")
    create(apache_kafka, f"{group}.public.right", cleanup_policy="compact")
    producer = Producer({"bootstrap.servers": apache_kafka.bootstrap_servers})
    producer.produce(f"{group}.public.keyed", b"value", b"key", partition=1)
    producer.produce(f"{group}.public.keyless", b"value")
    producer.produce(f"{group}.public.right", b"value", b"key")
    assert producer.flush(30) == 0
    cache = "  cache: {connector.class: sleeper}\n"
    alter = f"kafka-configs.sh --bootstrap-server {apache_kafka.bootstrap_servers} --alter --entity-type topics"
    assert found(configuration(apache_kafka.bootstrap_servers, group, connectors=cache)) == [
        (
            "worker.offset.storage.topic",
            f"the topic {group}-offsets has cleanup.policy=delete: time removes what it must keep",
            f"{alter} --entity-name {group}-offsets --add-config cleanup.policy=compact",
        ),
        (
            "connectors.shop.topic.prefix",
            f"the topic {group}.public.keyed has keys and cleanup.policy=compact,delete: "
            "rows older than its retention are lost to every rebuild",
            f"{alter} --entity-name {group}.public.keyed --add-config cleanup.policy=compact",
        ),
    ]


def test_what_cannot_be_created_is_found_without_creating(apache_kafka: ApacheKafka, group: str) -> None:
    before = topics(apache_kafka).keys()
    worker = "  offset.storage.replication.factor: 3\n  topic.creation.default.replication.factor: 3\n"
    findings = found(configuration(apache_kafka.bootstrap_servers, group, worker))
    assert [(key, remedy) for key, _, remedy in findings] == [
        ("worker.offset.storage.replication.factor", REPLICATION),
        ("connectors.shop.topic.prefix", REPLICATION),
    ]
    assert topics(apache_kafka).keys() == before


def test_records_larger_than_the_broker_takes_are_found(apache_kafka: ApacheKafka, group: str) -> None:
    ((key, message, remedy),) = found(
        configuration(apache_kafka.bootstrap_servers, group, "  producer.message.max.bytes: 20000000\n")
    )
    assert key == "connectors.shop"
    assert "sends records of up to 20000000 bytes, the brokers take 1048588" in message
    assert "message.max.bytes=20000000" in remedy


def test_a_topic_that_nobody_writes_is_found(any_kafka: Kafka, group: str) -> None:
    sink = f"  cache: {{connector.class: sleeper, topics: '{group}.public.later, elsewhere-{group}'}}\n"
    assert found(configuration(any_kafka.bootstrap_servers, group, connectors=sink)) == [
        (
            "connectors.cache.topics",
            f"the topic elsewhere-{group} does not exist",
            "Correct its name, or start what writes it first",
        )
    ]


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def test_a_broker_that_is_away_is_named(group: str, closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cdc.operate.check_kafka._TIMEOUT", 2.0)
    ((key, message, _),) = found(configuration(f"127.0.0.1:{closed_port}", group))
    assert key == BOOTSTRAP
    assert message.startswith(f"no Kafka broker answers at 127.0.0.1:{closed_port}: ")
    assert "Connection refused" in message


def test_client_settings_that_librdkafka_does_not_know_are_named(group: str, closed_port: int) -> None:
    config = configuration(f"127.0.0.1:{closed_port}", group, "  admin.sasl.mechanismus: PLAIN\n")
    ((key, message, _),) = found(config)
    assert key == BOOTSTRAP
    assert "sasl.mechanismus" in message


@pytest.mark.parametrize("where", ["worker", "converter"])
def test_a_registry_that_is_away_is_named(group: str, closed_port: int, where: str) -> None:
    url = f"schema.registry.url: http://user:hunter2@127.0.0.1:{closed_port}"
    if where == "worker":
        config = configuration("127.0.0.1:1", group, f"  {url}\n")
    else:
        config = configuration(
            "127.0.0.1:1", group, connectors=f"  c:\n    connector.class: sleeper\n    key.converter.{url}\n"
        )
    (finding,) = check_registry(config)
    assert finding.key == (
        "worker.schema.registry.url" if where == "worker" else "connectors.c.key.converter.schema.registry.url"
    )
    assert f"schema registry http://127.0.0.1:{closed_port} cannot be reached" in finding.message
    assert "hunter2" not in str(finding)


def test_a_port_that_somebody_else_has_is_found(group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cdc.operate.check_registry._TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = configuration("127.0.0.1:1", group, listeners=f"http://127.0.0.1:{port}")
        (finding,) = check_registry(config)
    assert finding.key == "worker.listeners"
    assert finding.message == f"cannot listen on http://127.0.0.1:{port}: Address already in use"


def test_a_port_that_a_worker_has_is_right(dummies: tuple[str, ...], group: str, closed_port: int) -> None:
    worker = f"  schema.registry.url: http://127.0.0.1:{closed_port}\n"
    config = configuration("127.0.0.1:1", group, worker)
    running = Worker(config, command=dummies)
    with running:
        assert check_registry(configuration("127.0.0.1:1", group, listeners=running.url)) == []
