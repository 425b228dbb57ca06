"""The REST API: Confluent's paths, bodies and codes; any input has an answer, and none is a 500."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from registry_memory import MemoryTopic
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from cdc.registry.app import registry_app, registry_routes

V1 = '{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}'
V2 = '{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"b","type":"int","default":0}]}'
BAD = '{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"b","type":"int"}]}'


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    @property
    def error(self) -> tuple[int, int]:
        return self.status, self.body["error_code"]


class Client:
    """Calls an ASGI application with paths as they stand on the wire."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def __call__(self, method: str, target: str, body: Any = None) -> Answer:
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        path, _, query = target.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": _unquoted(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [],
            "scheme": "http",
            "server": ("127.0.0.1", 80),
        }
        chunks = [raw[i : i + 65536] for i in range(0, len(raw), 65536)] or [b""]
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            await anyio.lowlevel.checkpoint()
            return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

        async def send(message: Any) -> None:
            await anyio.lowlevel.checkpoint()
            sent.append(message)

        anyio.run(self._app, scope, receive, send)
        headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:]))

    def register(self, subject: str, schema: str, **fields: Any) -> Answer:
        return self("POST", f"/subjects/{quote(subject, safe='')}/versions", {"schema": schema, **fields})


def _unquoted(path: str) -> str:
    from urllib.parse import unquote

    return unquote(path)


@pytest.fixture(scope="module")
def shared() -> Iterator[Client]:
    """One registry for tests that leave nothing behind, or subjects of their own."""
    topic = MemoryTopic()
    yield Client(registry_app(topic.store()))
    topic.close()


@pytest.fixture
def topic() -> Iterator[MemoryTopic]:
    topic = MemoryTopic()
    yield topic
    topic.close()


@pytest.fixture
def http(topic: MemoryTopic) -> Client:
    return Client(registry_app(topic.store()))


def test_a_registry_from_the_first_schema_to_the_last(http: Client) -> None:
    assert http("GET", "/").body == {}
    assert http("GET", "/subjects").body == []
    first = http.register("orders-value", V1)
    assert (first.status, first.body["id"], first.body["version"]) == (200, 1, 1)
    assert first.headers["content-type"].startswith("application/vnd.schemaregistry.v1+json")
    assert http.register("orders-value", V2).body["id"] == 2
    assert http.register("returns-value", V1).body == {"id": 1, "version": 1, "guid": first.body["guid"]}
    assert http("GET", "/subjects").body == ["orders-value", "returns-value"]
    assert http("GET", "/subjects?subjectPrefix=or").body == ["orders-value"]
    assert http("GET", "/subjects?offset=1&limit=1").body == ["returns-value"]
    assert http("GET", "/subjects/orders-value/versions").body == [1, 2]
    entity = {
        "subject": "orders-value",
        "version": 2,
        "id": 2,
        "guid": http("GET", "/schemas/ids/2").body["guid"],
        "schemaType": "AVRO",
        "schema": V2,
    }
    for version in ("2", "latest", "-1"):
        assert http("GET", f"/subjects/orders-value/versions/{version}").body == entity
    assert http("GET", "/subjects/orders-value/versions/1/schema").raw.decode() == V1
    assert http("POST", "/subjects/orders-value", {"schema": V2}).body == entity
    assert http("GET", "/schemas/ids/1").body["schema"] == V1
    assert http("GET", "/schemas/ids/1?fetchMaxId=true").body["maxId"] == 2
    assert http("GET", "/schemas/ids/2/schema").raw.decode() == V2
    assert http("GET", "/schemas/ids/1/subjects").body == ["orders-value", "returns-value"]
    assert http("GET", "/schemas/ids/1/versions").body == [
        {"subject": "orders-value", "version": 1},
        {"subject": "returns-value", "version": 1},
    ]
    assert http("GET", f"/schemas/guids/{first.body['guid']}").body["id"] == 1
    assert [schema["version"] for schema in http("GET", "/schemas?subjectPrefix=orders").body] == [1, 2]
    assert [schema["version"] for schema in http("GET", "/schemas?latestOnly=true").body] == [2, 1]
    assert http("GET", "/schemas/types").body == ["JSON", "PROTOBUF", "AVRO"]
    assert http("GET", "/contexts").body == ["."]
    assert http("DELETE", "/subjects/orders-value/versions/1").body == 1
    assert http("GET", "/subjects/orders-value/versions?deleted=true").body == [1, 2]
    assert http("GET", "/subjects/orders-value/versions?deletedOnly=true").body == [1]
    assert http("GET", "/subjects/orders-value/versions/1?deleted=true").body["id"] == 1
    assert http("DELETE", "/subjects/orders-value/versions/1?permanent=true").body == 1
    assert http("DELETE", "/subjects/orders-value").body == [2]
    assert http("GET", "/subjects?deletedOnly=true").body == ["orders-value"]
    assert http("GET", "/schemas/ids/2").body["schema"] == V2
    assert http("DELETE", "/subjects/orders-value?permanent=true").body == [2]
    assert http("GET", "/schemas/ids/2").error == (404, 40403)
    assert http("GET", "/subjects?deleted=true").body == ["returns-value"]


