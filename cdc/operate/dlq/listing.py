"""``cdc dlq list``: how many letters there are, of what."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from cdc.config import Config
from cdc.operate.dlq.queue import Entry, connector_of, read_queue

__all__ = ["Group", "list_letters", "moment", "render_list"]


@dataclass(slots=True)
class Group:
    """Letters of one partition with one kind of error. ``first`` and ``last`` are when they were put aside, or, where
    a letter does not say, its record's time; ``letter`` is the id of the last."""

    topic: str
    partition: int | None
    stage: str
    error: str
    count: int
    first: str
    last: str
    letter: str
    message: str


def list_letters(config: Config, connector: str, *, everything: bool = False) -> list[Group]:
    """The open letters of a connector, or all, by partition and error. `ConfigError` if it has no queue."""
    spec, queue = connector_of(config, connector)
    groups: dict[tuple[str, int, str, str], list[Entry]] = {}
    for entry in read_queue(spec, queue, everything=everything):
        letter = entry.letter
        groups.setdefault((letter.topic, letter.partition, letter.stage, letter.error), []).append(entry)
    return [_group(entries) for _, entries in sorted(groups.items())]


def _group(entries: Sequence[Entry]) -> Group:
    times = [_time(entry) for entry in entries]
    last = entries[-1]
    letter = last.letter
    return Group(
        letter.topic,
        None if letter.partition < 0 else letter.partition,
        letter.stage,
        letter.error,
        len(entries),
        moment(min(times)),
        moment(max(times)),
        last.id,
        letter.message,
    )


def _time(entry: Entry) -> int:
    return entry.timestamp if entry.letter.at < 0 else entry.letter.at


def moment(ms: int) -> str:
    """A time in ms since 1970 as ISO 8601 in UTC; empty for none."""
    return "" if ms < 0 else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ms / 1000))


def render_list(groups: Sequence[Group], output: Literal["text", "json"]) -> str:
    """For a person, or for a program."""
    if output == "json":
        return json.dumps({"letters": [asdict(group) for group in groups]}, indent=2)
    if not groups:
        return "no open letters"
    lines = []
    for group in groups:
        place = group.topic if group.partition is None else f"{group.topic}[{group.partition}]"
        lines.append(f"{group.count:>7}  {place}  {group.stage}  {group.error}")
        lines.append(f"         {group.first} to {group.last}; the last is {group.letter}: {group.message}")
    return "\n".join(lines)
