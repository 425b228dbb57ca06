"""A task's process as its supervisor holds it: started, told to stop, killed, reaped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from cdc.runtime.reports import Metric, Reader
from cdc.runtime.states import Failure, State
from cdc.runtime.task_process import TaskOrder

__all__ = ["COMMAND", "Child", "exit_reason"]

COMMAND: Final = (sys.executable, "-m", "cdc.runtime.task_process")
"""What a task's process runs; nothing of its configuration is in it."""

_STDERR: Final = 2
_READ_SIZE: Final = 1 << 16
_REAP_TIMEOUT: Final = 5.0
"""A process whose status pipe has ended is as good as gone; after this many seconds it is killed."""


class Child:
    """One process. Not thread-safe: the supervisor's thread owns it, and must outlive it (PR_SET_PDEATHSIG)."""

    def __init__(self, order: TaskOrder, command: Sequence[str] = COMMAND) -> None:
        self.status_fd, writer = os.pipe()
        os.set_blocking(self.status_fd, False)
        self._reader = Reader()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                list(command), stdin=subprocess.PIPE, stdout=_STDERR, pass_fds=(writer,), bufsize=0
            )
        except BaseException:
            os.close(self.status_fd)
            raise
        finally:
            os.close(writer)
        self._say(replace(order, status_fd=writer).line())

    @property
    def pid(self) -> int:
        return self._process.pid

    def read(self) -> tuple[list[State | Metric | Failure], bool]:
        """What the process has told since the last call, and whether its status pipe has ended."""
        told: list[State | Metric | Failure] = []
        while True:
            try:
                data = os.read(self.status_fd, _READ_SIZE)
            except BlockingIOError:
                return told, False
            if not data:
                return told, True
            told += self._reader.feed(data)

    def stop(self) -> None:
        """Ask the task to drain and end."""
        self._say(b"stop\n")

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()

    def reap(self) -> int:
        """The exit status of a process whose status pipe has ended; negative for a signal, as `subprocess` has it."""
        os.close(self.status_fd)
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            return self._process.wait(_REAP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _say(self, line: bytes) -> None:
        if self._process.stdin is None:
            return
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[self._process.stdin.write(rest) or 0 :]
        except BrokenPipeError:  # it has just died, which its status pipe will tell
            return


def exit_reason(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"the process ended with exit status {status}"
    try:
        return f"the process was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"the process was killed by signal {-status}"
