"""What an error of Redis means: wait, one record at fault, or an operator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import hiredis
import redis

from cdc.errors import CdcError, FatalError, RetriableError
from cdc.mirror.store import Verdict
from cdc.tls import tls_fault

__all__ = ["OF_SENTINELS", "OF_SERVERS", "classify", "remedy", "translate"]

_BUSY = {"LOADING", "BUSY", "TRYAGAIN", "UNKILLABLE"}
_UNWRITABLE = {"OOM", "READONLY", "MISCONF", "NOREPLICAS"}
_NO_MASTER = {"MASTERDOWN", "NOMASTERLINK", "CLUSTERDOWN"}
_RETRY = _BUSY | _UNWRITABLE | _NO_MASTER
OF_SERVERS: Final = {
    "NOAUTH": "set redis.password, or the user and password in redis.uri",
    "WRONGPASS": "correct the user and password in redis.uri",
    "NOPERM": "grant the user the command and the keys with ACL SETUSER (cdc check names them)",
    "MOVED": "this is a node of a Redis Cluster; set redis.cluster.enabled=true",
    "ASK": "this is a node of a Redis Cluster; set redis.cluster.enabled=true",
    "CROSSSLOT": "this is a node of a Redis Cluster; set redis.cluster.enabled=true",
}
"""Code of a refusal → what to do."""
OF_SENTINELS: Final = {
    **OF_SERVERS,
    "NOAUTH": "set redis.sentinel.password, and redis.sentinel.username unless it is the default user's",
    "WRONGPASS": "correct redis.sentinel.username and redis.sentinel.password",
}
_TLS_REMEDIES: Final = {
    "untrusted": "set redis.cacert to the file with the certificate of the authority that signed it",
    "name": "name the server in redis.uri as its certificate does (behind sentinels: sentinel announce-hostnames yes)",
    "expired": "renew the certificate of the server",
    "plaintext": "write redis:// in redis.uri, or name the port on which the server speaks TLS",
    "no certificate": "set redis.key.cert and redis.key.file to a certificate that the server trusts",
    "certificate refused": "set redis.key.cert and redis.key.file to a certificate that the server trusts",
    "other": "replace the certificate of the server",
}


def classify(error: Exception) -> Verdict:
    """What to do about an error reply or about a failure of the connection."""
    if isinstance(error, redis.AuthenticationError) or tls_fault(error) is not None:
        return Verdict.STOP
    if isinstance(error, OSError | redis.ConnectionError | redis.TimeoutError | hiredis.ProtocolError):
        return Verdict.RETRY
    text = str(error)
    code = text.split(" ", 1)[0]
    if code in _RETRY or "max number of clients" in text:
        return Verdict.RETRY
    return Verdict.REJECT if code == "WRONGTYPE" else Verdict.STOP


def remedy(error: Exception, remedies: Mapping[str, str] = OF_SERVERS) -> str:
    """What an operator can do about an error of verdict STOP."""
    return remedies.get(_code(error), "look for the error in Redis's documentation")


def _code(error: Exception) -> str:
    """The first word of an error reply. redis-py takes it away from those it has classes for."""
    if isinstance(error, redis.exceptions.NoPermissionError):
        return "NOPERM"
    if isinstance(error, redis.AuthenticationError):
        lowered = str(error).lower()
        return "NOAUTH" if "required" in lowered else "WRONGPASS"
    return str(error).split(" ", 1)[0]


def translate(error: Exception, doing: str, remedies: Mapping[str, str] = OF_SERVERS) -> CdcError:
    """The error of this package for one of Redis's, met while ``doing`` something. Never with a secret in it."""
    if (fault := tls_fault(error)) is not None:
        return FatalError(f"{doing}: {fault.found}. Remedy: {_TLS_REMEDIES[fault.kind]}")
    said = f"{doing}: {str(error) or type(error).__name__}"
    if classify(error) is Verdict.RETRY:
        return RetriableError(said)
    return FatalError(f"{said}. Remedy: {remedy(error, remedies)}")
