"""The Avro converter against the registry over HTTP: what its own tests take from a fake is true of the real one."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import uvicorn

from cdc.codec.envelope import row_shape
from cdc.converters.avro import AvroConverter
from cdc.errors import FatalError
from cdc.postgres.types import TypeModes, resolve
from cdc.record import Column, RowChange, RowShape, Transaction
from cdc.registry.app import registry_app
from cdc.registry.client import RegistryClient
from tests.unit.registry_memory import MemoryTopic

pytestmark = pytest.mark.integration


class _Memory(dict[str, Mapping[str, Any]]):
    def put(self, topic: str, state: Mapping[str, Any]) -> None:
        self[topic] = state


@pytest.fixture
def url() -> Iterator[str]:
    topic = MemoryTopic()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(registry_app(topic.store()), log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()
    topic.close()


@pytest.fixture
def make(url: str) -> Iterator[Callable[..., AvroConverter]]:
    """Makes converters with the given properties, and closes them."""
    made: list[AvroConverter] = []

    def make(**config: str) -> AvroConverter:
        converter = AvroConverter()
        properties = {key.replace("_", "."): value for key, value in config.items()}
        converter.configure({"schema.registry.url": url} | properties, is_key=True)
        made.append(converter)
        return converter

    yield make
    for converter in made:
        converter.close()


@pytest.fixture
def client(url: str) -> Iterator[RegistryClient]:
    with RegistryClient(url) as client:
        yield client


Make = Callable[..., AvroConverter]


def _shape(*oids: int) -> RowShape:
    columns = []
    for at, oid in enumerate(oids):
        mapping = resolve(oid, -1, {}, TypeModes())
        columns.append(Column(f"c{at}", mapping.schema, mapping.kind, mapping.params))
    return row_shape("shop.public.orders", "shop", "public", "orders", columns, [0], "shop")


def _key(converter: AvroConverter, shape: RowShape, memory: _Memory) -> bytes | None:
    row: list[Any] = [b"1"] * len(shape.columns)
    return converter.key_encoder(shape, memory)(
        RowChange(shape, "c", row, None, row, Transaction(1, 2, 3, 4, None), 5, 0, 0)
    )


def test_a_subject_that_forbids_a_change_is_set_to_none(make: Make, client: RegistryClient) -> None:
    converter = make()
    converter.value_encoder(_shape(23))
    client.set_compatibility("shop.public.orders-value", "BACKWARD")
    before = client.latest("shop.public.orders-value")
    converter.value_encoder(_shape(25))
    assert client.latest("shop.public.orders-value") != before


def test_keys_outlive_a_lost_memory(make: Make) -> None:
    first, later = _Memory(), _Memory()
    key = _key(make(), _shape(23), first)
    assert _key(make(avro_logical_types="false"), _shape(23, 25), later) == key
    assert first == later


def test_an_emptied_registry_stops_the_connector(make: Make) -> None:
    schema = (
        '{"type":"record","name":"Key","namespace":"shop.public.orders","fields":[{"name":"c0","type":"int"}],'
        '"connect.name":"shop.public.orders.Key"}'
    )
    memory = _Memory({"shop.public.orders": {"id": 77, "schema": schema}})
    with pytest.raises(FatalError, match="keys carry schema id 77"):
        _key(make(), _shape(23), memory)


def test_nothing_is_registered_when_it_must_not(make: Make, client: RegistryClient) -> None:
    converter = make(auto_register_schemas="false")
    with pytest.raises(FatalError, match=r"look up a schema of subject shop\.public\.orders-value"):
        converter.value_encoder(_shape(23))
    with pytest.raises(FatalError, match=r"look up a schema of subject shop\.public\.orders-key"):
        _key(converter, _shape(23), _Memory())
    assert client.latest("shop.public.orders-key") is None
    make().value_encoder(_shape(23))
    converter.value_encoder(_shape(23))
    key = _key(make(), _shape(23), _Memory())
    assert _key(converter, _shape(23), _Memory()) == key
