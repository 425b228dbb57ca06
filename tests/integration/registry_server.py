"""An embedded registry served over HTTP for a test: a store on a broker, its REST API on a loopback port."""

from __future__ import annotations

import contextlib
import socket
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import uvicorn

from cdc.registry.app import registry_app
from cdc.registry.log import KafkaLog
from cdc.registry.store import SchemaStore


def new_topic() -> str:
    return f"_schemas-{uuid.uuid4().hex[:8]}"


@contextlib.contextmanager
def running_store(bootstrap_servers: str, topic: str) -> Iterator[SchemaStore]:
    store = SchemaStore(KafkaLog({"bootstrap.servers": bootstrap_servers}, topic))
    try:
        store.start()
        yield store
    finally:
        store.close()


@dataclass(frozen=True)
class RunningRegistry:
    url: str
    store: SchemaStore
    topic: str


@contextlib.contextmanager
def running_registry(bootstrap_servers: str, topic: str | None = None) -> Iterator[RunningRegistry]:
    topic = topic or new_topic()
    with running_store(bootstrap_servers, topic) as store, socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(registry_app(store), log_level="warning", lifespan="off", timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield RunningRegistry(f"http://127.0.0.1:{listener.getsockname()[1]}", store, topic)
        finally:
            server.should_exit = True
            thread.join()
