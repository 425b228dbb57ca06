"""Whether a server is fit to hold a mirror: what it says about itself, and what the user may do on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import hiredis

from cdc.errors import FatalError, Finding
from cdc.redis.connection import Argument, Wire
from cdc.redis.fence import TABLES

__all__ = ["STANDALONE", "Needs", "permission_findings", "refuse_unfit", "server_findings"]

_Commands = tuple[tuple[str, ...], ...]


class Needs(NamedTuple):
    """The commands that a sink uses: with arguments that make them complete, but for the key, which is their first."""

    on_rows: _Commands
    on_ours: _Commands
    without_key: _Commands
    watches: bool = False
    """It uses transactions and WATCH, which a transaction does not take: they are tried, on nothing."""


STANDALONE: Final = Needs(
    (("HSET", "f", "v"), ("HDEL", "f"), ("DEL",), ("UNLINK",), ("EXPIRE", "1"), ("PERSIST",), ("HGETALL",)),
    (("MGET",), ("GET",), ("SET", "v"), ("EXISTS",), ("HGET", "f"), ("HGETALL",), ("HSET", "f", "v"), ("HDEL", "f")),
    (("SCAN", "0"), ("INFO",), ("ECHO", "v")),
    watches=True,
)
_WITH_SUBCOMMANDS: Final = frozenset(("cluster", "function"))
_WATCHING: Final[_Commands] = (("WATCH", TABLES.decode()), ("UNWATCH",))
_QUEUEING: Final[_Commands] = (("MULTI",), ("EXEC",))
"""An empty transaction, with nothing watched, changes nothing."""


def _info(wire: Wire) -> Mapping[str, str]:
    lines = bytes(wire.one("INFO")).decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def _unfit(info: Mapping[str, str], cluster: bool) -> list[Finding]:
    """What no waiting mends."""
    findings = []
    if info.get("cluster_enabled") == "1" and not cluster:
        findings.append(
            Finding(
                "the server is a node of a Redis Cluster, and the connector is set to write to one server alone",
                key="redis.uri",
                remedy="Set redis.cluster.enabled=true, or name a standalone server",
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


def server_findings(wire: Wire, cluster: bool = False) -> list[Finding]:
    """What would lose rows or keep the sink from writing. Whether it is to be a node of a ``cluster``."""
    info = _info(wire)
    findings = _unfit(info, cluster)
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


def refuse_unfit(wire: Wire, cluster: bool = False) -> None:
    """`FatalError` for a server on which rows could be lost: an eviction policy, a cluster's node unless it is to be
    one of a ``cluster``."""
    for finding in _unfit(_info(wire), cluster):
        wire.close()
        raise FatalError(f"{finding.message}. Remedy: {finding.remedy}")


def permission_findings(wire: Wire, user: str, prefixes: Sequence[bytes], needs: Needs = STANDALONE) -> list[Finding]:
    """What the sink needs and the user may not do: commands, our own keys, keys that begin with ``prefixes``.

    Asked by queueing each command in a transaction that is never run: the server refuses then what it would refuse
    later, whatever the user may ask of its own rights. Closes the connection, which throws the transaction away.
    """
    commands: dict[str, None] = {}
    patterns: dict[str, None] = {}

    def ask(command: tuple[Argument, ...], pattern: bytes = b"") -> bool:
        answer = wire.ask(*command)
        said = str(answer) if isinstance(answer, hiredis.ReplyError) else ""
        if "NOPERM" not in said:  # EXEC says so behind an EXECABORT
            return True
        if "run the" in said:
            commands[_rule(command)] = None
        elif pattern:
            patterns[pattern.decode("utf-8", "replace")] = None
        return False

    rows = [(prefix + b"*" if prefix else b"", prefix + b"0", needs.on_rows) for prefix in prefixes or (b"",)]
    try:
        for command in _WATCHING if needs.watches else ():
            ask(command, b"__cdc:*")
        begun, _ = [ask(command) for command in _QUEUEING]
        if not needs.watches:  # it gets on without transactions, though then nothing can be asked
            commands.clear()
        # Without MULTI the commands would be run.
        if begun:
            wire.ask("MULTI")  # inside the first one, an error, if EXEC is not permitted
            for pattern, key, group in (*rows, (b"__cdc:*", TABLES, needs.on_ours)):
                for name, *rest in group:
                    ask((name, key, *rest), pattern)
            for command in needs.without_key:
                ask(command)
    finally:
        wire.close()
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


def _rule(command: tuple[Argument, ...]) -> str:
    """What ACL calls a command: with its subcommand, if it has them."""
    name = str(command[0]).lower()
    return f"{name}|{str(command[1]).lower()}" if name in _WITH_SUBCOMMANDS else name
