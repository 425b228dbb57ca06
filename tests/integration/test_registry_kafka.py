"""The embedded registry on real brokers: its topic, races between workers, restarts, take-over in both directions."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)
from registry_server import new_topic, running_store

from cdc.local.kafka import ApacheKafka, Kafka
from cdc.registry import admin, plans
from cdc.registry.errors import RegistryMisconfigured, RegistryUnavailable, RestError
from cdc.registry.log import KafkaLog
from cdc.registry.plans import SchemaRequest
from cdc.registry.records import SchemaVersion
from cdc.registry.store import SchemaStore

pytestmark = pytest.mark.integration


def register(store: SchemaStore, subject: str, schema: str, **request: Any) -> SchemaVersion:
    wanted = SchemaRequest(schema, **request)
    return store.write(lambda state: plans.register(state, subject, wanted, normalize=False))


def record(name: str, *fields: str) -> str:
    listed = ",".join(f'{{"name":"{field}","type":"int","default":0}}' for field in fields)
    return f'{{"type":"record","name":"{name}","fields":[{listed}]}}'


def everything(store: SchemaStore) -> dict[str, list[tuple[int, int, str]]]:
    return store.read(
        lambda state: {
            subject: [(v.version, v.id, v.schema) for v in state.versions(subject)] for subject in state.subjects()
        }
    )


def contents(kafka: Kafka, topic: str) -> list[tuple[bytes, bytes | None]]:
    """All records of the topic."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": "test",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    found: list[tuple[bytes, bytes | None]] = []
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        while True:
            message = consumer.poll(30)
            assert message is not None, "the broker told neither a record nor the end"
            key, value, error = message.key(), message.value(), message.error()
            if error is not None and error.code() == KafkaError._PARTITION_EOF:
                return found
            assert error is None, error
            assert isinstance(key, bytes)
            assert isinstance(value, bytes | None)
            found.append((key, value))
    finally:
        consumer.close()


