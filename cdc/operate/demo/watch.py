"""Collects what the live view shows."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final

import redis

from cdc.errors import FatalError
from cdc.operate.demo.probe import Probe
from cdc.operate.demo.traffic import SHOWN_CUSTOMER, Traffic
from cdc.operate.demo.view import Figures
from cdc.runtime.worker import Worker

__all__ = ["Watch"]

KEY: Final = f"customers:{SHOWN_CUSTOMER}"
RATE_S: Final = 3.0
"""Rates are means over so many seconds."""
FRESH_S: Final = 1.0
"""How long a field that has changed is marked."""
BARS: Final = 24


class Watch:
    """Figures of everything that takes part. Looking costs two round trips to Redis."""

    def __init__(self, worker: Worker, traffic: Traffic, probe: Probe, client: redis.Redis, seconds: float) -> None:
        self._worker = worker
        self._traffic = traffic
        self._probe = probe
        self._client = client
        self._seconds = seconds
        self._begun: float | None = None
        self._history: deque[tuple[float, int, int]] = deque()
        self._hash: dict[str, str] = {}
        self._changed: dict[str, float] = {}

    @property
    def elapsed(self) -> float | None:
        """Seconds since `begin`; ``None`` before."""
        return None if self._begun is None else time.monotonic() - self._begun

    def begin(self) -> None:
        """Rows are being mirrored: the time runs from now on."""
        self._begun = time.monotonic()

    def raise_error(self) -> None:
        """Raise what ended one of the threads, or what an operator would have to mend before a task can go on."""
        self._traffic.raise_error()
        self._probe.raise_error()
        for name, told in self._worker.status()["connectors"].items():
            for task in told["tasks"]:
                if task["state"] == "FAILED" and task["error"].startswith("FatalError"):
                    raise FatalError(f"the task {name}-{task['id']} has stopped: {task['error']}")

    def has(self, key: str) -> bool:
        """Whether Redis has a key."""
        return bool(self._client.exists(key))

    def figures(self) -> Figures:
        """Everything as it is now."""
        now = time.monotonic()
        connectors = self._worker.status()["connectors"]
        written, mirrored = self._traffic.rows, _records(connectors, "sink")
        self._history.append((now, written, mirrored))
        while now - self._history[0][0] > RATE_S:
            self._history.popleft()
        then, written_then, mirrored_then = self._history[0]
        span = max(now - then, 0.001)
        self._look(now)
        return Figures(
            elapsed=self.elapsed,
            seconds=self._seconds,
            written=written,
            transactions=self._traffic.transactions,
            rate=(written - written_then) / span,
            streamed=_records(connectors, "source"),
            mirrored=mirrored,
            mirror_rate=(mirrored - mirrored_then) / span,
            keys=int(self._client.dbsize()),
            lag=self._probe.recent(),
            tasks=dict(_states(connectors)),
            key=KEY,
            hash=dict(self._hash),
            fresh=frozenset(name for name, at in self._changed.items() if now - at < FRESH_S),
            lags_ms=tuple(lag * 1000 for lag in self._probe.newest(BARS)),
        )

    def _look(self, now: float) -> None:
        raw: Any = self._client.hgetall(KEY)
        held = {name.decode(): value.decode("utf-8", "replace") for name, value in raw.items()}
        if self._hash:
            for name in held.keys() | self._hash.keys():
                if held.get(name) != self._hash.get(name):
                    self._changed[name] = now
        self._hash = held


def _records(connectors: Mapping[str, Any], kind: str) -> int:
    """Records that the tasks of all sources, or of all sinks, say they have written."""
    tasks = [task for told in connectors.values() if told["type"] == kind for task in told["tasks"]]
    return sum(int(task["metrics"].get("metrics", {}).get("records", 0)) for task in tasks)


def _states(connectors: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, told in connectors.items():
        for task in told["tasks"]:
            metrics = task["metrics"]
            busy = bool(metrics.get("waiting")) and task["state"] == "RUNNING"
            yield name, "WAITING" if busy else task["state"]