def test_levels_and_modes(http: Client) -> None:
    assert http("GET", "/config").body == {"compatibilityLevel": "BACKWARD"}
    assert http("GET", "/config/s").error == (404, 40408)
    assert http("GET", "/config/s?defaultToGlobal=true").body == {"compatibilityLevel": "BACKWARD"}
    assert http("PUT", "/config", {"compatibility": "full"}).body == {"compatibility": "FULL"}
    assert http("PUT", "/config/s", {"compatibility": "NONE"}).body == {"compatibility": "NONE"}
    assert http("GET", "/config/s").body == {"compatibilityLevel": "NONE"}
    assert http("DELETE", "/config/s").body == {"compatibilityLevel": "NONE"}
    assert http("DELETE", "/config").body == {"compatibilityLevel": "FULL"}
    assert http("PUT", "/config", {"compatibility": "x"}).error == (422, 42203)
    assert http("GET", "/mode").body == {"mode": "READWRITE"}
    assert http("GET", "/mode/s").error == (404, 40409)
    assert http("PUT", "/mode/s", {"mode": "READONLY"}).body == {"mode": "READONLY"}
    assert http.register("s", V1).error == (422, 42205)
    assert http("DELETE", "/mode/s").body == {"mode": "READONLY"}
    assert http("PUT", "/mode", {"mode": "x"}).error == (422, 42204)
    assert http("PUT", "/mode", {}).error == (422, 422)


def test_compatibility_is_checked_on_request_and_on_registration(http: Client) -> None:
    http.register("s", V1)
    place = "/compatibility/subjects/s/versions"
    assert http("POST", f"{place}/latest", {"schema": V2}).body == {"is_compatible": True}
    told = http("POST", f"{place}/latest?verbose=true", {"schema": BAD}).body
    assert told["is_compatible"] is False
    assert "READER_FIELD_MISSING_DEFAULT_VALUE" in told["messages"][0]
    assert http("POST", f"{place}?verbose=true", {"schema": V2}).body == {"is_compatible": True, "messages": []}
    assert http("POST", f"{place}/7", {"schema": V2}).error == (404, 40402)
    assert http("POST", f"{place}/latest", {"schema": "{"}).error == (422, 42201)
    assert http("POST", f"{place}/latest?verbose=true", {"schema": "{"}).body["is_compatible"] is False
    refused = http.register("s", BAD)
    assert refused.error == (409, 409)
    assert "incompatible with an earlier schema" in refused.body["message"]


def test_references_travel_both_ways(http: Client) -> None:
    http.register("r", V1)
    references = [{"name": "R", "subject": "r", "version": 1}]
    user = '{"type":"record","name":"U","fields":[{"name":"r","type":"R"}]}'
    assert http.register("u", user, references=references).body["id"] == 2
    assert http("GET", "/subjects/u/versions/1").body["references"] == references
    assert http("GET", "/subjects/r/versions/1/referencedby").body == [2]
    assert http("DELETE", "/subjects/r/versions/1").error == (422, 42206)


