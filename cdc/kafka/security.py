"""Security properties as Kafka Connect has them → librdkafka's. Reads certificate files, connects to nothing.

Names that both have stay as they are. What only Java reads is translated where librdkafka can do the same, left out
where it changes nothing, and refused by name with a remedy otherwise: a property that is silently without effect would
be a connection that is less safe than its configuration says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from cdc.errors import ConfigError, Finding

__all__ = ["SECURITY", "security_settings"]

SECURITY: Final = ("security.", "sasl.", "ssl.", "enable.sasl.", "enable.ssl.", "https.ca.")
"""Prefixes of the properties that are translated here."""

_JAAS: Final = "sasl.jaas.config"
_JAAS_OPTION: Final = re.compile(r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;]+))')
_HANDLER: Final = "sasl.login.callback.handler.class"
_JAVA_ONLY: Final = (
    *("ssl.protocol", "ssl.enabled.protocols", "ssl.provider", "ssl.secure.random.implementation"),
    *("ssl.keymanager.algorithm", "ssl.trustmanager.algorithm", "security.providers"),
    *("sasl.login.class", "sasl.client.callback.handler.class"),
    *("sasl.login.refresh.", "sasl.login.retry.", "sasl.login.connect.timeout.ms", "sasl.login.read.timeout.ms"),
    *("sasl.kerberos.kinit.cmd", "sasl.kerberos.ticket.", "sasl.kerberos.min.time.before.relogin"),
)
"""Of Java's own machinery: without them librdkafka does what it does anyway, TLS 1.2 or newer among it."""
_PEM_TEXTS: Final = {
    "ssl.truststore.certificates": "ssl.ca.pem",
    "ssl.keystore.certificate.chain": "ssl.certificate.pem",
    "ssl.keystore.key": "ssl.key.pem",
}
_JKS_MAGIC: Final = b"\xfe\xed\xfe\xed"
_DER_SEQUENCE: Final = b"\x30"


def security_settings(given: Mapping[str, str]) -> dict[str, Any]:
    """librdkafka's settings for the security properties ``given``, without prefix. `ConfigError` names all faults."""
    return _Translation(given).settings()


