"""Security properties of Kafka Connect as librdkafka reads them: names, JAAS, key stores; what is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, load_pem_private_key, pkcs12
from cryptography.x509 import load_pem_x509_certificate
from passwords import MARK, password

from cdc.config import loads
from cdc.errors import ConfigError
from cdc.kafka.security import security_settings
from cdc.kafka.settings import client_settings

SECRET = password("kafka")
LOGIN = "org.apache.kafka.common.security"


def jaas(module: str, **options: str) -> str:
    return f"{LOGIN}.{module} required {' '.join(f'{name}={value!r}' for name, value in options.items())};".replace(
        "'", '"'
    )


@pytest.mark.parametrize("module", ["plain.PlainLoginModule", "scram.ScramLoginModule"])
def test_jaas_of_a_password_is_user_and_password(module: str) -> None:
    given = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.jaas.config": jaas(module, username="cdc", password=SECRET),
    }
    assert security_settings(given) == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "cdc",
        "sasl.password": SECRET,
    }


def test_what_is_escaped_in_jaas_is_unescaped() -> None:
    text = f'{LOGIN}.plain.PlainLoginModule required username=cdc password="a\\"b\\\\c;d e";'
    assert security_settings({"sasl.jaas.config": text}) == {"sasl.username": "cdc", "sasl.password": 'a"b\\c;d e'}


def test_oauthbearer_with_a_token_endpoint(authority: Authority) -> None:
    given = {
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.token.endpoint.url": "https://id.example.org/token",
        "sasl.login.callback.handler.class": f"{LOGIN}.oauthbearer.OAuthBearerLoginCallbackHandler",
        "sasl.jaas.config": jaas(
            "oauthbearer.OAuthBearerLoginModule", clientId="cdc", clientSecret=SECRET, scope="kafka"
        ),
        "ssl.truststore.location": str(authority.certificate),
        "ssl.truststore.type": "PEM",
    }
    assert security_settings(given) == {
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": "https://id.example.org/token",
        "sasl.oauthbearer.client.id": "cdc",
        "sasl.oauthbearer.client.secret": SECRET,
        "sasl.oauthbearer.scope": "kafka",
        "ssl.ca.location": str(authority.certificate),
        "https.ca.location": str(authority.certificate),
    }


def test_oauthbearer_without_signature() -> None:
    given = {"sasl.jaas.config": jaas("oauthbearer.OAuthBearerLoginModule", unsecuredLoginStringClaim_sub="cdc")}
    wanted = {"enable.sasl.oauthbearer.unsecure.jwt": "true", "sasl.oauthbearer.config": "principal=cdc"}
    assert security_settings(given) == wanted


def test_stores_in_pem_are_files_of_librdkafka(authority: Authority, tmp_path: Path) -> None:
    mine = authority.client(password=SECRET)
    both = tmp_path / "keystore.pem"
    both.write_bytes(mine.key.read_bytes() + mine.certificate.read_bytes())
    given = {
        "ssl.truststore.location": str(authority.certificate),
        "ssl.keystore.location": str(both),
        "ssl.keystore.type": "PEM",
        "ssl.key.password": SECRET,
        "ssl.endpoint.identification.algorithm": "https",
    }
    assert security_settings(given) == {
        "ssl.ca.location": str(authority.certificate),
        "ssl.certificate.location": str(both),
        "ssl.key.location": str(both),
        "ssl.key.password": SECRET,
        "ssl.endpoint.identification.algorithm": "https",
    }


def test_stores_in_pkcs12_whatever_their_type_says(authority: Authority, tmp_path: Path) -> None:
    mine = authority.client(password=SECRET)
    own = load_pem_x509_certificate(authority.certificate.read_bytes())
    trust = tmp_path / "truststore.p12"
    trust.write_bytes(
        pkcs12.serialize_java_truststore(
            [pkcs12.PKCS12Certificate(own, b"ca")], BestAvailableEncryption(SECRET.encode())
        )
    )
    given = {
        "ssl.truststore.location": str(trust),
        "ssl.truststore.type": "JKS",  # Java's own default reads both
        "ssl.truststore.password": SECRET,
        "ssl.keystore.location": str(mine.store),
        "ssl.keystore.password": SECRET,
        "ssl.key.password": SECRET,
    }
    found = security_settings(given)
    assert found.pop("ssl.ca.pem") == authority.certificate.read_text()
    assert found == {
        "ssl.keystore.location": str(mine.store),
        "ssl.keystore.password": SECRET,
        "ssl.key.password": SECRET,
    }
    with pytest.raises(ConfigError, match="cannot be read with its password") as raised:
        security_settings({**given, "ssl.truststore.password": password("wrong")})
    assert MARK not in str(raised.value)
    load_pem_private_key(mine.key.read_bytes(), SECRET.encode())


def test_certificates_as_texts() -> None:
    given = {"ssl.truststore.certificates": "a", "ssl.keystore.certificate.chain": "b", "ssl.keystore.key": "c"}
    assert security_settings(given) == {"ssl.ca.pem": "a", "ssl.certificate.pem": "b", "ssl.key.pem": "c"}


def test_names_are_verified_unless_java_s_way_says_not() -> None:
    assert security_settings({"ssl.endpoint.identification.algorithm": ""}) == {
        "ssl.endpoint.identification.algorithm": "none"
    }
    assert "ssl.endpoint.identification.algorithm" not in security_settings({"security.protocol": "SSL"})


def test_what_only_java_has_is_left_out() -> None:
    given = {
        "ssl.protocol": "TLSv1.3",
        "ssl.enabled.protocols": "TLSv1.2,TLSv1.3",
        "sasl.login.refresh.window.factor": "0.8",
        "ssl.keymanager.algorithm": "SunX509",
    }
    assert security_settings(given) == {}


def test_the_role_s_own_wins() -> None:
    worker = {
        "bootstrap.servers": "k:1",
        "sasl.jaas.config": jaas("plain.PlainLoginModule", username="all", password=SECRET),
        "producer.sasl.jaas.config": jaas("plain.PlainLoginModule", username="writer", password=SECRET),
        "consumer.max.poll.records": "1",
    }
    assert client_settings(worker, "producer")["sasl.username"] == "writer"
    assert client_settings(worker, "consumer")["sasl.username"] == "all"


def test_a_java_key_store_is_refused_with_the_command_that_converts_it(tmp_path: Path) -> None:
    store = tmp_path / "keystore.jks"
    store.write_bytes(b"\xfe\xed\xfe\xed\x00\x00\x00\x02")
    for name in ("ssl.truststore.location", "ssl.keystore.location"):
        with pytest.raises(ConfigError) as raised:
            security_settings({name: str(store)})
        [finding] = raised.value.findings
        assert finding.key == name
        assert "Java key store (JKS), which only Java reads" in finding.message
        assert f"keytool -importkeystore -srckeystore {store} -destkeystore {tmp_path}/keystore.p12" in finding.remedy


@pytest.mark.parametrize(
    ("given", "key", "says"),
    [
        ({"ssl.truststore.location": "/no/such"}, "ssl.truststore.location", "No such file"),
        ({"ssl.truststore.location": "/etc/hostname"}, "ssl.truststore.location", "neither PEM nor PKCS#12"),
        ({"sasl.jaas.config": "com.example.Login required;"}, "sasl.jaas.config", "Login is not known"),
        (
            {"sasl.login.callback.handler.class": "software.amazon.msk.auth.iam.IAMClientCallbackHandler"},
            "sasl.login.callback.handler.class",
            "Java's and cannot be loaded",
        ),
        ({"ssl.engine.factory.class": "com.example.Factory"}, "ssl.engine.factory.class", "cannot be loaded"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(given: dict[str, str], key: str, says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        security_settings(given)
    [finding] = raised.value.findings
    assert finding.key == key
    assert says in finding.message
    assert finding.remedy


def test_faults_have_the_places_and_keys_of_the_file() -> None:
    text = """\
worker:
  bootstrap.servers: k:9093
  ssl.truststore.location: /no/such/ca
  producer.ssl.keystore.location: /no/such/own
connectors:
  cache:
    connector.class: redis
    topics: t
    consumer.override.sasl.jaas.config: com.example.Login required;
"""
    with pytest.raises(ConfigError) as raised:
        loads({"bridge.yaml": text}, {})
    told: list[Any] = [(finding.where, finding.key) for finding in raised.value.findings]
    assert told == [
        ("bridge.yaml:3", "worker.ssl.truststore.location"),
        ("bridge.yaml:4", "worker.producer.ssl.keystore.location"),
        ("bridge.yaml:9", "connectors.cache.consumer.override.sasl.jaas.config"),
    ]
