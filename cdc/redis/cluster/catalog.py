"""What a cluster knows of the tables that are mirrored into it: ``__cdc:tables``, as in a standalone server.

A batch's news are stored before its rows, for they are on other nodes: then no row has a column that nobody knows of.
The hash has a revision, which every writer expects to be the one it read, so that two connectors cannot claim the same
keys at once (EXACTNESS.md H22).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from cdc.mirror.store import GuardLost
from cdc.mirror.tables import TableEntry, Tables
from cdc.redis.cluster.library import advance
from cdc.redis.cluster.nodes import Nodes
from cdc.redis.cluster.slots import slot_of
from cdc.redis.connection import Argument
from cdc.redis.fence import TABLES, forget, table_field

__all__ = ["Catalog"]

_REVISION: Final = b"revision"
_SLOT: Final = slot_of(TABLES)


class Catalog:
    """The tables, as of the last `load`. Errors are those of `Nodes`."""

    def __init__(self, connector: str) -> None:
        self._connector = connector
        self._fields: dict[bytes, bytes] = {}
        self.tables = Tables((), forget)

    def load(self, nodes: Nodes) -> None:
        """Read all entries.

        What this task knows of its own tables, and a node has lost, is stored again: otherwise the columns of rows on
        other nodes would be forgotten.
        """
        reply = nodes.one(TABLES, "HGETALL", TABLES)
        known = [] if not self._fields else self.tables.of(self._connector)
        self._fields = dict(zip(reply[::2], reply[1::2], strict=True))
        entries = [TableEntry.decode(text) for field, text in self._fields.items() if field != _REVISION]
        self.tables = Tables(entries, forget)
        lost = {}
        for entry in known:
            held = self.tables.get(self._connector, entry.topic)
            whole = _union(entry, held or entry)
            if whole != held:
                lost[entry.topic] = whole
        self.learn(nodes, lost)

    def learn(self, nodes: Nodes, entries: Mapping[str, TableEntry]) -> None:
        """Store what is new of tables, by topic. `GuardLost` when another task has stored something since `load`."""
        if not entries:
            return
        held = self._fields.get(_REVISION, b"")
        fresh = {_REVISION: b"%d" % (int(held or 0) + 1)}
        fresh.update((table_field(self._connector, topic), entry.encode()) for topic, entry in entries.items())
        changes: list[Argument] = []
        for field, text in fresh.items():
            changes += (field, self._fields.get(field, b""), text)
        [answer] = nodes.run([(_SLOT, advance(TABLES, changes))])
        if isinstance(answer, Exception):
            raise nodes.failed(answer, _SLOT, "storing what is known of the tables")
        if answer != 1:
            raise GuardLost("another task stored something about the tables")
        self._fields.update(fresh)
        for entry in entries.values():
            self.tables = self.tables.with_entry(entry)


def _union(known: TableEntry, held: TableEntry) -> TableEntry:
    """An entry with what either has."""
    return replace(
        held,
        shapes=tuple(dict.fromkeys((*held.shapes, *known.shapes))),
        columns=tuple(dict.fromkeys((*held.columns, *known.columns))),
    )
