"""Key templates: from the key columns of a record to the key of its row, and back.

A template is text with names in braces: ``{pk}`` (the key columns in their order, joined by ``:``), the name of a
key column, ``{table}``, ``{schema}`` and ``{topic}``; ``{{`` and ``}}`` are braces. With more than one key column a
``:`` or ``\\`` inside a value gets a backslash before it; a lone key column is written as it is.

A template must be a key of the rows (EXACTNESS.md H22): it begins with a literal, has each column of the record key
once and nothing else, and can be read back. So different rows never share a key, a deleted row's key is known from
the record key alone, and a sweep touches only keys that the template can have made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from cdc.errors import DataError
from cdc.mirror.languages import Hole, Language, overlap

__all__ = ["RESERVED", "KeyColumn", "KeySpace", "Template", "reserved_overlap", "table_of"]

RESERVED: Final = b"__cdc:"
"""What the keys of our own begin with."""

Render = Callable[[Sequence["bytes | None"]], bytes]

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")
_CONSTANTS: Final = ("table", "schema", "topic")
_DIGIT_KINDS: Final = frozenset({"int2", "int4", "int8"})
_GLOB = re.compile(rb"([*?\[\]\\^-])")


class KeyColumn(NamedTuple):
    """A column of the record key. ``kind`` is its type's name for `cdc.codec.canonical.from_postgres`."""

    name: str
    kind: str = "text"


def table_of(topic: str) -> tuple[str, str]:
    """Schema and table that a topic's name tells: its last two parts, ``<prefix>.<schema>.<table>``."""
    *_, schema, table = ["", "", *topic.split(".")][-2:]
    return schema, table


@dataclass(frozen=True, slots=True)
class _Name:
    name: str


