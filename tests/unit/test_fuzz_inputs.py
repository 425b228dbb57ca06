"""What people and programs hand in, given broken: configuration files, and requests to the listener."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest
from fuzzing import broken, broken_text
from hypothesis import given, settings
from hypothesis import strategies as st
from passwords import password

from cdc.config import loads
from cdc.errors import ConfigError
from cdc.runtime.listener import Listener

EXAMPLES = settings(max_examples=10)
SECRET = password("config")
YAML = f"""\
worker:
  bootstrap.servers: k:9092
  sasl.jaas.config: 'org.apache.kafka.common.security.plain.PlainLoginModule required username="u" password="{SECRET}";'
connectors:
  shop: &shop
    connector.class: postgres
    database.user: cdc
    database.password: "{SECRET}"
    database.dbname: shop
    topic.prefix: shop
    table.include.list: [public.customers, public.orders]
  cache:
    connector.class: redis
    topics.regex: shop\\..*
    redis.uri: redis://u:{SECRET}@localhost:6379/0
    redis.key: "{{table}}:{{pk}}"
"""
SINK = {
    "name": "cache",
    "connector.class": "com.redis.kafka.connect.RedisSinkConnector",
    "topics": "a,b",
    "redis.password": SECRET,
    "transforms": "unwrap",
}
WORKER = f"bootstrap.servers=k:9092\nsasl.password={SECRET}\n"
PROPERTIES = "".join(f"{name}={value}\n" for name, value in SINK.items())


def read(texts: dict[str, str]) -> None:
    """Valid, or told by findings. (What of a damaged file is secret nobody can say: `test_config_secrets`.)"""
    said = ""
    try:
        said = repr(loads(texts, {}))
    except ConfigError as error:
        said = "\n".join(f"{finding} {finding.key} {finding.remedy}" for finding in error.findings)
    assert said


@given(broken_text([YAML]))
@EXAMPLES
def test_yaml(text: str) -> None:
    read({"bridge.yaml": text})


@given(broken_text([json.dumps({"name": "cache", "config": SINK}), json.dumps(SINK)]))
@EXAMPLES
def test_json(text: str) -> None:
    read({"worker.properties": WORKER, "cache.json": text})


@given(broken_text([PROPERTIES]), broken_text([WORKER]))
@EXAMPLES
def test_properties(connector: str, worker: str) -> None:
    read({"worker.properties": worker, "cache.properties": connector})


def test_a_number_of_very_many_digits_in_json_is_no_fault_of_the_program() -> None:
    read({"worker.properties": WORKER, "cache.json": json.dumps(SINK).replace('"a,b"', "9" * 5000)})


@pytest.mark.parametrize("levels", [900, 990, 3000])
def test_nesting_that_nobody_writes(levels: int) -> None:
    text = json.dumps(SINK).replace('"a,b"', "[" * levels + "]" * levels)
    read({"worker.properties": WORKER, "cache.json": text})
    read({"bridge.yaml": YAML.replace("[public.customers, public.orders]", "[" * levels + "]" * levels)})


# --- requests ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    made = Listener("http://127.0.0.1:0", lambda: ("healthy", "well"), lambda: "cluster")
    made.start()
    yield made
    made.stop()


def answered(listener: Listener, request: bytes, *, ends: bool = False) -> bytes:
    """What comes back until the connection is closed, by us if the request ``ends``."""
    with socket.create_connection(("127.0.0.1", listener.port), timeout=30) as connection:
        connection.sendall(request)
        if ends:
            connection.shutdown(socket.SHUT_WR)
        found = b""
        while data := connection.recv(65536):
            found += data
        return found


REQUESTS = [
    b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nabcde",
    b"GET /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
]


@given(broken(REQUESTS) | st.binary(max_size=200))
@settings(max_examples=30)
def test_requests_to_the_listener(listener: Listener, request: bytes) -> None:
    found = answered(listener, request, ends=True)
    assert b" 500 " not in found.split(b"\r\n", 1)[0]
    assert b"Traceback" not in found
    assert answered(listener, REQUESTS[0]).startswith(b"HTTP/1.1 200")
