"""May data written with one Avro schema be read with another? (Avro specification 1.12, "Schema Resolution".)

The verdicts are those of Avro's Java library (``SchemaCompatibility``), on which Confluent's registry relies; so
named types match by their names without namespaces, and decimals of another scale or precision pass. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cdc.registry.avro import AvroField, AvroSchema, AvroType
from cdc.registry.avro_defaults import MISSING

__all__ = ["Incompatibility", "Level", "can_read", "check"]


class Level(StrEnum):
    """Confluent's compatibility levels. The plain ones look at the latest version, TRANSITIVE ones at all."""

    NONE = "NONE"
    BACKWARD = "BACKWARD"
    BACKWARD_TRANSITIVE = "BACKWARD_TRANSITIVE"
    FORWARD = "FORWARD"
    FORWARD_TRANSITIVE = "FORWARD_TRANSITIVE"
    FULL = "FULL"
    FULL_TRANSITIVE = "FULL_TRANSITIVE"

    @property
    def transitive(self) -> bool:
        return self.value.endswith("_TRANSITIVE")

    @property
    def backward(self) -> bool:
        """New readers must read old data."""
        return self.value.startswith(("BACKWARD", "FULL"))

    @property
    def forward(self) -> bool:
        """Old readers must read new data."""
        return self.value.startswith(("FORWARD", "FULL"))


@dataclass(frozen=True, slots=True)
class Incompatibility:
    """One reason why a reader cannot read a writer's data; ``path`` is a JSON pointer into the reader's schema."""

    kind: str
    path: str
    detail: str

    def describe(self, reader: str, writer: str) -> str:
        """The reason in Confluent's form, ``reader`` and ``writer`` being ``new`` and ``old`` or the reverse."""
        text = _DESCRIPTIONS[self.kind].format(path=self.path, detail=self.detail, reader=reader, writer=writer)
        return f"{{errorType:'{self.kind}', description:'{text}', additionalInfo:'{self.detail}'}}"


_DESCRIPTIONS: Final = {
    "NAME_MISMATCH": "The {reader} and the {writer} schema have another name at path '{path}'",
    "FIXED_SIZE_MISMATCH": "The fixed type at path '{path}' of the {reader} schema has another size than in the"
    " {writer} schema",
    "MISSING_ENUM_SYMBOLS": "The {reader} schema lacks enum symbols {detail} at path '{path}' of the {writer} schema"
    " and has no enum default",
    "READER_FIELD_MISSING_DEFAULT_VALUE": "The field '{detail}' at path '{path}' of the {reader} schema has no"
    " default value and is missing in the {writer} schema",
    "TYPE_MISMATCH": "The type at path '{path}' of the {reader} schema cannot read that of the {writer} schema",
    "MISSING_UNION_BRANCH": "The union at path '{path}' of the {reader} schema lacks a type of the {writer} schema",
}
# Reader's type → writer's types that are promoted to it.
_PROMOTIONS: Final[dict[str, frozenset[str]]] = {
    "long": frozenset(("int",)),
    "float": frozenset(("int", "long")),
    "double": frozenset(("int", "long", "float")),
    "bytes": frozenset(("string",)),
    "string": frozenset(("bytes",)),
}


def check(level: Level, new: AvroSchema, previous: Sequence[tuple[int, AvroSchema]]) -> list[str]:
    """Why ``new`` may not follow ``previous`` (versions in ascending order); empty when it may.

    The newest offending version is reported first, each with its number and text.
    """
    if level is Level.NONE:
        return []
    messages = []
    for version, old in reversed(previous if level.transitive else previous[-1:]):
        found = []
        if level.backward:
            found += [reason.describe("new", "old") for reason in can_read(new.root, old.root)]
        if level.forward:
            found += [reason.describe("old", "new") for reason in can_read(old.root, new.root)]
        if found:
            messages += [*found, f"{{oldSchemaVersion: {version}}}", f"{{oldSchema: '{old.text}'}}"]
    if messages:
        messages.append(f"{{compatibility: '{level}'}}")
    return messages


