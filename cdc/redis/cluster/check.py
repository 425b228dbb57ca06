"""Preflight against a cluster: every node that has to take writes, and what the user may do there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cdc.errors import CdcError, Finding, RetriableError
from cdc.redis.access import Access
from cdc.redis.cluster.nodes import survey
from cdc.redis.cluster.slots import Address
from cdc.redis.server import Needs, permission_findings, server_findings

__all__ = ["check_cluster"]

_NEEDS: Final = Needs(
    (
        *(("HGET", "f"), ("HSET", "f", "v"), ("HDEL", "f"), ("DEL",), ("UNLINK",), ("EXISTS",)),
        *(("EXPIRE", "1"), ("PERSIST",), ("HGETALL",)),
    ),
    (("HMGET", "f"), ("HGET", "f"), ("HSET", "f", "v"), ("HGETALL",), ("GET",), ("SET", "v"), ("DEL",)),
    (
        *(("SCAN", "0"), ("INFO",), ("ASKING",), ("FUNCTION", "LOAD", ""), ("FCALL", "f", "0")),
        *(("CLUSTER", "SLOTS"), ("CLUSTER", "INFO"), ("CLUSTER", "NODES")),
        ("CLUSTER", "GETKEYSINSLOT", "0", "1"),
    ),
)


def check_cluster(access: Access, prefixes: Sequence[bytes]) -> list[Finding]:
    """Findings about all primaries, each told once with the first node that has it."""
    try:
        topology = survey(lambda address: access.at(*address).wire("check"), [Address(*seed) for seed in access.seeds])
    except RetriableError as error:
        remedy = "Start the cluster and see that redis-cli --cluster check is content, or correct redis.uri"
        return [Finding(str(error), key="redis.uri", remedy=remedy)]
    except CdcError as error:
        return [Finding(str(error), key="redis.uri")]
    found: dict[str, Finding] = {}
    for address in topology.primaries:
        for finding in _check(access.at(*address), prefixes):
            found.setdefault(finding.remedy or finding.message, finding)
    return list(found.values())


def _check(node: Access, prefixes: Sequence[bytes]) -> list[Finding]:
    found: list[Finding] = []
    try:
        wire = node.wire("check")
        try:
            user = wire.ask("ACL", "WHOAMI")
            known = str(node.options.get("username") or "default")
            found = permission_findings(wire, user.decode() if isinstance(user, bytes) else known, prefixes, _NEEDS)
        finally:
            wire.close()
        wire = node.wire("check")
        try:
            found += server_findings(wire, cluster=True)
        finally:
            wire.close()
    except CdcError as error:  # without INFO for example, which is among the permissions
        found = found or [Finding(str(error), key="redis.uri")]
    return [Finding(f"{node.place}: {each.message}", each.key, each.where, each.remedy) for each in found]
