"""Signals: what somebody asks a running source to do, in Debezium's words. Pure.

A signal is an id, a type and data in JSON. `read` makes an order of it, or says what is wrong with it.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cdc.errors import DataError
from cdc.postgres.selection import Names

__all__ = ["WINDOW", "Execute", "Log", "Order", "Pause", "Resume", "Stop", "read", "read_message"]

WINDOW: Final = frozenset({"snapshot-window-open", "snapshot-window-close"})
"""Debezium writes these to its own signal table, to itself: they are no orders."""

_TYPES: Final = ("execute-snapshot", "stop-snapshot", "pause-snapshot", "resume-snapshot", "log")
_EXECUTE: Final = ("data-collections", "type", "additional-conditions", "sweep")
_STOP: Final = ("data-collections", "type")
_UNSUPPORTED: Final = {
    "surrogate-key": "rows are read by the record key; remove it",
    "additional-condition": "give additional-conditions: a list of {data-collection, filter}",
}


@dataclass(frozen=True, slots=True)
class Execute:
    """Read the rows of tables: ``conditions`` are filters, each for the tables whose full names it matches."""

    tables: Names
    shown: Sequence[str]
    conditions: Sequence[tuple[Names, str]] = ()
    blocking: bool = False
    sweep: bool = False

    def condition(self, full_name: str) -> str:
        """The filters for a table, all of which must hold; empty for all rows."""
        found = [where for names, where in self.conditions if names.match(full_name)]
        return found[0] if len(found) == 1 else " and ".join(f"({where}\n)" for where in found)


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the snapshots of these tables, of all without."""

    tables: Names | None
    shown: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Pause:
    """Hold the snapshots that were asked for."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on with those that are held."""


@dataclass(frozen=True, slots=True)
class Log:
    """Write a line to the log; ``{}`` stands for the place in the stream."""

    message: str


Order = Execute | Stop | Pause | Resume | Log


def read_message(text: bytes) -> tuple[str, str, Any]:
    """Id, type and data of a signal that came as one JSON object. `DataError` when it is none."""
    try:
        found = _json(text)
    except ValueError as error:
        raise DataError(f'a signal is JSON such as {{"type": "log", "data": {{"message": "x"}}}}: {error}') from None
    if not isinstance(found, dict) or not isinstance(found.get("type"), str):
        raise DataError('a signal is a JSON object with the texts "type" and, if any, "id"')
    unknown = found.keys() - {"id", "type", "data"}
    if unknown:
        raise DataError(f"a signal has id, type and data, this one also {', '.join(sorted(unknown))}")
    identifier = found.get("id", "")
    return str(identifier or ""), found["type"], found.get("data")


def read(kind: str, data: Any) -> Order:
    """The order of a signal. ``data`` is a JSON value, or its text. `DataError` names what is wrong with it."""
    if kind not in _TYPES:
        near = difflib.get_close_matches(kind, _TYPES, 1, 0.6)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(_TYPES)}"
        raise DataError(f"there is no signal of type {kind[:60]!r}; {hint}")
    given = _object(kind, data)
    if kind == "log":
        message = given.get("message")
        if not isinstance(message, str):
            raise DataError('log needs data {"message": "<text>"}')
        return Log(message)
    if kind in {"pause-snapshot", "resume-snapshot"}:
        _known(kind, given, ("type",))
        return Pause() if kind == "pause-snapshot" else Resume()
    if kind == "stop-snapshot":
        _known(kind, given, _STOP)
        _type(kind, given)
        listed = _collections(kind, given) if given.get("data-collections") is not None else []
        return Stop(_names(kind, listed) if listed else None, tuple(listed))
    _known(kind, given, _EXECUTE)
    blocking = _type(kind, given) == "blocking"
    listed = _collections(kind, given)
    if not listed:
        raise DataError(f'{kind} needs data-collections: a list of tables such as ["public.orders"]')
    sweep = given.get("sweep", False)
    if not isinstance(sweep, bool):
        raise DataError(f"sweep is true or false, not {sweep!r}")
    conditions = _conditions(kind, given.get("additional-conditions"))
    if sweep and conditions:
        raise DataError("sweep removes every key whose row is not read: it cannot be had with additional-conditions")
    return Execute(_names(kind, listed), listed, conditions, blocking, sweep)


def _json(text: str | bytes) -> Any:
    """The value of a JSON text that can be written again; `ValueError` for any other."""
    try:
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False).encode()  # half of a surrogate pair is no character
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return found


def _object(kind: str, data: Any) -> Mapping[str, Any]:
    if isinstance(data, str):
        try:
            data = _json(data) if data.strip() else None
        except ValueError as error:
            raise DataError(f"the data of {kind} are not JSON: {error}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise DataError(f"the data of {kind} are a JSON object, not {json.dumps(data)[:60]}")
    return data


def _known(kind: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in given:
        if name in _UNSUPPORTED:
            raise DataError(f"{name} is not supported: {_UNSUPPORTED[name]}")
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.6)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise DataError(f"{kind} has no {name[:60]!r}; {hint}")


def _type(kind: str, given: Mapping[str, Any]) -> str:
    found = given.get("type", "incremental")
    if not isinstance(found, str) or found.lower() not in {"incremental", "blocking"}:
        raise DataError(f"the type of {kind} is incremental or blocking, not {json.dumps(found)[:60]}")
    return found.lower()


def _collections(kind: str, given: Mapping[str, Any]) -> list[str]:
    found = given.get("data-collections", [])
    if not isinstance(found, list) or not all(isinstance(name, str) and name.strip() for name in found):
        raise DataError(f"data-collections of {kind} is a list of texts, not {json.dumps(found)[:60]}")
    return [name.strip() for name in found]


def _names(kind: str, listed: Sequence[str]) -> Names:
    try:
        return Names(listed)
    except ValueError as error:
        raise DataError(f"data-collections of {kind}: {error}") from None


def _conditions(kind: str, given: Any) -> list[tuple[Names, str]]:
    if given is None:
        return []
    if not isinstance(given, list):
        raise DataError("additional-conditions is a list of {data-collection, filter}")
    conditions = []
    for condition in given:
        if not isinstance(condition, dict) or not all(isinstance(part, str) for part in condition.values()):
            raise DataError("additional-conditions is a list of {data-collection, filter}, both texts")
        _known(kind, condition, ("data-collection", "filter"))
        where = condition.get("filter", "").strip()
        table = condition.get("data-collection", "").strip()
        if not where or not table:
            raise DataError("each of additional-conditions needs a data-collection and a filter")
        if re.match(r"select\b", where, re.IGNORECASE):
            raise DataError("a filter is the condition alone, such as region = 'EU', not a SELECT statement")
        if "\0" in where:
            raise DataError("a filter cannot have a zero byte")
        conditions.append((_names(kind, [table]), where))
    return conditions
