"""Settings → connections: the one place where connections to Redis are made, with their login, TLS and sentinels.

A master behind sentinels is looked up at each connect: there is no other way to learn of a failover.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.connection import SSLConnection
from redis.retry import Retry

from cdc.errors import CdcError, FatalError, RetriableError
from cdc.redis import uri
from cdc.redis.connection import Wire
from cdc.redis.connection_config import RedisConnectionConfig
from cdc.redis.errors import OF_SENTINELS, OF_SERVERS, translate
from cdc.tls import tls_fault

__all__ = ["Access", "Sentinels"]

_TLS: Final = "ssl_"
_CLOSED: Final = re.compile("closed by server|reset by peer|EOF occurred|Broken pipe", re.IGNORECASE)
_ALERT_S: Final = 2.0
_REMEDY_TLS = "correct redis.cacert, redis.key.cert, redis.key.file and redis.key.password"


@dataclass(frozen=True)
class Access:
    """How to open connections to what the settings name. Makes none by itself."""

    place: str
    """The server as messages name it."""
    kind: type[redis.Connection]
    options: Mapping[str, Any] = field(repr=False)
    """Of redis-py's connection: login, TLS, time-outs, and the address if there are no sentinels."""
    sentinels: Sentinels | None = None
    remedies: Mapping[str, str] = field(default_factory=lambda: OF_SERVERS, repr=False)
    """What to do about refusals."""
    seeds: tuple[tuple[str, int], ...] = ()
    """Nodes of a cluster, from which the others are found; empty for what is no cluster."""

    @classmethod
    def of(cls, config: RedisConnectionConfig) -> Self:
        """What the settings of a connector say."""
        address = uri.single(config.redis_uri.get_secret_value())
        found = uri.sentinel(address)
        kind: type[redis.Connection]
        if found is not None:
            login: dict[str, Any] = {"username": found.username, "password": found.password, "db": found.database}
            kind = SSLConnection if found.tls else redis.Connection
            nodes, master = found.nodes, found.master
        else:
            login = uri.options(address)
            kind = login.pop("connection_class", redis.Connection)
            nodes = uri.nodes(config.redis_sentinel_nodes) if config.redis_sentinel_nodes else ()
            master = config.redis_sentinel_master_name
        common = {
            "protocol": 2,
            "socket_timeout": config.redis_timeout_ms / 1000,
            "socket_connect_timeout": config.redis_timeout_ms / 1000,
            "health_check_interval": 0,
            "retry": Retry(NoBackoff(), 0),
        }
        if issubclass(kind, redis.Connection):  # not for a unix socket
            common["socket_keepalive"] = True
        if config.redis_tls and kind is redis.Connection:
            kind = SSLConnection
        tls = _tls_options(config)
        own = {"username": config.redis_username, "password": config.redis_password.get_secret_value()}
        options = common | _given(own) | _given(login) | (tls if kind is SSLConnection else {})
        if config.redis_cluster_enabled:
            seeds = uri.seeds(config.redis_uri.get_secret_value())
            return cls(uri.cluster_place(seeds), kind, options, seeds=seeds)
        if not nodes:
            return cls(uri.place(address), kind, options)
        asks_tls = kind is SSLConnection if config.redis_sentinel_tls is None else config.redis_sentinel_tls
        asking = {
            "username": config.redis_sentinel_username,
            "password": config.redis_sentinel_password.get_secret_value(),
        }
        sentinels = Sentinels(
            nodes,
            master,
            SSLConnection if asks_tls else redis.Connection,
            common | _given(asking) | (tls if asks_tls else {}),
        )
        return cls(uri.sentinel_place(master, nodes), kind, options, sentinels)

    @property
    def keyspace(self) -> tuple[str, int]:
        """What tells one keyspace from another: server and database."""
        place = self.place
        if self.sentinels is not None:
            place = uri.sentinel_place(self.sentinels.master, tuple(sorted(self.sentinels.nodes)))
        if self.seeds:
            place = uri.cluster_place(tuple(sorted(self.seeds)))
        return place, int(self.options.get("db") or 0)

    def at(self, host: str, port: int) -> Self:
        """The same login and TLS at another address: a node of a cluster, a master that sentinels name."""
        options = {key: value for key, value in self.options.items() if key != "path"}
        place = f"{host}:{port}"
        options |= {"host": host, "port": port}
        return replace(self, place=place, options=options, sentinels=None, seeds=())

    def wire(self, name: str) -> Wire:
        """A connection called ``name`` in CLIENT LIST. `RetriableError` or `FatalError` when it cannot be had."""
        if self.sentinels is not None:
            return self._master(name)
        _try_files(self.options)
        try:
            return Wire(lambda: self.kind(**self.options, client_name=_printable(name)), self.place, self.remedies)
        except RetriableError as error:
            cause = error.__cause__
            if fault := self._refused_after_handshake(cause):
                raise translate(fault, f"connecting to Redis at {self.place}", self.remedies) from cause
            raise RetriableError(f"{error}{self._hint(cause)}") from cause

    def _hint(self, error: BaseException | None) -> str:
        """What else than an outage may be the matter with a connection that did not come about."""
        said = "" if error is None else f"{error} {error.__context__}"
        if self.kind is SSLConnection:
            return ". If it does not speak TLS there, write redis://" if "handshake operation timed out" in said else ""
        return ". If it takes only TLS there, write rediss://" if _CLOSED.search(said) else ""

    def _refused_after_handshake(self, error: BaseException | None) -> ssl.SSLError | None:
        """The alert with which a server refuses a client certificate, or the want of one.

        In TLS 1.3 it comes after the client has taken the handshake for done, and is lost if the client writes first.
        """
        if self.kind is not SSLConnection or error is None or not _CLOSED.search(f"{error} {error.__context__}"):
            return None
        made: Any = self.kind(**self.options)
        try:
            sock = made._connect()
        except (OSError, redis.RedisError):
            return None
        try:
            sock.settimeout(_ALERT_S)
            sock.recv(1)
        except ssl.SSLError as alert:
            return alert if tls_fault(alert) is not None else None
        except OSError:
            return None
        finally:
            sock.close()
        return None

    def _master(self, name: str) -> Wire:
        """The server that the sentinels call master, if it agrees."""
        if self.sentinels is None:
            raise RuntimeError("a master is asked of sentinels, and there are none")
        host, port = self.sentinels.find(name)
        wire = self.at(host, port).wire(name)
        role = bytes(wire.one("INFO", "replication"))
        if b"role:master" not in role:
            wire.close()
            raise RetriableError(
                f"the {self.place} say that the master is {host}:{port}, which is a replica: a failover is under way"
            )
        return wire

    def client(self, name: str) -> Any:
        """redis-py's client, which connects anew by itself, for reading: `redis.Redis`, of the present master with
        sentinels, or `redis.RedisCluster`."""
        if self.seeds:
            return self._cluster_client(name)
        if self.sentinels is not None:
            return self.at(*self.sentinels.find(name)).client(name)
        _try_files(self.options)
        options = {key: value for key, value in self.options.items() if key != "retry"}
        pool = redis.ConnectionPool(self.kind, **options, client_name=_printable(name))
        return redis.Redis.from_pool(pool)

    def _cluster_client(self, name: str) -> Any:
        """Errors of redis-py's, and `FatalError` for certificate files."""
        _try_files(self.options)
        own = ("host", "port", "db", "retry", "health_check_interval")
        options = {key: value for key, value in self.options.items() if key not in own}
        if self.kind is SSLConnection:
            options["ssl"] = True
        nodes = [ClusterNode(host, port) for host, port in self.seeds]  # type: ignore[no-untyped-call]
        return redis.RedisCluster(startup_nodes=nodes, client_name=_printable(name), **options)