def can_read(reader: AvroType, writer: AvroType) -> list[Incompatibility]:
    """Every reason why ``reader`` cannot read data written as ``writer``, in the order of the reader's schema."""
    return _Resolution().resolve(reader, writer, "")


class _Resolution:
    """One walk over a pair of schemas; pairs of named types already met count as compatible, so recursion ends."""

    def __init__(self) -> None:
        self._met: dict[tuple[int, int], list[Incompatibility]] = {}

    def resolve(self, reader: AvroType, writer: AvroType, path: str) -> list[Incompatibility]:
        if not (reader.name and writer.name):
            return self._resolve(reader, writer, path)
        pair = (id(reader), id(writer))
        if pair not in self._met:
            self._met[pair] = []
            self._met[pair] = self._resolve(reader, writer, path)
        return self._met[pair]

    def _resolve(self, reader: AvroType, writer: AvroType, path: str) -> list[Incompatibility]:
        if writer.kind == "union":
            return self._each_branch(reader, writer, path)
        if reader.kind == "union":
            if any(not self._alone(branch, writer, path) for branch in reader.branches):
                return []
            return [_reason("MISSING_UNION_BRANCH", path, f"reader union lacking writer type: {writer.kind.upper()}")]
        if reader.kind != writer.kind:
            if writer.kind in _PROMOTIONS.get(reader.kind, ()):
                return []
            detail = f"reader type: {reader.kind.upper()} not compatible with writer type: {writer.kind.upper()}"
            return [_reason("TYPE_MISMATCH", path, detail)]
        if reader.items is not None and writer.items is not None:
            return self.resolve(reader.items, writer.items, f"{path}/{'items' if reader.kind == 'array' else 'values'}")
        if reader.name:
            return self._named(reader, writer, path)
        return []

    def _alone(self, reader: AvroType, writer: AvroType, path: str) -> list[Incompatibility]:
        # A branch that is only tried must not leave its findings to be taken for another path's.
        trial = _Resolution()
        trial._met = {pair: [] for pair in self._met}
        return trial.resolve(reader, writer, path)

    def _each_branch(self, reader: AvroType, writer: AvroType, path: str) -> list[Incompatibility]:
        found: list[Incompatibility] = []
        for i, branch in enumerate(writer.branches):
            found += self.resolve(reader, branch, f"{path}/{i}")
        return found

    def _named(self, reader: AvroType, writer: AvroType, path: str) -> list[Incompatibility]:
        found = []
        if _simple(reader.name) != _simple(writer.name) and writer.name not in reader.aliases:
            found.append(_reason("NAME_MISMATCH", f"{path}/name", f"expected: {writer.name}"))
        if reader.kind == "fixed" and reader.size != writer.size:
            detail = f"expected: {writer.size}, found: {reader.size}"
            found.append(_reason("FIXED_SIZE_MISMATCH", f"{path}/size", detail))
        if reader.kind == "enum" and reader.default is None:
            missing = sorted(set(writer.symbols) - set(reader.symbols))
            if missing:
                found.append(_reason("MISSING_ENUM_SYMBOLS", f"{path}/symbols", f"[{', '.join(missing)}]"))
        if reader.kind == "record":
            found += self._record(reader, writer, path)
        return found

    def _record(self, reader: AvroType, writer: AvroType, path: str) -> list[Incompatibility]:
        found: list[Incompatibility] = []
        written = {entry.name: entry for entry in writer.fields}
        for i, entry in enumerate(reader.fields):
            source = _source(entry, written)
            if source is not None:
                found += self.resolve(entry.type, source.type, f"{path}/fields/{i}/type")
            elif entry.default is MISSING:
                found.append(_reason("READER_FIELD_MISSING_DEFAULT_VALUE", f"{path}/fields/{i}", entry.name))
        return found


def _source(entry: AvroField, written: dict[str, AvroField]) -> AvroField | None:
    """The writer's field that a reader's field is read from: by name, then by the reader's aliases."""
    return next((written[name] for name in (entry.name, *entry.aliases) if name in written), None)


def _reason(kind: str, path: str, detail: str) -> Incompatibility:
    return Incompatibility(kind, path or "/", detail)


def _simple(full: str) -> str:
    return full.rpartition(".")[2]
