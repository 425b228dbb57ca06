"""A registry that demands TLS, a client certificate, a password or a token; what each mistake is told as."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn
from certificates import Authority, Identity
from passwords import MARK, password
from registry_memory import MemoryTopic
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from cdc.errors import CdcError, ConfigError
from cdc.registry.app import registry_app
from cdc.registry.client import RegistryClient
from cdc.registry.errors import RegistryMisconfigured, RegistryRefused

SCHEMA = '{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}'
BASIC = f"cdc:{password('registry')}"
TOKEN = password("token")


@dataclass
class Guarded:
    """An application behind a check of who asks."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(scope["headers"]).get(b"authorization", b"").decode()
        if given in (f"Basic {base64.b64encode(BASIC.encode()).decode()}", f"Bearer {TOKEN}"):
            await self.app(scope, receive, send)
        else:
            await JSONResponse({"error_code": 401, "message": "Unauthorized"}, 401)(scope, receive, send)


@contextlib.contextmanager
def registry(authority: Authority, own: Identity, *, clients: bool) -> Iterator[int]:
    """The port of a registry with TLS; with ``clients`` it demands certificates of them."""
    topic = MemoryTopic()
    store = topic.store()
    config = uvicorn.Config(
        Guarded(registry_app(store)),
        log_level="critical",
        lifespan="off",
        ssl_certfile=str(own.certificate),
        ssl_keyfile=str(own.key),
        ssl_ca_certs=str(authority.certificate),
        ssl_cert_reqs=ssl.CERT_REQUIRED if clients else ssl.CERT_NONE,
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()
            store.close()
            topic.close()


@pytest.fixture(scope="module")
def port(authority: Authority) -> Iterator[int]:
    with registry(authority, authority.server("localhost"), clients=False) as found:
        yield found


@pytest.fixture(scope="module")
def demanding(authority: Authority) -> Iterator[int]:
    with registry(authority, authority.server("localhost"), clients=True) as found:
        yield found


def trusting(authority: Authority, **more: str) -> dict[str, str]:
    return {"schema.registry.ssl.ca.location": str(authority.certificate), **more}


def certified(mine: Identity) -> dict[str, str]:
    return {
        "schema.registry.ssl.certificate.location": str(mine.certificate),
        "schema.registry.ssl.key.location": str(mine.key),
        **({"schema.registry.ssl.key.password": mine.password} if mine.password else {}),
    }


LOGIN = {"schema.registry.basic.auth.credentials.source": "USER_INFO", "schema.registry.basic.auth.user.info": BASIC}
BEARER = {
    "schema.registry.bearer.auth.credentials.source": "STATIC_TOKEN",
    "schema.registry.bearer.auth.token": TOKEN,
}


@pytest.mark.parametrize("login", [LOGIN, BEARER], ids=["basic", "bearer"])
def test_a_password_and_a_token_over_tls(port: int, authority: Authority, login: dict[str, str]) -> None:
    with RegistryClient(f"https://localhost:{port}", trusting(authority, **login)) as client:
        assert client.schema(client.register("s", SCHEMA)) == ("AVRO", SCHEMA)


def test_a_login_in_the_address(port: int, authority: Authority) -> None:
    with RegistryClient(f"https://{BASIC}@localhost:{port}", trusting(authority)) as client:
        assert client.register("s", SCHEMA) == 1
        assert MARK not in repr(client)


@pytest.mark.parametrize("secret", ["", password("registry key")], ids=["open", "encrypted"])
def test_a_client_certificate(demanding: int, authority: Authority, secret: str) -> None:
    given = trusting(authority, **LOGIN, **certified(authority.client(password=secret)))
    with RegistryClient(f"https://localhost:{demanding}", given) as client:
        assert client.register("s", SCHEMA) == 1


def failing(url: str, given: dict[str, str], kind: type[CdcError]) -> str:
    with pytest.raises(kind) as raised, RegistryClient(url, given) as client:
        client.register("s", SCHEMA)
    assert MARK not in str(raised.value)
    return str(raised.value)


def test_mistakes_are_errors_that_name_the_setting(
    port: int, demanding: int, authority: Authority, stranger: Authority
) -> None:
    url = f"https://localhost:{port}"
    other: dict[str, Any] = {"schema.registry.ssl.ca.location": str(stranger.certificate), **LOGIN}
    assert "set schema.registry.ssl.ca.location" in failing(url, other, RegistryMisconfigured)
    by_number = url.replace("localhost", "127.0.0.1")
    said = failing(by_number, trusting(authority, **LOGIN), RegistryMisconfigured)
    assert "name the registry in schema.registry.url as its certificate does" in said
    assert "basic.auth.user.info" in failing(url, trusting(authority), RegistryRefused)
    wrong = {**LOGIN, "schema.registry.basic.auth.user.info": f"cdc:{password('wrong')}"}
    assert "check user and password" in failing(url, trusting(authority, **wrong), RegistryRefused)
    for own in ({}, certified(stranger.client())):
        given = trusting(authority, **LOGIN, **own)
        said = failing(f"https://localhost:{demanding}", given, CdcError)
        assert "set schema.registry.ssl.certificate.location and schema.registry.ssl.key.location" in said
    gone = trusting(authority, **{"schema.registry.ssl.ca.location": "/no/such/ca.pem"})
    failing(url, gone, ConfigError)
