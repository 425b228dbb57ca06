"""Clients of librdkafka that notice when brokers refuse them.

A refused login and a certificate that does not verify look like an outage to every call of librdkafka: it goes on
trying, and the call times out. Only the error callback is told. Whoever waits asks `Refusal` whether there is anything
to wait for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException

from cdc.errors import FatalError
from cdc.kafka.settings import translate

__all__ = ["Refusal", "made", "refused"]

_Client = TypeVar("_Client")

_OWN: Final = "set ssl.certificate.location and ssl.key.location, or ssl.keystore.location, to what the brokers trust"
_ALERTS: Final = {
    "certificate required": _OWN,
    "bad certificate": _OWN,
    "certificate unknown": _OWN,
    "unknown ca": _OWN,
    "handshake failure": _OWN,
    "certificate expired": "renew the certificate in ssl.certificate.location or ssl.keystore.location",
}
"""With which brokers refuse client certificates, or the want of one. In TLS 1.3 they come behind the handshake."""
_HANDSHAKES: Final = {
    "certificate verify failed": "set ssl.ca.location (or ssl.truststore.location) to the authority that signed the "
    "brokers' certificates, and name the brokers in bootstrap.servers and advertised.listeners as these do",
    "wrong version number": "name the TLS listener in bootstrap.servers, or correct security.protocol",
}
_OAUTH: Final = "OAUTHBEARER token"
_REFUSED_THERE: Final = re.compile(
    "invalid_client|unauthorized_client|invalid_grant|unsupported_grant_type|invalid_scope|invalid_request|access_denied"
)
"""RFC 6749's words of a token endpoint that refuses. One that is away, or faulty, has none of them."""


class Refusal:
    """What brokers refused a client for, if they did: given to it as ``error_cb``, asked by whoever waits."""

    def __init__(self) -> None:
        self.error: FatalError | None = None

    def __call__(self, error: KafkaError) -> None:
        self.error = self.error or refused(error)

    def check(self, client: Consumer | None = None) -> None:
        """Raise what the brokers refused; nothing if they have not. A consumer that nobody polls is polled for it."""
        if client is not None:
            client.poll(0)
        if self.error is not None:
            raise self.error


def refused(error: KafkaError) -> FatalError | None:
    """The error for a broker that refuses us for good; ``None`` for anything that may pass."""
    text = error.str()
    if error.code() in (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED):
        if _OAUTH not in text:
            remedy = "correct sasl.mechanism and the login in sasl.username and sasl.password, or sasl.jaas.config"
            return FatalError(f"Kafka refuses the login: {text}. Remedy: {remedy}")
        if _REFUSED_THERE.search(text):
            remedy = "correct clientId and clientSecret in sasl.jaas.config, or sasl.oauthbearer.client.id and .secret"
            return FatalError(f"there is no token for Kafka: {text}. Remedy: {remedy}")
    signs = {KafkaError._SSL: _ALERTS | _HANDSHAKES, KafkaError._TRANSPORT: _ALERTS}.get(error.code(), {})
    for sign, remedy in signs.items():
        if "SSL" in text and sign in text.lower():
            return FatalError(f"no safe connection to Kafka: {text}. Remedy: {remedy}")
    return None


def made(
    kind: Callable[[dict[str, Any]], _Client], settings: Mapping[str, Any], on_error: Callable[[KafkaError], None]
) -> _Client:
    """A client of librdkafka. `FatalError` for settings that it does not take."""
    try:
        return kind({**settings, "error_cb": on_error})
    except KafkaException as error:
        raise translate(error, "making a Kafka client") from None