@pytest.mark.parametrize(
    "subject", ["a/b", "a%2Fb", "naïve 名", "a b+c", "a/versions/1", ":.ctx:a", "..", "a?b#c", "versions"]
)
def test_any_name_makes_the_round_trip(shared: Client, subject: str) -> None:
    found = shared.register(subject, V1)
    assert found.status == 200
    path = f"/subjects/{quote(subject, safe='')}"
    assert shared("GET", f"{path}/versions").body == [1]
    assert shared("GET", f"{path}/versions/latest").body["subject"] == subject
    assert subject in shared("GET", "/subjects").body
    assert shared("PUT", f"/config/{quote(subject, safe='')}", {"compatibility": "NONE"}).status == 200
    assert shared("POST", path, {"schema": V1}).body["version"] == 1


@pytest.mark.parametrize(
    ("method", "target", "body", "error"),
    [
        ("POST", "/subjects/s/versions", b"", (400, 400)),
        ("POST", "/subjects/s/versions", b"{", (400, 400)),
        ("POST", "/subjects/s/versions", b"\xff\xfe", (400, 400)),
        ("POST", "/subjects/s/versions", b"[" * 100_000, (400, 400)),
        ("POST", "/subjects/s/versions", b"9" * 10_000, (400, 400)),
        ("POST", "/subjects/s/versions", b'{"schema":"\\ud800"}', (400, 400)),
        ("POST", "/subjects/s/versions", [], (400, 400)),
        ("POST", "/subjects/s/versions", {}, (422, 42201)),
        ("POST", "/subjects/s/versions", {"schema": None}, (422, 42201)),
        ("POST", "/subjects/s/versions", {"schema": 5}, (400, 400)),
        ("POST", "/subjects/s/versions", {"schema": True}, (400, 400)),
        ("POST", "/subjects/s/versions", {"schema": {"type": "int"}}, (400, 400)),
        ("POST", "/subjects/s/versions", {"schema": V1, "schemaType": 1}, (400, 400)),
        ("POST", "/subjects/s/versions", {"schema": V1, "schemaType": "XML"}, (422, 42201)),
        ("POST", "/subjects/s/versions", {"schema": V1, "references": "r"}, (400, 400)),
        ("POST", "/subjects/s/versions", {"schema": V1, "references": [1]}, (400, 400)),
        ("POST", "/subjects/s/versions", {"schema": V1, "references": [{"name": "n"}]}, (400, 400)),
        ("POST", "/subjects/s/versions", {"schema": V1, "id": "1"}, (400, 400)),
        ("POST", "/subjects/s/versions", {"schema": V1, "id": 2**31}, (400, 400)),
        ("POST", "/subjects/s/versions", {"schema": V1, "id": 5}, (422, 42205)),
        ("POST", "/subjects/s/versions", {"schema": V1, "metadata": {"properties": {}}}, (422, 42201)),
        ("POST", "/subjects/%00/versions", {"schema": V1}, (422, 42208)),
        ("POST", "/subjects/%ff/versions", {"schema": V1}, (422, 42208)),
        ("POST", "/subjects/missing", {"schema": V1}, (404, 40401)),
        ("GET", "/subjects/missing/versions", None, (404, 40401)),
        ("GET", "/subjects/missing/versions/1", None, (404, 40401)),
        ("GET", "/subjects/missing/versions/0", None, (422, 42202)),
        ("GET", "/subjects/missing/versions/-2", None, (422, 42202)),
        ("GET", "/subjects/missing/versions/2147483648", None, (422, 42202)),
        ("GET", "/subjects/missing/versions/one", None, (422, 42202)),
        ("GET", "/subjects/missing/versions/%D9%A1", None, (422, 42202)),
        ("DELETE", "/subjects/missing", None, (404, 40401)),
        ("DELETE", "/subjects/missing/versions/1", None, (404, 40401)),
        ("GET", "/subjects?offset=x", None, (400, 400)),
        ("GET", "/subjects?offset=-1", None, (400, 400)),
        ("GET", "/schemas/ids/99", None, (404, 40403)),
        ("GET", "/schemas/ids/99/schema", None, (404, 40403)),
        ("GET", "/schemas/ids/99/subjects", None, (404, 40403)),
        ("GET", "/schemas/ids/99/versions", None, (404, 40403)),
        ("GET", "/schemas/ids/one", None, (404, 404)),
        ("GET", "/schemas/ids/99999999999", None, (404, 404)),
        ("GET", "/schemas/guids/nope", None, (404, 40403)),
        ("GET", "/nothing", None, (404, 404)),
        ("PUT", "/subjects", {}, (405, 405)),
        ("PUT", "/config/s", b"", (400, 400)),
        ("PUT", "/config/s", {"compatibility": "FULL", "alias": "x"}, (422, 422)),
        ("PUT", "/mode/s", {"mode": 5}, (400, 400)),
        ("DELETE", "/config/missing", None, (404, 40401)),
        ("DELETE", "/mode/missing", None, (404, 40401)),
    ],
)
def test_bad_requests_are_told_what_is_wrong(
    shared: Client, method: str, target: str, body: Any, error: tuple[int, int]
) -> None:
    found = shared(method, target, body)
    assert found.error == error
    assert found.body["message"]


