"""Comparing what was written with what was recorded: placeholders, allowed differences, schemas as trees."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HEARTBEATS = "__debezium-heartbeat."
_PLACEHOLDER = re.compile(r"<(ts_ms|ts_us|ts_ns|lsn|txId|xmin|uuid)( text)?>")
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@dataclass(frozen=True)
class Rule:
    """One entry of ``allowed.json``: where the recording may be differed from."""

    topic: str = ""
    path: str = ""
    key: str = ""
    as_json: bool = False

    @classmethod
    def read(cls, form: Mapping[str, str]) -> Rule:
        assert form["reason"]
        return cls(form.get("topic", ""), form.get("path", ""), form.get("key", ""), form.get("as") == "json")

    def concerns(self, topic: str, key: str) -> bool:
        return bool(re.search(self.topic, topic) and re.search(self.key, key))


_GONE = object()


def pruned(tree: Any, path: str, rules: Sequence[Rule]) -> Any:
    """``tree`` without what may be different; `_GONE` when that is all of it. Fields of schemas are ``[name]``."""
    for rule in rules:
        if re.search(rule.path, path):
            if not rule.as_json:
                return _GONE
            return json.loads(tree) if isinstance(tree, str) else tree
    if isinstance(tree, dict):
        found = {name: pruned(value, f"{path}.{name}" if path else name, rules) for name, value in tree.items()}
        return {name: value for name, value in found.items() if value is not _GONE}
    if isinstance(tree, list):
        items = [pruned(item, f"{path}{_step(item)}", rules) for item in tree]
        return [item for item in items if item is not _GONE]
    return tree


def _step(item: Any) -> str:
    name = item.get("field", item.get("name")) if isinstance(item, dict) else None
    return f"[{name}]" if isinstance(name, str) and ("field" in item or "type" in item) else ""


def pruned_records(records: Sequence[Mapping[str, Any]], rules: Sequence[Rule]) -> list[Any]:
    """The records, in order, without what may be different. Heartbeats are one: their number is a question of time."""
    kept: list[Any] = []
    for record in records:
        key = json.dumps(record["key"], ensure_ascii=False)
        rest = pruned(dict(record), "", [rule for rule in rules if rule.concerns(record["topic"], key)])
        if rest is _GONE:
            continue
        if record["topic"].startswith(HEARTBEATS) and any(one["topic"] == record["topic"] for one in kept):
            continue
        kept.append(rest)
    return kept


def pruned_schemas(topic: str, side: str, schemas: Sequence[Any], rules: Sequence[Rule]) -> list[Any]:
    """Versions of a schema without what may be different; versions that are then equal are one."""
    mine = [rule for rule in rules if rule.concerns(topic, "null")]
    if any(re.search(rule.path, "") and not rule.path for rule in mine):
        return []
    kept: list[Any] = []
    for schema in schemas:
        rest = pruned(schema, side, mine)
        if rest not in kept:
            kept.append(rest)
    return kept


def differences(wanted: Any, found: Any, path: str = "", singles: frozenset[str] = frozenset()) -> Iterator[str]:
    """Where ``found`` is not what was recorded; placeholders stand for any number, or its text.

    Fields of ``singles`` are compared as 32-bit floats.
    """
    if isinstance(wanted, dict) and isinstance(found, dict):
        for name in [*wanted, *(name for name in found if name not in wanted)]:
            place = f"{path}.{name}"
            if name not in found:
                yield f"{place}: missing, recorded {_short(wanted[name])}"
            elif name not in wanted:
                yield f"{place}: {_short(found[name])} is not in the recording"
            else:
                yield from differences(wanted[name], found[name], place, singles)
    elif isinstance(wanted, list) and isinstance(found, list):
        if len(wanted) != len(found):
            yield f"{path}: {len(found)} items, recorded {len(wanted)}: {_short(found)} for {_short(wanted)}"
        for number, (one, other) in enumerate(zip(wanted, found, strict=False)):
            yield from differences(one, other, f"{path}[{number}]", singles)
    elif isinstance(wanted, str) and (place_holder := _PLACEHOLDER.search(wanted)):
        if place_holder[0] == wanted and not place_holder[2] and place_holder[1] != "uuid":
            if type(found) is not int:
                yield f"{path}: {_short(found)}, recorded {wanted}"
        elif not (isinstance(found, str) and re.fullmatch(_pattern(wanted), found)):
            yield f"{path}: {_short(found)}, recorded {wanted}"
    elif path.rpartition(".")[2] in singles and isinstance(wanted, float) and isinstance(found, float):
        if struct.pack("<f", wanted) != struct.pack("<f", found):
            yield f"{path}: {found}, recorded {wanted}"
    elif wanted != found or isinstance(wanted, bool) != isinstance(found, bool):
        yield f"{path}: {_short(found)}, recorded {_short(wanted)}"


def _pattern(text: str) -> str:
    parts, at = [], 0
    for match in _PLACEHOLDER.finditer(text):
        parts += [re.escape(text[at : match.start()]), _UUID if match[1] == "uuid" else r"\d+"]
        at = match.end()
    return "".join([*parts, re.escape(text[at:])])


def clocks_apart(value: Any, path: str = "") -> Iterator[str]:
    """Where ``ts_ms``, ``ts_us`` and ``ts_ns`` beside each other are not one instant."""
    if isinstance(value, dict):
        clock = [value.get(name) for name in ("ts_ms", "ts_us", "ts_ns")]
        if all(type(part) is int for part in clock):
            ms, us, ns = clock
            if (us // 1000, ns // 1000) != (ms, us):
                yield f"{path}: {ms} ms, {us} us and {ns} ns are not one instant"
        for name, part in value.items():
            yield from clocks_apart(part, f"{path}.{name}")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 300 else text[:297] + "..."
