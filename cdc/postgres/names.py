"""Names that Avro can have, made of those that Postgres has: Debezium's ``*.name.adjustment.mode``. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from cdc.errors import FatalError

__all__ = ["field_names", "schema_name"]

_NOT_AVRO: Final = re.compile(r"[^A-Za-z0-9_]")
_NOT_PLAIN: Final = re.compile(r"[^A-Za-z0-9]")
"""With ``avro_unicode`` the underscore is escaped too, so that every name can be read back."""


def schema_name(mode: str, name: str) -> str:
    """A full name, its parts between dots, under ``schema.name.adjustment.mode``."""
    if mode == "none":
        return name
    adjusted = ".".join(_NOT_AVRO.sub("_", part) if mode == "avro" else _escaped(part) for part in name.split("."))
    return adjusted if mode == "avro_unicode" else _begun(adjusted)


def field_names(mode: str, names: Sequence[str], table: str) -> list[str]:
    """The names of a table's columns under ``field.name.adjustment.mode``. `FatalError` when two become one."""
    if mode == "none":
        return list(names)
    adjusted = [_field(mode, name) for name in names]
    for at, name in enumerate(adjusted):
        first = adjusted.index(name)
        if first != at:
            raise FatalError(
                f"the columns {names[first]!r} and {names[at]!r} of {table} are both named {name} with "
                f"field.name.adjustment.mode={mode}. Set it to avro_unicode, or leave one of them out "
                "(column.exclude.list)"
            )
    return adjusted


def _field(mode: str, name: str) -> str:
    return _begun(_NOT_AVRO.sub("_", name)) if mode == "avro" else _escaped(name, begins=True)


def _begun(name: str) -> str:
    """A name begins with a letter or an underscore."""
    return f"_{name}" if name[:1].isdigit() else name


def _escaped(name: str, *, begins: bool = False) -> str:
    """Every other character as its UTF-16 code units: ``-`` is ``_u002d``; a digit too where the name begins."""
    escaped = _NOT_PLAIN.sub(lambda match: _units(match[0]), name)
    return _units(name[0]) + escaped[1:] if begins and name[:1].isdigit() else escaped


def _units(character: str) -> str:
    data = character.encode("utf-16-be")
    return "".join(f"_u{data[at]:02x}{data[at + 1]:02x}" for at in range(0, len(data), 2))
