"""The command line that all measurements share, and how a result is printed."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.bridge import BridgeFailed
from bench.machine import description
from bench.servers import Servers, servers
from bench.topics import NotEqual
from cdc.local import LocalServerError, MissingPart

__all__ = ["Result", "delivery", "main", "median", "parser"]

Figures = Mapping[str, float]


@dataclass(slots=True)
class Result:
    """Runs of one measurement: for each the same figures by name, the unit being part of the name."""

    settings: dict[str, Any]
    runs: list[Figures] = field(default_factory=list)
    equal: str = ""
    """What was compared and found equal."""
    notes: list[str] = field(default_factory=list)
    failed: str = ""
    """A bound that the figures break."""


def parser(description: str | None, *, rows: int, runs: int = 1) -> argparse.ArgumentParser:
    """With the options that all have."""
    made = argparse.ArgumentParser(description=(description or "").split("\n", 1)[0])
    made.add_argument("--rows", type=int, default=rows, help=f"size of the workload (default {rows})")
    made.add_argument("--runs", type=int, default=runs, help=f"runs, of which medians are printed (default {runs})")
    made.add_argument("--flavour", choices=["apache", "embedded"], default="apache", help="which servers")
    made.add_argument("--partitions", type=int, default=4, help="partitions of each topic (default 4)")
    made.add_argument(
        "--worker",
        action="append",
        type=_property,
        default=[],
        metavar="NAME=VALUE",
        help="a further property of the worker, such as producer.linger.ms=5; may be repeated",
    )
    made.add_argument("--output", choices=["text", "json"], default="text")
    return made


def delivery(worker: Sequence[tuple[str, str]]) -> str:
    """How the source writes, in words."""
    if dict(worker).get("exactly.once.source.support", "enabled") == "enabled":
        return "exactly once (Kafka transactions), consumers read_committed"
    return "at least once (idempotent producer)"


def _property(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name, value


def median(runs: Sequence[Figures]) -> dict[str, float]:
    """The median of each figure."""
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def main(arguments: argparse.Namespace, measure: Callable[[Servers, argparse.Namespace], Result]) -> int:
    """Start servers, measure, print. The exit status: 1 when the ends differ, a bound is broken, or a part failed."""
    machine = description()
    try:
        with servers(arguments.flavour) as started:
            versions = started.versions()
            result = measure(started, arguments)
            result.settings |= {f"worker {name}": value for name, value in arguments.worker}
    except NotEqual as error:
        print(f"no figures: the two ends are not equal: {error}", file=sys.stderr)
        return 1
    except (BridgeFailed, MissingPart, LocalServerError) as error:
        print(f"no figures: {error}", file=sys.stderr)
        return 1
    middle = median(result.runs)
    if arguments.output == "json":
        told = {
            "machine": machine,
            "versions": versions,
            "settings": result.settings,
            "equal": result.equal,
            "median": middle,
            "runs": [dict(run) for run in result.runs],
            "notes": result.notes,
            "failed": result.failed,
        }
        print(json.dumps(told, indent=2))
    else:
        _print(machine, versions, result, middle)
    return 1 if result.failed else 0


def _print(machine: Mapping[str, str], versions: Mapping[str, str], result: Result, middle: Figures) -> None:
    head = {**machine, **versions, **{name: str(value) for name, value in result.settings.items()}}
    for name, told in head.items():
        print(f"{name + ':':<22}{told}")
    print(f"{'equal:':<22}{result.equal}\n")
    several = len(result.runs) > 1
    for name, value in middle.items():
        spread = "   of " + ", ".join(_shown(run[name]) for run in result.runs) if several else ""
        print(f"{name:<52}{_shown(value):>12}{spread}")
    for note in result.notes:
        print(f"note: {note}")
    if result.failed:
        print(f"FAILED: {result.failed}")


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