def produce(kafka: Kafka, topic: str, records: list[tuple[str, str | None]]) -> None:
    """Write records as Confluent's registry does, one after the other."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "acks": "all"})
    for key, value in records:
        producer.produce(topic, value, key, partition=0)
        assert producer.flush(30) == 0


def create(kafka: Kafka, topic: str, partitions: int = 1, **config: str) -> None:
    client = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    settings = {name.replace("_", "."): value for name, value in config.items()}
    client.create_topics([NewTopic(topic, partitions, 1, config=settings)])[topic].result(30)


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come about"
        time.sleep(0.05)


def test_the_topic_is_made_compacted_with_one_partition_and_read_again_with_the_same_ids(any_kafka: Kafka) -> None:
    topic = new_topic()
    with running_store(any_kafka.bootstrap_servers, topic) as store:
        register(store, "a-value", record("A"))
        register(store, "a-value", record("A", "x"))
        register(store, "b-value", record("A"))
        register(store, "é/ü", record("E"))
        register(store, "gone", record("G"))
        store.write(lambda state: admin.delete_subject(state, "gone", permanent=False))
        store.write(lambda state: admin.delete_subject(state, "gone", permanent=True))
        store.write(lambda state: admin.set_config(state, "a-value", {"compatibility": "NONE"}))
        before = everything(store)
    resource = ConfigResource(ResourceType.TOPIC, topic)
    client = AdminClient({"bootstrap.servers": any_kafka.bootstrap_servers})
    assert client.describe_configs([resource])[resource].result(30)["cleanup.policy"].value == "compact"
    assert len(client.list_topics(timeout=30).topics[topic].partitions) == 1
    with running_store(any_kafka.bootstrap_servers, topic) as fresh:
        assert everything(fresh) == before
        assert before["b-value"] == [(1, 1, record("A"))]
        assert fresh.read(lambda state: state.config_in_scope("a-value"))["compatibilityLevel"] == "NONE"
        assert register(fresh, "new", record("N")).id == 5  # 4 was the deleted one's


def test_two_workers_that_race_give_no_id_twice(any_kafka: Kafka) -> None:
    topic = new_topic()
    with (
        running_store(any_kafka.bootstrap_servers, topic) as one,
        running_store(any_kafka.bootstrap_servers, topic) as two,
        ThreadPoolExecutor(2) as pool,
    ):
        # Both register the same schemas, in opposite order, and versions of one subject.
        one.write(lambda state: admin.set_config(state, None, {"compatibility": "NONE"}))

        def work(store: SchemaStore, numbers: list[int]) -> list[SchemaVersion]:
            found = []
            for i in numbers:
                found.append(register(store, f"subject-{i}", record(f"R{i}")))
                found.append(register(store, "shared", record(f"S{i}")))
            return found

        jobs = [pool.submit(work, one, list(range(12))), pool.submit(work, two, list(range(11, -1, -1)))]
        answers = [version for job in jobs for version in job.result()]
        ids: dict[str, int] = {}
        for version in answers:
            assert ids.setdefault(version.schema, version.id) == version.id
        assert sorted(ids.values()) == list(range(1, 25))
        shared = one.read(lambda state: state.versions("shared"))
        assert [version.version for version in shared] == list(range(1, 13))
    with running_store(any_kafka.bootstrap_servers, topic) as fresh:
        for version in answers:
            assert version in fresh.read(lambda state, subject=version.subject: state.versions(subject))  # type: ignore[misc]
    # Nor does anything else stand on the topic: what a plain reader takes from it is the same.
    last = {key: value for key, value in contents(any_kafka, topic) if b'"keytype":"SCHEMA"' in key}
    assert last == {version.key.encode(): version.value() for version in answers}


CONFLUENTS: list[tuple[str, str | None]] = [
    ('{"keytype":"NOOP","magic":0}', None),
    ('{"keytype":"CONFIG","magic":0}', '{"compatibilityLevel":"NONE"}'),
    (
        '{"keytype":"SCHEMA","subject":"orders-value","version":1,"magic":1}',
        '{"subject":"orders-value","version":1,"id":10,"schema":"{\\"type\\":\\"record\\",\\"name\\":\\"A\\",'
        '\\"fields\\":[]}","deleted":false}',
    ),
    (
        '{"keytype":"SCHEMA","subject":"orders-value","version":2,"magic":1}',
        '{"subject":"orders-value","version":2,"id":11,"schemaType":"JSON","schema":"{\\"type\\":\\"object\\"}",'
        '"deleted":false}',
    ),
    ('{"keytype":"NOOP","magic":0}', None),
    (
        '{"keytype":"SCHEMA","subject":"old-value","version":1,"magic":1}',
        '{"subject":"old-value","version":1,"id":12,"schema":"\\"string\\"","deleted":false}',
    ),
    ('{"keytype":"DELETE_SUBJECT","subject":"old-value","magic":0}', '{"subject":"old-value","version":1}'),
]


def test_a_topic_that_confluents_registry_wrote_is_taken_over(any_kafka: Kafka) -> None:
    topic = new_topic()
    create(any_kafka, topic, cleanup_policy="compact")
    produce(any_kafka, topic, CONFLUENTS)
    with running_store(any_kafka.bootstrap_servers, topic) as store:
        assert everything(store) == {
            "orders-value": [(1, 10, '{"type":"record","name":"A","fields":[]}'), (2, 11, '{"type":"object"}')]
        }
        assert register(store, "other-value", record("A")).id == 10
        assert register(store, "old-value", '"string"').version == 2
        assert register(store, "new-value", record("B")).id == 13
        # Confluent's registry, still running, writes in between.
        key, value = CONFLUENTS[2]
        produce(
            any_kafka, topic, [CONFLUENTS[0], (key.replace("orders", "late"), (value or "").replace("orders", "late"))]
        )
        assert register(store, "late-value", record("A")).version == 1
    written = [pair for pair in contents(any_kafka, topic)[len(CONFLUENTS) :] if b'"NOOP"' not in pair[0]]
    assert written[:4] == [
        (
            b'{"keytype":"SCHEMA","subject":"other-value","version":1,"magic":1}',
            b'{"subject":"other-value","version":1,"id":10,"schema":"{\\"type\\":\\"record\\",\\"name\\":\\"A\\",'
            b'\\"fields\\":[]}","deleted":false}',
        ),
        (b'{"keytype":"SCHEMA","subject":"old-value","version":1,"magic":1}', None),
        (
            b'{"keytype":"SCHEMA","subject":"old-value","version":2,"magic":1}',
            b'{"subject":"old-value","version":2,"id":12,"schema":"\\"string\\"","deleted":false}',
        ),
        (
            b'{"keytype":"SCHEMA","subject":"new-value","version":1,"magic":1}',
            b'{"subject":"new-value","version":1,"id":13,"schema":"{\\"type\\":\\"record\\",\\"name\\":\\"B\\",'
            b'\\"fields\\":[]}","deleted":false}',
        ),
    ]


def test_a_topic_that_kafka_would_delete_from_is_refused(apache_kafka: Kafka) -> None:
    topic = new_topic()
    create(apache_kafka, topic, cleanup_policy="delete")
    with (
        pytest.raises(RegistryMisconfigured, match=r"cleanup\.policy=delete.*kafka-configs"),
        running_store(apache_kafka.bootstrap_servers, topic),
    ):
        pass


def test_a_topic_of_several_partitions_is_refused(any_kafka: Kafka) -> None:
    topic = new_topic()
    create(any_kafka, topic, partitions=3, cleanup_policy="compact")
    with (
        pytest.raises(RegistryMisconfigured, match="3 partitions"),
        running_store(any_kafka.bootstrap_servers, topic),
    ):
        pass


def test_a_schema_that_the_broker_does_not_take_is_refused_and_the_next_one_registers(apache_kafka: Kafka) -> None:
    with running_store(apache_kafka.bootstrap_servers, new_topic()) as store:
        noise = "".join(map(chr, random.Random(1).choices(range(0x4E00, 0x9000), k=800_000)))  # hardly compressible
        with pytest.raises(RestError) as caught:
            register(store, "s", f'{{"type":"record","name":"R","doc":"{noise}","fields":[]}}')
        assert (caught.value.status, caught.value.code) == (422, 42209)
        assert register(store, "s", record("R")).id == 1


def test_a_broker_that_dies_and_comes_back_finds_the_registry_with_its_ids(
    launch: Callable[[ApacheKafka], ApacheKafka],
) -> None:
    kafka = launch(ApacheKafka())
    topic = new_topic()
    with running_store(kafka.bootstrap_servers, topic) as store:
        first = register(store, "s", record("R"))
        kafka.kill()
        assert store.read(lambda state: state.by_id(first.id)) == first
        store._timeout = 1.0
        with pytest.raises(RegistryUnavailable):
            register(store, "s", record("R", "x"))
        kafka.start()
        store._timeout = 60.0
        found = []

        def registered() -> bool:
            try:
                found.append(register(store, "s", record("R", "y")))
            except RegistryUnavailable:
                return False
            return True

        until(registered)
        known = everything(store)
        assert known["s"][0] == (1, 1, record("R"))
        assert (found[0].version, found[0].id, record("R", "y")) == known["s"][-1]
    with running_store(kafka.bootstrap_servers, topic) as fresh:
        assert everything(fresh) == known


def test_a_broker_that_was_away_while_nobody_asked_has_a_new_leader_epoch(
    launch: Callable[[ApacheKafka], ApacheKafka],
) -> None:
    kafka = launch(ApacheKafka())
    with running_store(kafka.bootstrap_servers, new_topic()) as store:
        first = register(store, "s", record("R"))
        kafka.kill()
        kafka.start()
        found = []

        def registered() -> bool:
            try:
                found.append(register(store, "s", record("R")))
            except RegistryUnavailable:
                return False
            return True

        until(registered)
        assert found == [first]


def test_after_real_compaction_every_id_is_still_there(launch: Callable[[ApacheKafka], ApacheKafka]) -> None:
    settings = {"log.cleaner.backoff.ms": "100", "log.cleaner.enable": "true", "log.segment.delete.delay.ms": "0"}
    kafka = launch(ApacheKafka(settings=settings))
    topic = new_topic()
    with running_store(kafka.bootstrap_servers, topic) as store:
        resource = ConfigResource(ResourceType.TOPIC, topic)
        for name, value in {
            "segment.ms": "100",
            "min.cleanable.dirty.ratio": "0.01",
            "delete.retention.ms": "0",
        }.items():
            resource.add_incremental_config(ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET))
        client = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
        client.incremental_alter_configs([resource])[resource].result(30)
        for i in range(20):
            register(store, f"s{i % 5}", record(f"R{i % 5}", *[f"f{j}" for j in range(i // 5)]))
        store.write(lambda state: admin.delete_subject(state, "s4", permanent=False))
        store.write(lambda state: admin.delete_subject(state, "s4", permanent=True))
        known = everything(store)
        levels = iter(range(1_000_000))

        def cleaned() -> bool:
            level = ("FULL", "BACKWARD")[next(levels) % 2]
            store.write(lambda state: admin.set_config(state, "any", {"compatibility": level}))
            return sum(b'"NOOP"' in key for key, _ in contents(kafka, topic)) < 5

        until(cleaned)
    with running_store(kafka.bootstrap_servers, topic) as fresh:
        assert everything(fresh) == known
        assert register(fresh, "s0", record("R0", "f0")).id == known["s0"][1][1]


def test_a_topic_that_is_deleted_or_made_again_gives_no_ids_anew(apache_kafka: Kafka) -> None:
    topic = new_topic()
    with running_store(apache_kafka.bootstrap_servers, topic) as store:
        first = register(store, "s", record("R"))
        client = AdminClient({"bootstrap.servers": apache_kafka.bootstrap_servers})
        client.delete_topics([topic])[topic].result(30)
        until(lambda: topic not in client.list_topics(timeout=30).topics)

        def told() -> bool:
            with pytest.raises(RegistryUnavailable) as caught:
                register(store, "s", record("R", "x"))
            return f"{topic} does not exist" in str(caught.value)

        until(told)
        assert store.read(lambda state: state.by_id(first.id)) == first
        create(apache_kafka, topic, cleanup_policy="compact")

        def noticed() -> bool:
            with pytest.raises((RegistryMisconfigured, RegistryUnavailable)):
                register(store, "s", record("R", "x"))
            return isinstance(store.failure, RegistryMisconfigured)

        until(noticed)
        assert [pair for pair in contents(apache_kafka, topic) if b'"SCHEMA"' in pair[0]] == []


class Stallable:
    """A consumer that stops handing out anything, without a word, once it is ``stalled``."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self.stalled = threading.Event()

    def poll(self, timeout: float) -> Any:
        if self.stalled.is_set():
            time.sleep(timeout)  # as poll() waits
            return None
        return self._consumer.poll(timeout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


def test_a_log_that_the_client_stops_reading_is_read_anew(any_kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Stallable] = []
    reading = KafkaLog._reading

    def kept(log: KafkaLog, position: int) -> Any:
        made.append(Stallable(reading(log, position)))
        return made[-1]

    monkeypatch.setattr(KafkaLog, "_reading", kept)
    monkeypatch.setattr(KafkaLog, "patience", 2.0)
    with running_store(any_kafka.bootstrap_servers, new_topic()) as store:
        first = register(store, "a-value", record("a", "x"))
        before = len(made)
        made[-1].stalled.set()
        second = register(store, "b-value", record("b", "x"))
        assert second.id != first.id
        assert everything(store).keys() == {"a-value", "b-value"}
        assert len(made) == before + 1