@dataclass(frozen=True)
class Sentinels:
    """The sentinels that know a master."""

    nodes: tuple[tuple[str, int], ...]
    master: str
    kind: type[redis.Connection]
    options: Mapping[str, Any] = field(repr=False)

    def find(self, name: str) -> tuple[str, int]:
        """Host and port of the master, from the first sentinel that knows.

        `RetriableError` when none answers, `FatalError` when they refuse us or know no such master.
        """
        refused: CdcError | None = None
        silent: list[str] = []
        strangers: list[str] = []
        for host, port in self.nodes:
            place = f"{host}:{port}"
            options = {**self.options, "host": host, "port": port}
            try:
                wire = Access(f"the sentinel {place}", self.kind, options, remedies=OF_SENTINELS).wire(name)
                try:
                    found = wire.one("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.master)
                finally:
                    wire.close()
            except FatalError as error:
                refused = refused or error
            except RetriableError as error:
                silent.append(str(error))
            else:
                if found:
                    return found[0].decode(), int(found[1])
                strangers.append(place)
        if refused is not None:
            raise refused
        if strangers:
            raise FatalError(
                f"the sentinels {', '.join(strangers)} know no master {self.master!r}. Remedy: correct the name "
                "(SENTINEL MASTERS lists them) in redis.sentinel.master.name or redis.uri"
            )
        raise RetriableError(f"no sentinel answers: {'; '.join(silent)}")


def _tls_options(config: RedisConnectionConfig) -> dict[str, Any]:
    options = _given(
        {
            "ssl_ca_certs": config.redis_cacert,
            "ssl_certfile": config.redis_key_cert,
            "ssl_keyfile": config.redis_key_file,
            "ssl_password": config.redis_key_password.get_secret_value(),
        }
    )
    if config.redis_insecure:
        options |= {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
    return options


def _try_files(options: Mapping[str, Any]) -> None:
    """`FatalError` for certificate files that cannot be used: redis-py would tell of them as of a lost connection."""
    files = {name: value for name, value in options.items() if name.startswith(_TLS)}
    if not files:
        return
    authorities, certificate = files.get("ssl_ca_certs"), files.get("ssl_certfile")
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if authorities:
            context.load_verify_locations(authorities)
        if certificate:
            # Without a password OpenSSL would ask the terminal for one.
            secret = files.get("ssl_password") or ""
            context.load_cert_chain(certificate, files.get("ssl_keyfile"), secret)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        about = " and ".join(
            str(files[name]) for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile") if name in files
        )
        said = getattr(error, "strerror", None) or str(error)
        raise FatalError(f"the certificate files {about} cannot be used: {said}. Remedy: {_REMEDY_TLS}") from None


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value not in (None, "")}


def _printable(name: str) -> str:
    return "cdc/" + "".join(char if "!" <= char <= "~" else "_" for char in name)
