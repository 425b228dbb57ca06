"""Records that Debezium wrote (tests/golden), with their schemas, as tests of readers need them."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cdc.codec.avro_binary import writer
from cdc.codec.connect_avro import avro_text
from cdc.codec.connect_json import parse_schema, value_from_json
from cdc.record import Schema

GOLDEN = Path(__file__).parent.parent / "golden"
_NUMBER = re.compile(r'"<(ts_ms|ts_us|ts_ns|lsn|txId|xmin)>"')


@dataclass(frozen=True)
class GoldenRecord:
    """One line of ``records.jsonl``; numbers stand where the recording has placeholders."""

    topic: str
    partition: int
    key: Any
    value: Any
    headers: list[tuple[str, bytes]]


@dataclass
class Scenario:
    """A folder of tests/golden."""

    name: str
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder = GOLDEN / self.name

    @property
    def of_tables(self) -> bool:
        """Whether its topics are of tables and it was recorded with schemas: outboxes and routed messages have values
        of their own."""
        return not self.name.startswith(("outbox", "logical_router", "partition_default"))

    def encoded(self, how: str, register: Callable[[str, str], bytes]) -> Iterator[Payloads]:
        """The records as a producer writes them: ``json``, ``json+schemas`` or ``avro``.

        ``register`` takes a subject and an Avro schema, and returns the five bytes in front of its payloads.
        """
        for record in self.records():
            key = self._encoded(record, "key", how, register)
            value = self._encoded(record, "value", how, register)
            yield Payloads(record.topic, record.partition, key, value, record.headers)

    def _encoded(
        self, record: GoldenRecord, side: str, how: str, register: Callable[[str, str], bytes]
    ) -> bytes | None:
        form = record.value if side == "value" else record.key
        if form is None:
            return None
        if how == "json":
            return _json(form)
        forms = self.forms(record.topic, side)
        found = read([parse_schema(schema) for schema in forms], form)
        assert found is not None, f"{self.name}: no schema for {form}"
        schema, native = found
        if how == "avro":
            return register(f"{record.topic}-{side}", avro_text(schema)) + writer(schema)(native)
        described = next(each for each in forms if parse_schema(each) == schema)
        return _json({"schema": described, "payload": form})

    def records(self) -> Iterator[GoldenRecord]:
        for line in (self.folder / "records.jsonl").read_text(encoding="utf-8").splitlines():
            form = json.loads(_NUMBER.sub("1700000000000", line))
            headers = [(name, str(text).encode()) for name, text in form["headers"]]
            yield GoldenRecord(form["topic"], form["partition"], form["key"], form["value"], headers)

    def forms(self, topic: str, side: str) -> list[dict[str, Any]]:
        """The Connect schemas of a topic's keys or values, as the JSON converter writes them."""
        text = (self.folder / "connect-schemas.json").read_text(encoding="utf-8")
        found: list[dict[str, Any]] = json.loads(text).get(topic, {}).get(side, [])
        return found

    def schemas(self, topic: str, side: str) -> list[Schema]:
        return [parse_schema(form) for form in self.forms(topic, side)]

    def registered(self, topic: str, side: str) -> list[str]:
        """The Avro schemas of a topic, in order of versions."""
        folder = self.folder / "schemas"
        name = quote(f"{topic}-{side}", safe="-._~")
        paths = folder.glob(f"{name}.v*.json")
        return [
            path.read_text(encoding="utf-8")
            for path in sorted(paths, key=lambda path: int(path.stem.rpartition("v")[2]))
        ]


def _json(form: Any) -> bytes:
    return json.dumps(form, ensure_ascii=False, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Payloads:
    """A record in bytes."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def read(schemas: Sequence[Schema], form: Any) -> tuple[Schema, Any] | None:
    """The first schema that has a value in the JSON form, and the native value."""
    for schema in schemas:
        with contextlib.suppress(ValueError):
            if _named_alike(schema, form):
                return schema, value_from_json(schema, form)
    return None


def _named_alike(schema: Schema, form: Any) -> bool:
    if form is None:
        return schema.optional
    if schema.type != "struct":
        return True
    if not isinstance(form, dict) or form.keys() != {field.name for field in schema.fields}:
        return False
    return all(_named_alike(field.schema, form[field.name]) for field in schema.fields)


SCENARIOS = [Scenario(path.name) for path in sorted(GOLDEN.iterdir()) if (path / "records.jsonl").exists()]
