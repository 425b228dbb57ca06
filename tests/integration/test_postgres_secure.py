"""Postgres over TLS, replication and ordinary connections both: certificates of both sides, and what mistakes say."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from certificates import Authority
from fix_secure import demand_tls
from fix_servers import started
from passwords import MARK, password

from cdc.errors import FatalError
from cdc.local.postgres import Postgres, SystemPostgres
from cdc.postgres.config import PostgresConfig
from cdc.postgres.connection import connect
from cdc.postgres.connector import PostgresSourceConnector

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[Postgres]:
    """The system's: Postgres 18 from the wheel is built without TLS."""
    with started(SystemPostgres(15)) as made:
        with psycopg.connect(**made.conninfo(), autocommit=True) as connection:
            connection.execute(f"CREATE ROLE cdc LOGIN REPLICATION PASSWORD '{password('postgres cdc')}'")
            connection.execute("CREATE ROLE certified LOGIN REPLICATION")
        demand_tls(made, authority)
        yield made


def config(server: Postgres, **settings: str) -> PostgresConfig:
    properties = {
        "name": "source",
        "connector.class": "postgres",
        "database.hostname": "localhost",
        "database.port": str(server.port),
        "database.user": "cdc",
        "database.password": password("postgres cdc"),
        "database.dbname": "postgres",
        "topic.prefix": "p",
        "database.sslmode": "verify-full",
        **{f"database.{name}": value for name, value in settings.items()},
    }
    return PostgresConfig.model_validate({name: value for name, value in properties.items() if value})


@pytest.mark.parametrize("replication", [False, True], ids=["ordinary", "replication"])
def test_both_sides_prove_who_they_are(server: Postgres, authority: Authority, replication: bool) -> None:
    mine = authority.client("certified", password("postgres key"))
    own = {"sslcert": str(mine.certificate), "sslkey": str(mine.key), "sslpassword": mine.password}
    trust = {"sslrootcert": str(authority.certificate)}
    for settings in (trust, {**trust, **own, "user": "certified", "password": ""}):
        with connect(config(server, **settings).conninfo(), "test", replication=replication) as connection:
            assert connection.pgconn.ssl_in_use


@pytest.mark.parametrize("replication", [False, True], ids=["ordinary", "replication"])
def test_mistakes_are_one_error_with_a_remedy(
    server: Postgres, authority: Authority, stranger: Authority, replication: bool
) -> None:
    trust = str(authority.certificate)
    mine, other, locked = (
        authority.client("certified"),
        stranger.client("certified"),
        authority.client("certified", MARK),
    )
    for settings, says in (
        ({"sslrootcert": str(stranger.certificate)}, "certificate verify failed.*Remedy: set database.sslrootcert"),
        ({"sslrootcert": "/no/such/ca.pem"}, "root certificate file .*Remedy: set database.sslrootcert"),
        ({"sslrootcert": trust, "hostname": "127.0.0.1"}, "Remedy: name the server in database.hostname as its cert"),
        ({"sslrootcert": trust, "user": "certified"}, "Remedy: set database.sslcert and database.sslkey"),
        (
            {"sslrootcert": trust, "user": "certified", "sslcert": str(other.certificate), "sslkey": str(other.key)},
            "Remedy: set database.sslcert and database.sslkey to a certificate that the server trusts",
        ),
        (
            {"sslrootcert": trust, "sslcert": str(mine.certificate), "sslkey": "/no/such.key"},
            "Remedy: correct database.sslkey",
        ),
        (
            {"sslrootcert": trust, "sslcert": str(locked.certificate), "sslkey": str(locked.key)},
            "Remedy: correct database.sslkey, and database.sslpassword",
        ),
        ({"sslrootcert": trust, "password": password("wrong")}, "Remedy: check database.user, database.password"),
        ({"sslmode": "disable"}, "Remedy: add an entry for this host"),
    ):
        given = config(server, **settings)
        with pytest.raises(FatalError, match=says) as raised:
            connect(given.conninfo(), "test", replication=replication)
        assert MARK not in str(raised.value)
        findings = PostgresSourceConnector(given).check()
        assert len(findings) == 1
        assert MARK not in str(findings[0])


def test_a_server_without_tls_is_told_of(postgres18: Postgres, authority: Authority) -> None:
    with pytest.raises(FatalError, match="Remedy: set ssl = on"):
        connect(config(postgres18, sslrootcert=str(authority.certificate)).conninfo(), "test")
