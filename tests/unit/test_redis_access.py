"""Where Redis is and how to get in, as the settings say it: addresses, sentinels, TLS, and what contradicts itself."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from passwords import MARK, password
from pydantic import ValidationError
from redis.connection import SSLConnection

from cdc.redis.access import Access
from cdc.redis.config import RedisConfig
from cdc.redis.uri import fault

SECRET = password("redis")


def access(**settings: str) -> Access:
    base = {"name": "cache", "connector.class": "redis", "topics": "t"}
    properties = {key.replace("_", "."): value for key, value in settings.items()}
    return Access.of(RedisConfig.model_validate({**base, **properties}))


@pytest.mark.parametrize(
    "settings",
    [
        {"redis_uri": f"redis+sentinel://app:{SECRET}@s1:1,s2/main/3"},
        {"redis_uri": f"redis-sentinel://app:{SECRET}@s1:1,s2/3#main"},
        {"redis_uri": "redis+sentinel://s1:1,s2/main/3", "redis_username": "app", "redis_password": SECRET},
        {
            "redis_uri": f"redis://app:{SECRET}@/3",
            "redis_sentinel_nodes": "s1:1, s2",
            "redis_sentinel_master_name": "main",
        },
    ],
)
def test_a_master_behind_sentinels(settings: dict[str, str]) -> None:
    made = access(**settings)
    assert made.sentinels is not None
    assert made.sentinels.nodes == (("s1", 1), ("s2", 26379))
    assert made.sentinels.master == "main"
    assert made.place == "main of the sentinels s1:1,s2:26379"
    assert made.keyspace == ("main of the sentinels s1:1,s2:26379", 3)
    assert made.kind is made.sentinels.kind is redis.Connection
    at = made.at("10.0.0.1", 7000)
    assert at.sentinels is None
    wanted = {"host": "10.0.0.1", "port": 7000, "db": 3, "username": "app", "password": SECRET}
    assert {name: at.options[name] for name in wanted} == wanted
    assert not {"username", "password", "db"} & set(made.sentinels.options)
    assert MARK not in repr(made)


def test_only_a_password_is_the_default_user_s() -> None:
    assert access(redis_uri=f"redis-sentinel://{SECRET}@s1/0#main").options["password"] == SECRET
    assert "username" not in access(redis_uri=f"redis+sentinel://:{SECRET}@s1/main").options


def test_the_order_of_sentinels_is_not_another_keyspace() -> None:
    one, two = access(redis_uri="redis+sentinel://s1,s2/main"), access(redis_uri="redis+sentinel://s2,s1/main/0")
    assert one.keyspace == two.keyspace


def test_tls_is_the_sentinels_too_unless_told_otherwise() -> None:
    files = {
        "redis_cacert": "ca.pem",
        "redis_key_cert": "c.pem",
        "redis_key_file": "c.key",
        "redis_key_password": SECRET,
    }
    wanted = {"ssl_ca_certs": "ca.pem", "ssl_certfile": "c.pem", "ssl_keyfile": "c.key", "ssl_password": SECRET}
    for uri, own in (("rediss+sentinel://s1/main", {}), ("redis+sentinel://s1/main", {"redis_tls": "true"})):
        made = access(redis_uri=uri, **files, **own)
        assert made.sentinels is not None
        for kind, options in ((made.kind, made.options), (made.sentinels.kind, made.sentinels.options)):
            assert kind is SSLConnection
            assert {name: options[name] for name in wanted} == wanted
            assert "ssl_cert_reqs" not in options  # redis-py's default: required, and the name is verified
    mixed = access(redis_uri="rediss+sentinel://s1/main", redis_sentinel_tls="false")
    assert mixed.sentinels is not None
    assert (mixed.kind, mixed.sentinels.kind) == (SSLConnection, redis.Connection)


def test_the_sentinels_have_a_login_of_their_own() -> None:
    login = {"redis_sentinel_username": "watcher", "redis_sentinel_password": SECRET}
    made = access(redis_uri="redis+sentinel://s1/main", **login)
    assert made.sentinels is not None
    assert (made.sentinels.options["username"], made.sentinels.options["password"]) == ("watcher", SECRET)
    assert "password" not in made.options


def test_what_the_uri_says_wins_over_the_settings_beside_it() -> None:
    made = access(redis_uri=f"rediss://u:{SECRET}@h:1/2", redis_username="other", redis_password="other")
    assert (made.options["username"], made.options["password"], made.options["db"]) == ("u", SECRET, 2)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"redis_uri": "redis+sentinel://s1"}, "name of the master is missing"),
        ({"redis_uri": "redis+sentinel:///main"}, "servers as host:port"),
        ({"redis_uri": "redis+sentinel://s1:x/main"}, "servers as host:port"),
        ({"redis_uri": "redis+sentinel://s1/main/x"}, "no number"),
        ({"redis_uri": "redis+sentinel://s1/main/0/1"}, "name of the master is missing"),
        ({"redis_uri": "redis-sentinel://s1/0"}, "name of the master is missing"),
        ({"redis_uri": "redis+sentinel://s1/main?db=1"}, "behind a"),
        ({"redis_sentinel_nodes": "s1"}, "belong together"),
        ({"redis_sentinel_master_name": "main"}, "belong together"),
        ({"redis_sentinel_nodes": "s1:x", "redis_sentinel_master_name": "main"}, "servers as host:port"),
        (
            {"redis_sentinel_nodes": "s1", "redis_sentinel_master_name": "main", "redis_uri": "redis://h/0"},
            "leave the host out",
        ),
        ({"redis_sentinel_password": SECRET}, "neither redis.sentinel.nodes nor sentinels"),
        ({"redis_key_cert": "c.pem", "redis_tls": "true"}, "belong together"),
        ({"redis_cacert": "ca.pem"}, "nothing uses TLS"),
        ({"redis_insecure": "true"}, "nothing uses TLS"),
    ],
)
def test_what_contradicts_itself_is_refused(settings: dict[str, str], says: str) -> None:
    with pytest.raises(ValidationError, match=says) as raised:
        access(**settings)
    assert MARK not in str(raised.value)


@pytest.mark.parametrize("uri", [f"redis+sentinel://u:{SECRET}@s1", f"redis-sentinel://u:{SECRET}@s1:{SECRET}/0#m"])
def test_what_is_wrong_with_sentinels_is_said_without_the_password(uri: str) -> None:
    assert fault(uri)
    assert MARK not in fault(uri)


def test_the_settings_of_a_client_certificate_are_no_templates() -> None:
    base: dict[str, Any] = {"name": "c", "connector.class": "redis", "topics": "t", "redis.tls": "true"}
    made = RedisConfig.model_validate(
        {**base, "redis.key.cert": "c.pem", "redis.key.file": "k.pem", "redis.key.password": SECRET}
    )
    assert made.redis_keys == {}
    assert MARK not in str(made.model_dump())
