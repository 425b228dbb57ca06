"""What brokers say when they refuse a client for good, and what may pass: by librdkafka's codes and words."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from cdc.errors import FatalError
from cdc.kafka.clients import Refusal, refused

_TOKEN = "Failed to acquire SASL OAUTHBEARER token"
_VERIFY = "certificate verify failed: broker certificate could not be verified"


@pytest.mark.parametrize(
    ("code", "text", "remedy"),
    [
        (KafkaError._AUTHENTICATION, "SASL authentication error: Authentication failed", "sasl.password"),
        (KafkaError._AUTHENTICATION, f'{_TOKEN}: {{"error":"invalid_client"}}', "clientSecret"),
        (KafkaError._SSL, f"SSL handshake failed: error:0A000086:SSL routines::{_VERIFY}", "ssl.ca.location"),
        (KafkaError._SSL, "SSL handshake failed: error:0A00010B:SSL routines::wrong version number", "TLS listener"),
        (KafkaError._SSL, "SSL handshake failed: ssl/tls alert bad certificate", "ssl.certificate.location"),
        (KafkaError._TRANSPORT, "Receive failed: SSL: tlsv13 alert certificate required", "ssl.certificate.location"),
    ],
)
def test_what_waiting_does_not_mend_is_kept_for_whoever_waits(code: int, text: str, remedy: str) -> None:
    refusal = Refusal()
    refusal(KafkaError(code, text))
    refusal(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    with pytest.raises(FatalError, match=f"Remedy: .*{remedy}"):
        refusal.check()


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (KafkaError._TRANSPORT, "Connect to ipv4#127.0.0.1:1 failed: Connection refused"),
        (KafkaError._TRANSPORT, "Disconnected: connection closed by peer"),
        (KafkaError._SSL, "SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?"),
        (KafkaError._SSL, "SSL handshake failed: SSL syscall error number: 5: Connection reset by peer"),
        (
            KafkaError._AUTHENTICATION,
            f'{_TOKEN}: Failed to retrieve it from "http://x": (-1)',
        ),
        (KafkaError._AUTHENTICATION, f"{_TOKEN}: <html>Service Unavailable</html>"),
        (KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"),
    ],
)
def test_an_outage_is_none(code: int, text: str) -> None:
    assert refused(KafkaError(code, text)) is None
