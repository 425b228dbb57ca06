"""Debezium's ``PartitionRouting``: the partition by fields of the row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final, Literal

from pydantic import Field

from cdc.errors import ConfigError, DataError, Finding
from cdc.plugin import Transform
from cdc.record import ConnectRecord, Schema
from cdc.transforms.schemas import field_schema, is_envelope
from cdc.transforms.settings import Settings, names, read

__all__ = ["PartitionRouting", "java_hash"]

_INT: Final = 0xFFFFFFFF
_MAX: Final = 0x7FFFFFFF


class _Settings(Settings):
    partition_payload_fields: str = Field(min_length=1)
    partition_topic_num: int = Field(ge=1)
    partition_hash_function: Literal["java"] = "java"


class PartitionRouting(Transform):
    """Records whose fields of ``partition.payload.fields`` are equal go to one partition.

    ``change`` stands for the row after a change, before it for a delete. Other than Debezium's, a tombstone goes where
    its delete went: elsewhere compaction could not find the row. Records without any of the fields keep the partition
    of their key.
    """

    aliases: ClassVar[tuple[str, ...]] = ("io.debezium.transforms.partitions.PartitionRouting",)

    def configure(self, config: Mapping[str, str]) -> None:
        settings = read(_Settings, config)
        self._paths = [tuple(name.split(".")) for name in names(settings.partition_payload_fields)]
        self._partitions = settings.partition_topic_num
        self._last: tuple[str, Any, int | None] | None = None
        if not self._paths:
            raise ConfigError([Finding("names no field", key="partition.payload.fields")])

    def apply(self, record: ConnectRecord) -> ConnectRecord | None:
        last, self._last = self._last, None
        if record.value is None:
            if last is not None and last[:2] == (record.topic, record.key):
                return replace(record, partition=last[2])
            return record
        schema = record.value_schema
        if schema is None or not is_envelope(record):
            return record
        found = [self._hash(record, schema, path) for path in self._paths]
        hashes = [number for number in found if number is not None]
        partition = record.partition
        if hashes:
            total = sum(hashes) & _MAX
            partition = (0 if total == _MAX else total) % self._partitions
        if record.value["op"] == "d":
            self._last = (record.topic, record.key, partition)
        return replace(record, partition=partition)

    @staticmethod
    def _hash(record: ConnectRecord, schema: Schema, path: tuple[str, ...]) -> int | None:
        """The hash of a field; ``None`` when it is not there, or NULL."""
        value, at = record.value, schema
        for part in path:
            name = part if part != "change" or at is not schema else "before" if value["op"] == "d" else "after"
            inner = field_schema(at, name)
            value = None if inner is None else value[name]
            if inner is None or value is None:
                return None
            at = inner
        number = java_hash(at, value)
        if number is None:
            raise DataError(
                f"{record.topic}: {'.'.join(path)} is of type {at.name or at.type}, which has no hash that is the same "
                "everywhere. Choose another field in partition.payload.fields"
            )
        return number


def java_hash(schema: Schema, value: Any) -> int | None:
    """Java's ``hashCode()`` of a value as an unsigned 32-bit number; ``None`` for types without a stable one."""
    match schema.type:
        case "string":
            number = 0
            data = value.encode("utf-16-le")
            for at in range(0, len(data), 2):
                number = (31 * number + (data[at] | data[at + 1] << 8)) & _INT
            return number
        case "int8" | "int16" | "int32" if schema.name is None or schema.name.startswith("io.debezium"):
            return int(value) & _INT
        case "int64" if schema.name is None or schema.name.startswith("io.debezium"):
            unsigned = value & 0xFFFFFFFFFFFFFFFF
            return int(unsigned ^ unsigned >> 32) & _INT
        case "boolean":
            return 1231 if value else 1237
    return None
