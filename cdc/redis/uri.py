"""``redis.uri``: what is wrong with one, and what it names: servers, database, user, or a master by its sentinels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import redis
from redis.connection import parse_url

__all__ = [
    "PORT",
    "SENTINEL_PORT",
    "SentinelUri",
    "cluster_place",
    "fault",
    "nodes",
    "options",
    "place",
    "seeds",
    "sentinel",
    "sentinel_place",
    "single",
]

PORT: Final = 6379

SENTINEL_PORT: Final = 26379
_FORMS = (
    "write redis://host:port/database, rediss:// for TLS, unix:///path?db=0 for a socket, "
    "redis+sentinel://host:port,host:port/master/database for Sentinel, redis://host:port,host:port for a cluster"
)
_SENTINEL_SCHEMES: Final = {"redis+sentinel": False, "rediss+sentinel": True}
"""Ours, and whether they mean TLS: ``/master/database`` follows the sentinels."""
_LETTUCE_SCHEMES: Final = {"redis-sentinel": False, "rediss-sentinel": True}
"""Of the client that Redis's own connector uses: ``/database#master`` follows the sentinels."""


@dataclass(frozen=True)
class SentinelUri:
    """What an address of sentinels says. User and password are for the master, not for the sentinels."""

    nodes: tuple[tuple[str, int], ...]
    master: str
    database: int
    tls: bool
    username: str = ""
    password: str = field(default="", repr=False)


def nodes(text: str, port_of_all: int = SENTINEL_PORT) -> tuple[tuple[str, int], ...]:
    """``host:port,host`` as pairs. `ValueError` says what is wrong, without repeating it."""
    found = []
    for part in text.split(","):
        try:
            parts = urlsplit("//" + part.strip())
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or parts.path or parts.username is not None:
            raise ValueError("expected servers as host:port, comma-separated")
        found.append((host, port or port_of_all))
    return tuple(found)


def _hosts(uri: str) -> tuple[str, str, str]:
    """What stands before the hosts of an address, the hosts, and what stands behind them."""
    scheme, mark, rest = uri.partition("://")
    authority, slash, path = rest.partition("/")
    user, at, hosts = authority.rpartition("@")
    return scheme + mark + user + at, hosts, slash + path


def seeds(uri: str) -> tuple[tuple[str, int], ...]:
    """The nodes that ``redis://user:password@host:port,host:port/0`` names. `ValueError` as from `nodes`."""
    return nodes(_hosts(uri)[1] or "localhost", PORT)


def single(uri: str) -> str:
    """The same address with the first of its nodes alone."""
    if sentinel(uri) is not None:
        return uri
    before, hosts, behind = _hosts(uri)
    return before + hosts.partition(",")[0] + behind


def sentinel(uri: str) -> SentinelUri | None:
    """What ``uri`` says if it names sentinels. `ValueError`, without any of it, if it does so wrongly."""
    scheme = uri.partition(":")[0].lower()
    tls = {**_SENTINEL_SCHEMES, **_LETTUCE_SCHEMES}.get(scheme)
    if tls is None:
        return None
    parts = urlsplit(uri)
    if parts.query:
        raise ValueError(f"parameters behind a ? are not known for sentinels; {_FORMS}")
    userinfo, at, hosts = parts.netloc.rpartition("@")
    path = [unquote(part) for part in parts.path.split("/") if part]
    if scheme in _LETTUCE_SCHEMES:
        path = [unquote(parts.fragment), *path]
    master, *rest = path or [""]
    if not master or len(rest) > 1:
        raise ValueError(f"the name of the master is missing; {_FORMS}")
    if rest and not rest[0].isdecimal():
        raise ValueError(f"the database in the path is no number; {_FORMS}")
    user, colon, password = userinfo.partition(":")
    if at and not colon:  # as Lettuce reads it
        user, password = "", user
    database = int(rest[0]) if rest else 0
    return SentinelUri(nodes(hosts), master, database, tls, unquote(user), unquote(password))


def fault(uri: str) -> str:
    """What is wrong with ``uri`` and what to write; empty if nothing. Never repeats any of it: it may hold a password.

    Stricter than redis-py, which takes database 0 for one that is no number, and the host of a ``unix:`` address for
    nothing.
    """
    try:
        if sentinel(uri) is not None:
            return ""
    except ValueError as error:
        return str(error)
    try:
        parts = urlsplit(single(uri))
        if parts.scheme in ("redis", "rediss"):
            seeds(uri)
    except ValueError:
        return f"not a Redis URI; {_FORMS}"
    path = unquote(parts.path)
    if parts.scheme in ("redis", "rediss"):
        if path.strip("/") and not path.strip("/").isdecimal():
            return f"the database in the path is no number; {_FORMS}"
        if "db" in parse_qs(parts.query) and path.strip("/"):
            return f"the database is named twice, in the path and by db=; {_FORMS}"
    elif parts.scheme == "unix":
        if parts.netloc.rpartition("@")[2]:
            return "the path of a socket follows three slashes, unix:///path?db=0; behind two stands the name of a host"
        if not path.strip("/"):
            return f"the path of the socket is missing; {_FORMS}"
    try:
        given = options(single(uri))
        made = given.pop("connection_class", redis.Connection)(**given)
    except TypeError:
        return f"a parameter behind the ? is not known for this kind of address (ssl_… are rediss:'s); {_FORMS}"
    except (ValueError, redis.RedisError):
        return f"not a Redis URI; {_FORMS}"
    return "" if int(made.db or 0) >= 0 else f"the database is negative; {_FORMS}"


def options(uri: str) -> dict[str, Any]:
    """What a ``redis:``, ``rediss:`` or ``unix:`` address means to redis-py's connection, ``connection_class`` too."""
    return dict(parse_url(uri))  # type: ignore[no-untyped-call]


def place(uri: str) -> str:
    """The server as messages name it: no user, no password."""
    if (found := sentinel(uri)) is not None:
        return sentinel_place(found.master, found.nodes)
    parts = urlsplit(uri)
    if parts.scheme == "unix":
        return unquote(parts.path)
    return f"{parts.hostname or 'localhost'}:{parts.port or 6379}"


def sentinel_place(master: str, sentinels: tuple[tuple[str, int], ...]) -> str:
    """A master behind sentinels as messages name it."""
    return f"{master} of the sentinels {','.join(f'{host}:{port}' for host, port in sentinels)}"


def cluster_place(found: tuple[tuple[str, int], ...]) -> str:
    """A cluster as messages name it."""
    return f"the cluster of {','.join(f'{host}:{port}' for host, port in found)}"
