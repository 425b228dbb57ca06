"""What can go wrong with a schema registry, by what the caller should do about it."""

from __future__ import annotations

from collections.abc import Sequence

from cdc.errors import CdcError, DataError, FatalError, RetriableError

__all__ = [
    "IncompatibleSchema",
    "InvalidSchema",
    "RegistryMisconfigured",
    "RegistryRefused",
    "RegistryUnavailable",
    "RestError",
    "UnknownSchemaId",
]


class RegistryUnavailable(RetriableError):
    """The registry, or the Kafka topic under it, is unreachable, busy or failing. Waiting may help."""


class RegistryRefused(FatalError):
    """The registry does not let us do this (401, 403, read-only mode): an operator must grant it."""


class RegistryMisconfigured(FatalError):
    """The settings, the address or the ``_schemas`` topic cannot work. The message names the remedy."""


class InvalidSchema(FatalError):
    """The schema is not valid, or of a kind that this registry does not take."""


class IncompatibleSchema(FatalError):
    """The subject's compatibility level does not allow this schema.

    ``messages`` has the registry's reasons, one for each difference; empty when it gave none.
    """

    def __init__(self, message: str, messages: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.messages = list(messages)


class UnknownSchemaId(DataError):
    """A registry that works does not know this schema id: the bytes that carry it cannot be decoded."""

    def __init__(self, message: str, schema_id: int) -> None:
        super().__init__(message)
        self.schema_id = schema_id


class RestError(CdcError):
    """An answer of the REST API other than success: HTTP ``status`` and Confluent's error ``code``.

    The codes are those of Confluent's Schema Registry, the first three digits being the status as a rule
    (40401 subject, 40402 version, 40403 schema not found, 42201 invalid schema, 50001 store failed, …).
    """

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
