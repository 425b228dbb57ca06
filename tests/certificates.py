"""Certificates for tests: an authority and what it signs, made in a folder when asked for.

Elliptic keys, because they are made in a moment. ``cryptography`` comes with the registry's client.
"""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True)
class Identity:
    """A certificate and its key, as files in PEM."""

    certificate: Path
    key: Path
    password: str = ""
    store: Path | None = None
    """The same with the authority in PKCS#12, if asked for."""


@dataclass
class Authority:
    """An authority that tests trust, or do not."""

    folder: Path
    name: str = "test authority"
    _key: ec.EllipticCurvePrivateKey = field(init=False, repr=False)
    _certificate: x509.Certificate = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        builder = (
            self._builder(self.name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
        )
        self._certificate = builder.sign(self._key, hashes.SHA256())
        self.certificate.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    @property
    def certificate(self) -> Path:
        """The file to trust."""
        return self.folder / "ca.pem"

    def server(self, *names: str) -> Identity:
        """An identity of a server that is called by ``names``; default localhost and 127.0.0.1."""
        return self.issue("server", names or ("localhost", "127.0.0.1"), ExtendedKeyUsageOID.SERVER_AUTH)

    def client(self, name: str = "cdc", password: str = "") -> Identity:
        """An identity of a client; its key is encrypted if there is a ``password``."""
        return self.issue(name, (), ExtendedKeyUsageOID.CLIENT_AUTH, password)

    def issue(
        self, name: str, names: tuple[str, ...], usage: x509.ObjectIdentifier, password: str = "", days: int = 1
    ) -> Identity:
        """A certificate for ``name``, valid for ``days`` from now; expired for a negative number."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(name, key, days).add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general(one) for one in names]), critical=False
            )
        certificate = builder.sign(self._key, hashes.SHA256())
        count = len(list(self.folder.glob("*.key")))
        found = Identity(self.folder / f"{name}-{count}.pem", self.folder / f"{name}-{count}.key", password)
        found.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        encryption = (
            serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
        )
        encoding = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        found.key.touch(mode=0o600)
        found.key.write_bytes(key.private_bytes(*encoding))
        if not password:
            return found
        store = self.folder / f"{name}-{count}.p12"
        store.write_bytes(
            pkcs12.serialize_key_and_certificates(name.encode(), key, certificate, [self._certificate], encryption)
        )
        return Identity(found.certificate, found.key, password, store)

    def _builder(self, name: str, key: ec.EllipticCurvePrivateKey, days: int = 1) -> x509.CertificateBuilder:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=2))
            .not_valid_after(now + datetime.timedelta(days=days))
        )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
