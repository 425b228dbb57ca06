"""Plans for the Avro that topics hold: schema ids to compiled readers, by way of the registry."""

from __future__ import annotations

import re
from typing import Final, Protocol

from cdc.codec.avro_fields import FieldsPlan, KeyPlan, compile_fields, compile_key
from cdc.codec.flattened import METADATA
from cdc.errors import DataError

__all__ = ["HEADER_SIZE", "AvroReader", "SchemaSource", "writer_schema"]

HEADER_SIZE: Final = 5
"""Bytes in front of the Avro in Confluent's wire format: a zero, and the schema id."""


class SchemaSource(Protocol):
    """The part of `cdc.registry.client.RegistryClient` that readers need."""

    def schema(self, schema_id: int, /) -> tuple[str, str]:
        """Type and text of a schema. `DataError` for an unknown id, `RetriableError` when the registry is away."""


class AvroReader:
    """Compiles each writer schema once. Any topic may use any schema. ``metadata`` is that of `compile_fields`."""

    def __init__(self, schemas: SchemaSource, metadata: re.Pattern[str] = METADATA) -> None:
        self._schemas = schemas
        self._metadata = metadata
        self._fields: dict[bytes, FieldsPlan] = {}
        self._keys: dict[bytes, KeyPlan] = {}

    def fields(self, payload: bytes) -> FieldsPlan:
        """The plan for a record value. `DataError` as of `SchemaSource.schema`, and for what is not Avro in Confluent's
        wire format; `RetriableError` when the registry is away."""
        header = payload[:HEADER_SIZE]
        plan = self._fields.get(header)
        if plan is None:
            plan = self._fields[header] = compile_fields(self._text(header, "value"), self._metadata)
        return plan

    def key(self, payload: bytes) -> KeyPlan:
        """The plan for a record key; errors as of `fields`."""
        header = payload[:HEADER_SIZE]
        plan = self._keys.get(header)
        if plan is None:
            plan = self._keys[header] = compile_key(self._text(header, "key"))
        return plan

    def _text(self, header: bytes, what: str) -> str:
        return writer_schema(self._schemas, header, "AVRO", what)


def writer_schema(schemas: SchemaSource, header: bytes, kind: str, what: str) -> str:
    """The text of the schema that a payload's first `HEADER_SIZE` bytes name, which must be of type ``kind``.

    Errors as of `AvroReader.fields`; ``what`` is read, for messages.
    """
    if len(header) < HEADER_SIZE or header[0] != 0:
        raise DataError(
            f"the {what} begins with {header!r}, not with a zero byte and a schema id, Confluent's wire format"
        )
    number = int.from_bytes(header[1:HEADER_SIZE], "big")
    found, text = schemas.schema(number)
    if found != kind:
        raise DataError(f"the {what} has schema {number}, which is {found} and not {kind}")
    return text
