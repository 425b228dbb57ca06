"""What a task's process tells its worker: JSON lines through a pipe, written here and read here.

::

    {"state": "RUNNING"}
    {"metric": "records", "value": 1200}
    {"failure": {"error": "FatalError", "message": "…", "trace": "…", "fatal": true}}

A task tells its state as any other figure: ``context.report("state", "RUNNING")``.
"""

from __future__ import annotations

import json
import os
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from cdc.errors import CdcError, ConfigError, FatalError
from cdc.runtime.states import Failure, State

__all__ = ["Metric", "Reader", "Reporter", "describe"]

Metric = tuple[str, Any]
"""A figure's name and newest value."""


class Reporter:
    """The task's end of the pipe. Any thread may report."""

    def __init__(self, fd: int, redact: Callable[[str], str], on_broken: Callable[[], None]) -> None:
        self._fd = fd
        self._redact = redact
        self._on_broken = on_broken
        self._lock = threading.Lock()

    def report(self, name: str, value: Any) -> None:
        """Tell one figure or text at once."""
        if name == "state":
            self._write({"state": State(value)})
        else:
            self._write({"metric": name, "value": self._clean(json.loads(json.dumps(value, default=str)))})

    def failed(self, failure: Failure) -> None:
        """Tell why the task ends."""
        self._write({"failure": asdict(failure)})

    def _write(self, told: dict[str, Any]) -> None:
        data = memoryview(json.dumps(told).encode() + b"\n")
        try:
            with self._lock:
                while data:
                    data = data[os.write(self._fd, data) :]
        except BrokenPipeError:  # the worker is gone: end, as when its control pipe ends
            self._on_broken()

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._redact(value)
        if isinstance(value, list):
            return [self._clean(item) for item in value]
        if isinstance(value, dict):
            return {self._redact(key): self._clean(item) for key, item in value.items()}
        return value


class Reader:
    """The worker's end of the pipe: bytes in, what was told out."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[State | Metric | Failure]:
        """What the complete lines say. `ValueError` for a line that is not of this protocol."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            told = json.loads(line)
            if "state" in told:
                yield State(told["state"])
            elif "failure" in told:
                yield Failure(**told["failure"])
            else:
                yield told["metric"], told["value"]


def describe(error: BaseException, redact: Callable[[str], str]) -> Failure:
    """An exception as the worker shows it. Errors raised on purpose speak for themselves; others name their class."""
    trace = "".join(traceback.format_exception(error))
    message = str(error) or repr(error)
    return Failure(
        error="" if isinstance(error, CdcError) else _qualified(type(error)),
        message=redact(message),
        trace=redact(trace),
        fatal=isinstance(error, FatalError | ConfigError),
    )


def _qualified(kind: type[BaseException]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
