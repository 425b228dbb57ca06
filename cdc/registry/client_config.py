"""Confluent's properties for registry clients → settings of confluent-kafka's client. No I/O, no secret in messages."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from cdc.errors import ConfigError, Finding

__all__ = ["ClientConfig", "client_config"]

_PREFIX: Final = "schema.registry."
_BEARER: Final = (
    "bearer.auth.token",
    "bearer.auth.issuer.endpoint.url",
    "bearer.auth.client.id",
    "bearer.auth.client.secret",
    "bearer.auth.scope",
    "bearer.auth.logical.cluster",
    "bearer.auth.identity.pool.id",
)
# Ours (librdkafka's names) and Java's, the latter for stores in PEM only.
_TLS: Final = {
    "ssl.ca.location": "ssl.ca.location",
    "ssl.certificate.location": "ssl.certificate.location",
    "ssl.key.location": "ssl.key.location",
    "ssl.key.password": "ssl.key.password",
    "ssl.truststore.location": "ssl.ca.location",
    "ssl.keystore.location": "ssl.certificate.location",
}
_TLS_JAVA_ONLY: Final = frozenset(
    ("ssl.truststore.type", "ssl.truststore.password", "ssl.keystore.type", "ssl.keystore.password")
)
_KNOWN: Final = frozenset(
    (
        "url",
        "basic.auth.credentials.source",
        "basic.auth.user.info",
        "bearer.auth.credentials.source",
        "http.read.timeout.ms",
        "proxy.host",
        "proxy.port",
        *_BEARER,
        *_TLS,
        *_TLS_JAVA_ONLY,
    )
)
# Properties of these families are for the registry client and nobody else, so an unknown one is a mistake.
_FAMILIES: Final = ("basic.auth.", "bearer.auth.", "ssl.", "proxy.")
_DEFAULT_TIMEOUT_MS: Final = 10_000


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """``settings`` for ``SchemaRegistryClient`` (with secrets: not in the repr), and the address as it may be shown."""

    shown_url: str
    settings: dict[str, Any] = field(repr=False)


def client_config(url: str, properties: Mapping[str, str]) -> ClientConfig:
    """The client's settings from Confluent's ``properties``, each with or without the prefix ``schema.registry.``.

    Properties that are not the registry client's are left alone. `ConfigError` names all that is wrong.
    """
    given = _own(properties)
    findings: list[Finding] = []
    addresses, user_info = _addresses(url, findings)
    settings: dict[str, Any] = {
        "url": ",".join(addresses),
        # Those who call wait and try again by themselves, and want to know why.
        "max.retries": 0,
        "timeout": _number(given, "http.read.timeout.ms", _DEFAULT_TIMEOUT_MS, findings) / 1000,
    }
    settings |= _basic(given, user_info, findings) | _bearer(given, findings) | _tls(given, findings)
    if "proxy.host" in given:
        settings["proxy"] = f"http://{given['proxy.host']}:{_number(given, 'proxy.port', 3128, findings)}"
    if "basic.auth.user.info" in settings and "bearer.auth.credentials.source" in settings:
        findings.append(Finding("basic.auth and bearer.auth exclude each other", "bearer.auth.credentials.source"))
    if findings:
        raise ConfigError(findings)
    return ClientConfig(", ".join(addresses), settings)


def _own(properties: Mapping[str, str]) -> dict[str, str]:
    """What is the registry client's; TLS is so only with the prefix, for ``ssl.*`` alone is Kafka's."""
    own: dict[str, str] = {}
    findings = []
    for name, value in properties.items():
        bare = name.removeprefix(_PREFIX)
        if bare.startswith(("ssl.", "proxy.", "url")) and bare == name:
            continue
        if bare in _KNOWN:
            if value:  # a worker hands on all its settings, those that are not set as empty ones
                own[bare] = value
        elif bare.startswith(_FAMILIES):
            near = difflib.get_close_matches(bare, _KNOWN, 1)
            findings.append(Finding("unknown setting", name, remedy=f"Did you mean {near[0]}?" if near else ""))
    if findings:
        raise ConfigError(findings)
    return own


def _addresses(url: str, findings: list[Finding]) -> tuple[list[str], str]:
    """The addresses without user and password, and these as ``user:password``."""
    addresses, user_infos = [], set()
    for address in (part.strip().rstrip("/") for part in url.split(",")):
        try:
            parts = urlsplit(address)
            port = "" if parts.port is None else f":{parts.port}"
        except ValueError:
            parts, port = urlsplit(""), ""
        if parts.scheme not in ("http", "https") or not parts.hostname:
            findings.append(
                Finding(
                    "an address is not http:// or https:// with a host",
                    "schema.registry.url",
                    remedy="Write for example http://registry:8081, or embedded for the worker's own registry",
                )
            )
            continue
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        addresses.append(f"{parts.scheme}://{host}{port}{parts.path}")
        if parts.username is not None:
            user_infos.add(f"{unquote(parts.username)}:{unquote(parts.password or '')}")
    if len(user_infos) > 1:
        findings.append(
            Finding("the addresses carry different users", "schema.registry.url", remedy="Use basic.auth.user.info")
        )
    return addresses, next(iter(user_infos), "")


def _basic(given: Mapping[str, str], user_info: str, findings: list[Finding]) -> dict[str, str]:
    source = given.get("basic.auth.credentials.source", "")
    own = given.get("basic.auth.user.info", "")
    if source.upper() not in ("", "URL", "USER_INFO"):
        findings.append(
            Finding(f"{source} is not supported", "basic.auth.credentials.source", remedy="Set USER_INFO or URL")
        )
    if source.upper() == "USER_INFO" and not own:
        findings.append(Finding("missing for the source USER_INFO", "basic.auth.user.info", remedy="user:password"))
    if own and ":" not in own:
        findings.append(Finding("not of the form user:password", "basic.auth.user.info"))
    chosen = user_info if source.upper() == "URL" else own or user_info
    return {"basic.auth.user.info": chosen} if chosen else {}


def _bearer(given: Mapping[str, str], findings: list[Finding]) -> dict[str, str]:
    source = given.get("bearer.auth.credentials.source", "").upper()
    if not source:
        source = "STATIC_TOKEN" if "bearer.auth.token" in given else ""
    needed = {
        "": (),
        "STATIC_TOKEN": ("bearer.auth.token",),
        "OAUTHBEARER": (
            "bearer.auth.issuer.endpoint.url",
            "bearer.auth.client.id",
            "bearer.auth.client.secret",
            "bearer.auth.scope",
        ),
    }.get(source)
    if needed is None:
        findings.append(
            Finding(
                f"{source} is not supported", "bearer.auth.credentials.source", remedy="Set STATIC_TOKEN or OAUTHBEARER"
            )
        )
        return {}
    findings += [Finding(f"missing for the source {source}", name) for name in needed if not given.get(name)]
    if not source:
        return {}
    # Only Confluent Cloud has logical clusters, but the client wants the property.
    chosen = {"bearer.auth.credentials.source": source, "bearer.auth.logical.cluster": ""}
    optional = ("bearer.auth.logical.cluster", "bearer.auth.identity.pool.id")
    return chosen | {name: given[name] for name in (*needed, *optional) if name in given}


def _tls(given: Mapping[str, str], findings: list[Finding]) -> dict[str, str]:
    found = {}
    for name, target in _TLS.items():
        if not given.get(name):
            continue
        store = name.removesuffix(".location")
        if store in ("ssl.truststore", "ssl.keystore") and given.get(f"{store}.type", "JKS").upper() != "PEM":
            findings.append(
                Finding(
                    "a Java key store cannot be read",
                    f"{_PREFIX}{name}",
                    remedy=f"Convert it to PEM (keytool -importkeystore -deststoretype PKCS12, then openssl pkcs12)"
                    f" and set {_PREFIX}{target}, or {_PREFIX}{store}.type=PEM if it is PEM",
                )
            )
            continue
        found[target] = given[name]
    return found


def _number(given: Mapping[str, str], name: str, default: int, findings: list[Finding]) -> int:
    text = given.get(name, str(default)).strip()
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    findings.append(Finding(f"{text!r} is not a whole number above 0", name))
    return default
