"""The key schema of a topic, made once and kept (EXACTNESS.md H14).

Key bytes begin with the schema id. If the id changed with every new default or comment, one row would get two keys, in
two partitions, and compaction would keep both for ever. So the first schema and its id are remembered with the offsets;
a newer one counts as the same while names and types are the same.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final

from cdc.errors import FatalError
from cdc.record import NO_DEFAULT, Field, Schema

__all__ = ["START_ANEW", "as_remembered", "key_changes", "wiped"]

START_ANEW: Final = (
    "start the topic anew: stop the connector, delete the topic and the connector's offsets, and let it take a snapshot"
)
"""The remedy that always works."""

_TYPE_PARAMETERS: Final = frozenset({"scale", "connect.decimal.precision", "length"})
"""Parameters without which bytes cannot be read; others (an enum's labels, a column's source type) only describe."""
_DESCRIPTIONS: Final = frozenset({"default", "doc", "aliases", "connect.default", "connect.doc", "logicalType"})


def key_changes(remembered: str, text: str) -> list[str]:
    """What differs in names and types between two Avro texts of key schemas, each in words; empty when nothing does."""
    old, new = _fields(remembered), _fields(text)
    if list(old) != list(new):
        return [f"its columns were ({', '.join(old)}) and are ({', '.join(new)})"]
    return [
        f"column {name!r} was {_shown(old[name])} and is {_shown(new[name])}" for name in old if old[name] != new[name]
    ]


def as_remembered(schema: Schema, remembered: str) -> Schema:
    """``schema`` with its unions in the order of the ``remembered`` text, which its bytes must follow."""
    unions = {field["name"]: field["type"] for field in json.loads(remembered)["fields"]}
    fields = []
    for field in schema.fields:
        union = unions[field.name]
        default = None if isinstance(union, list) and union[0] != "null" else NO_DEFAULT
        fields.append(Field(field.name, replace(field.schema, default=default)) if field.schema.optional else field)
    return replace(schema, fields=tuple(fields))


def wiped(topic: str, subject: str, remembered: int, found: str) -> FatalError:
    """The registry does not know the schema under the remembered id: it is another one, or was emptied."""
    return FatalError(
        f"{topic}: its keys carry schema id {remembered}, but for the same schema of subject {subject} the registry "
        f"{found}. It was emptied, or is another one; with a new id every row would get a second key. "
        f"Remedy: restore the registry (its _schemas topic) so that id {remembered} is this schema again; or "
        f"{START_ANEW}"
    )


def _fields(text: str) -> dict[str, Any]:
    tree = json.loads(text)
    if not isinstance(tree, dict) or "fields" not in tree:
        return {"no columns, but a value": _type(tree)}
    return {field["name"]: _type(field["type"]) for field in tree["fields"]}


def _type(tree: Any) -> Any:
    """What of an Avro type decides how bytes are read and what they mean."""
    if isinstance(tree, list):
        return sorted((_type(branch) for branch in tree), key=lambda branch: branch != "null")
    if not isinstance(tree, dict):
        return tree
    kept: dict[str, Any] = {}
    for key, value in tree.items():
        if key == "connect.parameters":
            kept |= {name: item for name, item in value.items() if name in _TYPE_PARAMETERS and name not in tree}
        elif key == "fields":
            kept[key] = [{"name": field["name"], "type": _type(field["type"])} for field in value]
        elif key not in _DESCRIPTIONS:
            kept[key] = _type(value) if key in {"type", "items", "values"} else value
    return kept["type"] if list(kept) == ["type"] and isinstance(kept["type"], str) else kept


def _shown(type_: Any) -> str:
    if isinstance(type_, list):
        return " or ".join(_shown(branch) for branch in type_)
    if not isinstance(type_, dict):
        return str(type_)
    name = str(type_.get("connect.name") or type_.get("connect.type") or type_["type"]).rpartition(".")[2]
    details = [f"{key.rpartition('.')[2]} {type_[key]}" for key in ("precision", "scale", "length") if key in type_]
    return f"{name} ({', '.join(details)})" if details else name
