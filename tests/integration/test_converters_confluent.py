"""Confluent's own serializers and ours read what the other writes, on the embedded registry over HTTP.

Its registry is in memory: what these tests take from it is true of one on a broker (``test_registry_serializers.py``).
"""

from __future__ import annotations

import importlib.util
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
from confluent_kafka.schema_registry import SchemaRegistryClient, topic_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from cdc.converters.avro import AvroConverter
from cdc.converters.json_schema_converter import JsonSchemaConverter
from cdc.converters.protobuf_converter import ProtobufConverter
from cdc.registry.app import registry_app
from cdc.registry.client import RegistryClient
from tests.unit.converter_parts import NOW, Memory, change, column, shape
from tests.unit.registry_memory import MemoryTopic

pytestmark = pytest.mark.integration


def _there(*names: str) -> bool:
    try:
        return all(importlib.util.find_spec(name) for name in names)
    except ModuleNotFoundError:  # of a package that the module would be in
        return False


NEEDS_PROTOBUF = pytest.mark.skipif(not _there("google.protobuf"), reason="the package protobuf is missing")
NEEDS_CONFLUENTS_PROTOBUF = pytest.mark.skipif(
    not _there("google.protobuf.descriptor_pb2", "google.type.date_pb2"),
    reason="the packages protobuf and googleapis-common-protos are missing",
)
NEEDS_JSONSCHEMA = pytest.mark.skipif(not _there("jsonschema"), reason="the package jsonschema is missing")
ALL = [AvroConverter, JsonSchemaConverter, pytest.param(ProtobufConverter, marks=NEEDS_PROTOBUF)]
TOPIC = "shop.public.orders"
CONTEXT = SerializationContext(TOPIC, MessageField.VALUE)
STRATEGY = {"subject.name.strategy": topic_subject_name_strategy}
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    topic = MemoryTopic()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(registry_app(topic.store()), log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()
    topic.close()


@pytest.fixture
def client(url: str) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": url, "max.retries": 0}) as client:
        yield client


@pytest.fixture
def make(url: str) -> Iterator[Make]:
    """Makes converters on the registry, and closes them."""
    made: list[Any] = []

    def make(kind: type, *, is_key: bool = False) -> Any:
        converter = kind()
        converter.configure({"schema.registry.url": url}, is_key=is_key)
        made.append(converter)
        return converter

    yield make
    for converter in made:
        converter.close()


def _orders(topic: str) -> Any:
    columns = column("id", 23), column("name", 25, optional=True), column("price", 1700, (10 << 16 | 2) + 4)
    return shape(*columns, topic=topic)


@pytest.mark.parametrize("kind", ALL)
def test_rows_and_keys_go_through_a_registry(make: Make, kind: type, url: str) -> None:
    of = _orders(f"{kind.__name__}.public.orders")
    write, memory = make(kind).value_encoder(of), Memory()
    schema, value = make(kind).to_connect(of.topic, write(change(of, b"7", None, b"1.50"), NOW))
    assert schema == of.envelope_schema
    assert value["after"] == {"id": 7, "name": None, "price": b"\x00\x96"}
    first = make(kind, is_key=True).key_encoder(of, memory)(change(of, b"7", None, b"1.50"))
    again = make(kind, is_key=True).key_encoder(of, memory)(change(of, b"7", b"x", b"1.50"))
    assert first == again
    assert make(kind, is_key=True).to_connect(of.topic, first) == (of.key_schema, {"id": 7})
    changed = shape(column("id", 25), topic=of.topic, key=())
    write = make(kind).value_encoder(changed)  # incompatible: the subject's level becomes NONE
    assert make(kind).to_connect(of.topic, write(change(changed, b"x"), NOW))[1]["after"] == {"id": "x"}
    with RegistryClient(url) as registry:
        assert registry.compatible(f"{of.topic}-value", "{}", "JSON") == []


def test_confluents_avro_deserializer_reads_ours_and_we_read_its(make: Make, client: SchemaRegistryClient) -> None:
    of = _orders(TOPIC)
    data = make(AvroConverter).value_encoder(of)(change(of, b"7", b"x", b"1.50"), NOW)
    assert AvroDeserializer(client)(data, CONTEXT)["after"]["name"] == "x"
    text = '{"type":"record","name":"A","fields":[{"name":"n","type":["null","long"]}]}'
    theirs = AvroSerializer(client, text, conf=STRATEGY)({"n": 5}, SerializationContext("a", MessageField.VALUE))
    schema, value = make(AvroConverter).to_connect("a", theirs)
    assert value == {"n": 5}
    assert schema.fields[0].schema.optional


@NEEDS_JSONSCHEMA
def test_confluents_json_deserializer_reads_ours_and_we_read_its(make: Make, client: SchemaRegistryClient) -> None:
    from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer

    of = _orders("json")
    data = make(JsonSchemaConverter).value_encoder(of)(change(of, b"7", b"x", b"1.50"), NOW)
    context = SerializationContext("json", MessageField.VALUE)
    read = JSONDeserializer(None, schema_registry_client=client, conf=STRATEGY)(data, context)
    assert read["after"] == {"id": 7, "name": "x", "price": "AJY="}
    text = '{"type":"object","title":"A","properties":{"n":{"type":"integer"},"f":{"type":"number"}}}'
    context = SerializationContext("a-json", MessageField.VALUE)
    theirs = JSONSerializer(text, client, conf=STRATEGY)({"n": 5, "f": 1.5}, context)
    schema, value = make(JsonSchemaConverter).to_connect("a-json", theirs)
    assert schema.name == "A"
    assert value == {"n": 5, "f": 1.5}


@NEEDS_CONFLUENTS_PROTOBUF
def test_confluents_protobuf_deserializer_reads_ours_and_we_read_its(make: Make, client: SchemaRegistryClient) -> None:
    from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
    from google.protobuf import message_factory, wrappers_pb2

    from cdc.codec.protobuf_plan import ProtobufFile
    from cdc.codec.protobuf_schema import protobuf_text

    of = _orders("proto")
    data = make(ProtobufConverter).value_encoder(of)(change(of, b"7", b"x", b"1.50"), NOW)
    file = ProtobufFile(protobuf_text(of.envelope_schema))
    envelope = message_factory.GetMessageClass(file._descriptor((0,)))
    context = SerializationContext("proto", MessageField.VALUE)
    conf = {**STRATEGY, "use.deprecated.format": False}
    read = ProtobufDeserializer(envelope, conf, client)(data, context)
    assert read.after.name == "x"
    theirs = SerializationContext("theirs", MessageField.VALUE)
    written = ProtobufSerializer(wrappers_pb2.StringValue, client, conf)(wrappers_pb2.StringValue(value="x"), theirs)
    assert make(ProtobufConverter).to_connect("theirs", written)[1] == {"value": "x"}
