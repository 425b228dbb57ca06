"""``cdc rebuild``: the rows of a store made again from the topics, shown while it goes on (`cdc.runtime.rebuild`)."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Final, Literal, Protocol, TextIO

import rich.progress
from rich.console import Console

from cdc.config import Config, ConnectorSpec
from cdc.errors import ConfigError, FatalError, RetriableError
from cdc.kafka.topics import TopicFacts, topics_there
from cdc.operate.registry import with_registry
from cdc.plugin import SinkConnector
from cdc.runtime.rebuild import Progress, Rebuild, Rebuilt

__all__ = ["run_rebuild"]

INTERRUPTED: Final = 130
LINE_S: Final = 2.0
"""How often a line tells how far it is, where there is no terminal."""


def run_rebuild(
    config: Config,
    connector: str,
    topics: Sequence[str],
    *,
    output: Literal["text", "json"] = "text",
    echo: Callable[[str], None],
    errors: TextIO | None = None,
) -> int:
    """Rebuild the topics of a sink, all if none is named; progress on ``errors`` (stderr), the result to ``echo``.

    0 done, 1 something forbids it, 130 interrupted. `ConfigError` for a name that is none.
    """
    spec = _sink(config, connector)
    sink = spec.connector
    if not isinstance(sink, SinkConnector):
        raise TypeError(f"{connector} is no sink")
    settings: Any = sink.config
    there = topics_there(spec.worker, settings.reads)
    if unknown := [name for name in topics if name not in there]:
        raise ConfigError(
            f"{connector} reads no topic {', '.join(unknown)}. Those that it reads and that exist are "
            f"{', '.join(there) or 'none'}"
        )
    view = _view(output, errors or sys.stderr, config.secrets.redact)
    done: list[Rebuilt] = []
    refused: list[str] = []
    with _stoppable() as stopping, view, with_registry(config, spec) as worker:
        try:
            for name, facts in there.items():
                if not topics or name in topics:
                    _rebuild_topic(sink, worker, name, facts, view, stopping, done, refused)
        except RetriableError:
            if not stopping():
                raise
    echo(config.secrets.redact(_as_json(done, refused) if output == "json" else _as_text(done, refused)))
    if stopping():
        view.say("interrupted: the same command goes on where it was")
        return INTERRUPTED
    return 1 if refused else 0


def _rebuild_topic(
    sink: SinkConnector,
    worker: Mapping[str, str],
    topic: str,
    facts: TopicFacts,
    view: _View,
    stopping: Callable[[], bool],
    done: list[Rebuilt],
    refused: list[str],
) -> None:
    try:
        job = Rebuild(sink, worker, topic, facts.partitions, topic_id=facts.id, told=view.show, stopping=stopping)
        done.append(job.run())
    except FatalError as error:
        refused.append(str(error))


def _sink(config: Config, name: str) -> ConnectorSpec:
    sinks = {spec.name: spec for spec in config.connectors if spec.kind == "sink"}
    if name not in sinks:
        raise ConfigError(f"there is no sink connector {name!r}. Known are {', '.join(sinks) or 'none'}")
    return sinks[name]


@contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM came. A second one ends the process as it would without."""
    caught: list[int] = []

    def handler(number: int, _frame: object) -> None:
        caught.append(number)
        signal.signal(number, before[signal.Signals(number)])

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, handler)
    try:
        yield lambda: bool(caught)
    finally:
        for number in numbers:
            signal.signal(number, before[number])


# --- showing ---------------------------------------------------------------------------------------------

_PHASES: Final = {"reading": "reading the topic", "writing": "comparing rows", "sweeping": "looking for ghosts"}


class _View(Protocol):
    def show(self, progress: Progress) -> None: ...
    def say(self, text: str) -> None: ...
    def __enter__(self) -> Any: ...
    def __exit__(self, *_: object) -> None: ...


def _view(output: str, file: TextIO, redact: Callable[[str], str]) -> _View:
    if output == "text" and file.isatty():
        return _Bars(file, redact)
    return _Lines(file, redact, as_json=output == "json")


class _Lines:
    """A line when a phase begins, and now and then."""

    def __init__(self, file: TextIO, redact: Callable[[str], str], *, as_json: bool) -> None:
        self._file = file
        self._redact = redact
        self._json = as_json
        self._last = ("", "")
        self._told_at = 0.0

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, progress: Progress) -> None:
        now = time.monotonic()
        if (progress.topic, progress.phase) == self._last and now - self._told_at < LINE_S:
            return
        self._last, self._told_at = (progress.topic, progress.phase), now
        if self._json:
            self.say(json.dumps(asdict(progress), ensure_ascii=False))
        elif progress.cause:
            self.say(f"{progress.topic}: waiting: {progress.cause}")
        else:
            share = f", {progress.done} of {progress.total}" if progress.total else ""
            self.say(f"{progress.topic}: {_PHASES[progress.phase]}{share}")

    def say(self, text: str) -> None:
        self._file.write(self._redact(text) + "\n")
        self._file.flush()


class _Bars:
    """A bar for each phase of each topic, on a terminal."""

    def __init__(self, file: TextIO, redact: Callable[[str], str]) -> None:
        self._console = Console(file=file)
        self._redact = redact
        self._progress = rich.progress.Progress(
            "{task.fields[topic]}",
            "{task.description}",
            rich.progress.BarColumn(),
            rich.progress.TaskProgressColumn(),
            rich.progress.TimeRemainingColumn(),
            console=self._console,
        )
        self._tasks: dict[tuple[str, str], rich.progress.TaskID] = {}
        self._waiting = ""

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, progress: Progress) -> None:
        if progress.cause:
            if progress.cause != self._waiting:
                self.say(f"waiting: {progress.cause}")
            self._waiting = progress.cause
            return
        key = (progress.topic, progress.phase)
        if key not in self._tasks:
            self._tasks[key] = self._progress.add_task(_PHASES[progress.phase], total=None, topic=progress.topic)
        self._progress.update(self._tasks[key], completed=progress.done, total=progress.total)

    def say(self, text: str) -> None:
        self._console.print(self._redact(text), markup=False, highlight=False)


def _as_text(done: Sequence[Rebuilt], refused: Sequence[str]) -> str:
    lines = []
    for one in done:
        counts = one.counts
        lines.append(
            f"{one.topic}: {counts.rows} rows compared, {counts.missing} missing and {counts.different} different ones "
            f"written, {counts.ghosts} ghosts removed, in {one.seconds:.1f} s"
            + (" (gone on with)" if one.resumed else "")
        )
        if counts.unordered:
            lines.append(f"  {counts.unordered} keys have records in several partitions, without order: left alone")
        for key in counts.foreign:
            lines.append(f"  {key} holds something else than a row: left alone. Remedy: remove or rename it")
    lines += [f"refused: {reason}" for reason in refused]
    return "\n".join(lines) or "nothing to rebuild: no topic is there"


def _as_json(done: Sequence[Rebuilt], refused: Sequence[str]) -> str:
    topics = [
        {"topic": one.topic, "keys": one.keys, "resumed": one.resumed, "seconds": round(one.seconds, 3)}
        | asdict(one.counts)
        for one in done
    ]
    return json.dumps({"topics": topics, "refused": list(refused)}, indent=2, ensure_ascii=False)
