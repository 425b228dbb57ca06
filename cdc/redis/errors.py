"""What an error of Redis means: wait, one record at fault, or an operator."""

from __future__ import annotations

import hiredis
import redis

from cdc.errors import CdcError, FatalError, RetriableError
from cdc.mirror.store import Verdict

__all__ = ["classify", "remedy", "translate"]

_BUSY = {"LOADING", "BUSY", "TRYAGAIN", "UNKILLABLE"}
_UNWRITABLE = {"OOM", "READONLY", "MISCONF", "NOREPLICAS"}
_NO_MASTER = {"MASTERDOWN", "NOMASTERLINK", "CLUSTERDOWN"}
_RETRY = _BUSY | _UNWRITABLE | _NO_MASTER
_REMEDIES = {
    "NOAUTH": "set redis.password, or the user and password in redis.uri",
    "WRONGPASS": "correct the user and password in redis.uri",
    "NOPERM": "grant the user the command and the keys with ACL SETUSER (cdc check names them)",
    "MOVED": "this is a node of a Redis Cluster; name a standalone server in redis.uri",
    "ASK": "this is a node of a Redis Cluster; name a standalone server in redis.uri",
    "CROSSSLOT": "this is a node of a Redis Cluster; name a standalone server in redis.uri",
}


def classify(error: Exception) -> Verdict:
    """What to do about an error reply or about a failure of the connection."""
    if isinstance(error, redis.AuthenticationError):
        return Verdict.STOP
    if isinstance(error, OSError | redis.ConnectionError | redis.TimeoutError | hiredis.ProtocolError):
        return Verdict.RETRY
    text = str(error)
    code = text.split(" ", 1)[0]
    if code in _RETRY or "max number of clients" in text:
        return Verdict.RETRY
    return Verdict.REJECT if code == "WRONGTYPE" else Verdict.STOP


def remedy(error: Exception) -> str:
    """What an operator can do about an error of verdict STOP."""
    return _REMEDIES.get(str(error).split(" ", 1)[0], "look for the error in Redis's documentation")


def translate(error: Exception, doing: str) -> CdcError:
    """The error of this package for one of Redis's, met while ``doing`` something. Never with a secret in it."""
    said = f"{doing}: {str(error) or type(error).__name__}"
    if classify(error) is Verdict.RETRY:
        return RetriableError(said)
    return FatalError(f"{said}. Remedy: {remedy(error)}")
