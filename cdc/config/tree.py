"""What every file format is read into: a small tree in which each key and value knows its line.

Values are strings, as Kafka Connect has them: ``true`` and ``false`` in lower case, numbers as they are written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from cdc.errors import ConfigError, Finding

__all__ = ["Entry", "Findings", "Items", "Node", "Place", "Scalar", "Table", "flatten"]


class Place(NamedTuple):
    """A line of a file; ``order`` is the file's place on the command line, so that places sort as they are read."""

    order: int
    line: int
    file: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Scalar:
    """A plain value; ``text`` is ``None`` for null."""

    text: str | None
    place: Place


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    items: tuple[Node, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Table:
    """Keys and values in file order. The same key twice is left in: it is for `flatten` to find."""

    pairs: tuple[tuple[str, Place, Node], ...]
    place: Place

    def get(self, key: str) -> Node | None:
        """The first value of ``key``."""
        return next((node for name, _, node in self.pairs if name == key), None)


Node = Scalar | Items | Table


@dataclass(frozen=True, slots=True)
class Entry:
    """One property as it is written in the file, nothing resolved."""

    key: str
    text: str = field(repr=False)
    place: Place


class Findings:
    """Collects what is wrong, to say all of it at once and in file order."""

    def __init__(self) -> None:
        self._found: list[tuple[Place, Finding]] = []

    def add(self, place: Place, message: str, key: str = "", remedy: str = "") -> None:
        self._found.append((place, Finding(message, key=key, where=str(place), remedy=remedy)))

    def __bool__(self) -> bool:
        return bool(self._found)

    def in_order(self) -> list[Finding]:
        """Findings by place, each once."""
        return list(dict.fromkeys(finding for _, finding in sorted(self._found, key=lambda found: found[0])))

    def raise_if_any(self) -> None:
        """`ConfigError` with all findings, if there are any."""
        if self._found:
            raise ConfigError(self.in_order())


def flatten(table: Table, scope: str, findings: Findings) -> dict[str, Entry]:
    """The flat properties of a ``table``: nested tables joined with dots, lists with commas.

    ``scope`` names the table in findings (``connectors.shop``). A key given twice, whatever way it is nested, a
    null and a list of anything but plain values are findings.
    """
    entries: dict[str, Entry] = {}
    for key, place, node in _walk(table, ""):
        full = f"{scope}.{key}"
        text = _text(node, place, full, findings)
        if text is None:
            continue
        if (first := entries.get(key)) is not None:
            findings.add(place, f"given twice, first at {first.place}", full, "Remove one of the two")
        else:
            entries[key] = Entry(key, text, place)
    return entries


def _walk(table: Table, prefix: str) -> Iterator[tuple[str, Place, Node]]:
    for key, place, node in table.pairs:
        if isinstance(node, Table) and node.pairs:
            yield from _walk(node, f"{prefix}{key}.")
        else:
            yield prefix + key, place, node


def _text(node: Node, place: Place, key: str, findings: Findings) -> str | None:
    if isinstance(node, Scalar):
        if node.text is None:
            findings.add(place, "has no value", key, 'Remove the line, or write "" for an empty value')
        return node.text
    if isinstance(node, Table):
        findings.add(place, "has no value", key, "Remove the line")
        return None
    texts = [item.text for item in node.items if isinstance(item, Scalar) and item.text is not None]
    if len(texts) != len(node.items):
        findings.add(place, "expected a list of plain values, found a nested or empty item in it", key)
        return None
    return ",".join(texts)
