"""Secrets never appear: not in findings, representations, logs, status or what is shown, however they got in."""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

import cdc.config
from cdc.config.reference import render_config
from cdc.config.secrets import MASK, Secrets, is_address_key, is_secret_key
from cdc.errors import ConfigError
from cdc.observe.logging import LogFormat, configure_logging
from cdc.runtime.reports import describe

SECRET = "hunter2!pw"

WORKER = """\
worker:
  bootstrap.servers: localhost:9092
  key.converter: plain
  value.converter: plain
"""


@pytest.mark.parametrize(
    "key",
    [
        "database.password",
        "redis.password",
        "ssl.key.password",
        "ssl.truststore.password",
        "sasl.jaas.config",
        "sasl.password",
        "basic.auth.user.info",
        "schema.registry.basic.auth.userinfo",
        "bearer.auth.token",
        "oauth.client.secret",
        "api.key",
        "ssl.key.pem",
        "database.ssl.key.passphrase",
    ],
)
def test_names_that_tell_of_a_secret(key: str) -> None:
    assert is_secret_key(key)


@pytest.mark.parametrize(
    "key",
    [
        "topic.prefix",
        "key.converter",
        "message.key.columns",
        "redis.key",
        "ssl.key.location",
        "basic.auth.credentials.source",
        "sasl.oauthbearer.token.endpoint.url",
        "sasl.mechanism",
        "password.file",
        "table.include.list",
    ],
)
def test_names_that_do_not(key: str) -> None:
    assert not is_secret_key(key)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("login with hunter2!pw failed", "login with *** failed"),
        ("redis://user:hunter2!pw@host:1/0", "redis://***@host:1/0"),
        ("redis://:hunter2%21pw@host", "redis://***@host"),
        ('{"p": "hunter2!pw"}', '{"p": "***"}'),
        (repr("hunter2!pw"), "'***'"),
        ("Basic " + base64.b64encode(b"user:hunter2!pw").decode(), "Basic ***"),
        ("postgresql://other:unknown@host/db", "postgresql://***@host/db"),
        ("nothing here", "nothing here"),
    ],
)
def test_a_secret_is_masked_in_every_form(value: str, shown: str) -> None:
    assert Secrets(["user:hunter2!pw", SECRET]).redact(value) == shown


def test_short_secrets_are_masked_only_where_they_stand_alone() -> None:
    assert Secrets(["abc"]).redact("user abc in abcdef, cdc.abc: 'abc'") == "user *** in abcdef, cdc.abc: '***'"


def test_a_secret_with_half_a_character_is_masked() -> None:
    """A file's escapes can name one; it has no UTF-8."""
    assert Secrets(["\ud800hush-hush"]).redact("said \ud800hush-hush") == "said ***"


def test_a_secret_with_quotes_and_newlines_is_masked_in_json_repr_and_line_by_line() -> None:
    secret = 'a"b\\c\nsecond line'
    secrets = Secrets([secret])
    for text in (secret, json.dumps({"x": secret}), repr(secret), "… second line …"):
        assert "second line" not in secrets.redact(text)


@given(st.text(min_size=4).filter(lambda secret: secret.strip() == secret and not set(secret) <= set(MASK)), st.text())
def test_whatever_the_secret_is_its_text_is_gone(secret: str, around: str) -> None:
    redacted = Secrets([secret]).redact(f"{around}{secret}{around}")
    assert secret not in redacted.replace(MASK, "")


