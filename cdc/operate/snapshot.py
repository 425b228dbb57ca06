"""``cdc snapshot``: ask a source for the rows of tables, hold or stop that, and wait for what becomes of it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, overload

from cdc.config import Config
from cdc.errors import ConfigError, DataError, Finding
from cdc.operate.offsets import show_offsets, source_of
from cdc.runtime.signals import execute, send

__all__ = ["await_outcome", "order_of", "outcome_of", "render", "render_sent", "send_order", "succeeded"]

Order = tuple[str, Mapping[str, Any]]
"""Type and data of a signal."""

_LOOK_S: Final = 0.5


def order_of(
    tables: Sequence[str],
    where: str = "",
    *,
    sweep: bool = False,
    blocking: bool = False,
    stop: bool = False,
    pause: bool = False,
    resume: bool = False,
) -> Order:
    """The signal that the options mean. `ConfigError` for a contradiction."""
    asked = [name for name, given in (("--stop", stop), ("--pause", pause), ("--resume", resume)) if given]
    extra = [name for name, given in (("--where", where), ("--sweep", sweep), ("--blocking", blocking)) if given]
    if len(asked) > 1:
        raise ConfigError(f"{' and '.join(asked)} cannot be had together")
    if asked and (extra or (tables and not stop)):
        raise ConfigError(f"{asked[0]} does not go with {', '.join(extra) or '--table'}")
    if stop:
        return "stop-snapshot", {"data-collections": list(tables)} if tables else {}
    if pause or resume:
        return ("pause-snapshot" if pause else "resume-snapshot"), {}
    if not tables:
        raise ConfigError("name the tables to read: --table SCHEMA.TABLE")
    return execute(tables, where, sweep=sweep, blocking=blocking)


def send_order(config: Config, connector: str, order: Order) -> dict[str, Any]:
    """Write the signal: its id and place. `ConfigError` when the source takes none, or not this one."""
    try:
        return send(source_of(config, connector), *order)
    except DataError as error:
        raise ConfigError([Finding(str(error), key=f"connectors.{connector}")]) from None


@overload
def await_outcome(config: Config, connector: str, identifier: str) -> dict[str, Any]: ...


@overload
def await_outcome(config: Config, connector: str, identifier: str, patience: float) -> dict[str, Any] | None: ...


def await_outcome(config: Config, connector: str, identifier: str, patience: float = math.inf) -> dict[str, Any] | None:
    """Wait until the source has done what the signal asks, or has refused it; what became of it, by table.

    ``None`` if it is still open after ``patience`` seconds.
    """
    deadline = time.monotonic() + patience
    while (found := outcome_of(config, connector, identifier)) is None:
        if time.monotonic() > deadline:
            return None
        # Another process's work: what it stores is all that tells of it.
        time.sleep(_LOOK_S)
    return found


def outcome_of(config: Config, connector: str, identifier: str) -> dict[str, Any] | None:
    """What became of a signal, by table; ``None`` while it is open."""
    for partition, offset in show_offsets(config, connector).items():
        if json.loads(partition)[1].get("signals") == "outcomes":
            found: dict[str, Any] | None = offset["outcomes"].get(identifier)
            if found is not None and not any(told["state"] == "RUNNING" for told in found["tables"].values()):
                return found
    return None


def succeeded(outcome: Mapping[str, Any]) -> bool:
    """Whether all that was asked for was done."""
    return "error" not in outcome and all(told["state"] == "COMPLETED" for told in outcome["tables"].values())


def render(outcome: Mapping[str, Any], output: Literal["text", "json"]) -> str:
    """What became of a signal."""
    if output == "json":
        return json.dumps(outcome, indent=2)
    if "error" in outcome:
        return f"refused: {outcome['error']}"
    lines = [
        f"{table}: {told['state']}, {told['rows']} rows" + (f" ({told['reason']})" if told.get("reason") else "")
        for table, told in sorted(outcome["tables"].items())
    ]
    return "\n".join(lines) or "done"


def render_sent(order: Order, sent: Mapping[str, Any], output: Literal["text", "json"]) -> str:
    """Where a signal was written."""
    if output == "json":
        return json.dumps(sent, indent=2)
    return f"{order[0]} {sent['id']} is written to {sent['topic']}: the source acts on it when it runs"
