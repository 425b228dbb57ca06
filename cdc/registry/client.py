"""A schema registry as converters see it: confluent-kafka's client, its errors told apart by what to do about them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote

from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.common._httpx_compat import httpx  # whichever the client itself uses
from confluent_kafka.schema_registry.error import OAuthTokenError, SchemaRegistryError

from cdc.errors import CdcError, ConfigError
from cdc.registry.avro import resolve
from cdc.registry.client_config import client_config
from cdc.registry.errors import (
    IncompatibleSchema,
    InvalidSchema,
    RegistryMisconfigured,
    RegistryRefused,
    RegistryUnavailable,
    UnknownSchemaId,
)
from cdc.tls import tls_fault

__all__ = ["RegistryClient"]

_Answer = TypeVar("_Answer")
_BUSY: Final = frozenset((408, 425, 429))
_NO_VERSION: Final = frozenset((40401, 40402))
_SCHEMA_NOT_FOUND: Final = 40403
_OWN_CERTIFICATE: Final = (
    "set schema.registry.ssl.certificate.location and schema.registry.ssl.key.location to a certificate that it trusts"
)
_TLS_REMEDIES: Final = {
    "untrusted": "set schema.registry.ssl.ca.location to the file with the certificate of the authority that signed it",
    "name": "name the registry in schema.registry.url as its certificate does",
    "expired": "renew its certificate",
    "plaintext": "write http:// in schema.registry.url, or name the port on which it speaks TLS",
    "no certificate": _OWN_CERTIFICATE,
    "certificate refused": _OWN_CERTIFICATE,
    "other": "replace its certificate",
}
_UNKNOWN_S: Final = 5.0
"""How long an id that is not known is not asked for again: a topic may have a million records with it."""
_MOST_UNKNOWN: Final = 10_000
_INVALID_SCHEMA: Final = frozenset((42201, 42209, 42210))


class RegistryClient:
    """One registry (``url``, or several addresses of it separated by commas). Thread-safe; every call may block.

    ``conf`` has Confluent's properties (``basic.auth.user.info``, ``bearer.auth.*``, ``schema.registry.ssl.*``, …)
    among any others. Calls are not repeated: `RegistryUnavailable` says that waiting may help. What is wrong with the
    settings is a `ConfigError` here and now; nothing is sent before the first call.
    """

    def __init__(self, url: str, conf: Mapping[str, str] | None = None) -> None:
        config = client_config(url, conf or {})
        self.url: Final = config.shown_url
        try:
            self._client = SchemaRegistryClient(config.settings)
        except (OSError, ValueError, TypeError) as error:  # certificates are read here; ssl.SSLError is an OSError
            raise ConfigError(f"schema.registry.*: cannot make a client for {self.url}: {error}") from None
        self._schemas: dict[int, tuple[str, str]] = {}
        self._unknown: dict[int, tuple[float, str]] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"RegistryClient({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def register(self, subject: str, schema_json: str, schema_type: str = "AVRO") -> int:
        """The id of a schema under ``subject``, registered if it is not yet.

        `IncompatibleSchema` if the subject's level forbids it, `InvalidSchema` if it is none.
        """

        def register() -> int:
            found = self._client.register_schema(subject, Schema(schema_json, schema_type, []))
            if not isinstance(found, int):
                raise self._not_a_registry("an answer without an id")
            return found

        return self._call(f"register a schema of subject {subject}", register)

    def lookup(self, subject: str, schema_json: str, schema_type: str = "AVRO") -> int:
        """The id of a schema that ``subject`` has already. `RegistryRefused` when it has not, nothing is registered."""

        def find() -> int:
            found = self._client.lookup_schema(subject, Schema(schema_json, schema_type, [])).schema_id
            if not isinstance(found, int):
                raise self._not_a_registry("an answer without an id")
            return found

        return self._call(f"look up a schema of subject {subject}", find)

    def latest(self, subject: str) -> tuple[int, str] | None:
        """Id and text of the newest schema of ``subject``; ``None`` when it has none that stands alone."""

        def ask() -> tuple[int, str] | None:
            try:
                found = self._client.get_version(subject)  # the newest; the method named for it keeps its first answer
            except SchemaRegistryError as error:
                if error.http_status_code == 404 and error.error_code in _NO_VERSION:
                    return None
                raise
            if found.schema_id is None or found.schema.references:
                return None
            return found.schema_id, found.schema.schema_str or ""

        return self._call(f"read the newest schema of subject {subject}", ask)

    def schema(self, schema_id: int) -> tuple[str, str]:
        """Type and text of a schema; cached for ever, because an id never changes its meaning.

        The text of an Avro schema is complete: types of schemas that it refers to are written in it. That of a Protobuf
        one is its ``FileDescriptorProto`` in base64, as far as the registry can give it.
        `UnknownSchemaId` if the registry works but has none.
        """
        known = self._schemas.get(schema_id)
        if known is not None:
            return known
        unknown = self._unknown.get(schema_id)
        if unknown is not None and time.monotonic() < unknown[0]:
            raise UnknownSchemaId(unknown[1], schema_id)

        def fetch() -> tuple[str, str]:
            found = self._client.get_schema(schema_id)
            text = found.schema_str or ""
            if found.references and (found.schema_type or "AVRO") == "AVRO":
                text = resolve(text, self._referenced(found.references))
            if found.schema_type == "PROTOBUF":
                # Not by the client's method, whose cache does not tell formats apart.
                form = self._client._rest_client.get(f"schemas/ids/{schema_id}", {"format": "serialized"})
                text = form.get("schema") or text
            return found.schema_type or "AVRO", text

        try:
            answer = self._call(f"fetch schema id {schema_id}", fetch, schema_id)
        except UnknownSchemaId as error:
            if len(self._unknown) >= _MOST_UNKNOWN:
                self._unknown.clear()
            self._unknown[schema_id] = time.monotonic() + _UNKNOWN_S, str(error)
            raise
        with self._lock:
            return self._schemas.setdefault(schema_id, answer)

    def compatible(self, subject: str, schema: str, schema_type: str = "AVRO") -> list[str]:
        """Why the subject's level forbids this schema; empty when it does not, or there is no earlier version."""
        # The client's own method drops the reasons. Registries without the first form know the second.
        place = f"compatibility/subjects/{quote(subject, safe='')}/versions"
        body = Schema(schema, schema_type, []).to_dict()

        def ask() -> dict[str, Any]:
            for path in (place, f"{place}/latest"):
                try:
                    answer = self._client._rest_client.post(f"{path}?verbose=true", body=body)
                except SchemaRegistryError as error:
                    if error.http_status_code not in (404, 405):
                        raise
                else:
                    return answer if isinstance(answer, dict) else {}
            return {"is_compatible": True}

        answer = self._call(f"check the compatibility of a schema of subject {subject}", ask)
        if "is_compatible" not in answer:
            raise self._not_a_registry("an answer about compatibility without a verdict")
        reasons = [str(reason) for reason in answer.get("messages") or ()]
        return [] if answer["is_compatible"] else reasons or ["the registry gives no reason"]

    def set_compatibility(self, subject: str, level: str) -> None:
        """Set the subject's compatibility level (``NONE``, ``BACKWARD``, …)."""
        self._call(
            f"set the compatibility of subject {subject} to {level}",
            lambda: self._client.set_compatibility(subject, level),
        )

    def _referenced(self, references: list[SchemaReference]) -> list[str]:
        """The texts that ``references`` lead to, in order of dependence."""
        texts: dict[tuple[Any, Any], str] = {}

        def visit(current: list[SchemaReference]) -> None:
            for reference in current:
                place = (reference.subject, reference.version)
                if place in texts or reference.subject is None or reference.version is None:
                    continue
                found = self._client.get_version(reference.subject, reference.version, deleted=True).schema
                visit(found.references or [])
                texts[place] = found.schema_str or ""

        visit(references)
        return list(texts.values())

    # -- errors --------------------------------------------------------------------------------

    def _call(self, what: str, call: Callable[[], _Answer], schema_id: int | None = None) -> _Answer:
        try:
            return call()
        except SchemaRegistryError as error:
            raise self._as_error(what, error, schema_id) from None
        except OAuthTokenError as error:
            raise RegistryUnavailable(
                f"Cannot {what}: no access token for {self.url} (HTTP status {error.status_code or 'unknown'});"
                " check bearer.auth.issuer.endpoint.url, bearer.auth.client.id and bearer.auth.client.secret"
            ) from None
        except httpx.TransportError as error:
            if (fault := tls_fault(error)) is not None:
                raise RegistryMisconfigured(
                    f"Cannot {what} at schema registry {self.url}: {fault.found}; {_TLS_REMEDIES[fault.kind]}"
                ) from None
            reason = str(error) or type(error).__name__
            if self.url.startswith("https:") and isinstance(error, httpx.RemoteProtocolError | httpx.ReadError):
                # TLS 1.3: the alert that refuses a client certificate can be lost behind the request.
                reason += f". If it refuses client certificates, {_OWN_CERTIFICATE}"
            raise RegistryUnavailable(
                f"Cannot {what}: schema registry {self.url} cannot be reached: {reason}"
            ) from None
        except (ValueError, KeyError) as error:
            raise self._not_a_registry(f"an answer that is not its JSON ({error})") from None

    def _as_error(self, what: str, error: SchemaRegistryError, schema_id: int | None) -> CdcError:
        status, code = error.http_status_code, error.error_code
        told = f"Cannot {what} at schema registry {self.url}: {_shortened(error.error_message)} (HTTP {status}, {code})"
        if status >= 500 or status in _BUSY:
            return RegistryUnavailable(told)
        if status == 401:
            return RegistryRefused(
                f"{told}. It wants to know who asks: set basic.auth.credentials.source=USER_INFO and"
                " basic.auth.user.info, or bearer.auth.*, and check user and password"
            )
        if status == 403:
            return RegistryRefused(f"{told}. Grant this user the right to do so, or use another user")
        if status == 409:
            return IncompatibleSchema(
                f"{told}. Either change the table back, or set the subject's compatibility to NONE",
                _reasons(error.error_message),
            )
        if status == 404 and code == _SCHEMA_NOT_FOUND and schema_id is not None:
            return UnknownSchemaId(told, schema_id)
        if code in _INVALID_SCHEMA:
            return InvalidSchema(told)
        if status in (404, 405) and (code is None or code < 1000):
            return self._not_a_registry(f"HTTP status {status} on being asked to {what}")
        if 300 <= status < 400:
            return self._not_a_registry(f"a redirection (HTTP status {status})")
        return RegistryRefused(told)

    def _not_a_registry(self, found: str) -> RegistryMisconfigured:
        return RegistryMisconfigured(
            f"{self.url} does not answer like a schema registry but with {found}; check schema.registry.url, its path"
            " included (Apicurio's ends in /apis/ccompat/v7)"
        )


def _reasons(message: str | None) -> list[str]:
    """The list of reasons in Confluent's message, as one or several ``{…}``."""
    _, found, rest = (message or "").partition("details: [")
    return (
        [part if part.endswith("}") else f"{part}}}" for part in rest.removesuffix("]").split("}, ")] if found else []
    )


def _shortened(message: str | None, limit: int = 2000) -> str:
    text = message or "no reason given"
    return text if len(text) <= limit else f"{text[:limit]}…"
