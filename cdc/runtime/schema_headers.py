"""Headers for what converters do not write of schemas (`cdc.codec.told_schema`)."""

from __future__ import annotations

from typing import Final

from cdc.codec.told_schema import told
from cdc.plugin import Converter
from cdc.record import HEADER_SCHEMA, Schema

__all__ = ["SchemaHeaders"]

Header = tuple[tuple[str, bytes], ...]

_MOST: Final = 1000
"""Pairs of schemas that are remembered."""


class SchemaHeaders:
    """Makes them, for the converters of one source."""

    def __init__(self, keys: Converter, values: Converter) -> None:
        self._keys, self._values = not keys.tells_types, not values.tells_types
        self._made: dict[tuple[int, int], tuple[Header, Schema | None, Schema | None]] = {}
        """By identity of the schemas, which it keeps alive."""

    def of(self, key: Schema | None, value: Schema | None) -> Header:
        """The headers of a record of these schemas."""
        found = self._made.get((id(key), id(value)))
        if found is None:
            if len(self._made) >= _MOST:
                self._made.clear()
            header = told(key if self._keys else None, value if self._values else None)
            found = () if header is None else ((HEADER_SCHEMA, header),), key, value
            self._made[id(key), id(value)] = found
        return found[0]