def configurations(tmp_path: Path) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Files and environment, the secret in each place where one can stand, and faults all around it."""
    (tmp_path / "db.properties").write_text(f"password={SECRET}\n")
    (tmp_path / "password").write_text(SECRET + "\n")
    shop = "connectors:\n  shop:\n    connector.class: sleeper\n    database.port: dog\n    unknown.key: x\n"
    for value in (
        SECRET,
        "${env:PASSWORD}",
        f"${{env:UNSET:-{SECRET}}}",
        f"${{file:{tmp_path}/db.properties:password}}",
        f"${{directory:{tmp_path}:password}}",
        f"prefix ${{env:PASSWORD}} ${{env:UNSET}} {SECRET}",
        f"[{SECRET}]",
        f"{{nested: {SECRET}}}",
        f"{SECRET}\n    database.password: {SECRET}",
    ):
        yield {"b.yaml": f"{WORKER}{shop}    database.password: {value}\n"}, {"PASSWORD": SECRET}
    for value in ("${env:PASSWORD}", f"${{directory:{tmp_path}:password}}"):
        for key in (
            "database.port",
            "snapshot.mode",
            "tombstones.on.delete",
            "slot.name",
            "connector.class",
            "nonsense",
        ):
            lines = f"{WORKER}connectors:\n  shop:\n    behaviour: x\n    uri: y\n"
            yield {"b.yaml": f"{lines}    {key}: {value}\n"}, {"PASSWORD": SECRET}
    yield {"b.yaml": f"{WORKER}{shop}    uri: redis://user:{SECRET}@host:6379\n"}, {}
    yield {"b.yaml": f"{WORKER}  listeners: http://user:{SECRET}@host:1\n{shop}"}, {}
    yield {"b.yaml": f"{WORKER}  schema.registry.url: ftp://user:{SECRET}@host:1\n{shop}"}, {}
    yield {"b.yaml": f"{WORKER}  schema.registry.basic.auth.user.info: user:{SECRET}\n{shop}"}, {}
    yield {"b.yaml": f"{WORKER}  bootstrap.servers: user:{SECRET}@host\n{shop}"}, {}
    jaas = f'org.apache.kafka.common.security.plain.PlainLoginModule required username="u" password="{SECRET}";'
    yield {"b.yaml": f"{WORKER}  sasl.jaas.config: '{jaas}'\n{shop}"}, {}
    yield {"b.yaml": f"{WORKER}  producer.sasl.password: {SECRET}\n{shop}"}, {}
    yield {"b.yaml": f"{WORKER}  key.converter.basic.auth.user.info: user:{SECRET}\n{shop}"}, {}
    yield {"b.yaml": f"{WORKER}{shop}    pasword: {SECRET}\n"}, {}
    yield {"b.yaml": f"{WORKER}{shop}    database.password: *{SECRET}\n"}, {}
    yield {"b.yaml": f"{WORKER}{shop}    database.password: !{SECRET}\n"}, {}
    yield {"b.yaml": f'{WORKER}{shop}    database.password: "{SECRET}\n'}, {}
    yield {"b.yaml": f"{WORKER}{shop}    database.password:{SECRET}\n"}, {}
    yield {"b.yaml": WORKER, "c.json": f'{{"name": "x", "config": {{"database.password": "{SECRET}", "a": 1}}'}, {}
    flat = {"name": "x", "connector.class": "sleeper", "database.password": SECRET, "database.port": "dog"}
    yield {"b.yaml": WORKER, "c.json": json.dumps(flat)}, {}
    properties = "".join(f"{key}={value}\n" for key, value in flat.items())
    yield {"b.yaml": WORKER, "c.properties": properties}, {}
    yield {"b.yaml": WORKER, "c.properties": properties + f"sasl.password=\\u{SECRET}\n"}, {}


@pytest.mark.usefixtures("dummies")
def test_no_finding_repeats_a_secret(tmp_path: Path) -> None:
    count = 0
    for files, environment in configurations(tmp_path):
        with pytest.raises(ConfigError) as raised:
            cdc.config.loads(files, environment)
        told = f"{raised.value} {raised.value.findings!r} {describe(raised.value, str).trace}"
        assert SECRET not in told, files
        assert "hunter2" not in told, files
        count += 1
    assert count > 20


@pytest.mark.parametrize(
    ("key", "address"),
    [
        ("database.hostname", True),
        ("redis.uri", True),
        ("bootstrap.servers", True),
        ("schema.registry.url", True),
        ("database.password", False),
        ("slot.name", False),
        ("database.port", False),
    ],
)
def test_addresses_are_known_by_name(key: str, address: bool) -> None:
    assert is_address_key(key) is address


@pytest.mark.usefixtures("dummies")
def test_a_valid_configuration_shows_no_secret() -> None:
    text = f"""{WORKER}  producer.sasl.password: {SECRET}
  schema.registry.basic.auth.user.info: user:{SECRET}
connectors:
  shop:
    connector.class: sleeper
    database.password: {SECRET}
    database.hostname: ${{env:HOST}}
    uri: redis://user:${{env:PASSWORD}}@${{env:HOST}}:6379/0
    slot.name: ${{env:UNSET:-{SECRET.rstrip("!pw")}}}
    key.converter.encoding: ${{env:PASSWORD}}
"""
    config = cdc.config.loads({"b.yaml": text}, {"PASSWORD": SECRET, "HOST": "db.example"})
    (shop,) = config.connectors
    assert shop.properties["database.password"] == SECRET
    assert shop.connector.config.database_password.get_secret_value() == SECRET  # type: ignore[attr-defined]
    for shown in (repr(config), str(shop), render_config(config, "text"), render_config(config, "json")):
        assert SECRET not in shown
        assert "hunter2" not in shown
    assert shop.shown["database.password"] == MASK
    assert shop.shown["uri"] == "redis://***@${env:HOST}:6379/0"
    assert shop.shown["database.hostname"] == "${env:HOST}"
    told = config.secrets.redact(f"cannot reach db.example as {SECRET}")
    assert told == "cannot reach db.example as ***"


def _fail() -> None:
    raise RuntimeError(f"cannot log in with {SECRET}")


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_logs_are_redacted_whoever_writes_them(log_format: LogFormat) -> None:
    stream = io.StringIO()
    root = logging.getLogger()
    before, level = root.handlers, root.level
    try:
        configure_logging("DEBUG", log_format, Secrets([SECRET]).redact, stream=stream, connector="shop")
        structlog.get_logger("a").warning(f"event {SECRET}", key=SECRET, nested={"list": [SECRET]})
        logging.getLogger("library").error("foreign %s", SECRET, extra={"field": SECRET})
        try:
            _fail()
        except RuntimeError:
            structlog.get_logger("a").exception("failed")
            logging.getLogger("library").exception("failed")
    finally:
        root.handlers = before
        root.setLevel(level)
        logging.captureWarnings(False)
        structlog.reset_defaults()
    text = stream.getvalue()
    assert SECRET not in text
    assert text.count(MASK) >= 6
    assert text.count("cannot log in with ***") >= 2
    assert text.count("shop") == 4
    if log_format == "json":
        assert [list(json.loads(line))[:3] for line in text.splitlines()] == [["timestamp", "level", "event"]] * 4


def test_a_salt_in_the_name_of_a_property_is_not_shown() -> None:
    text = 'worker: {bootstrap.servers: "a:1"}\nconnectors:\n  shop:\n    connector.class: postgres\n'
    text += "    database.user: u\n    database.dbname: d\n    topic.prefix: t\n"
    rule = "    column.mask.hash.{}.with.salt.PepperPot9: public.t.v\n"
    config = cdc.config.loads({"b.yaml": text + rule.format("SHA-256")})
    assert "PepperPot9" not in render_config(config, "json")
    with pytest.raises(ConfigError) as caught:
        cdc.config.loads({"b.yaml": text + rule.format("SHA-257")})
    assert "PepperPot9" not in str(caught.value)
    assert "SHA-257" in str(caught.value)
