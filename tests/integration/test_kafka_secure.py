"""Kafka over TLS, with client certificates and each mechanism of SASL, under ACLs; what each mistake is told as."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest
from fix_secure import OAUTH, PRINCIPAL, SecureKafka, grant, grants, login
from passwords import MARK, password
from sink_feed import eventually

from cdc.config import Config, loads
from cdc.errors import FatalError, RetriableError
from cdc.kafka.consumer import RecordConsumer
from cdc.kafka.offsets import encode_offset, read_offsets
from cdc.kafka.producer import RecordProducer
from cdc.kafka.reader import TopicReader, retention
from cdc.kafka.settings import client_settings
from cdc.kafka.signals import SignalReader
from cdc.kafka.topics import COMPACTED, Topics
from cdc.operate.check_kafka import check_kafka
from cdc.registry.errors import RegistryRefused
from cdc.registry.log import KafkaLog
from cdc.registry.store import SchemaStore
from cdc.runtime.worker import Worker

pytestmark = pytest.mark.integration

Login = Callable[[SecureKafka, str], dict[str, str]]


@pytest.fixture(scope="module")
def token_endpoint() -> Iterator[str]:
    """Where an OAuth client gets a token for its secret. The token has no signature: the broker's default takes it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            basic = base64.b64encode(f"{PRINCIPAL}:{password('oauth client')}".encode()).decode()
            good = self.headers.get("Authorization") == f"Basic {basic}" and form["grant_type"] == [
                "client_credentials"
            ]
            now = int(time.time())
            token = ".".join([_part({"alg": "none"}), _part({"sub": PRINCIPAL, "iat": now, "exp": now + 600}), ""])
            body = {"access_token": token, "token_type": "bearer", "expires_in": 600}
            data = json.dumps(body if good else {"error": "invalid_client"}).encode()
            self.send_response(200 if good else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/token"
    server.shutdown()
    server.server_close()


def _part(value: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def oidc(kafka: SecureKafka, endpoint: str, secret: str = password("oauth client")) -> dict[str, str]:
    return kafka.sasl(
        "OAUTHBEARER",
        f'{OAUTH} required clientId="{PRINCIPAL}" clientSecret="{secret}" scope="kafka";',
        sasl_oauthbearer_token_endpoint_url=endpoint,
    )


LOGINS: Mapping[str, Login] = {
    "certificate": lambda kafka, _: kafka.tls(),
    "plain": lambda kafka, _: kafka.plain(),
    "scram": lambda kafka, _: kafka.scram(),
    "oauthbearer": lambda kafka, _: kafka.sasl("OAUTHBEARER", f'{OAUTH} required unsecuredLoginStringClaim_sub="cdc";'),
    "oidc": oidc,
}


@pytest.mark.parametrize("name", list(LOGINS))
def test_every_client_of_the_bridge_gets_in(secure_kafka: SecureKafka, token_endpoint: str, name: str) -> None:
    prefix = f"k{uuid.uuid4().hex[:8]}"
    worker = {**LOGINS[name](secure_kafka, token_endpoint), "group.id": prefix}
    grant(secure_kafka, grants(prefix, prefix, f"{prefix}-sink"))
    topic, offsets = f"{prefix}.public.rows", f"{prefix}-offsets"
    topics = Topics(worker, lambda: None)
    topics.ensure(topic, COMPACTED)
    count = topics.ensure(offsets, COMPACTED, partitions=2)
    producer = RecordProducer(worker, f"{prefix}-source-0", lambda: None)
    producer.start()
    producer.produce(topic, b"key", b"value")
    producer.produce(offsets, *encode_offset('["source",{}]', {"lsn": 1}))
    producer.commit()
    producer.close()
    assert read_offsets(worker, offsets, count, "source", lambda: None, lambda: False) == {'["source",{}]': {"lsn": 1}}
    consumer = RecordConsumer(worker, f"connect-{prefix}-sink", "one", lambda _parts: None)
    consumer.subscribe([topic])
    eventually(lambda: consumer.fetch(10, 0.1) or consumer.assigned, "the group assigns the partition")
    consumer.reposition(dict.fromkeys(consumer.assigned))
    [message] = eventually(lambda: consumer.fetch(10, 0.1), "the record is read")
    assert message.value() == b"value"
    assert consumer.topic_ids([topic])
    consumer.close()
    store = SchemaStore(KafkaLog(client_settings(worker, "admin")))
    store.start()
    store.close()


def config(worker: Mapping[str, str], more: str = "") -> Config:
    lines = "".join(f"  {name}: {json.dumps(value)}\n" for name, value in worker.items())
    text = f"""\
worker:
  listeners: http://127.0.0.1:0
{lines}connectors:
  source:
    connector.class: postgres
    database.hostname: 127.0.0.1
    database.port: 1
    database.user: nobody
    database.dbname: nothing
    topic.prefix: k
  sink:
    connector.class: redis
    topics: k.public.rows
    redis.uri: redis://127.0.0.1:1
{more}"""
    return loads({"bridge.yaml": text}, {})


MISTAKES: Mapping[str, tuple[Login, str]] = {
    "wrong password": (
        lambda kafka, _: kafka.scram(password("wrong")),
        "Kafka refuses the login: .*Remedy: correct sasl.mechanism and the login",
    ),
    "wrong client secret": (
        lambda kafka, endpoint: oidc(kafka, endpoint, password("wrong")),
        "there is no token for Kafka: .*Remedy: correct clientId and clientSecret in sasl.jaas.config",
    ),
    "another authority": (
        lambda kafka, _: {**kafka.scram(), "ssl.truststore.location": str(kafka.stranger.certificate)},
        "certificate verify failed.*Remedy: set ssl.ca.location",
    ),
    "another name": (
        lambda kafka, _: {
            **kafka.scram(),
            "bootstrap.servers": kafka.scram()["bootstrap.servers"].replace("localhost", "127.0.0.1"),
        },
        "certificate verify failed.*name the brokers in bootstrap.servers and advertised.listeners as these do",
    ),
    "no client certificate": (
        lambda kafka, _: kafka.tls(ssl_certificate_location="", ssl_key_location=""),
        "Remedy: set ssl.certificate.location and ssl.key.location",
    ),
    "a client certificate that is not trusted": (
        lambda kafka, _: replace(kafka, own=kafka.stranger.client()).tls(),
        "Remedy: set ssl.certificate.location and ssl.key.location",
    ),
}


@pytest.mark.parametrize("name", list(MISTAKES))
def test_what_waiting_does_not_mend_is_one_error_at_once(
    secure_kafka: SecureKafka, token_endpoint: str, name: str
) -> None:
    made, says = MISTAKES[name]
    worker = {**made(secure_kafka, token_endpoint), "group.id": "k"}
    said: list[str] = []
    with pytest.raises(FatalError, match=says) as raised:
        Topics(worker, lambda: None).ensure("k.public.rows", COMPACTED)
    said.append(str(raised.value))
    producer = RecordProducer(worker, "k-source-0", lambda: None)
    with pytest.raises(FatalError, match=says) as raised:
        producer.start()
    said.append(str(raised.value))
    with pytest.raises(FatalError, match=says) as raised:
        read_offsets(worker, "k-offsets", 1, "source", lambda: None, lambda: False)
    said.append(str(raised.value))
    consumer = RecordConsumer(worker, "connect-k", "one", lambda _parts: None)
    with pytest.raises(FatalError, match=says) as raised:
        eventually(lambda: consumer.fetch(1, 0.1))
    consumer.close()
    said.append(str(raised.value))
    if name in ("wrong password", "no client certificate"):  # each waits for seconds, and asks the same rule
        said += refused_readers(worker, says)
    [finding] = check_kafka(config(worker))
    assert "no Kafka broker answers" not in finding.message
    said.append(str(finding))
    assert MARK not in "".join(said)


def refused_readers(worker: Mapping[str, str], says: str) -> list[str]:
    """What those say that read topics without a group."""
    said: list[str] = []
    with TopicReader(worker, "k.public.rows", "test") as reader:
        for ask in (lambda: reader.bounds([0]), reader.partitions):
            with pytest.raises(FatalError, match=says) as raised:
                ask()
            said.append(str(raised.value))
        reader.go({0: None})
        with pytest.raises(FatalError, match=says) as raised:
            eventually(lambda: reader.fetch(1, 0.1))
        said.append(str(raised.value))
    with pytest.raises(FatalError, match=says) as raised:
        retention(worker, "k.public.rows")
    said.append(str(raised.value))
    signals = SignalReader(worker, "k-signal", b"k", 1, {})
    eventually(lambda: signals.take(said.append) or re.search(says, said[-1]))
    signals.close()
    return said


def test_an_embedded_registry_with_a_wrong_password_says_so(secure_kafka: SecureKafka) -> None:
    worker = secure_kafka.scram(password("wrong"))
    log = KafkaLog(client_settings(worker, "admin"), timeout=2.0)
    with pytest.raises(RegistryRefused, match=r"Correct sasl\.mechanism and the login of the worker") as raised:
        log.start(SchemaStore(log))
    log.close()
    assert MARK not in str(raised.value)


def test_tasks_with_a_wrong_password_fail_and_say_so(secure_kafka: SecureKafka) -> None:
    wrong = {**secure_kafka.scram(password("wrong")), "task.restart.policy": "never"}
    worker = Worker(config(wrong), log_level="CRITICAL")
    worker.start()
    try:
        assert worker.wait_for(lambda status: {task["state"] for task in _tasks(status)} == {"FAILED"}, 60)
        for task in _tasks(worker.status()):
            assert "Kafka refuses the login" in task["trace"]
            assert MARK not in task["trace"]
    finally:
        worker.stop()


def _tasks(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [task for connector in status["connectors"].values() for task in connector["tasks"]]


def test_check_tries_the_logins_that_connectors_have_of_their_own(secure_kafka: SecureKafka) -> None:
    wrong = json.dumps(login("scram.ScramLoginModule", password("wrong")))
    made = config(secure_kafka.scram(), f"    consumer.override.sasl.jaas.config: {wrong}\n")
    findings = [finding for finding in check_kafka(made) if "refuses the login" in finding.message]
    assert [finding.key for finding in findings] == ["connectors.sink"]


def test_a_broker_that_is_away_is_still_waited_out(secure_kafka: SecureKafka) -> None:
    worker = {**secure_kafka.scram(), "bootstrap.servers": "localhost:1"}
    with pytest.raises(RetriableError):
        Topics(worker, lambda: None).ensure("k.public.rows", COMPACTED)


def test_settings_that_librdkafka_does_not_take_are_an_error(secure_kafka: SecureKafka) -> None:
    worker = {**secure_kafka.tls(), "ssl.key.location": str(secure_kafka.stranger.client().key)}
    with pytest.raises(FatalError, match="Kafka client"):
        Topics(worker, lambda: None)
    [finding] = check_kafka(config(worker))
    assert "refuses its settings" in finding.message
