"""Confluent's properties for registry clients: what reaches confluent-kafka's client, and what is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from cdc.errors import ConfigError
from cdc.registry.client import RegistryClient
from cdc.registry.client_config import client_config

URL = "http://registry:8081"


def settings(properties: Mapping[str, str], url: str = URL) -> dict[str, object]:
    return client_config(url, properties).settings


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({}, {}),
        (
            {"basic.auth.credentials.source": "USER_INFO", "basic.auth.user.info": "u:p:q"},
            {"basic.auth.user.info": "u:p:q"},
        ),
        ({"schema.registry.basic.auth.user.info": "u:p"}, {"basic.auth.user.info": "u:p"}),
        (
            {"bearer.auth.credentials.source": "STATIC_TOKEN", "bearer.auth.token": "t"},
            {
                "bearer.auth.credentials.source": "STATIC_TOKEN",
                "bearer.auth.token": "t",
                "bearer.auth.logical.cluster": "",
            },
        ),
        (
            {
                "schema.registry.bearer.auth.credentials.source": "OAUTHBEARER",
                "bearer.auth.issuer.endpoint.url": "http://idp/token",
                "bearer.auth.client.id": "i",
                "bearer.auth.client.secret": "s",
                "bearer.auth.scope": "sr",
                "bearer.auth.logical.cluster": "lsrc-1",
                "bearer.auth.identity.pool.id": "pool-1",
            },
            {
                "bearer.auth.credentials.source": "OAUTHBEARER",
                "bearer.auth.issuer.endpoint.url": "http://idp/token",
                "bearer.auth.client.id": "i",
                "bearer.auth.client.secret": "s",
                "bearer.auth.scope": "sr",
                "bearer.auth.logical.cluster": "lsrc-1",
                "bearer.auth.identity.pool.id": "pool-1",
            },
        ),
        (
            {
                "schema.registry.ssl.ca.location": "/ca.pem",
                "schema.registry.ssl.certificate.location": "/c.pem",
                "schema.registry.ssl.key.location": "/k.pem",
                "schema.registry.ssl.key.password": "pw",
            },
            {
                "ssl.ca.location": "/ca.pem",
                "ssl.certificate.location": "/c.pem",
                "ssl.key.location": "/k.pem",
                "ssl.key.password": "pw",
            },
        ),
        (
            {
                "schema.registry.ssl.truststore.type": "PEM",
                "schema.registry.ssl.truststore.location": "/ca.pem",
                "schema.registry.ssl.keystore.type": "PEM",
                "schema.registry.ssl.keystore.location": "/c.pem",
            },
            {"ssl.ca.location": "/ca.pem", "ssl.certificate.location": "/c.pem"},
        ),
        ({"schema.registry.proxy.host": "p", "schema.registry.proxy.port": "8"}, {"proxy": "http://p:8"}),
        # Kafka's TLS and the converter's own properties are not the registry client's.
        ({"ssl.ca.location": "/kafka.pem", "auto.register.schemas": "true", "schemas.enable": "x"}, {}),
        ({"schema.registry.url": "http://elsewhere"}, {}),
    ],
)
def test_properties_reach_the_client_under_its_names(
    properties: Mapping[str, str], expected: Mapping[str, object]
) -> None:
    assert settings(properties) == {"url": URL, "max.retries": 0, "timeout": 10.0, **expected}


def test_the_time_limit_can_be_set() -> None:
    assert settings({"http.read.timeout.ms": "2500"})["timeout"] == 2.5


@pytest.mark.parametrize(
    ("url", "shown", "user_info"),
    [
        ("http://registry:8081/", "http://registry:8081", None),
        ("https://me:pa%3Ass@registry/apis/ccompat/v7/", "https://registry/apis/ccompat/v7", "me:pa:ss"),
        ("http://a:1, http://b:2", "http://a:1, http://b:2", None),
        ("http://u:p@a:1,http://u:p@b:2", "http://a:1, http://b:2", "u:p"),
        ("http://[::1]:8081", "http://[::1]:8081", None),
    ],
)
def test_addresses_are_shown_and_used_without_user_and_password(url: str, shown: str, user_info: str | None) -> None:
    config = client_config(url, {"basic.auth.credentials.source": "URL"})
    assert config.shown_url == shown
    assert config.settings["url"] == shown.replace(", ", ",")
    assert config.settings.get("basic.auth.user.info") == user_info


@pytest.mark.parametrize(
    ("properties", "complaint"),
    [
        (
            {"basic.auth.user.inf": "u:SECRET"},
            "basic.auth.user.inf: unknown setting. Did you mean basic.auth.user.info",
        ),
        ({"schema.registry.ssl.ca": "x"}, "schema.registry.ssl.ca: unknown setting"),
        ({"basic.auth.user.info": "SECRET"}, "user:password"),
        ({"basic.auth.credentials.source": "USER_INFO"}, "missing for the source USER_INFO"),
        ({"basic.auth.credentials.source": "SASL_INHERIT"}, "SASL_INHERIT is not supported"),
        ({"bearer.auth.credentials.source": "CUSTOM"}, "CUSTOM is not supported"),
        ({"bearer.auth.credentials.source": "STATIC_TOKEN"}, "bearer.auth.token: missing"),
        ({"bearer.auth.credentials.source": "OAUTHBEARER"}, "bearer.auth.client.secret: missing"),
        ({"bearer.auth.token": "SECRET", "basic.auth.user.info": "u:SECRET"}, "exclude each other"),
        ({"schema.registry.ssl.truststore.location": "/x.jks"}, "Convert it to PEM"),
        ({"http.read.timeout.ms": "soon"}, "'soon' is not a whole number"),
        ({"http.read.timeout.ms": "0"}, "above 0"),
    ],
)
def test_what_cannot_work_is_refused_by_name_without_secrets(properties: Mapping[str, str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        settings(properties)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "registry:8081", "mock://x", "ftp://registry", "http://", "http://h:port", "http://a:1,nonsense"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"schema\.registry\.url"):
        settings({}, url)


def test_different_users_in_one_list_of_addresses_are_refused() -> None:
    with pytest.raises(ConfigError, match="different users") as caught:
        settings({}, "http://a:SECRET@x,http://b:SECRET@y")
    assert "SECRET" not in str(caught.value)


def test_a_certificate_that_is_missing_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"schema\.registry"):
        RegistryClient("https://registry", {"schema.registry.ssl.ca.location": str(tmp_path / "none.pem")})


def test_no_secret_is_in_the_repr() -> None:
    conf = {"schema.registry.ssl.key.password": "SECRET", "basic.auth.user.info": "u:SECRET"}
    assert "SECRET" not in repr(client_config(URL, conf))
    with RegistryClient("http://u:SECRET@registry:8081") as client:
        assert "SECRET" not in repr(client) + client.url
