"""Redis over TLS, with client certificates and users of an ACL: what works, and what each mistake is told as."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import closing

import pytest
from certificates import Authority, Identity
from cryptography.x509.oid import ExtendedKeyUsageOID
from fix_servers import clustered, started
from passwords import MARK, password
from test_sink_redis_store import World

from cdc.errors import FatalError, RetriableError
from cdc.local._ports import free_port
from cdc.local.redis import Redis, RedisServer
from cdc.local.redis_cluster import RedisCluster
from cdc.mirror.fold import PUT, Op
from cdc.mirror.store import Batch, Partition, StoredOffset
from cdc.plugin import TaskContext
from cdc.redis.config import RedisConfig
from cdc.redis.connector import RedisSinkConnector

pytestmark = pytest.mark.integration

LEAST = (
    "+client|setname +info +scan +echo +multi +exec +watch +unwatch +get +mget +set +exists +hget +hgetall +hset +hdel "
    "+del +unlink +expire +persist"
)
"""What docs/security.md grants (A30)."""


class TlsWorld(World):
    """A world whose server speaks TLS on a port of its own; the plain one is the test's."""

    def __init__(self, server: RedisServer, port: int, authority: Authority, scheme: str = "rediss") -> None:
        super().__init__(server)
        self.port = port
        self.authority = authority
        self.address = f"{scheme}://localhost:{port}/0"

    def errors(self, **settings: str) -> str:
        """What the one error says, of a task and of ``cdc check`` alike."""
        given = {"redis_uri": self.address, "redis_cacert": str(self.authority.certificate), **settings}
        given = {name: value for name, value in given.items() if value}
        [finding] = self.connector(**given).check()
        with pytest.raises(FatalError) as raised:
            self.store(0, **given)
        said = str(raised.value)
        assert said.partition("Remedy: ")[2] in str(finding)
        assert MARK not in said + str(finding)
        return said


@pytest.fixture(scope="module")
def secured(authority: Authority) -> Iterator[tuple[Redis, int]]:
    """A server that takes TLS with and without client certificates."""
    with tls_server(authority, "optional") as made:
        yield made


@pytest.fixture
def tls(secured: tuple[Redis, int], authority: Authority) -> Iterator[TlsWorld]:
    world = TlsWorld(*secured, authority)
    yield world
    world.close()


def tls_settings(authority: Authority, clients: str, *names: str) -> dict[str, str | int]:
    own = authority.server(*names)
    return {
        "tls-port": free_port(),
        "tls-cert-file": str(own.certificate),
        "tls-key-file": str(own.key),
        "tls-ca-cert-file": str(authority.certificate),
        "tls-auth-clients": clients,
    }


@contextlib.contextmanager
def tls_server(authority: Authority, clients: str, *names: str) -> Iterator[tuple[Redis, int]]:
    settings = tls_settings(authority, clients, *names)
    with started(Redis(appendonly=False, settings=settings)) as server:
        yield server, int(settings["tls-port"])


def mirrors(world: TlsWorld, **settings: str) -> None:
    """A batch gets through, and ``cdc check`` has nothing to say."""
    given = {"redis_uri": world.address, "redis_cacert": str(world.authority.certificate), **settings}
    assert world.connector(**given).check() == []
    store = world.store(0, **given)
    assert world.write(store, world.batch(world.put("1", a="x" * 100_000), 5)) == ()
    assert world.rows() == {"1": {"a": "x" * 100_000}}
    with world.connector(**given).access.client("verify") as client:
        assert client.hget(world.key("1"), "a") == b"x" * 100_000


def identity(given: Identity, **more: str) -> dict[str, str]:
    return {"redis_key_cert": str(given.certificate), "redis_key_file": str(given.key), **more}


@contextlib.contextmanager
def tls_cluster(authority: Authority, clients: str) -> Iterator[RedisCluster]:
    """Nodes tell each other of by address, in certificates too."""
    own, node = authority.server("127.0.0.1", "localhost"), authority.client("node")
    settings: dict[str, str | int] = {
        "tls-cert-file": str(own.certificate),
        "tls-key-file": str(own.key),
        "tls-ca-cert-file": str(authority.certificate),
        "tls-auth-clients": clients,
        "tls-cluster": "yes",  # or nodes do not know each other's ports for TLS
        "tls-client-cert-file": str(node.certificate),
        "tls-client-key-file": str(node.key),
    }
    with clustered(RedisCluster(Redis, password=password("tls cluster"), tls=settings)) as cluster:
        yield cluster


