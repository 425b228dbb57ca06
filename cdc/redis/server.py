"""Whether a server is fit to hold a mirror: what it says about itself, and what the user may do on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import hiredis

from cdc.errors import FatalError, Finding
from cdc.redis.connection import Argument, Wire
from cdc.redis.fence import TABLES

__all__ = ["permission_findings", "refuse_unfit", "server_findings"]

_ON_ROWS: Final = (("HSET", "f", "v"), ("HDEL", "f"), ("DEL",), ("UNLINK",), ("EXPIRE", "1"), ("PERSIST",))
_ON_OURS: Final = (("WATCH",), ("MGET",), ("GET",), ("SET", "v"), ("HGET", "f"), ("HGETALL",), ("HSET", "f", "v"))
_WITHOUT_KEY: Final = (("UNWATCH",), ("MULTI",), ("EXEC",), ("SCAN", "0"), ("INFO",))


def _info(wire: Wire) -> Mapping[str, str]:
    lines = bytes(wire.one("INFO")).decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def _unfit(info: Mapping[str, str]) -> list[Finding]:
    """What no waiting mends."""
    findings = []
    if info.get("cluster_enabled") == "1":
        findings.append(
            Finding(
                "the server is a node of a Redis Cluster, which this version does not support: a batch and its offsets "
                "are one transaction, and that needs all keys on one server",
                key="redis.uri",
                remedy="Name a standalone server",
            )
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        findings.append(
            Finding(
                f"the eviction policy is {policy}: Redis would drop mirrored rows without a word",
                key="redis.uri",
                remedy="CONFIG SET maxmemory-policy noeviction",
            )
        )
    return findings


def server_findings(wire: Wire) -> list[Finding]:
    """What would lose rows or keep the sink from writing."""
    info = _info(wire)
    findings = _unfit(info)
    if info.get("role", "master") != "master":
        findings.append(
            Finding("the server is a replica and takes no writes", key="redis.uri", remedy="Name the primary")
        )
    limit = int(info.get("maxmemory") or 0)
    if limit and int(info.get("used_memory") or 0) >= limit:
        findings.append(
            Finding(
                f"the memory limit of {limit} bytes is reached: writes are refused",
                key="redis.uri",
                remedy=f"CONFIG SET maxmemory {2 * limit}",
            )
        )
    return findings


def refuse_unfit(wire: Wire) -> None:
    """`FatalError` for a server on which rows could be lost: a cluster's node, an eviction policy."""
    for finding in _unfit(_info(wire)):
        wire.close()
        raise FatalError(f"{finding.message}. Remedy: {finding.remedy}")


def permission_findings(wire: Wire, user: str, prefixes: Sequence[bytes]) -> list[Finding]:
    """What the sink needs and the user may not do: commands, our own keys, keys that begin with ``prefixes``.

    Empty on servers that cannot tell (before Redis 7.0).
    """
    commands: dict[str, None] = {}
    patterns: dict[str, None] = {}
    rows = [(prefix + b"*", prefix + b"0", _ON_ROWS) for prefix in prefixes or (b"",)]
    ours = (b"__cdc:*", TABLES, _ON_OURS)
    checks: list[tuple[bytes, tuple[Argument, ...]]] = [(b"", command) for command in _WITHOUT_KEY]
    checks += [(pattern, (name, key, *rest)) for pattern, key, group in (*rows, ours) for name, *rest in group]
    for pattern, command in checks:
        answer = wire.ask("ACL", "DRYRUN", user, *command)
        if isinstance(answer, hiredis.ReplyError):
            return []
        if b"key" in answer and pattern != b"*":
            patterns[pattern.decode("utf-8", "replace")] = None
        elif answer != b"OK" and b"key" not in answer:
            commands[str(command[0]).lower()] = None
    if not commands and not patterns:
        return []
    rules = [f"+{name}" for name in commands] + [f"~{pattern}" for pattern in patterns]
    missing = [name.upper() for name in commands] + [f"keys {pattern}" for pattern in patterns]
    return [
        Finding(
            f"the Redis user {user} lacks permission for {', '.join(missing)}",
            key="redis.username",
            remedy=f"ACL SETUSER {user} {' '.join(rules)}",
        )
    ]
