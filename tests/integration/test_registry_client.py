"""`RegistryClient` against the embedded registry, and against servers that misbehave: errors told apart."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from registry_server import RunningRegistry, running_registry

from cdc.errors import CdcError, DataError, FatalError, RetriableError
from cdc.local.kafka import Kafka
from cdc.registry.client import RegistryClient
from cdc.registry.errors import (
    IncompatibleSchema,
    InvalidSchema,
    RegistryMisconfigured,
    RegistryRefused,
    RegistryUnavailable,
    UnknownSchemaId,
)

pytestmark = pytest.mark.integration

V1 = '{"type":"record","name":"User","fields":[{"name":"name","type":"string"}]}'
V2 = V1.replace("]}", ',{"name":"age","type":["null","int"],"default":null}]}')
BAD = V1.replace("]}", ',{"name":"age","type":"int"}]}')


@pytest.fixture(scope="module")
def registry(embedded_kafka: Kafka) -> Iterator[RunningRegistry]:
    with running_registry(embedded_kafka.bootstrap_servers) as registry:
        yield registry


@pytest.fixture
def client(registry: RunningRegistry) -> Iterator[RegistryClient]:
    with RegistryClient(registry.url) as client:
        yield client


def test_schemas_are_registered_found_and_compared(client: RegistryClient, registry: RunningRegistry) -> None:
    first = client.register("a-value", V1)
    assert client.register("a-value", V1) == first
    assert client.compatible("a-value", V2) == []
    assert client.compatible("unknown-value", V2) == []
    assert "READER_FIELD_MISSING_DEFAULT_VALUE" in client.compatible("a-value", BAD)[0]
    with pytest.raises(IncompatibleSchema, match="NONE") as caught:
        client.register("a-value", BAD)
    assert isinstance(caught.value, FatalError)
    assert caught.value.messages[0].startswith("{errorType:'READER_FIELD_MISSING_DEFAULT_VALUE'")
    client.set_compatibility("a-value", "NONE")
    second = client.register("a-value", BAD)
    with RegistryClient(registry.url) as other:
        assert other.schema(first) == ("AVRO", V1)
        assert other.schema(second) == ("AVRO", BAD)
    assert client.register("j-value", '{"type":"object"}', "JSON") > second


def test_a_schema_with_references_comes_complete(client: RegistryClient, registry: RunningRegistry) -> None:
    with SchemaRegistryClient({"url": registry.url}) as confluents:
        confluents.register_schema("inner", Schema('{"type":"enum","name":"n.Inner","symbols":["x"]}'))
        confluents.register_schema(
            "middle",
            Schema(
                '{"type":"record","name":"n.Middle","fields":[{"name":"i","type":"n.Inner"}]}',
                "AVRO",
                [SchemaReference("n.Inner", "inner", 1)],
            ),
        )
        outer = confluents.register_schema(
            "outer",
            Schema(
                '{"type":"record","name":"n.Outer","fields":[{"name":"m","type":"n.Middle"}]}',
                "AVRO",
                [SchemaReference("n.Middle", "middle", 1)],
            ),
        )
    kind, text = client.schema(outer)
    assert kind == "AVRO"
    middle = json.loads(text)["fields"][0]["type"]
    assert middle["fields"][0]["type"] == {"type": "enum", "name": "Inner", "symbols": ["x"]}


def test_an_unknown_id_is_the_records_fault(client: RegistryClient) -> None:
    with pytest.raises(UnknownSchemaId) as caught:
        client.schema(987_654)
    assert caught.value.schema_id == 987_654
    assert isinstance(caught.value, DataError)


def test_a_schema_that_is_none_is_told(client: RegistryClient) -> None:
    with pytest.raises(InvalidSchema, match="not a defined name"):
        client.register("bad-value", '{"type":"recrod"}')


def test_known_schemas_need_no_registry(embedded_kafka: Kafka) -> None:
    with running_registry(embedded_kafka.bootstrap_servers) as registry:
        client = RegistryClient(registry.url)
        known = client.register("s", V1)
        assert client.schema(known) == ("AVRO", V1)
    with client:
        assert client.schema(known) == ("AVRO", V1)
        with pytest.raises(RegistryUnavailable, match="cannot be reached"):
            client.schema(known + 1)
        with pytest.raises(RegistryUnavailable):
            client.register("s", V2)


# -- servers that misbehave ---------------------------------------------------------------------------

Reply = tuple[int, bytes]


class Stub:
    """An HTTP server with one answer; ``seen`` has the requests' headers."""

    def __init__(self) -> None:
        self.reply: Reply = (200, b"{}")
        self.seen: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.gate: threading.Event | None = None
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                stub.seen.append(dict(self.headers))
                stub.paths.append(self.path)
                if stub.gate is not None:
                    stub.gate.wait(60)
                status, body = stub.reply
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = _answer

            def log_message(self, *_args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        if self.gate is not None:
            self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def stub() -> Iterator[Stub]:
    stub = Stub()
    yield stub
    stub.close()


def _told(code: int, message: str = "the reason") -> bytes:
    return json.dumps({"error_code": code, "message": message}).encode()


_REGISTER: Callable[[RegistryClient], Any] = lambda client: client.register("s", V1)  # noqa: E731
_FETCH: Callable[[RegistryClient], Any] = lambda client: client.schema(7)  # noqa: E731
_COMPARE: Callable[[RegistryClient], Any] = lambda client: client.compatible("s", V1)  # noqa: E731
_SET: Callable[[RegistryClient], Any] = lambda client: client.set_compatibility("s", "NONE")  # noqa: E731


@pytest.mark.parametrize(
    ("call", "reply", "error", "text"),
    [
        (_REGISTER, (500, _told(50001)), RegistryUnavailable, "the reason"),
        (_REGISTER, (503, b"<html>busy</html>"), RegistryUnavailable, "503"),
        (_REGISTER, (429, _told(42901)), RegistryUnavailable, "429"),
        (_REGISTER, (401, _told(40101)), RegistryRefused, "basic.auth.user.info"),
        (_REGISTER, (401, b""), RegistryRefused, "basic.auth.user.info"),
        (_REGISTER, (403, _told(40301)), RegistryRefused, "Grant"),
        (_REGISTER, (409, _told(409, "incompatible")), IncompatibleSchema, "incompatible"),
        (_REGISTER, (409, _told(40901, "x, details: [{a}, {b}]")), IncompatibleSchema, "details"),
        (_REGISTER, (422, _told(42201)), InvalidSchema, "the reason"),
        (_REGISTER, (422, _told(42205, "read-only")), RegistryRefused, "read-only"),
        (_REGISTER, (404, b"<html>not here</html>"), RegistryMisconfigured, "schema.registry.url"),
        (_REGISTER, (404, _told(404)), RegistryMisconfigured, "schema.registry.url"),
        (_REGISTER, (200, b"<html>hello</html>"), RegistryMisconfigured, "schema.registry.url"),
        (_REGISTER, (200, b"{}"), RegistryMisconfigured, "without an id"),
        (_REGISTER, (302, b""), RegistryMisconfigured, "redirection"),
        (_FETCH, (404, _told(40403)), UnknownSchemaId, "id 7"),
        (_FETCH, (404, b"not here"), RegistryMisconfigured, "schema.registry.url"),
        (_FETCH, (502, b"bad gateway"), RegistryUnavailable, "502"),
        (_COMPARE, (200, b"{}"), RegistryMisconfigured, "verdict"),
        (_COMPARE, (500, _told(50001)), RegistryUnavailable, "the reason"),
        (_COMPARE, (401, _told(40101)), RegistryRefused, "password"),
        (_SET, (422, _told(42203, "Invalid level")), RegistryRefused, "Invalid level"),
    ],
)
def test_answers_are_told_apart_by_what_helps(
    stub: Stub, call: Callable[[RegistryClient], Any], reply: Reply, error: type[CdcError], text: str
) -> None:
    stub.reply = reply
    with RegistryClient(stub.url) as client, pytest.raises(error, match=text) as caught:
        call(client)
    assert type(caught.value) is error
    assert len(stub.seen) <= 2, "a call is not repeated; one for comparing may try the older path"


def test_a_registry_without_a_verdict_on_all_versions_is_asked_about_the_latest(stub: Stub) -> None:
    stub.reply = (404, _told(404))
    with RegistryClient(stub.url) as client:
        assert client.compatible("s/t", V1) == []
    assert stub.paths == [
        "/compatibility/subjects/s%2Ft/versions?verbose=true",
        "/compatibility/subjects/s%2Ft/versions/latest?verbose=true",
    ]


def test_an_incompatible_verdict_without_reasons_is_still_one(stub: Stub) -> None:
    stub.reply = (200, b'{"is_compatible":false}')
    with RegistryClient(stub.url) as client:
        assert client.compatible("s", V1) == ["the registry gives no reason"]


def test_a_registry_that_does_not_answer_is_given_up_in_time(stub: Stub) -> None:
    stub.gate = threading.Event()
    with (
        RegistryClient(stub.url, {"http.read.timeout.ms": "200"}) as client,
        pytest.raises(RegistryUnavailable, match="cannot be reached") as caught,
    ):
        client.register("s", V1)
    assert isinstance(caught.value, RetriableError)


def test_the_next_address_is_asked_when_one_is_away(registry: RunningRegistry) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with RegistryClient(f"{closed},{registry.url}") as client:
        assert client.register("two-addresses", V1) > 0


@pytest.mark.parametrize(
    ("conf", "header"),
    [
        ({"basic.auth.user.info": "me:PASS"}, "Basic " + b64encode(b"me:PASS").decode()),
        ({"bearer.auth.token": "PASS"}, "Bearer PASS"),
    ],
)
def test_credentials_are_sent_and_never_told(
    stub: Stub, conf: dict[str, str], header: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    stub.reply = (401, _told(40101))
    with RegistryClient(stub.url, conf) as client, pytest.raises(RegistryRefused) as caught:
        client.register("s", V1)
    assert stub.seen[0]["Authorization"] == header
    assert "PASS" not in str(caught.value) + caplog.text


def test_a_password_in_the_address_is_sent_and_never_told(stub: Stub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    stub.reply = (500, _told(50001))
    with (
        RegistryClient(f"http://me:PASS@127.0.0.1:{stub.port}") as client,
        pytest.raises(RegistryUnavailable) as caught,
    ):
        client.register("s", V1)
    assert stub.seen[0]["Authorization"] == "Basic " + b64encode(b"me:PASS").decode()
    assert "PASS" not in str(caught.value) + caplog.text + repr(client)
    with RegistryClient("http://me:PASS@127.0.0.1:1") as client, pytest.raises(RegistryUnavailable) as caught:
        client.register("s", V1)
    assert "PASS" not in str(caught.value) + caplog.text


def test_an_id_that_is_not_known_is_not_asked_for_again_at_once(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A topic may have very many records with it; and a schema may come later."""
    with RegistryClient(stub.url) as client:
        stub.reply = 404, _told(40403)
        with pytest.raises(UnknownSchemaId):
            client.schema(7)
        stub.reply = 200, b'{"schema": "\\"string\\""}'
        with pytest.raises(UnknownSchemaId) as caught:
            client.schema(7)
        assert caught.value.schema_id == 7
        monkeypatch.setattr(client, "_unknown", {7: (time.monotonic() - 1, "it was not there")})
        assert client.schema(7) == ("AVRO", '"string"')
