"""The key schema of a topic, kept as it first was, for converters that write no Avro (EXACTNESS.md H14).

Where bytes carry a schema or its id, a new default or comment would give every row a second key; so the first schema
is remembered with the offsets and written ever after. New names or types are refused: their keys would be others
whatever is done.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from cdc.codec.connect_json import parse_schema, schema_text
from cdc.converters.avro_keys import START_ANEW
from cdc.errors import FatalError, KeyChanged
from cdc.plugin import KeyMemory
from cdc.record import RowShape, Schema

__all__ = ["first_key_schema", "kept_key_schema", "key_schema_changes", "other_format", "remembered"]

_TYPE_PARAMETERS: Final = ("scale", "connect.decimal.precision", "length")
"""Parameters that say how a value is read; others (an enum's labels, a column's source type) only describe it."""
_INTEGERS: Final = frozenset({"int8", "int16", "int32", "int64"})


def kept_key_schema(shape: RowShape, schema: Schema, memory: KeyMemory, form: str, *, bare: bool) -> Schema:
    """The key schema to write: the one that is remembered, or ``schema``, which then is remembered.

    ``form`` names the form of the bytes: another one makes other keys. ``bare`` keys are written without a schema, so
    that the width of an integer and the like may change. `FatalError` for what may not.
    """
    known = memory.get(shape.topic)
    if known is None or "anew" in known:
        memory.put(shape.topic, remembered(schema, form))
        return schema
    first = first_key_schema(shape, schema, known, form, bare=bare)
    return schema if bare else first


def remembered(schema: Schema, form: str) -> dict[str, Any]:
    """What is remembered of a topic whose first key schema is ``schema``."""
    return {"form": form, "connect": schema_text(schema)}


def first_key_schema(shape: RowShape, schema: Schema, known: Mapping[str, Any], form: str, *, bare: bool) -> Schema:
    """The key schema that is remembered. `FatalError` if it is not the same key in the same form."""
    if known.get("form") != form:
        raise other_format(shape, str(known.get("form", "Avro")), form)
    first = parse_schema(json.loads(known["connect"]))
    changes = key_schema_changes(first, schema, bare=bare)
    if changes:
        raise _changed_key(shape, changes)
    return first


def key_schema_changes(old: Schema, new: Schema, *, bare: bool = False) -> list[str]:
    """What differs in names and types between two schemas of keys, each in words; empty when nothing does."""
    one, other = [field.name for field in old.fields], [field.name for field in new.fields]
    if one != other:
        return [f"its columns were ({', '.join(one)}) and are ({', '.join(other)})"]
    return [
        f"column {was.name!r} was {_shown(was.schema)} and is {_shown(is_.schema)}"
        for was, is_ in zip(old.fields, new.fields, strict=True)
        if list(_type(was.schema, bare)) != list(_type(is_.schema, bare))
    ]


def _changed_key(shape: RowShape, changes: list[str]) -> KeyChanged:
    """Names or types of a key are not what they were when its first record was written."""
    return KeyChanged(
        f"{shape.topic}: the key of table {shape.schema}.{shape.table} has changed: {'; '.join(changes)}. Its rows "
        f"would get new keys beside those they have in the topic. Change the key back; or set "
        f"schema.key.change.handling.mode=renew; or {START_ANEW}; or leave the table out (table.exclude.list)"
    )


def other_format(shape: RowShape, was: str, now: str) -> FatalError:
    """Another converter, or another form of the same, wrote the topic's keys."""
    return FatalError(
        f"{shape.topic}: its keys were written as {was} and would now be {now}, so that every row of table "
        f"{shape.schema}.{shape.table} would get a second key. Set key.converter and its properties back; or "
        f"{START_ANEW}"
    )


def _type(schema: Schema, bare: bool) -> Iterator[Any]:
    if bare and schema.name is None and schema.type in _INTEGERS:
        yield "integer"
        return
    parameters = dict(schema.parameters)
    wanted = ("scale",) if bare else _TYPE_PARAMETERS
    yield schema.type, schema.name, [parameters.get(name) for name in wanted], not bare and schema.optional
    for part in (schema.keys, schema.values):
        if part is not None:
            yield from _type(part, bare)
    for field in schema.fields:
        yield field.name
        yield from _type(field.schema, bare)


def _shown(schema: Schema) -> str:
    name = (schema.name or schema.type).rpartition(".")[2]
    details = [f"{key.rpartition('.')[2]} {value}" for key, value in schema.parameters if key in _TYPE_PARAMETERS]
    text = f"{name} ({', '.join(details)})" if details else name
    return f"{text} or null" if schema.optional else text
