"""Client settings for librdkafka from a worker's properties, and Kafka's errors by what can be done."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException

from cdc.errors import CdcError, FatalError, RetriableError
from cdc.kafka.security import SECURITY, security_settings

__all__ = ["client_settings", "translate"]

_log = logging.getLogger("cdc.kafka.librdkafka")

_SHARED: Final = (*SECURITY, "client.")

_AUTHORIZATION: Final = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,
}
_PERMANENT: Final = {
    KafkaError.MSG_SIZE_TOO_LARGE: "raise max.message.bytes of the topic and producer.message.max.bytes of the worker",
    KafkaError.RECORD_LIST_TOO_LARGE: "raise max.message.bytes of the topic",
    KafkaError.INVALID_CONFIG: "correct the setting",
    KafkaError._INVALID_ARG: "correct the setting",
    KafkaError.POLICY_VIOLATION: "ask the owner of the cluster what its policy allows",
    KafkaError.INVALID_REPLICATION_FACTOR: "set the replication factor to at most the number of brokers",
}


def client_settings(worker: Mapping[str, str], role: str) -> dict[str, Any]:
    """librdkafka's settings for a ``producer``, ``consumer`` or ``admin`` client of this worker.

    The brokers, then what the worker has for all its clients (``security.protocol``, ``sasl.*``, ``ssl.*``), then
    what it has under the role's prefix. Security properties that only Java reads are translated (`security_settings`).
    """
    prefix = role + "."
    settings: dict[str, Any] = {"bootstrap.servers": worker["bootstrap.servers"], "log.connection.close": False}
    # Else librdkafka writes lines of its own form to stderr, between ours. A logger is served by polls, which an admin
    # client sees few of: what it has to say comes back as errors.
    # At its usual level it tells every failed attempt to connect, hundreds in a minute; what matters comes back too.
    settings |= {"log_level": 0} if role == "admin" else {"logger": _log, "log_level": 2}
    own = {key: value for key, value in worker.items() if key.startswith(_SHARED)}
    own |= {key.removeprefix(prefix): value for key, value in worker.items() if key.startswith(prefix)}
    settings |= {key: value for key, value in own.items() if not key.startswith(SECURITY)}
    return settings | security_settings(own)


def translate(error: KafkaError | KafkaException, doing: str) -> CdcError:
    """The error of this package for one of Kafka's, met while ``doing`` something."""
    cause: KafkaError = error.args[0] if isinstance(error, KafkaException) else error
    text = f"{doing}: {cause.str()} ({cause.name()})"
    if cause.code() in _AUTHORIZATION:
        return FatalError(f"{text}. Remedy: check the security settings and the ACLs of the principal")
    remedy = _PERMANENT.get(cause.code())
    if remedy:
        return FatalError(f"{text}. Remedy: {remedy}")
    return RetriableError(text)
