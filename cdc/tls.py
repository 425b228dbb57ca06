"""What a failed TLS handshake means, in words, by who can mend it. Not one of these passes by waiting."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["TlsFault", "tls_fault"]

Kind = Literal["untrusted", "name", "expired", "plaintext", "no certificate", "certificate refused", "other"]

# X509_V_ERR_… of OpenSSL's x509_vfy.h
_UNTRUSTED: Final = {2, 18, 19, 20, 21, 24}
_EXPIRED: Final = {9, 10}
_NAME: Final = {62, 63, 64}
# ssl.SSLError.reason
_REASONS: Final[dict[str, tuple[Kind, str]]] = {
    "WRONG_VERSION_NUMBER": ("plaintext", "the server does not speak TLS there"),
    "RECORD_LAYER_FAILURE": ("plaintext", "the server does not speak TLS there"),
    "HTTP_REQUEST": ("plaintext", "the server does not speak TLS there"),
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": ("no certificate", "the server demands a client certificate"),
    "SSLV3_ALERT_HANDSHAKE_FAILURE": (
        "no certificate",
        "the server refuses the handshake; it may demand a client certificate",
    ),
    "TLSV1_ALERT_UNKNOWN_CA": ("certificate refused", "the server does not trust who signed the client certificate"),
    "SSLV3_ALERT_BAD_CERTIFICATE": ("certificate refused", "the server refuses the client certificate"),
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": ("certificate refused", "the client certificate has expired"),
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": ("certificate refused", "the server refuses the client certificate"),
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": ("certificate refused", "the client certificate is not one for clients"),
}


@dataclass(frozen=True, slots=True)
class TlsFault:
    """Why a handshake failed: ``found`` as a message says it."""

    kind: Kind
    found: str


def tls_fault(error: BaseException) -> TlsFault | None:
    """The fault that ``error``, or what led to it, stands for; ``None`` if it is not one of certificates or TLS.

    A connection that breaks during the handshake is none: the server may just be going away.
    """
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _verification(cause)
        if isinstance(cause, ssl.SSLError) and (known := _REASONS.get(cause.reason or "")):
            return TlsFault(*known)
    return None


def _verification(error: ssl.SSLCertVerificationError) -> TlsFault:
    said = error.verify_message.rstrip(".")
    if error.verify_code in _UNTRUSTED:
        return TlsFault("untrusted", f"the server's certificate is not signed by a trusted authority ({said})")
    if error.verify_code in _NAME:
        return TlsFault("name", f"the server's certificate is for another name ({said})")
    if error.verify_code in _EXPIRED:
        return TlsFault("expired", f"the server's certificate is not valid now ({said})")
    return TlsFault("other", f"the server's certificate does not pass ({said})")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
