"""What transforms share: kinds of records, and schemas made once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from cdc.record import ConnectRecord, Schema

__all__ = ["Once", "field_schema", "is_envelope"]

_T = TypeVar("_T")


class Once:
    """Remembers what was made of a schema, by the schema's identity, which it keeps alive."""

    def __init__(self, limit: int = 1000) -> None:
        self._limit = limit
        self._made: dict[tuple[Any, ...], tuple[Schema, Any]] = {}

    def __call__(self, schema: Schema, make: Callable[[], _T], *more: Any) -> _T:
        """What ``make`` made when it was first called for ``schema`` and ``more``, which is hashable."""
        key = (id(schema), *more)
        found = self._made.get(key)
        if found is None:
            if len(self._made) >= self._limit:
                self._made.clear()
            found = self._made[key] = (schema, make())
        made: _T = found[1]
        return made


def is_envelope(record: ConnectRecord) -> bool:
    """Whether the value is Debezium's envelope of a change."""
    schema = record.value_schema
    return record.value is not None and schema is not None and (schema.name or "").endswith(".Envelope")


def field_schema(schema: Schema | None, name: str) -> Schema | None:
    """The schema of a struct's field; ``None`` when there is none of that name."""
    if schema is None:
        return None
    return next((field.schema for field in schema.fields if field.name == name), None)
