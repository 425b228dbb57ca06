"""Debezium's outbox ``EventRouter``: rows of an outbox table as events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal

import structlog

from cdc.codec.header_text import header_text
from cdc.errors import ConfigError, DataError, Finding
from cdc.plugin import Transform
from cdc.record import ConnectRecord, Field, Schema
from cdc.transforms.outbox_json import expanded
from cdc.transforms.schemas import Once, field_schema, is_envelope
from cdc.transforms.settings import Settings, java_pattern, java_replacement, names, read

__all__ = ["EventRouter"]

_log = structlog.get_logger(__name__)

_PER_MS: Final = {
    "io.debezium.time.MicroTimestamp": 1000,
    "io.debezium.time.NanoTimestamp": 1_000_000,
}
_PLACEMENTS: Final = ("header", "envelope", "partition")


class _Settings(Settings):
    table_field_event_id: str = "id"
    table_field_event_key: str = "aggregateid"
    table_field_event_timestamp: str = ""
    table_field_event_payload: str = "payload"
    table_fields_additional_placement: str = ""
    table_fields_additional_error_on_missing: bool = True
    table_expand_json_payload: bool = False
    table_json_payload_null_behavior: Literal["ignore", "optional_bytes"] = "ignore"
    table_op_invalid_behavior: Literal["warn", "error", "fatal"] = "warn"
    route_by_field: str = "aggregatetype"
    route_topic_regex: str = "(?<routedByValue>.*)"
    route_topic_replacement: str = "outbox.event.${routedByValue}"
    route_tombstone_on_empty_payload: bool = False
    # Spans of OpenTelemetry are not told.
    tracing_span_context_field: str = "tracingspancontext"
    tracing_operation_name: str = "debezium-read"
    tracing_with_context_field_only: bool = False


@dataclass(frozen=True)
class _Placed:
    """A further column of the table, and where it goes."""

    column: str
    placement: str
    name: str

    @classmethod
    def parse(cls, text: str) -> _Placed:
        parts = [part.strip() for part in text.split(":")]
        if len(parts) not in (2, 3) or parts[1] not in _PLACEMENTS:
            raise ConfigError(
                [
                    Finding(
                        f"expected column:placement or column:placement:name, found {text!r}; placements are "
                        f"{', '.join(_PLACEMENTS)}",
                        key="table.fields.additional.placement",
                    )
                ]
            )
        return cls(parts[0], parts[1], parts[-1] if len(parts) == 3 else parts[0])


class EventRouter(Transform):
    """Inserts into the outbox become events in topics by ``route.by.field``; deletes and tombstones become nothing.

    An update is no event: it is left out with a warning, or stops the task (``table.op.invalid.behavior=fatal``).
    """

    aliases: ClassVar[tuple[str, ...]] = ("io.debezium.transforms.outbox.EventRouter",)

    def configure(self, config: Mapping[str, str]) -> None:
        settings = self._settings = read(_Settings, config)
        self._placed = [_Placed.parse(text) for text in names(settings.table_fields_additional_placement)]
        self._in_value = [placed for placed in self._placed if placed.placement == "envelope"]
        try:
            self._regex = java_pattern(settings.route_topic_regex)
        except ValueError as error:
            raise ConfigError([Finding(str(error), key="route.topic.regex")]) from None
        try:
            self._replacement = java_replacement(self._regex, settings.route_topic_replacement)
        except ValueError as error:
            raise ConfigError([Finding(str(error), key="route.topic.replacement")]) from None
        self._once = Once()
        self._payloads: dict[Schema, Schema] = {}

    def apply(self, record: ConnectRecord) -> ConnectRecord | None:
        if record.value is None:
            return None
        schema, settings = record.value_schema, self._settings
        if schema is None or not is_envelope(record):
            return record
        envelope = record.value
        if envelope["op"] not in ("c", "r"):
            if envelope["op"] == "u":
                self._refuse_update(record)
            return None
        row, columns = envelope["after"], field_schema(schema, "after")
        if columns is None:
            raise DataError(f"{record.topic}: the envelope has no field after")
        self._require(record, columns, settings.table_field_event_id, settings.route_by_field)
        self._require(record, columns, settings.table_field_event_payload)
        route = row[settings.route_by_field]
        if not isinstance(route, str):
            raise DataError(f"{record.topic}: {settings.route_by_field} is {route!r}, which names no topic")
        payload, payload_schema = self._payload(row, columns)
        headers, partition = self._placed_fields(record, row, columns)
        key, key_schema = record.key, record.key_schema
        if (found := field_schema(columns, settings.table_field_event_key)) is not None:
            key, key_schema = row[settings.table_field_event_key], found
        value: Any = payload
        value_schema: Schema | None = payload_schema
        if payload in (None, "", b"") and settings.route_tombstone_on_empty_payload:
            value = value_schema = None
        elif self._in_value:
            value = {"payload": payload} | {placed.name: row[placed.column] for placed in self._in_value}
            value_schema = self._envelope(columns, payload_schema, route)
        return replace(
            record,
            topic=self._regex.sub(self._replacement, route, count=1) if self._regex.fullmatch(route) else route,
            key=key,
            key_schema=key_schema,
            value=value,
            value_schema=value_schema,
            headers=headers,
            partition=partition,
            timestamp=self._timestamp(envelope, row, columns),
            compacted=False,
        )

    def _payload(self, row: Mapping[str, Any], columns: Schema) -> tuple[Any, Schema]:
        name = self._settings.table_field_event_payload
        payload, schema = row[name], field_schema(columns, name)
        if schema is None:
            raise DataError(f"{columns.name}: there is no column {name}")
        if self._settings.table_expand_json_payload and isinstance(payload, str):
            optional_bytes = self._settings.table_json_payload_null_behavior == "optional_bytes"
            made = expanded(payload, name, optional_bytes=optional_bytes)
            if made is None:
                _log.warning("the payload is no JSON that has a schema: written as text", column=name)
            else:
                # Payloads of one form get one schema object, as converters want it.
                return made[0], self._payloads.setdefault(made[1], made[1])
        return payload, schema

    def _envelope(self, columns: Schema, payload: Schema, route: str) -> Schema:
        def make() -> Schema:
            name = (columns.name or "").removesuffix(".Value")
            fields = [Field("payload", payload)]
            for placed in self._in_value:
                schema = field_schema(columns, placed.column)
                if schema is not None:
                    fields.append(Field(placed.name, schema))
            return Schema("struct", name=f"{name}.{route}.Value", fields=tuple(fields))

        return self._once(columns, make, id(payload), route)

    def _placed_fields(
        self, record: ConnectRecord, row: Mapping[str, Any], columns: Schema
    ) -> tuple[tuple[tuple[str, bytes | None], ...], int | None]:
        headers = [*record.headers, _header("id", columns, row, self._settings.table_field_event_id)]
        partition = record.partition
        for placed in self._placed:
            if field_schema(columns, placed.column) is None:
                if self._settings.table_fields_additional_error_on_missing:
                    self._require(record, columns, placed.column)
                continue
            if placed.placement == "header":
                headers.append(_header(placed.name, columns, row, placed.column))
            elif placed.placement == "partition":
                partition = row[placed.column]
        return tuple(headers), partition

    def _timestamp(self, envelope: Mapping[str, Any], row: Mapping[str, Any], columns: Schema) -> int | None:
        name = self._settings.table_field_event_timestamp
        if not name:
            return int(envelope["ts_ms"])
        schema, value = field_schema(columns, name), row.get(name)
        if schema is None or not isinstance(value, int):
            raise DataError(f"{columns.name}: the column {name} of table.field.event.timestamp is no timestamp")
        return value // _PER_MS.get(schema.name or "", 1)

    def _refuse_update(self, record: ConnectRecord) -> None:
        message = f"{record.topic}: a row of the outbox was updated, which is no event"
        if self._settings.table_op_invalid_behavior == "fatal":
            raise DataError(f"{message}. Insert a new row instead, or set table.op.invalid.behavior=warn")
        _log.warning("an update in an outbox table is no event: left out", topic=record.topic, key=record.key)

    @staticmethod
    def _require(record: ConnectRecord, columns: Schema, *wanted: str) -> None:
        for name in wanted:
            if field_schema(columns, name) is None:
                known = ", ".join(field.name for field in columns.fields)
                raise DataError(f"{record.topic}: the outbox table has no column {name}; its columns are {known}")


def _header(name: str, columns: Schema, row: Mapping[str, Any], column: str) -> tuple[str, bytes | None]:
    schema, value = field_schema(columns, column), row.get(column)
    return name, None if value is None or schema is None else header_text(schema, value).encode()
