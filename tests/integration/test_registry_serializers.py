"""Confluent's own client and serializers against the embedded registry, over HTTP, on real brokers."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from confluent_kafka.schema_registry import (
    Schema,
    SchemaReference,
    SchemaRegistryClient,
    dual_schema_id_deserializer,
    header_schema_id_serializer,
    topic_subject_name_strategy,
)
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext
from registry_server import RunningRegistry, running_registry

from cdc.local.kafka import Kafka

pytestmark = pytest.mark.integration

V1 = '{"type":"record","name":"User","namespace":"shop","fields":[{"name":"name","type":"string"}]}'
V2 = V1.replace("]}", ',{"name":"age","type":["null","int"],"default":null}]}')
BAD = V1.replace("]}", ',{"name":"age","type":"int"}]}')


@pytest.fixture(scope="module", params=["embedded_kafka", "apache_kafka"])
def registry(request: pytest.FixtureRequest) -> Iterator[RunningRegistry]:
    kafka: Kafka = request.getfixturevalue(request.param)
    with running_registry(kafka.bootstrap_servers) as registry:
        yield registry


def confluents(registry: RunningRegistry) -> SchemaRegistryClient:
    return SchemaRegistryClient({"url": registry.url, "max.retries": 0, "timeout": 20})


@pytest.fixture
def client(registry: RunningRegistry) -> Iterator[SchemaRegistryClient]:
    with confluents(registry) as client:
        yield client


@pytest.mark.parametrize("strategy", ["the default", "topic"])
def test_what_is_serialized_with_one_client_is_read_with_another(registry: RunningRegistry, strategy: str) -> None:
    conf = {} if strategy == "the default" else {"subject.name.strategy": topic_subject_name_strategy}
    topic = f"users-{strategy}"
    context = SerializationContext(topic, MessageField.VALUE)
    with confluents(registry) as writers, confluents(registry) as readers:
        older = AvroSerializer(writers, V1, conf=conf)({"name": "Ada"}, context)
        newer = AvroSerializer(writers, V2, conf=conf)({"name": "Ada", "age": 36}, context)
        assert older is not None
        assert newer is not None
        assert older[0] == newer[0] == 0
        read = AvroDeserializer(readers)
        assert read(older, context) == {"name": "Ada"}
        assert read(newer, context) == {"name": "Ada", "age": 36}
        evolved = AvroDeserializer(readers, V2)
        assert evolved(older, context) == {"name": "Ada", "age": None}
        assert readers.get_versions(f"{topic}-value") == [1, 2]
        with pytest.raises(SchemaRegistryError, match="TYPE_MISMATCH"):
            AvroSerializer(writers, BAD, conf=conf)({"name": "Ada", "age": 1}, context)


def test_schema_ids_travel_in_headers_as_guids(registry: RunningRegistry) -> None:
    headers: list[tuple[str, str | bytes | None]] = []
    context = SerializationContext("by-guid", MessageField.VALUE, headers)
    with confluents(registry) as writers, confluents(registry) as readers:
        write = AvroSerializer(writers, V1, conf={"schema.id.serializer": header_schema_id_serializer})
        payload = write({"name": "Grace Hopper"}, context)
        assert [name for name, _ in headers] == ["__value_schema_id"]
        read = AvroDeserializer(readers, conf={"schema.id.deserializer": dual_schema_id_deserializer})
        assert read(payload, context) == {"name": "Grace Hopper"}


def test_registration_by_look_up_only(client: SchemaRegistryClient) -> None:
    context = SerializationContext("known", MessageField.VALUE)
    conf = {"auto.register.schemas": False}
    with pytest.raises(SchemaRegistryError, match="40401"):
        AvroSerializer(client, V1, conf=conf)({"name": "x"}, context)
    client.register_schema("known-value", Schema(V1))
    assert AvroSerializer(client, V1, conf=conf)({"name": "x"}, context) is not None
    latest = {"auto.register.schemas": False, "use.latest.version": True}
    assert AvroSerializer(client, V1, conf=latest)({"name": "x"}, context) is not None


def test_a_schema_with_references_is_serialized(client: SchemaRegistryClient) -> None:
    client.register_schema(
        "address", Schema('{"type":"record","name":"shop.Address","fields":[{"name":"city","type":"string"}]}')
    )
    customer = Schema(
        '{"type":"record","name":"shop.Customer","fields":[{"name":"home","type":"shop.Address"}]}',
        "AVRO",
        [SchemaReference("shop.Address", "address", 1)],
    )
    context = SerializationContext("customers", MessageField.VALUE)
    value = {"home": {"city": "Wien"}}
    payload = AvroSerializer(client, customer)(value, context)
    assert AvroDeserializer(client)(payload, context) == value
    assert client.get_referenced_by("address", 1) == [client.get_latest_version("customers-value").schema_id]


def test_everything_the_client_can_ask(client: SchemaRegistryClient, registry: RunningRegistry) -> None:
    subject = "a/ü b-value"
    schema_id = client.register_schema(subject, Schema(V1))
    assert (
        client.register_schema(subject, Schema(json.dumps(json.loads(V1), indent=2)), normalize_schemas=True)
        == schema_id
    )
    assert client.get_schema(schema_id).schema_str == V1
    with confluents(registry) as other:
        assert other.get_schema(schema_id, subject_name=subject).schema_str == V1
    assert client.lookup_schema(subject, Schema(V1)).version == 1
    assert subject in client.get_subjects()
    assert subject in client.get_subjects_by_schema_id(schema_id)
    assert (subject, 1) in [(use.subject, use.version) for use in client.get_schema_versions(schema_id)]
    assert client.get_version(subject, 1).schema_id == schema_id
    assert client.test_compatibility(subject, Schema(V2)) is True
    assert client.test_compatibility(subject, Schema(BAD), verbose=True) is False
    assert client.test_compatibility_all_versions(subject, Schema(BAD)) is False
    client.set_compatibility(subject, "NONE")
    assert client.get_compatibility(subject) == "NONE"
    assert client.get_compatibility() == "BACKWARD"
    assert client.register_schema(subject, Schema(BAD)) > schema_id
    client.delete_config(subject)
    assert client.get_global_mode() == "READWRITE"
    client.update_mode(subject, "READONLY")
    assert client.get_mode(subject) == "READONLY"
    client.delete_mode(subject)
    assert client.get_contexts() == ["."]
    assert sorted(client.get_schema_types()) == ["AVRO", "JSON", "PROTOBUF"]
    assert client.delete_version(subject, 1) == 1
    assert client.delete_subject(subject) == [2]
    assert client.delete_subject(subject, permanent=True) == [1, 2]
    assert subject not in client.get_subjects(deleted=True)


def _raw(registry: RunningRegistry, body: bytes) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(urlsplit(registry.url).netloc, timeout=60)
    try:
        connection.request("POST", "/subjects/raw/versions", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_a_body_of_ten_megabytes_has_its_answer_on_a_real_connection(registry: RunningRegistry) -> None:
    status, answer = _raw(registry, b'{"schema":"' + b"x" * 10_000_000 + b'"}')
    assert (status, answer["error_code"]) == (413, 413)
    status, answer = _raw(registry, b"\x00\xff")
    assert (status, answer["error_code"]) == (400, 400)
