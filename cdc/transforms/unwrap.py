"""Debezium's ``ExtractNewRecordState``: rows instead of envelopes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal

from pydantic import Field as Setting

from cdc.codec.header_text import header_text
from cdc.errors import ConfigError, DataError, Finding, brief
from cdc.plugin import Transform
from cdc.record import NO_DEFAULT, ConnectRecord, Field, Schema
from cdc.transforms.schemas import Once, field_schema, is_envelope
from cdc.transforms.settings import Settings, names, read

__all__ = ["ExtractNewRecordState"]

_DELETED: Final = "__deleted"
_OPTIONAL_STRING: Final = Schema("string", optional=True)
_OF_TRANSACTION: Final = frozenset({"id", "total_order", "data_collection_order"})


class _Settings(Settings):
    delete_tombstone_handling_mode: Literal[
        "drop", "tombstone", "rewrite", "rewrite-with-tombstone", "delete-to-tombstone"
    ] = "tombstone"
    add_fields: str = ""
    add_fields_prefix: str = "__"
    add_headers: str = ""
    add_headers_prefix: str = "__"
    route_by_field: str = ""
    replace_null_with_default: bool = Setting(default=True)  # a NULL is a NULL, whatever it says


@dataclass(frozen=True)
class _Reference:
    """A field of the envelope: of ``struct`` in it, or, without one, its own."""

    struct: str
    field: str
    name: str

    @classmethod
    def parse(cls, text: str, prefix: str) -> _Reference:
        place, _, alias = text.partition(":")
        struct, dot, field = place.partition(".")
        if not dot:
            field = struct
            struct = "" if field in {"op", "ts_ms"} else "transaction" if field in _OF_TRANSACTION else "source"
        return cls(struct, field, prefix + (alias or place.replace(".", "_")))

    def schema(self, envelope: Schema) -> Schema:
        found = field_schema(field_schema(envelope, self.struct) if self.struct else envelope, self.field)
        if found is None:
            place = f"{self.struct}.{self.field}" if self.struct else self.field
            raise DataError(f"the envelope has no field {place}, which ExtractNewRecordState is to add")
        return found

    def value(self, envelope: Mapping[str, Any]) -> Any:
        place = envelope[self.struct] if self.struct else envelope
        return None if place is None else place[self.field]


class ExtractNewRecordState(Transform):
    """The row after the change as value; deletes and tombstones by ``delete.tombstone.handling.mode``.

    As in Debezium, truncates are dropped, and what is no change of a row passes as it is. Other than Debezium's by
    default, a NULL never becomes the column's default.
    """

    aliases: ClassVar[tuple[str, ...]] = ("io.debezium.transforms.ExtractNewRecordState",)

    def configure(self, config: Mapping[str, str]) -> None:
        settings = read(_Settings, config)
        self._mode = settings.delete_tombstone_handling_mode
        self._rewrite = self._mode.startswith("rewrite")
        self._fields = [_Reference.parse(text, settings.add_fields_prefix) for text in names(settings.add_fields)]
        self._headers = [_Reference.parse(text, settings.add_headers_prefix) for text in names(settings.add_headers)]
        self._route_by = settings.route_by_field
        self._once = Once()
        for key, references in (("add.fields", self._fields), ("add.headers", self._headers)):
            twice = {r.name for r in references if sum(other.name == r.name for other in references) > 1}
            if twice:
                raise ConfigError([Finding(f"{', '.join(sorted(twice))} would be there twice", key=key)])

    @property
    def keeps_place(self) -> bool:
        return not self._route_by

    @property
    def drops(self) -> frozenset[str]:
        return frozenset({"t", "d"} if self._mode == "drop" else {"t"})

    def apply(self, record: ConnectRecord) -> ConnectRecord | None:
        if record.value is None:
            return record if self._mode == "rewrite-with-tombstone" else None
        if not is_envelope(record):
            return record
        envelope, schema = record.value, record.value_schema
        if schema is None or envelope["op"] == "t":
            return None
        deleted = envelope["op"] == "d"
        if deleted and self._mode == "drop":
            return None
        headers = (*record.headers, *(self._header(reference, schema, envelope) for reference in self._headers))
        image, place = envelope["before" if deleted else "after"], field_schema(schema, "after")
        topic = record.topic if not self._route_by else self._routed(record, image)
        if deleted and not self._rewrite:
            null_schema = place if self._mode == "tombstone" else None
            return replace(record, topic=topic, value=None, value_schema=null_schema, headers=headers)
        made = self._once(schema, lambda: self._schema(schema))
        row = dict(image)
        if self._rewrite:
            row[_DELETED] = "true" if deleted else "false"
        for reference in self._fields:
            row[reference.name] = reference.value(envelope)
        return replace(record, topic=topic, value=row, value_schema=made, headers=headers)

    def _schema(self, envelope: Schema) -> Schema:
        row = field_schema(envelope, "after")
        if row is None:
            raise DataError(f"the envelope {envelope.name} has no field after")
        fields = [*row.fields]
        if self._rewrite:
            fields.append(Field(_DELETED, _OPTIONAL_STRING))
        for reference in self._fields:
            fields.append(Field(reference.name, _bare(reference.schema(envelope))))
        return replace(row, optional=False, fields=tuple(fields))

    def _routed(self, record: ConnectRecord, image: Mapping[str, Any]) -> str:
        value = image.get(self._route_by)
        if not isinstance(value, str):
            raise DataError(
                f"{record.topic}: the field {self._route_by} of route.by.field holds {brief(value)}, "
                "which names no topic"
            )
        return value

    @staticmethod
    def _header(reference: _Reference, schema: Schema, envelope: Mapping[str, Any]) -> tuple[str, bytes | None]:
        found = reference.schema(schema)
        value = reference.value(envelope)
        return reference.name, None if value is None else header_text(found, value).encode()


def _bare(schema: Schema) -> Schema:
    """The schema of an added field: optional, without the default."""
    return replace(schema, optional=True, default=NO_DEFAULT)