def test_a_cluster_over_tls_with_client_certificates(authority: Authority) -> None:
    """Seeds, the nodes that they name, the check, a rebuild's and verify's connections."""
    with tls_cluster(authority, "yes") as cluster:
        address = cluster.tls_url.replace("rediss://", f"rediss://:{password('tls cluster')}@")
        given = {
            "name": "tls-cluster",
            "connector.class": "redis",
            "topics": "rows",
            "redis.uri": address,
            "redis.cluster.enabled": "true",
            "redis.key": "secure:{pk}",
            "redis.cacert": str(authority.certificate),
        }
        known = authority.client()
        with_own = {**given, "redis.key.cert": str(known.certificate), "redis.key.file": str(known.key)}
        connector = RedisSinkConnector(RedisConfig.model_validate(with_own))
        assert connector.check() == []
        store = connector.store(TaskContext("tls-cluster", 0, "test", lambda _name, _value: None, lambda: False))
        part = Partition("rows", 0)
        store.take([part])
        ops: dict[bytes, Op] = {b"secure:%d" % n: (PUT, [b"a", b"x"], (), 0, n) for n in range(100)}
        versions = {key: (b"s", b"%043d" % number) for number, key in enumerate(ops)}
        store.write(Batch(ops=ops, sources=[part], versions=versions, offsets={part: StoredOffset(100)}))
        assert store.settle() == ()
        store.confirm()
        store.close()
        with closing(connector.mender("rows", 1, "test")) as mender:
            assert mender.offsets() == {0: StoredOffset(100)}
            assert len(mender.hold(sorted(ops)).rows) == 100
        with connector.access.client("verify") as client:
            assert client.hget("secure:7", "a") == b"x"
        without = RedisSinkConnector(RedisConfig.model_validate(given))
        [finding] = without.check()
        assert "redis.key.cert" in str(finding)
        assert MARK not in str(finding)


# --- what works ------------------------------------------------------------------------------------------


def test_tls_with_an_authority_of_ones_own(tls: TlsWorld) -> None:
    mirrors(tls)


def test_tls_by_its_setting_and_without_verification(tls: TlsWorld, stranger: Authority) -> None:
    address = tls.address.replace("rediss", "redis")
    mirrors(tls, redis_uri=address, redis_tls="true")
    other = {"redis_cacert": str(stranger.certificate), "redis_insecure": "true"}
    mirrors(tls, redis_uri=address.replace("localhost", "127.0.0.1"), redis_tls="true", **other)


def test_tls_with_a_client_certificate_whose_key_has_a_password(authority: Authority) -> None:
    mine = authority.client(password=password("redis key"))
    with tls_server(authority, "yes") as (server, port):
        world = TlsWorld(server, port, authority)
        mirrors(world, **identity(mine, redis_key_password=mine.password))
        said = world.errors(**identity(mine, redis_key_password=password("wrong")))
        assert "redis.key.password" in said
        world.close()


