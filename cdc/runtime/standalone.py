"""``cdc run``: a worker in the foreground, with signals, a status file and an exit status."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import structlog

from cdc.config import Config
from cdc.observe.logging import LogFormat
from cdc.runtime.child import COMMAND
from cdc.runtime.states import TaskStatus
from cdc.runtime.worker import Worker

__all__ = ["run"]

_log = structlog.get_logger(__name__)


def run(
    config: Config,
    *,
    status_file: Path | None = None,
    log_level: str = "INFO",
    log_format: LogFormat = "json",
    command: Sequence[str] = COMMAND,
) -> int:
    """Run a worker until SIGINT or SIGTERM, or until nothing is left to run. Must be called in the main thread.

    The exit status: 0 after a signal, or when every task came to its end by itself; 1 when a task is FAILED and
    nothing runs any more. ``status_file`` is kept equal to `Worker.status`, replaced as a whole at each change.
    """
    status = None if status_file is None else _StatusFile(status_file)
    worker = Worker(
        config,
        changed=status.changed if status else None,
        command=command,
        log_level=log_level,
        log_format=log_format,
    )
    for warning in config.warnings:
        _log.warning(str(warning))
    with _stop_on_signals(worker):
        worker.start()
        if status is not None:
            status.follow(worker)
        worker.wait()
    if status is not None:
        status.close()
    asked = worker.stop_requested
    _log.info("worker stopped", url=worker.url)
    return 0 if asked or not worker.failed else 1


@contextmanager
def _stop_on_signals(worker: Worker) -> Iterator[None]:
    def stop(_number: int, _frame: object) -> None:
        worker.request_stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _StatusFile:
    """Writes a worker's status whenever it has changed, from a thread of its own: the supervisor must not block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._dirty = threading.Event()
        self._closing = False
        self._worker: Worker | None = None
        self._thread = threading.Thread(target=self._run, name="status-file", daemon=True)

    def changed(self, _status: TaskStatus, _name: str) -> None:
        self._dirty.set()

    def follow(self, worker: Worker) -> None:
        self._worker = worker
        self._dirty.set()
        self._thread.start()

    def close(self) -> None:
        """Write the last status and end."""
        self._closing = True
        self._dirty.set()
        self._thread.join()
        self._write()

    def _run(self) -> None:
        while not self._closing:
            self._dirty.wait()
            self._dirty.clear()
            self._write()

    def _write(self) -> None:
        if self._worker is None:
            return
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            beside.write_text(json.dumps(self._worker.status(), indent=2) + "\n", encoding="utf-8")
            beside.replace(self._path)
        except OSError as error:
            _log.warning("status file not written", path=str(self._path), cause=error.strerror)
