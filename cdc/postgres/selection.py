"""What the lists choose: schemas, tables, columns, key columns and masks. Pure.

Expressions are Debezium's: comma-separated (``\\,`` is a comma), matched against whole names, whatever their case;
columns by ``schema.table.column``. ``(?-i:…)`` minds the case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cdc.postgres.masks import Mask, hashed, is_algorithm, stars, truncated

__all__ = ["Names", "Selection", "identity_rules", "key_rules", "mask_rules", "split_list"]

_COMMA: Final = re.compile(r"(?<!\\),")
_IDENTITY: Final = re.compile(r"(full|default|nothing)|(?:using\s+)?index\s+(\S+)", re.IGNORECASE)
_HASH: Final = re.compile(r"(v2\.)?(.+?)\.with\.salt\.(.+)")


def split_list(value: str) -> list[str]:
    """A comma-separated list as Debezium reads it: a comma after a backslash is part of its entry."""
    return [part.strip().replace("\\,", ",") for part in _COMMA.split(value) if part.strip()]


class Names:
    """A list of expressions. `ValueError` for one that is none."""

    def __init__(self, expressions: str | Iterable[str]) -> None:
        parts = split_list(expressions) if isinstance(expressions, str) else list(expressions)
        self._patterns = []
        for part in parts:
            try:
                self._patterns.append(re.compile(part, re.IGNORECASE))
            except (re.error, OverflowError, RecursionError) as error:
                raise ValueError(f"{part!r} is not a regular expression: {error}") from None

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def match(self, name: str) -> bool:
        """Whether one of them matches the whole name."""
        return any(pattern.fullmatch(name) for pattern in self._patterns)


def key_rules(text: str) -> list[tuple[Names, Names]]:
    """``message.key.columns``: ``table:column,column;…``, both sides expressions. `ValueError` names a bad part."""
    rules = []
    for part in text.split(";"):
        if not part.strip():
            continue
        table, colon, columns = part.strip().rpartition(":")
        names = [column.strip() for column in columns.split(",") if column.strip()]
        if not colon or not table.strip() or not names:
            raise ValueError(f"{part.strip()!r} is not <schema>.<table>:<column>,<column>")
        rules.append((Names([table.strip()]), Names(names)))
    return rules


def identity_rules(text: str) -> list[tuple[Names, str]]:
    """``replica.identity.autoset.values``: tables and what follows ALTER TABLE … REPLICA IDENTITY, the index unquoted.

    ``INDEX name`` comes as ``USING INDEX name``. `ValueError` names a bad part.
    """
    rules = []
    for part in split_list(text):
        table, colon, wanted = part.rpartition(":")
        found = _IDENTITY.fullmatch(wanted.strip())
        if not colon or not table.strip() or found is None:
            raise ValueError(f"{part!r} is not <schema>.<table>:FULL, DEFAULT, NOTHING or INDEX <name>")
        rules.append((Names([table.strip()]), f"USING INDEX {found[2]}" if found[2] else found[1].upper()))
    return rules


def mask_rules(
    with_stars: Mapping[str, str], truncations: Mapping[str, str], hashes: Mapping[str, str]
) -> list[tuple[Mask, Names]]:
    """The masks of all rules, the one that hides most first. `ValueError` names a bad rule, never a salt.

    Keys are what the property has in its name: ``6``, ``4``, ``v2.SHA-256.with.salt.x``; values are lists of columns.
    """
    rules = [(stars(_length(name, "column.mask.with")), Names(listed)) for name, listed in with_stars.items()]
    for name, listed in hashes.items():
        found = _HASH.fullmatch(name)
        if found is None:
            raise ValueError("expected column.mask.hash.<algorithm>.with.salt.<salt>, or column.mask.hash.v2.…")
        if not is_algorithm(found[2]):
            raise ValueError(f"{found[2]!r} is not a hash algorithm; use SHA-256 or SHA-512")
        rules.append((hashed(found[2], found[3], 2 if found[1] else 1), Names(listed)))
    rules += [(truncated(_length(name, "column.truncate.to")), Names(listed)) for name, listed in truncations.items()]
    return rules


def _length(name: str, prefix: str) -> int:
    if not name.isdecimal():
        raise ValueError(f"expected {prefix}.<number>.chars, found {name!r} for the number")
    return int(name)


@dataclass(frozen=True)
class Selection:
    """The compiled lists of one connector. Empty include lists choose everything."""

    schemas: Names
    no_schemas: Names
    tables: Names
    no_tables: Names
    columns: Names
    no_columns: Names
    keys: Sequence[tuple[Names, Names]]
    masks: Sequence[tuple[Mask, Names]]

    def table(self, schema: str, table: str) -> bool:
        """Whether the lists choose the table; never one of Postgres's own."""
        if schema in {"pg_catalog", "information_schema"} or schema.startswith("pg_toast"):
            return False
        name = f"{schema}.{table}"
        return (
            (not self.schemas or self.schemas.match(schema))
            and not self.no_schemas.match(schema)
            and (not self.tables or self.tables.match(name))
            and not self.no_tables.match(name)
        )

    def column(self, schema: str, table: str, column: str) -> bool:
        """Whether the lists choose the column of a chosen table."""
        name = f"{schema}.{table}.{column}"
        return (not self.columns or self.columns.match(name)) and not self.no_columns.match(name)

    def key(self, schema: str, table: str, columns: Sequence[str]) -> tuple[str, ...] | None:
        """The columns of the record key that ``message.key.columns`` names, in the table's order; ``None``: no rule."""
        name = f"{schema}.{table}"
        wanted = [names for tables, names in self.keys if tables.match(name)]
        if not wanted:
            return None
        return tuple(column for column in columns if any(names.match(column) for names in wanted))

    def mask(self, schema: str, table: str, column: str) -> Mask | None:
        """What hides the column: of several rules the one that hides most (stars, then hashes, then truncation)."""
        name = f"{schema}.{table}.{column}"
        return next((mask for mask, names in self.masks if names.match(name)), None)
