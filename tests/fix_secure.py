"""Servers that demand certificates, passwords and permissions, and the least that the bridge must be granted on them.

What is granted here is what docs/security.md says, statement by statement.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
import pytest
from certificates import Authority, Identity
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from fix_servers import started
from passwords import password

from cdc.local.kafka import ApacheKafka
from cdc.local.postgres import Postgres

_MODULES: Final = "org.apache.kafka.common.security"
PRINCIPAL: Final = "cdc"
OAUTH: Final = f"{_MODULES}.oauthbearer.OAuthBearerLoginModule"


@dataclass(frozen=True)
class SecureKafka:
    """A broker with the listeners TLS (client certificate demanded) and SASL (over TLS), and ACLs."""

    server: ApacheKafka
    authority: Authority
    stranger: Authority
    own: Identity

    def tls(self, **more: str) -> dict[str, str]:
        """A worker's properties for the listener TLS."""
        return {
            "bootstrap.servers": self.server.listener("TLS"),
            "security.protocol": "SSL",
            "ssl.ca.location": str(self.authority.certificate),
            "ssl.certificate.location": str(self.own.certificate),
            "ssl.key.location": str(self.own.key),
            **{name.replace("_", "."): value for name, value in more.items()},
        }

    def sasl(self, mechanism: str, jaas: str, **more: str) -> dict[str, str]:
        """A worker's properties for the listener SASL, as Kafka Connect has them."""
        return {
            "bootstrap.servers": self.server.listener("SASL"),
            "security.protocol": "SASL_SSL",
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.certificate),
            "sasl.mechanism": mechanism,
            "sasl.jaas.config": jaas,
            **{name.replace("_", "."): value for name, value in more.items()},
        }

    def scram(self, secret: str = password("kafka scram")) -> dict[str, str]:
        return self.sasl("SCRAM-SHA-512", login("scram.ScramLoginModule", secret))

    def plain(self) -> dict[str, str]:
        return self.sasl("PLAIN", login("plain.PlainLoginModule", password("kafka plain")))

    def admin(self) -> AdminClient:
        """A client that may do everything."""
        return AdminClient({"bootstrap.servers": self.server.bootstrap_servers})


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait until ``condition`` is true."""
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within a minute: {what}")
        time.sleep(0.02)


def login(module: str, secret: str) -> str:
    return f'{_MODULES}.{module} required username="{PRINCIPAL}" password="{secret}";'


def grants(prefix: str, group: str, sink: str) -> list[AclBinding]:
    """docs/security.md: what a worker ``group`` is granted, for topics ``<prefix>.…`` and a sink connector."""
    own = "CREATE DESCRIBE DESCRIBE_CONFIGS READ WRITE"
    rights: Mapping[tuple[ResourceType, str, ResourcePatternType], str] = {
        (ResourceType.TOPIC, f"{prefix}.", ResourcePatternType.PREFIXED): own,
        (ResourceType.TOPIC, f"{group}-offsets", ResourcePatternType.LITERAL): own,
        (ResourceType.TOPIC, "_schemas", ResourcePatternType.LITERAL): own,
        (ResourceType.TOPIC, f"{prefix}-signal", ResourcePatternType.LITERAL): "CREATE DESCRIBE READ",
        (ResourceType.TRANSACTIONAL_ID, f"{group}-", ResourcePatternType.PREFIXED): "DESCRIBE WRITE",
        (ResourceType.GROUP, f"connect-{sink}", ResourcePatternType.LITERAL): "DESCRIBE READ",
        (ResourceType.GROUP, "cdc-", ResourcePatternType.PREFIXED): "DESCRIBE",
    }
    return [
        AclBinding(kind, name, pattern, f"User:{PRINCIPAL}", "*", AclOperation[right], AclPermissionType.ALLOW)
        for (kind, name, pattern), listed in rights.items()
        for right in listed.split()
    ]


def grant(kafka: SecureKafka, bindings: list[AclBinding]) -> None:
    admin = kafka.admin()  # lives until the answers are there
    for future in admin.create_acls(bindings).values():
        future.result(30)


def demand_tls(server: Postgres, authority: Authority, *names: str) -> None:
    """Give a running Postgres a certificate, and let roles in over TLS only: ``certified`` by certificate, others by
    password."""
    own = authority.server(*(names or ("localhost",)))
    owner = server.data.stat()
    rules = "".join(
        f"{rule}\n"
        for rule in (
            "local all all trust",
            "hostssl all,replication certified all cert",
            "hostssl all,replication all all scram-sha-256",
        )
    )
    for name, content in (
        ("server.crt", own.certificate.read_bytes()),
        ("server.key", own.key.read_bytes()),
        ("clients.crt", authority.certificate.read_bytes()),
        ("pg_hba.conf", rules.encode()),
    ):
        path = server.data / name
        path.touch(mode=0o600)
        path.write_bytes(content)
        os.chown(path, owner.st_uid, owner.st_gid)
    with psycopg.connect(**server.conninfo(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET ssl = on")
        connection.execute("ALTER SYSTEM SET ssl_ca_file = 'clients.crt'")
        connection.execute("SELECT pg_reload_conf()")

    def over_tls() -> bool:
        with psycopg.connect(**server.conninfo(), sslmode="prefer") as connection:
            return bool(connection.pgconn.ssl_in_use)

    eventually(over_tls, "the server has loaded its certificate")


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whom nobody trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"), "another authority")


@pytest.fixture(scope="session")
def secure_kafka(authority: Authority, stranger: Authority) -> Iterator[SecureKafka]:
    settings = {
        **_stores(authority),
        "listener.name.tls.ssl.client.auth": "required",
        "listener.name.tls.ssl.principal.mapping.rules": "RULE:^CN=(.*)$/$1/",
        "listener.name.sasl.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512,OAUTHBEARER",
        "listener.name.sasl.plain.sasl.jaas.config": (
            f'{_MODULES}.plain.PlainLoginModule required user_{PRINCIPAL}="{password("kafka plain")}";'
        ),
        "listener.name.sasl.scram-sha-512.sasl.jaas.config": f"{_MODULES}.scram.ScramLoginModule required;",
        "listener.name.sasl.oauthbearer.sasl.jaas.config": f'{OAUTH} required unsecuredLoginStringClaim_sub="broker";',
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    server = ApacheKafka(settings=settings, listeners={"TLS": "SSL", "SASL": "SASL_SSL"})
    with started(server):
        found = SecureKafka(server, authority, stranger, authority.client(PRINCIPAL))
        secret = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        upsertion = UserScramCredentialUpsertion(PRINCIPAL, secret, password("kafka scram").encode())
        admin = found.admin()
        for future in admin.alter_user_scram_credentials([upsertion]).values():
            future.result(30)
        yield found


def _stores(authority: Authority) -> dict[str, str | int]:
    own = authority.server("localhost")
    both = Path(str(own.key) + ".pem")
    both.touch(mode=0o600)
    both.write_bytes(own.key.read_bytes() + own.certificate.read_bytes())
    return {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(both),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.certificate),
    }
