"""``redis.uri``: what is wrong with one, and which server and database it names."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import redis

__all__ = ["fault", "keyspace", "place"]

_FORMS = "write redis://host:port/database, rediss:// for TLS, unix:///path?db=0 for a socket"


def fault(uri: str) -> str:
    """What is wrong with ``uri`` and what to write; empty if nothing. Never repeats any of it: it may hold a password.

    Stricter than redis-py, which takes database 0 for one that is no number, and the host of a ``unix:`` address for
    nothing.
    """
    parts = urlsplit(uri)
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
        pool = redis.ConnectionPool.from_url(uri)
        pool.connection_class(**pool.connection_kwargs)
    except TypeError:
        return f"a parameter behind the ? is not known for this kind of address (ssl_… are rediss:'s); {_FORMS}"
    except (ValueError, redis.RedisError):
        return f"not a Redis URI; {_FORMS}"
    return "" if _database(pool.connection_kwargs) >= 0 else f"the database is negative; {_FORMS}"


def _database(options: dict[str, Any]) -> int:
    return int(options.get("db") or 0)


def place(uri: str) -> str:
    """The server as messages name it: no user, no password."""
    parts = urlsplit(uri)
    if parts.scheme == "unix":
        return unquote(parts.path)
    return f"{parts.hostname or 'localhost'}:{parts.port or 6379}"


def keyspace(uri: str) -> tuple[str, int]:
    """What tells one keyspace from another: server and database."""
    return place(uri), _database(redis.ConnectionPool.from_url(uri).connection_kwargs)