def test_a30_the_documented_user_suffices_and_check_names_what_another_lacks(tls: TlsWorld) -> None:
    user = {"redis_username": "cdc", "redis_password": password("redis cdc")}
    keys = ["~__cdc:*", f"~{tls.name}:*"]
    grants = LEAST.split()
    tls.client.execute_command("ACL", "SETUSER", "cdc", "reset", "on", ">" + user["redis_password"], *keys, *grants)
    tls.client.execute_command("ACL", "LOG", "RESET")
    mirrors(tls, **user)
    assert [entry["object"] for entry in tls.client.acl_log() if entry["username"] == "cdc"] in (
        [],
        ["acl|whoami"],  # `cdc check` asks who it is, and does without an answer
        ["client|setinfo", "acl|whoami"],  # what redis-py says of itself
    )
    given = {"redis_uri": tls.address, "redis_cacert": str(tls.authority.certificate), **user}
    for grant in grants[1:]:
        tls.client.execute_command("ACL", "SETUSER", "cdc", "-" + grant[1:])
        findings = tls.connector(**given).check()
        assert [finding.remedy for finding in findings] == [f"ACL SETUSER cdc {grant}"], grant
        tls.client.execute_command("ACL", "SETUSER", "cdc", grant)
    tls.client.execute_command("ACL", "SETUSER", "cdc", "resetkeys", "~__cdc:*")
    [finding] = tls.connector(**given).check()
    assert finding.remedy == f"ACL SETUSER cdc ~{tls.name}:*"
    tls.client.execute_command("ACL", "SETUSER", "cdc", "resetkeys", f"~{tls.name}:*")
    [finding] = tls.connector(**given).check()
    assert finding.remedy == "ACL SETUSER cdc ~__cdc:*"
    with pytest.raises(FatalError, match=r"NOPERM.*Remedy: grant"):
        tls.store(0, **given)


# --- mistakes --------------------------------------------------------------------------------------------


def test_another_authority(tls: TlsWorld, stranger: Authority) -> None:
    assert "not signed by a trusted authority" in tls.errors(redis_cacert=str(stranger.certificate))
    assert "Remedy: set redis.cacert" in tls.errors(redis_cacert="")


def test_another_name(authority: Authority) -> None:
    with tls_server(authority, "no", "redis.example.org") as (server, port):
        world = TlsWorld(server, port, authority)
        said = world.errors()
        assert "is for another name" in said
        assert "Remedy: name the server in redis.uri as its certificate does" in said
        world.close()


def test_no_client_certificate_or_one_that_is_not_trusted(authority: Authority, stranger: Authority) -> None:
    with tls_server(authority, "yes") as (server, port):
        world = TlsWorld(server, port, authority)
        for settings in ({}, identity(stranger.client())):
            said = world.errors(**settings)
            assert "Remedy: set redis.key.cert and redis.key.file to a certificate that the server trusts" in said
        world.close()


def test_an_expired_certificate_of_the_server(authority: Authority) -> None:
    old = authority.issue("old", ("localhost",), ExtendedKeyUsageOID.SERVER_AUTH, days=-1)
    settings = {**tls_settings(authority, "no"), "tls-cert-file": str(old.certificate), "tls-key-file": str(old.key)}
    with started(Redis(appendonly=False, settings=settings)) as server:
        world = TlsWorld(server, int(settings["tls-port"]), authority)
        assert "is not valid now" in world.errors()
        world.close()


def test_files_that_are_not_there(tls: TlsWorld) -> None:
    assert "/no/such/ca.pem" in tls.errors(redis_cacert="/no/such/ca.pem")
    assert "/no/such.key" in tls.errors(redis_key_cert="/no/such.pem", redis_key_file="/no/such.key")


def test_tls_to_a_port_without_it_and_the_other_way_round(tls: TlsWorld) -> None:
    """A server that is silent or closes may also be going away, so that these are waited out. Redis takes a greeting of
    TLS for the beginning of a command."""
    with pytest.raises(RetriableError, match="If it does not speak TLS there, write redis://"):
        tls.store(0, redis_uri=f"rediss://localhost:{tls.server.port}/0", redis_timeout_ms="200")
    with pytest.raises(RetriableError, match="If it takes only TLS there, write rediss://"):
        tls.store(0, redis_uri=tls.address.replace("rediss", "redis"))


def test_a_password_that_is_missing_or_wrong(tls: TlsWorld) -> None:
    tls.client.execute_command("ACL", "SETUSER", "locked", "on", ">" + password("redis locked"), "~*", "+@all")
    said = tls.errors(redis_username="locked", redis_password=password("wrong"))
    assert "Remedy: correct the user and password" in said
    tls.client.config_set("requirepass", password("redis default"))
    try:
        assert "Remedy: set redis.password" in tls.errors()
    finally:
        tls.client.config_set("requirepass", "")


def test_a31_a_server_that_evicts_is_refused(tls: TlsWorld) -> None:
    tls.client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert "maxmemory-policy noeviction" in tls.errors()
    finally:
        tls.client.config_set("maxmemory-policy", "noeviction")