class Template:
    """A parsed template. `ValueError`, saying what to write instead, for one that cannot be a key."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._parts = _parse(text)
        names = [part.name for part in self._parts if isinstance(part, _Name)]
        self.columns = tuple(name for name in names if name not in _CONSTANTS)
        if not self.columns:
            raise ValueError(f"{text!r} has no key column, so that all rows would share one key. Add {{pk}}")
        if len(set(self.columns)) < len(self.columns):
            raise ValueError(f"{text!r} names a column twice. Name each key column once")
        if "pk" in self.columns and len(self.columns) > 1:
            raise ValueError(f"{text!r} has {{pk}}, which is all key columns, and others. Use one or the other")
        first = self._parts[0]
        if isinstance(first, _Name) and first.name not in _CONSTANTS:
            raise ValueError(f"{text!r} begins with a column; keys must begin with a literal. Write {{table}}:{text}")
        if "\\" in text:
            raise ValueError(f"{text!r} has a backslash, which escapes column values. Leave it out")
        self._check_separators()

    def _check_separators(self) -> None:
        """Between two columns there must be a ``:``, which no escaped value contains."""
        literal: str | None = None
        for part in self._parts:
            if isinstance(part, str):
                literal = None if literal is None else literal + part
            elif part.name in _CONSTANTS:
                continue  # what a topic is called may contain a colon or not
            elif literal is not None and ":" not in literal:
                raise ValueError(
                    f"{self.text!r} has no ':' between two columns, so that values could run into each other"
                )
            else:
                literal = ""

    def __repr__(self) -> str:
        return f"Template({self.text!r})"

    def bind(self, topic: str, columns: Sequence[KeyColumn]) -> KeySpace:
        """The keys of one topic whose record key has these columns.

        `ValueError` when the template does not have all of them and no others.
        """
        names = [column.name for column in columns]
        if self.columns == ("pk",):
            order = list(range(len(columns)))
        else:
            missing = [name for name in names if name not in self.columns]
            foreign = [name for name in self.columns if name not in names]
            if missing or foreign:
                said = f"has {', '.join(foreign)}, not in the record key" if foreign else f"lacks {', '.join(missing)}"
                raise ValueError(
                    f"the key template {self.text!r} of topic {topic} {said}; the record key is ({', '.join(names)}). "
                    "Use {pk} or exactly these columns"
                )
            order = [names.index(name) for name in self.columns]
        kinds = [Hole.DIGITS if column.kind in _DIGIT_KINDS else Hole.ESCAPED for column in columns]
        if len(columns) == 1 and kinds[0] is Hole.ESCAPED:
            kinds = [Hole.ANY]
        return KeySpace(self.text, topic, tuple(columns), self._segments(topic, order, kinds))

    def least(self, topic: str) -> Language:
        """Keys that the template makes whatever the key columns turn out to be: one column, of digits."""
        names = [name for name in self.columns if name != "pk"]
        order = list(range(len(names) or 1))
        return tuple(
            part if isinstance(part, bytes) else Hole.DIGITS
            for part in self._segments(topic, order, [Hole.DIGITS] * len(order))
        )

    def _segments(self, topic: str, order: Sequence[int], kinds: Sequence[Hole]) -> tuple[_Segment, ...]:
        schema, table = table_of(topic)
        constants = {"table": table, "schema": schema, "topic": topic}
        out: list[_Segment] = []
        turns = iter(order)

        def literal(text: str) -> None:
            if out and isinstance(out[-1], bytes):
                out[-1] += text.encode()
            else:
                out.append(text.encode())

        for part in self._parts:
            if isinstance(part, str):
                literal(part)
            elif part.name in _CONSTANTS:
                literal(constants[part.name])
            elif part.name == "pk":
                for place, index in enumerate(order):
                    if place:
                        literal(":")
                    out.append(_Slot(index, kinds[index]))
            else:
                index = next(turns)
                out.append(_Slot(index, kinds[index]))
        return tuple(out)


class _Slot(NamedTuple):
    column: int
    hole: Hole


_Segment = bytes | _Slot


def _parse(text: str) -> list[str | _Name]:
    parts: list[str | _Name] = []
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in ("{", "}"):
            raise ValueError(f"{text!r} has a single {token!r} at {match.start()}. Write {token * 2!r} for a brace")
        if token in ("{{", "}}"):
            token = token[0]
        elif match[1] is not None:
            if not match[1]:
                raise ValueError(f"{text!r} has {{}} without a name. Write {{pk}} for the key columns")
            parts.append(_Name(match[1]))
            continue
        if parts and isinstance(parts[-1], str):
            parts[-1] += token
        else:
            parts.append(token)
    if not parts:
        raise ValueError("an empty key template. The default is {table}:{pk}")
    return parts


def _escape(value: bytes) -> bytes:
    return value.replace(b"\\", b"\\\\").replace(b":", b"\\:")


_ESCAPED = re.compile(rb"\\([:\\])")
_PATTERNS: Final = {
    Hole.ANY: rb"(.*)",
    Hole.ESCAPED: rb"((?:[^:\\]|\\[:\\])*)",
    Hole.DIGITS: rb"(-?[0-9]+)",
}


class KeySpace:
    """All keys of one topic: how they are made and read back."""

    def __init__(
        self, template: str, topic: str, columns: tuple[KeyColumn, ...], segments: tuple[_Segment, ...]
    ) -> None:
        self.template = template
        self.topic = topic
        self.columns = columns
        self._segments = segments
        self.prefix = segments[0] if isinstance(segments[0], bytes) else b""
        if not self.prefix:
            raise ValueError(f"the key template {template!r} of topic {topic} begins with nothing but columns")
        self.render = self._renderer()

    @cached_property
    def language(self) -> Language:
        """The set of keys, for `cdc.mirror.languages.overlap`."""
        return tuple(part if isinstance(part, bytes) else part.hole for part in self._segments)

    @cached_property
    def match(self) -> bytes:
        """A glob for Redis's ``SCAN ... MATCH`` that matches every key of this space, and others."""
        return b"".join(_GLOB.sub(rb"\\\1", part) if isinstance(part, bytes) else b"*" for part in self._segments)

    @cached_property
    def _regex(self) -> re.Pattern[bytes]:
        parts = (re.escape(part) if isinstance(part, bytes) else _PATTERNS[part.hole] for part in self._segments)
        return re.compile(b"".join(parts), re.DOTALL)

    def parse(self, key: bytes) -> dict[str, bytes] | None:
        """The key columns' canonical texts that make ``key``; ``None`` for a key that this space does not have."""
        match = self._regex.fullmatch(key)
        if match is None:
            return None
        found: dict[str, bytes] = {}
        slots = (part for part in self._segments if isinstance(part, _Slot))
        for slot, value in zip(slots, match.groups(), strict=True):
            text = _ESCAPED.sub(rb"\1", value) if slot.hole is Hole.ESCAPED else value
            found[self.columns[slot.column].name] = text
        return {column.name: found[column.name] for column in self.columns}

    def _renderer(self) -> Render:
        """A function from the key columns' texts, in the record key's order, to the key.

        `DataError` when one of them is NULL.
        """
        segments, prefix = self._segments, self.prefix
        if len(segments) == 2 and isinstance(segments[1], _Slot):

            def lone(parts: Sequence[bytes | None]) -> bytes:
                value = parts[0]
                if value is None:
                    raise DataError(f"the key column {self.columns[0].name} is NULL")
                return prefix + value

            return lone

        def several(parts: Sequence[bytes | None]) -> bytes:
            out: list[bytes] = []
            for segment in segments:
                if isinstance(segment, bytes):
                    out.append(segment)
                    continue
                value = parts[segment.column]
                if value is None:
                    raise DataError(f"the key column {self.columns[segment.column].name} is NULL")
                out.append(_escape(value) if segment.hole is Hole.ESCAPED else value)
            return b"".join(out)

        return several


def reserved_overlap(language: Language) -> bytes | None:
    """A key of the language that would be one of our own."""
    return overlap(language, (RESERVED, Hole.ANY))
