"""What is remembered of mirrored tables, in the store itself and for all connectors that write into it.

Three rules need a memory that outlives a task and is shared by all of them: a dropped column leaves the rows that
earlier schemas wrote (EXACTNESS.md H23), no two tables share a key (H22), and a sweep knows every form that the keys of
its table have had.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from cdc.errors import FatalError
from cdc.mirror.keys import RESERVED, KeyColumn, KeySpace, Template, reserved_overlap
from cdc.mirror.languages import overlap

__all__ = ["TableEntry", "Tables"]

Shape = tuple[KeyColumn, ...]
"""The columns of one record key."""


@dataclass(frozen=True, slots=True)
class TableEntry:
    """What is remembered of one topic that one connector mirrors."""

    connector: str
    topic: str
    template: str
    shapes: tuple[Shape, ...] = ()
    """All record keys that rows were written under."""
    columns: tuple[str, ...] = ()
    """All columns that rows were written with."""
    ttl: int | None = None
    """Seconds to live of the rows' keys."""
    ghosts: int | None = None
    """Since when (ms since 1970) keys that no row has may be among those of the table (EXACTNESS.md H20)."""
    began: int | None = field(default=None, compare=False)
    """When the first row was mirrored (ms since 1970)."""

    def spaces(self) -> list[KeySpace]:
        """The key spaces of all shapes."""
        template = Template(self.template)
        return [template.bind(self.topic, shape) for shape in self.shapes]

    def encode(self) -> bytes:
        value = {
            "v": 1,
            "connector": self.connector,
            "topic": self.topic,
            "template": self.template,
            "keys": [[[column.name, column.kind] for column in shape] for shape in self.shapes],
            "columns": list(self.columns),
            "ttl": self.ttl,
            **({} if self.ghosts is None else {"ghosts": self.ghosts}),
            **({} if self.began is None else {"began": self.began}),
        }
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def decode(cls, text: bytes) -> TableEntry:
        """`FatalError` for what this version did not write."""
        try:
            value = json.loads(text)
            if value["v"] != 1:
                raise FatalError(f"a table in the store was written by a newer version: {text[:120]!r}")
            entry = cls(
                value["connector"],
                value["topic"],
                value["template"],
                tuple(tuple(KeyColumn(name, kind) for name, kind in shape) for shape in value["keys"]),
                tuple(value["columns"]),
                value["ttl"],
                value.get("ghosts"),
                value.get("began"),
            )
            entry.encode()  # half of a surrogate pair is no character
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise FatalError(f"what the store remembers of a table cannot be read: {text[:120]!r}") from error
        return entry


class Tables:
    """All tables that are mirrored into one store. Immutable; changes are new entries.

    ``forget`` tells how an operator makes the store forget an entry, for error messages.
    """

    def __init__(
        self,
        entries: Iterable[TableEntry] = (),
        forget: Callable[[TableEntry], str] = lambda entry: f"remove the entry of topic {entry.topic}",
    ) -> None:
        self._entries = {(entry.connector, entry.topic): entry for entry in entries}
        self._forget = forget

    def get(self, connector: str, topic: str) -> TableEntry | None:
        return self._entries.get((connector, topic))

    def __iter__(self) -> Iterator[TableEntry]:
        return iter(self._entries.values())

    def of(self, connector: str) -> list[TableEntry]:
        """The entries of one connector."""
        return [entry for entry in self._entries.values() if entry.connector == connector]

    def with_entry(self, entry: TableEntry) -> Tables:
        return Tables([*self._entries.values(), entry], self._forget)

    def admit(self, entry: TableEntry, space: KeySpace) -> TableEntry:
        """The entry with one more shape of its key.

        `FatalError` when the template is another than rows were written under, when the key space reaches into
        our own keys, or when another table has a key in common with it.
        """
        known = self.get(entry.connector, entry.topic)
        if known is not None and known.template != entry.template:
            raise FatalError(
                f"the rows of topic {entry.topic} have keys by the template {known.template!r}; the configuration now "
                f"says {entry.template!r}, and the rows there would become ghosts. Remedy: set the template back; or "
                f"remove those keys, give the connector another name and {self._forget(known)}"
            )
        base = known or entry
        names = [column.name for column in space.columns]
        for seen in base.spaces():
            if seen.language == space.language and [column.name for column in seen.columns] == names:
                return base
        own = reserved_overlap(space.language)
        if own is not None:
            raise FatalError(
                f"topic {entry.topic} with the template {entry.template!r} can have keys such as {own!r}; what begins "
                f"with {RESERVED.decode()} is kept for offsets. Remedy: begin the template with something else"
            )
        for other in self._entries.values():
            if (other.connector, other.topic) != (entry.connector, entry.topic):
                self._refuse_overlap(space, entry, other)
        return replace(base, shapes=(*base.shapes, space.columns))

    def refuse_overlaps(self, entry: TableEntry) -> None:
        """`FatalError` when rows of another table can have keys that rows of this one can have."""
        for space in entry.spaces():
            for other in self._entries.values():
                if (other.connector, other.topic) != (entry.connector, entry.topic):
                    self._refuse_overlap(space, entry, other)

    def _refuse_overlap(self, space: KeySpace, entry: TableEntry, other: TableEntry) -> None:
        for theirs in other.spaces():
            shared = overlap(space.language, theirs.language)
            if shared is not None:
                raise FatalError(
                    f"topic {entry.topic} (connector {entry.connector}, template {entry.template!r}) and topic "
                    f"{other.topic} (connector {other.connector}, template {other.template!r}) would share "
                    f"keys such as {shared!r}. Remedy: give one of them a template of its own; if the other is gone, "
                    f"remove its keys and {self._forget(other)}"
                )
