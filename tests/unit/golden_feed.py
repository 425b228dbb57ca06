"""Records that Debezium wrote (tests/golden), with their schemas, as tests of readers need them."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

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


def read(schemas: Sequence[Schema], form: Any) -> tuple[Schema, Any] | None:
    """The first schema that has a value in the JSON form, and the native value."""
    for schema in schemas:
        with contextlib.suppress(ValueError):
            if _named_alike(schema, form):
                return schema, value_from_json(schema, form)
    return None


def _named_alike(schema: Schema, form: Any) -> bool:
    if schema.type != "struct" or form is None:
        return True
    if not isinstance(form, dict) or form.keys() != {field.name for field in schema.fields}:
        return False
    return all(_named_alike(field.schema, form[field.name]) for field in schema.fields)


SCENARIOS = [Scenario(path.name) for path in sorted(GOLDEN.iterdir()) if (path / "records.jsonl").exists()]