class _Translation:
    def __init__(self, given: Mapping[str, str]) -> None:
        self._left = {name: value for name, value in given.items() if name.startswith(SECURITY) and value.strip()}
        if given.get("ssl.endpoint.identification.algorithm") == "":  # Java's way to say that names are not verified
            self._left["ssl.endpoint.identification.algorithm"] = "none"
        self._out: dict[str, Any] = {}
        self._findings: list[Finding] = []

    def settings(self) -> dict[str, Any]:
        self._jaas()
        self._handler()
        self._trust()
        self._own()
        for name in [name for name in self._left if name.startswith(_JAVA_ONLY)]:
            del self._left[name]
        if "ssl.engine.factory.class" in self._left:
            self._refuse("ssl.engine.factory.class", "a class of Java's cannot be loaded", "Remove the property")
        if self._findings:
            raise ConfigError(self._findings)
        found = {**self._out, **self._left}
        authority = found.get("ssl.ca.location")
        if authority and found.get("sasl.oauthbearer.method") == "oidc":
            found.setdefault("https.ca.location", authority)  # as in Java, one trust for brokers and token endpoint
        return found

    def _refuse(self, name: str, message: str, remedy: str) -> None:
        self._findings.append(Finding(message, name, remedy=remedy))

    # --- SASL ------------------------------------------------------------------------------------------------

    def _jaas(self) -> None:
        """``sasl.jaas.config``: the login of PLAIN and SCRAM, the client of OAUTHBEARER."""
        text = self._left.pop(_JAAS, "")
        if not text:
            return
        module = text.split(None, 1)[0].rpartition(".")[2]
        options = {
            found[1]: re.sub(r"\\(.)", r"\1", found[2] or found[3] or "") for found in _JAAS_OPTION.finditer(text)
        }
        if module in ("PlainLoginModule", "ScramLoginModule"):
            self._default({"sasl.username": options.get("username"), "sasl.password": options.get("password")})
        elif module == "OAuthBearerLoginModule":
            self._oauth(options)
        elif module == "Krb5LoginModule":
            self._default(
                {"sasl.kerberos.keytab": options.get("keyTab"), "sasl.kerberos.principal": options.get("principal")}
            )
        else:
            known = "PlainLoginModule, ScramLoginModule, OAuthBearerLoginModule and Krb5LoginModule"
            self._refuse(_JAAS, f"the login module {module[:60]} is not known; known are {known}", "Use one of them")

    def _oauth(self, options: Mapping[str, str]) -> None:
        claims = {name: value for name, value in options.items() if name.startswith("unsecuredLoginStringClaim_")}
        if claims:
            subject = claims.get("unsecuredLoginStringClaim_sub", "")
            self._out["enable.sasl.oauthbearer.unsecure.jwt"] = "true"
            self._default({"sasl.oauthbearer.config": f"principal={subject}" if subject else None})
            return
        self._default(
            {
                "sasl.oauthbearer.client.id": options.get("clientId"),
                "sasl.oauthbearer.client.secret": options.get("clientSecret"),
                "sasl.oauthbearer.scope": options.get("scope"),
            }
        )

    def _handler(self) -> None:
        """The callback handler of OAUTHBEARER means librdkafka's method ``oidc``; others are Java's alone."""
        handler = self._left.pop(_HANDLER, "")
        if handler and handler.rpartition(".")[2] != "OAuthBearerLoginCallbackHandler":
            remedy = "Use SCRAM, TLS certificates or OAUTHBEARER with a token endpoint"
            self._refuse(_HANDLER, f"the class {handler[:80]} is Java's and cannot be loaded", remedy)
        if handler or "sasl.oauthbearer.token.endpoint.url" in self._left:
            self._default({"sasl.oauthbearer.method": "oidc"})

    def _default(self, settings: Mapping[str, str | None]) -> None:
        """What JAAS says, where librdkafka's own property does not."""
        self._out.update(
            {name: value for name, value in settings.items() if value is not None and name not in self._left}
        )

    # --- certificates ------------------------------------------------------------------------------------------

    def _trust(self) -> None:
        """Whom to trust: a truststore in PEM as it is, one in PKCS#12 as the certificates in it."""
        password = self._left.pop("ssl.truststore.password", "")
        self._left.pop("ssl.truststore.type", None)
        for name in set(_PEM_TEXTS) & set(self._left):
            self._out[_PEM_TEXTS[name]] = self._left.pop(name)
        found = self._store("ssl.truststore.location", _trust_remedy)
        if found is None:
            return
        path, form = found
        if form == "PEM":
            self._default({"ssl.ca.location": path})
            return
        pem = _certificates(Path(path), password)
        if pem is None:
            remedy = "Correct ssl.truststore.password, or write the certificates to a PEM file"
            self._refuse("ssl.truststore.location", f"the key store {path} cannot be read with its password", remedy)
        elif not pem:
            remedy = "Name the file with the certificates of the authorities"
            self._refuse("ssl.truststore.location", f"the key store {path} holds no certificate", remedy)
        else:
            self._default({"ssl.ca.pem": pem})

    def _own(self) -> None:
        """Who we are: a key store in PEM is certificate and key at once, one in PKCS#12 librdkafka reads itself."""
        self._left.pop("ssl.keystore.type", None)
        found = self._store("ssl.keystore.location", _key_remedy)
        if found is None:
            return
        path, form = found
        if form == "PKCS12":
            self._out["ssl.keystore.location"] = path
            return
        self._left.pop("ssl.keystore.password", None)
        self._default({"ssl.certificate.location": path, "ssl.key.location": path})

    def _store(self, name: str, remedy: Callable[[str], str]) -> tuple[str, str] | None:
        """A file with certificates and its form, told by its first bytes: Java's types say less than that."""
        path = self._left.pop(name, "")
        if not path:
            return None
        try:
            with open(path, "rb") as file:
                head = file.read(2048)
        except OSError as error:
            self._refuse(
                name, f"{path} cannot be read: {error.strerror}", "Correct the path, or the rights of the file"
            )
            return None
        if b"-----BEGIN " in head:
            return path, "PEM"
        if head.startswith(_DER_SEQUENCE):
            return path, "PKCS12"
        form = "a Java key store (JKS)" if head.startswith(_JKS_MAGIC) else "neither PEM nor PKCS#12"
        self._refuse(
            name, f"{path} is {form}, which only Java reads" if "JKS" in form else f"{path} is {form}", remedy(path)
        )
        return None


def _trust_remedy(path: str) -> str:
    base = path.rpartition(".")[0] or path
    return (
        f"Convert it: keytool -importkeystore -srckeystore {path} -destkeystore {base}.p12 -deststoretype PKCS12, and "
        "name that file; or keytool -exportcert -rfc for each certificate into one PEM file"
    )


def _key_remedy(path: str) -> str:
    base = path.rpartition(".")[0] or path
    return (
        f"Convert it: keytool -importkeystore -srckeystore {path} -destkeystore {base}.p12 -deststoretype PKCS12, and "
        "name that file"
    )


def _certificates(path: Path, password: str) -> str | None:
    """The certificates of a PKCS#12 file as PEM; ``None`` if it cannot be opened."""
    # Imported here: it takes a while, and few have such a file.
    from cryptography.hazmat.primitives.serialization import Encoding, pkcs12  # noqa: PLC0415

    try:
        found = pkcs12.load_pkcs12(path.read_bytes(), password.encode() or None)
    except ValueError:
        return None
    certificates = [one for one in (found.cert, *found.additional_certs) if one is not None]
    return "".join(one.certificate.public_bytes(Encoding.PEM).decode("ascii") for one in certificates)
