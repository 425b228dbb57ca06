"""Records for tests of the mirror: messages as confluent-kafka hands them out, schemas without a registry."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fastavro

from cdc.converters.avro_reader import AvroReader
from cdc.errors import DataError, RetriableError
from cdc.mirror.assembly import Assembler
from cdc.mirror.fold import DELETE, REPLACE
from cdc.mirror.keys import Template
from cdc.mirror.partitions import Standing
from cdc.mirror.store import Batch, Partition, StoredOffset
from cdc.mirror.tables import Tables
from cdc.record import HEADER_POSITION, HEADER_SOURCE, Position

TOPIC = "shop.public.users"


@dataclass(frozen=True)
class Record:
    """A message."""

    at: int
    key_bytes: bytes | None
    value_bytes: bytes | None
    header_list: Sequence[tuple[str, bytes | None]] | None = None
    number: int = 0
    name: str = TOPIC
    time: int = 1_700_000_000_000

    def topic(self) -> str:
        return self.name

    def partition(self) -> int:
        return self.number

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes | None:
        return self.key_bytes

    def value(self) -> bytes | None:
        return self.value_bytes

    def headers(self) -> Sequence[tuple[str, bytes | None]] | None:
        return self.header_list

    def timestamp(self) -> tuple[int, int]:
        return 1, self.time + self.at


class Registry:
    """Schema ids to texts. ``away`` makes it unreachable."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.away = False
        self.asked = 0

    def add(self, schema: Any) -> bytes:
        text = schema if isinstance(schema, str) else json.dumps(schema)
        if text not in self.texts:
            self.texts.append(text)
        return b"\0" + (self.texts.index(text) + 1).to_bytes(4, "big")

    def schema(self, schema_id: int, /) -> tuple[str, str]:
        self.asked += 1
        if self.away:
            raise RetriableError("the registry is away")
        if not 1 <= schema_id <= len(self.texts):
            raise DataError(f"no schema {schema_id}")
        return "AVRO", self.texts[schema_id - 1]


class Feed:
    """Writes the records of one table."""

    def __init__(self, registry: Registry, columns: Mapping[str, Any] | None = None, topic: str = TOPIC) -> None:
        self.registry = registry
        self.topic = topic
        self.offset = 0
        self.ordinal = 0
        self.alter(columns or {"id": "long", "name": ["null", "string"], "note": ["null", "string"]})

    def alter(self, columns: Mapping[str, Any], key: Sequence[str] = ("id",)) -> None:
        self.columns = dict(columns)
        self.key_names = key
        row = _record("Value", self.columns)
        self.envelope: Any = _record("Envelope", {"before": ["null", row], "after": ["null", "Value"], "op": "string"})
        self.key_schema: Any = _record("Key", {name: self.columns[name] for name in key})

    def _encoded(self, schema: Any, value: Any) -> bytes:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(schema), value)
        return self.registry.add(schema) + out.getvalue()

    def key(self, row: Mapping[str, Any]) -> bytes:
        return self._encoded(self.key_schema, {name: row[name] for name in self.key_names})

    def record(
        self,
        key: bytes | None,
        value: bytes | None,
        *,
        partition: int = 0,
        headers: Mapping[str, bytes] | None = None,
        position: Position | None = None,
        bare: bool = False,
    ) -> Record:
        """A message at the next offset."""
        self.offset += 1
        self.ordinal += 1
        text = (position or Position(1, 100, self.ordinal, 0)).text()
        sent = {} if bare else {HEADER_SOURCE: b"shop/slot", HEADER_POSITION: text}
        return Record(self.offset - 1, key, value, [*sent.items(), *(headers or {}).items()], partition, self.topic)

    def put(self, *, partition: int = 0, headers: Mapping[str, bytes] | None = None, **row: Any) -> Record:
        full = {name: row.get(name) for name in self.columns}
        value = self._encoded(self.envelope, {"before": None, "after": full, "op": "u"})
        return self.record(self.key(full), value, partition=partition, headers=headers)

    def delete(self, **row: Any) -> Record:
        before = {name: row.get(name) for name in self.columns}
        return self.record(self.key(row), self._encoded(self.envelope, {"before": before, "after": None, "op": "d"}))

    def tombstone(self, **row: Any) -> Record:
        return self.record(self.key(row), None)

    def truncate(self, partition: int = 0, position: Position | None = None, *, bare: bool = False) -> Record:
        value = self._encoded(self.envelope, {"before": None, "after": None, "op": "t"})
        key = None if bare else b"opaque"
        return self.record(key, value, partition=partition, position=position, bare=bare)


def _record(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": n, "type": kind} for n, kind in fields.items()]}


def assembler(
    registry: Registry,
    standings: Mapping[Partition, Standing] | None = None,
    tables: Tables | None = None,
    template: str = "{table}:{pk}",
    **options: Any,
) -> Assembler:
    """An assembler for one partition, or for those in ``standings``."""
    made = Assembler("sink", AvroReader(registry), lambda _topic: Template(template), **options)
    made.assign(standings or {Partition(TOPIC, 0): Standing(None, None, 1)}, tables or Tables())
    return made


class Memory:
    """A store of dicts: what batches come to."""

    def __init__(self) -> None:
        self.rows: dict[bytes, dict[bytes, bytes]] = {}
        self.offsets: dict[Partition, StoredOffset] = {}
        self.tables = Tables()

    def write(self, batch: Batch) -> None:
        for key, (verb, fields, absent, _, _) in batch.ops.items():
            if verb in (DELETE, REPLACE):
                self.rows.pop(key, None)
            if verb != DELETE:
                row = self.rows.setdefault(key, {})
                row.update(zip(fields[::2], fields[1::2], strict=True))
                for name in absent:
                    row.pop(name, None)
                if not row:
                    del self.rows[key]
        for partition, offset in batch.offsets.items():
            self.offsets[partition] = StoredOffset.decode(offset.encode())
        for entry in batch.entries.values():
            self.tables = self.tables.with_entry(entry)
