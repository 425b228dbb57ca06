"""How the records of a topic become changes: decoders and key makers by the first bytes of payloads.

What is new about a table (a key column, a column) becomes part of its entry (`cdc.mirror.tables`), which is stored in
the same step as the first row that needs it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from cdc.codec.avro_fields import Decode, DecodeKey, FieldsPlan, KeyPlan
from cdc.errors import FatalError
from cdc.mirror.keys import KeyColumn, Render, Template
from cdc.mirror.tables import TableEntry, Tables

__all__ = ["KeyMaker", "Plans", "Reader", "TablePlans", "ValueReader"]


class Reader(Protocol):
    """Compiles what a payload's schema id means (`cdc.converters.avro_reader.AvroReader`)."""

    def fields(self, payload: bytes, /) -> FieldsPlan: ...
    def key(self, payload: bytes, /) -> KeyPlan: ...


ValueReader = tuple[Decode, tuple[bytes, ...]] | None
"""Decoder, and the columns that earlier schemas had besides; ``None`` for records that are not about rows."""
KeyMaker = tuple[DecodeKey, Render, tuple[str, ...]]
"""Decoder, renderer of the row's key, names of the key columns."""


class TablePlans:
    """The plans of one topic, by the five bytes in front of a payload: zero and schema id."""

    __slots__ = ("keys", "template", "topic", "values")

    def __init__(self, topic: str, template: Template) -> None:
        self.topic = topic
        self.template = template
        self.keys: dict[bytes, KeyMaker] = {}
        self.values: dict[bytes, ValueReader] = {}


class Plans:
    """The plans of all topics of a connector, and what is known of their tables.

    Methods raise `DataError` for a schema that cannot be mirrored, `RetriableError` when the registry is away, and
    `FatalError` for a key template that is none for the table.
    """

    def __init__(
        self, connector: str, reader: Reader, template: Callable[[str], Template], ttl: int | None, tables: Tables
    ) -> None:
        self._connector = connector
        self._reader = reader
        self._template = template
        self._ttl = ttl
        self._tables = tables
        self._plans: dict[str, TablePlans] = {}
        self._entries: dict[str, TableEntry] = {}

    def of(self, topic: str) -> TablePlans:
        """The plans of a topic, empty at first."""
        plans = self._plans.get(topic)
        if plans is None:
            plans = self._plans[topic] = TablePlans(topic, self._template(topic))
        return plans

    def take_entries(self) -> dict[str, TableEntry]:
        """What is new about tables since the last call, by topic."""
        entries, self._entries = self._entries, {}
        return entries

    def healed(self, topic: str, since: int) -> None:
        """No key of the topic is too many any more, of those that could be since then (`TableEntry.ghosts`)."""
        entry = self._tables.get(self._connector, topic)
        if entry is not None and entry.ghosts == since:
            self._remember(replace(entry, ghosts=None))

    def fetch(self, value: bytes | None, key: Callable[[], bytes | None]) -> None:
        """Have the schemas of a record at hand, so that `value` and `key` need no registry for it."""
        if (value is None or self._reader.fields(value).mirrored) and (found := key()) is not None:
            self._reader.key(found)

    def kinds(self, value: bytes) -> dict[bytes, str]:
        """Column → type of a value's columns, for `cdc.codec.canonical.from_postgres`."""
        return dict(self._reader.fields(value).kinds)

    def value(self, plans: TablePlans, value: bytes) -> ValueReader:
        """Compile the reader of a value, and remember it in ``plans``."""
        plan = self._reader.fields(value)
        if not plan.mirrored:
            plans.values[value[:5]] = None
            return None
        entry = self._entry(plans)
        names = [name.decode() for name in plan.columns]
        fresh = [name for name in names if name not in entry.columns]
        ttl = entry.ttl if self._ttl is None else self._ttl
        if fresh or ttl != entry.ttl:
            entry = replace(entry, columns=(*entry.columns, *fresh), ttl=ttl)
            self._remember(entry)
            plans.values.clear()  # the other readers lack columns that they did not lack before
        gone = tuple(name.encode() for name in entry.columns if name not in names)
        found = plans.values[value[:5]] = (plan.decode, gone)
        return found

    def key(self, plans: TablePlans, key: bytes) -> KeyMaker:
        """Compile the maker of a row's key, and remember it in ``plans``."""
        plan = self._reader.key(key)
        names = plan.columns or ("key",)
        columns = [KeyColumn(name, kind) for name, kind in zip(names, plan.kinds, strict=True)]
        try:
            space = plans.template.bind(plans.topic, columns)
        except ValueError as error:
            raise FatalError(str(error)) from None
        entry = self._tables.admit(self._fresh(plans), space)
        if entry != self._tables.get(self._connector, plans.topic):
            self._remember(entry)
        found = plans.keys[key[:5]] = (plan.decode, space.render, names)
        return found

    def _entry(self, plans: TablePlans) -> TableEntry:
        return self._tables.get(self._connector, plans.topic) or self._fresh(plans)

    def _fresh(self, plans: TablePlans) -> TableEntry:
        return TableEntry(self._connector, plans.topic, plans.template.text, began=int(time.time() * 1000))

    def _remember(self, entry: TableEntry) -> None:
        self._tables = self._tables.with_entry(entry)
        self._entries[entry.topic] = entry
