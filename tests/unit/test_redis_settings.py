"""Settings of the Redis sink: names, faults in plain words, key spaces that clash, no secret anywhere."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from cdc.config import loads
from cdc.errors import ConfigError
from cdc.plugin import Stream
from cdc.redis.access import Access
from cdc.redis.config import RedisConfig
from cdc.redis.connector import RedisSinkConnector
from cdc.redis.uri import fault


def config(**settings: str) -> RedisConfig:
    base = {"name": "cache", "connector.class": "redis"}
    return RedisConfig.model_validate({**base, **{key.replace("_", "."): value for key, value in settings.items()}})


def connector(name: str = "cache", **settings: Any) -> RedisSinkConnector:
    properties = {key: str(value) for key, value in settings.pop("properties", {}).items()}
    base = {"name": name, "connector.class": "redis", "topics": "p.s.users,p.s.orders"}
    base |= {key.replace("_", "."): str(value) for key, value in settings.items()}
    return RedisSinkConnector(RedisConfig.model_validate(base | properties))


def messages(connector: RedisSinkConnector, **siblings: RedisSinkConnector) -> list[str]:
    return [str(finding) for finding in connector.validate(siblings)]


def test_the_defaults_mirror_into_the_local_redis() -> None:
    settings = config(topics="a, b,a")
    assert settings.topic_names == ("a", "b")
    assert settings.template("p.s.users").text == "{table}:{pk}"
    assert settings.redis_ttl is None


def test_a_topic_may_have_a_template_of_its_own() -> None:
    made = connector(properties={"redis.key.p.s.users": "user:{id}"})
    assert made.settings.template("p.s.users").text == "user:{id}"
    assert made.settings.template("p.s.orders").text == "{table}:{pk}"
    assert messages(made) == []


def test_the_name_of_redis_s_own_connector_for_expiry_is_taken() -> None:
    assert connector(properties={"redis.key.ttl": "60"}).settings.redis_ttl == 60
    assert connector(redis_ttl=60).settings.redis_keys == {}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"redis.key": "user"}, "no key column"),
        ({"redis.key": "{id}"}, "begin with a literal"),
        ({"redis.uri": "http://x"}, "not a Redis URI"),
        ({"redis.uri": "redis://h/cache"}, "no number"),
        ({"redis.uri": "redis://h/1/2"}, "no number"),
        ({"redis.uri": "redis://h/1?db=2"}, "twice"),
        ({"redis.uri": "redis://h?db=-1"}, "negative"),
        ({"redis.uri": "redis://h:99999"}, "not a Redis URI"),
        ({"redis.uri": "redis://h:port"}, "not a Redis URI"),
        ({"redis.uri": "redis://h?ssl_cert_reqs=none"}, "rediss:"),
        ({"redis.uri": "rediss://h?ssl_cert_reqs=maybe"}, "not a Redis URI"),
        ({"redis.uri": "unix://run/redis.sock"}, "three slashes"),
        ({"redis.uri": "unix://"}, "path of the socket is missing"),
        ({"redis.uri": "unix:///run/redis.sock?db=x"}, "not a Redis URI"),
        ({"topics.regex": "("}, "not a regular expression"),
        ({"metadata.fields": "("}, "not a regular expression"),
        ({"unavailable.value.placeholder": "hex:1"}, "hexadecimal"),
        ({"redis.type": "JSON"}, "HASH"),
        ({"redis.cluster": "yes please"}, "boolean"),
        ({"redis.uri": "redis://a,b"}, r"set redis\.cluster\.enabled"),
        ({"redis.uri": "redis://a:x,b", "redis.cluster.enabled": "true"}, "not a Redis URI"),
        ({"redis.uri": "redis://a,,b", "redis.cluster.enabled": "true"}, "not a Redis URI"),
        ({"redis.uri": "redis://a,b/3", "redis.cluster.enabled": "true"}, "database 0 alone"),
        ({"redis.uri": "unix:///x", "redis.cluster.enabled": "true"}, "must name nodes"),
        ({"redis.uri": "redis+sentinel://a/m", "redis.cluster.enabled": "true"}, "sentinels"),
        ({"redis.cluster.tombstone.ttl.ms": "0"}, "greater than or equal to 1000"),
        ({"redis.ttl": "0"}, "greater than or equal to 1"),
        ({"redis.kye": "x"}, "Extra inputs"),
        ({"errors.tolerance": "some"}, "none"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, str], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        connector(properties=settings)


@pytest.mark.parametrize("name", ["redis.cluster.enabled", "redis.cluster"])
def test_a_cluster_is_named_by_some_of_its_nodes(name: str) -> None:
    uri = "rediss://u:p%2Cw@a:7000,b,[::1]:7002/0"
    access = connector(redis_uri=uri, properties={name: "true"}).access
    assert access.seeds == (("a", 7000), ("b", 6379), ("::1", 7002))
    assert (access.options["username"], access.options["password"]) == ("u", "p,w")
    assert "p,w" not in repr(access)
    one, other = (connector(redis_uri=f"redis://{nodes}", properties={name: "true"}) for nodes in ("a,b", "b,a"))
    assert one.access.keyspace == other.access.keyspace
    assert connector(redis_uri="redis://a,b", properties={name: "true"}).access.at("c", 1).options["host"] == "c"


def test_a_uri_that_does_not_parse_is_not_repeated() -> None:
    with pytest.raises(ValidationError) as raised:
        connector(redis_uri="redis://u:hunter2@host:notaport")
    assert "hunter2" not in str(raised.value)


def test_secrets_are_not_shown() -> None:
    made = connector(redis_uri="redis://u:hunter2@host/0", redis_password="hunter3")
    assert "hunter" not in repr(made.settings)
    assert "hunter" not in str(made.settings.model_dump())


@pytest.mark.parametrize("topics", [{}, {"topics": "a", "topics.regex": "b"}])
def test_exactly_one_of_topics_and_their_expression_is_set(topics: dict[str, str]) -> None:
    made = RedisSinkConnector(config(**topics))
    assert any("topics" in message and "exactly one" in message for message in messages(made))


@pytest.mark.parametrize(
    ("properties", "says"),
    [
        ({"redis.key.p.s.users": "user"}, "redis.key.p.s.users: 'user' has no key column"),
        ({"redis.key.p.s.user": "u:{pk}"}, "redis.key.p.s.user: names a topic that the connector does not read"),
        ({"redis.key": "row:{pk}"}, "topics p.s.users and p.s.orders would share keys such as row:0"),
        ({"redis.key.p.s.users": "orders:{pk}"}, "would share keys such as orders:0"),
        ({"redis.key.p.s.users": "__cdc:{pk}"}, "begin with __cdc:"),
    ],
)
def test_h22_templates_that_are_no_key_spaces_are_found(properties: dict[str, str], says: str) -> None:
    assert any(says in message for message in messages(connector(properties=properties)))


def test_h22_connectors_on_one_redis_do_not_share_keys() -> None:
    one = connector("a", redis_uri="redis://localhost:6379/0")
    same = connector("b", redis_uri="redis://localhost")
    database = connector("c", redis_uri="redis://localhost:6379/1")
    assert messages(one, b=same, c=database) == []
    assert len(messages(same, a=one, c=database)) == 2
    assert messages(database, a=one, b=same) == []


def test_the_expression_matches_whole_names_and_no_internal_topics() -> None:
    settings = config(topics_regex=r"shop\.public\..*|__x")
    assert settings.reads("shop.public.users")
    assert not settings.reads("other.shop.public.users")
    assert not settings.reads("__x")


def stream(table: str, *key: str, schema: str = "public") -> Stream:
    return Stream(f"shop.{schema}.{table}", schema, table, key)


def test_templates_are_held_against_the_keys_of_the_sources_tables() -> None:
    made = RedisSinkConnector(config(topics_regex=r"shop\..*", redis_key="x:{table}:{id}"))
    findings = made.fits([stream("users", "id"), stream("items", "order_id", "line"), stream("log")])
    assert [finding.key for finding in findings] == ["redis.key"]
    assert "not in the record key" in findings[0].message


def test_tables_of_two_schemas_with_one_name_are_found() -> None:
    made = RedisSinkConnector(config(topics_regex=r"shop\..*"))
    [finding] = made.fits([stream("users", "id"), stream("users", "id", schema="crm")])
    assert "share keys such as users:0" in finding.message
    assert made.fits([stream("users", "id"), stream("orders", "id")]) == []


@pytest.mark.parametrize(
    ("uri", "place", "database"),
    [
        ("redis://", "localhost:6379", 0),
        ("redis://u:secret@cache:7000/3", "cache:7000", 3),
        ("rediss://cache?db=2&ssl_cert_reqs=none", "cache:6379", 2),
        ("unix:///run/redis.sock?db=4", "/run/redis.sock", 4),
        ("unix://u:secret@/run/redis.sock", "/run/redis.sock", 0),
    ],
)
def test_a_uri_names_a_server_and_a_database(uri: str, place: str, database: int) -> None:
    assert fault(uri) == ""
    assert Access.of(config(redis_uri=uri)).keyspace == (place, database)
    assert config(redis_uri=uri).redis_uri.get_secret_value() == uri


@pytest.mark.parametrize("uri", ["redis://u:secret@h/cache", "unix://u:secret@run/x", "redis://u:secret@h?secret=1"])
def test_what_is_wrong_with_a_uri_is_said_without_its_password(uri: str) -> None:
    assert fault(uri)
    assert "secret" not in fault(uri)


def test_databases_of_one_socket_are_different_keyspaces() -> None:
    one = connector("one", redis_uri="unix:///run/redis.sock?db=1")
    two = connector("two", redis_uri="unix:///run/redis.sock?db=2")
    assert messages(two, one=one) == []
    assert "would share keys" in messages(two, one=connector("one", redis_uri="unix:///run/redis.sock?db=2"))[0]


def test_values_must_be_rows_and_keys_may_be_texts() -> None:
    sink = {"connector.class": "redis", "topics": "t", "key.converter": "string", "value.converter": "string"}
    form = {"worker": {"bootstrap.servers": "127.0.0.1:1"}, "connectors": {"cache": sink}}
    with pytest.raises(ConfigError) as refused:
        loads({"bridge.json": json.dumps(form)})
    [finding] = refused.value.findings
    assert finding.key == "connectors.cache.value.converter"
    assert "reads none" in finding.message
    sink["value.converter"] = "json"
    assert loads({"bridge.json": json.dumps(form)}).connectors[0].name == "cache"
