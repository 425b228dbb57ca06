"""Records of the ``_schemas`` topic, in the format of Confluent's Schema Registry (``KafkaStore``, 7.x).

Keys are compact JSON in a fixed order of fields, because compaction compares bytes; values are compact JSON in
Confluent's order; a null value deletes its key. ``schemaType`` is left out for Avro, as Confluent does. Pure.
"""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

__all__ = ["Key", "Kind", "Record", "RecordError", "Reference", "SchemaVersion", "decode_key", "decode_value", "dump"]

_MAGIC: Final = {"SCHEMA": 1}


class Kind:
    """The key types that a registry acts upon; others (CONTEXT, ASSOC, …) are kept out of its way."""

    SCHEMA: Final = "SCHEMA"
    CONFIG: Final = "CONFIG"
    MODE: Final = "MODE"
    DELETE_SUBJECT: Final = "DELETE_SUBJECT"
    CLEAR_SUBJECT: Final = "CLEAR_SUBJECT"
    NOOP: Final = "NOOP"


class RecordError(ValueError):
    """A record that is not in the format; readers pass over it and say so."""


class Record(NamedTuple):
    """A record as it stands on the topic."""

    key: bytes
    value: bytes | None


class Key(NamedTuple):
    """What a record is about. ``subject`` is None for the global config and mode."""

    kind: str
    subject: str | None = None
    version: int | None = None

    def encode(self) -> bytes:
        """The key's bytes, in Confluent's order of fields."""
        fields: dict[str, Any] = {"keytype": self.kind}
        if self.subject is not None:
            fields["subject"] = self.subject
        if self.version is not None:
            fields["version"] = self.version
        return dump(fields | {"magic": _MAGIC.get(self.kind, 0)})


class Reference(NamedTuple):
    """A schema that another one uses under ``name``: version ``version`` of ``subject``."""

    name: str
    subject: str
    version: int


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    """One version of a subject, with the schema's global id.

    ``metadata`` and ``rule_set`` (JSON) are kept as another registry wrote them; ``md5`` likewise, in base64.
    """

    subject: str
    version: int
    id: int
    schema: str
    schema_type: str = "AVRO"
    references: tuple[Reference, ...] = ()
    metadata: str | None = None
    rule_set: str | None = None
    md5: str | None = None
    deleted: bool = False

    @property
    def key(self) -> Key:
        return Key(Kind.SCHEMA, self.subject, self.version)

    @property
    def content(self) -> tuple[Any, ...]:
        """What makes a schema distinct: within a context, one content has one id."""
        return self.schema_type, self.schema, self.references, self.metadata, self.rule_set

    @property
    def guid(self) -> str | None:
        """The schema's id across registries, as Confluent computes it; None where metadata is part of it."""
        if self.md5 is not None:
            return _guid(self.md5)
        if self.metadata is not None or self.rule_set is not None:
            return None
        digest = hashlib.md5(_bytes(self.schema), usedforsecurity=False)
        for reference in self.references:
            digest.update(_bytes(reference.name + reference.subject))
            digest.update(reference.version.to_bytes(4, "big", signed=True))
        return str(uuid.UUID(bytes=digest.digest()))

    def as_deleted(self) -> SchemaVersion:
        return replace(self, deleted=True)

    def value(self) -> bytes:
        """The record's value, its fields in Confluent's order."""
        fields: dict[str, Any] = {"subject": self.subject, "version": self.version, "id": self.id}
        if self.md5 is not None:
            fields["md5"] = self.md5
        if self.schema_type != "AVRO":
            fields["schemaType"] = self.schema_type
        if self.references:
            fields["references"] = [reference._asdict() for reference in self.references]
        if self.metadata is not None:
            fields["metadata"] = json.loads(self.metadata)
        if self.rule_set is not None:
            fields["ruleSet"] = json.loads(self.rule_set)
        return dump(fields | {"schema": self.schema, "deleted": self.deleted})

    @classmethod
    def from_body(cls, key: Key, body: Mapping[str, Any]) -> SchemaVersion:
        """From the fields of a value; `RecordError` if it cannot be one, or is not ``key``'s."""
        try:
            found = cls(
                subject=str(body["subject"]),
                version=int(body["version"]),
                id=int(body["id"]),
                schema=body["schema"],
                schema_type=body.get("schemaType") or "AVRO",
                references=tuple(
                    Reference(str(entry["name"]), str(entry["subject"]), int(entry["version"]))
                    for entry in body.get("references") or ()
                ),
                metadata=_json_or_none(body.get("metadata")),
                rule_set=_json_or_none(body.get("ruleSet")),
                md5=None if body.get("md5") is None else str(body["md5"]),
                deleted=bool(body.get("deleted", False)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RecordError(f"value of {key} is not a schema: {error!r}") from None
        if (found.subject, found.version) != (key.subject, key.version) or not isinstance(found.schema, str):
            raise RecordError(f"value does not belong to its key {key}")
        return found


def dump(value: Any) -> bytes:
    """Compact JSON in UTF-8, as Jackson writes it."""
    return _bytes(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def decode_key(raw: bytes | None) -> Key:
    """The key of a record; `RecordError` if it is none of a registry's."""
    fields = _object(raw, "key")
    kind, subject, version = fields.get("keytype"), fields.get("subject"), fields.get("version")
    if not isinstance(kind, str) or not isinstance(subject, str | None):
        raise RecordError(f"key is not a registry's: {raw!r}")
    if kind == Kind.SCHEMA and not (subject is not None and isinstance(version, int)):
        raise RecordError(f"key of a schema without subject or version: {raw!r}")
    return Key(kind, subject, version if kind == Kind.SCHEMA else None)


def decode_value(raw: bytes) -> dict[str, Any]:
    """The fields of a value; `RecordError` if it is not a JSON object."""
    return _object(raw, "value")


def _object(raw: bytes | None, what: str) -> dict[str, Any]:
    try:
        found = json.loads(raw) if raw is not None else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RecordError(f"{what} is not a JSON object: {raw!r:.200}")
    return found


def _guid(md5: str) -> str | None:
    try:
        return str(uuid.UUID(bytes=base64.b64decode(md5)))
    except ValueError:
        return None


def _bytes(text: str) -> bytes:
    # Half a surrogate pair, which only a foreign record can bring in, becomes "?", as in Java.
    return text.encode("utf-8", "replace")


def _json_or_none(value: Any) -> str | None:
    return None if value is None else dump(value).decode()