def test_a_body_of_ten_megabytes_is_refused_and_nothing_is_lost(http: Client) -> None:
    http.register("s", V1)
    assert http("POST", "/subjects/s/versions", b'{"schema":"' + b"x" * 10_000_000 + b'"}').error == (413, 413)
    assert http("GET", "/subjects/s/versions").body == [1]
    assert http.register("s", V2).body["version"] == 2


def test_a_schema_of_a_megabyte_is_taken(http: Client) -> None:
    large = json.dumps({"type": "enum", "name": "E", "symbols": [f"symbol_{i:07}" for i in range(60_000)]})
    assert http.register("s", large).status == 200
    assert len(http("GET", "/schemas/ids/1/schema").raw) > 900_000


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
_names = ["schema", "schemaType", "references", "id", "version", "compatibility", "mode", "normalize", "metadata"]


@settings(deadline=None, max_examples=150)
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    parts=st.lists(
        st.sampled_from(
            ["subjects", "versions", "schemas", "ids", "config", "mode", "compatibility", "latest", "1", "%2F"]
        )
        | st.text(max_size=3).map(lambda text: quote(text, safe="")),
        max_size=5,
    ),
    body=st.dictionaries(st.sampled_from(_names), _json | st.sampled_from([V1, V2, "AVRO", "JSON"])) | _json,
)
def test_no_request_is_answered_with_a_fault(shared: Client, method: str, parts: list[str], body: Any) -> None:
    found = shared(method, "/" + "/".join(parts), body)
    assert found.status < 500
    assert found.status == 200 or found.body["message"]


def test_a_broker_that_is_away_is_a_500_that_clients_repeat(
    topic: MemoryTopic, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    http = Client(registry_app(topic.store(timeout=0.2)))
    http.register("s", V1)
    topic.refuse = True
    assert http.register("s", V2).error == (500, 50001)
    assert http("GET", "/schemas/ids/99").error == (500, 50001)
    assert http("GET", "/schemas/ids/1").body["schema"] == V1


def test_the_routes_stand_beside_others_and_under_a_prefix(topic: MemoryTopic) -> None:
    routes = registry_routes(topic.store())
    beside = Client(Starlette(routes=[Route("/", lambda _request: PlainTextResponse("worker")), *routes]))
    assert beside("GET", "/").raw == b"worker"
    assert beside.register("a/b", V1).status == 200
    under = Client(Starlette(routes=[Mount("/registry", routes=routes)]))
    assert under("GET", "/registry/subjects/a%2Fb/versions").body == [1]


def test_the_event_loop_goes_on_while_handlers_wait_for_kafka(topic: MemoryTopic) -> None:
    app = registry_app(topic.store())
    order: list[str] = []

    async def main() -> None:
        async def ask() -> None:
            body = json.dumps({"schema": V1}).encode()
            messages: AsyncIterator[dict[str, Any]] = _once({"type": "http.request", "body": body, "more_body": False})
            scope = {
                "type": "http",
                "method": "POST",
                "path": "/subjects/s/versions",
                "query_string": b"",
                "headers": [],
            }

            async def send(message: Any) -> None:
                await anyio.lowlevel.checkpoint()
                order.append(message["type"])

            await app(scope, messages.__anext__, send)

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            # The write cannot go on before this loop has released it: nothing appended is told meanwhile.
            with topic.changed:
                await anyio.lowlevel.checkpoint()
                await anyio.lowlevel.checkpoint()
                order.append("loop")

    anyio.run(main)
    assert order == ["loop", "http.response.start", "http.response.body"]


async def _once(message: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    yield message
    await anyio.sleep_forever()
