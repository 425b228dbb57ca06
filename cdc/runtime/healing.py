"""Removing the keys that a replay cannot remove, beside the sink that heals (EXACTNESS.md H20).

A thread of the task that has partition 0 of a topic sweeps it as a rebuild does (`cdc.runtime.rebuild`), which needs no
part in the task's guard. The debt is in the table's entry in the store (`cdc.runtime.sink_start`): whoever has
partition 0 next goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import structlog

from cdc.errors import FatalError, RetriableError
from cdc.mirror.tables import TableEntry
from cdc.plugin import SinkConnector
from cdc.runtime.rebuild import Progress, Rebuild

__all__ = ["Healing"]

_log = structlog.get_logger(__name__)


class Healing:
    """The sweeps of one sink task. Its methods are for the task's thread."""

    def __init__(self, connector: SinkConnector, worker: Mapping[str, str]) -> None:
        self._connector = connector
        self._worker = worker
        self._sweeps: dict[str, _Sweep] = {}

    def owe(self, entries: Iterable[TableEntry], assigned: Collection[Any], partitions: Mapping[str, int]) -> None:
        """Sweep the tables that owe it, of those whose partition 0 is ours; no others any more."""
        owed = {
            entry.topic: entry.ghosts
            for entry in entries
            if entry.ghosts is not None and (entry.topic, 0) in assigned and entry.topic in partitions
        }
        for topic, sweep in list(self._sweeps.items()):
            if owed.get(topic) != sweep.since:
                sweep.stop()
                del self._sweeps[topic]
        for topic, since in owed.items():
            if topic not in self._sweeps:
                self._sweeps[topic] = _Sweep(self._connector, self._worker, topic, partitions[topic], since)

    def done(self) -> list[tuple[str, int]]:
        """Topics that are swept, and since when they owed it, until `owe` says that they owe nothing any more."""
        return [(topic, sweep.since) for topic, sweep in self._sweeps.items() if sweep.done]

    def figures(self) -> dict[str, Any]:
        """For the task's metrics; empty when nothing is owed."""
        said = {topic: sweep.said for topic, sweep in self._sweeps.items() if sweep.said}
        return {"healing": said} if said else {}

    def close(self) -> None:
        """Let go. What is owed stays owed."""
        for sweep in self._sweeps.values():
            sweep.stop()
        self._sweeps.clear()


class _Sweep:
    """One topic's, in a thread of its own."""

    def __init__(
        self, connector: SinkConnector, worker: Mapping[str, str], topic: str, partitions: int, since: int
    ) -> None:
        self.since = since
        self.said = "looking for keys that no row has"
        """How it stands; empty once it is done."""
        self._topic = topic
        self._stopping = threading.Event()
        self._done = threading.Event()
        self._job = Rebuild(
            connector,
            worker,
            topic,
            partitions,
            told=self._show,
            stopping=self._stopping.is_set,
            sweep_only=True,
        )
        self._thread = threading.Thread(target=self._run, name=f"heal-{topic}", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        return self._done.is_set()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _show(self, progress: Progress) -> None:
        self.said = progress.cause or f"{progress.phase} {progress.done} of {progress.total}"

    def _run(self) -> None:
        try:
            outcome = self._job.run()
        except RetriableError:
            return  # asked to stop
        except FatalError as error:
            self.said = str(error)
            _log.error("keys that no row has cannot be removed", topic=self._topic, cause=str(error))
            return
        except BaseException as error:
            self.said = f"{type(error).__name__}: {error}"
            _log.exception("keys that no row has could not be removed", topic=self._topic)
            raise
        _log.info("removed keys that no row has", topic=self._topic, keys=outcome.counts.ghosts)
        self.said = ""
        self._done.set()
