"""Processes that are known by more than a pid, started so that they outlive us or surely do not.

A pid is reused; (pid, start time, boot) is not. Signals go through a pidfd that was opened before the
identity was checked, so they reach that very process or none.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Owner", "Process", "processes", "spawn"]

_LAUNCHER = Path(__file__).with_name("_launch.py")


@dataclass(frozen=True, slots=True)
class Owner:
    """The system user a server runs as."""

    uid: int
    gid: int


@dataclass(slots=True)
class Process:
    """One process, of ours or of anybody."""

    pid: int
    start_ticks: int
    boot_id: str
    exit_status: int | None = field(default=None, compare=False)
    """Exit code, negative signal number, or None while it runs or when it was not our child."""

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process that has this pid now, zombies included."""
        stat = _stat(pid)
        return cls(pid, int(stat[19]), _boot_id()) if stat else None

    def is_alive(self) -> bool:
        """Whether this very process still runs. A zombie does not."""
        return not self.wait(seconds=0)

    def send(self, signal_number: int) -> None:
        """Send a signal to this very process; nothing happens when it is gone."""
        with self._pidfd() as pidfd:
            if pidfd is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal_number)

    def wait(self, seconds: float) -> bool:
        """Wait until the process has ended; False when it still runs after ``seconds``.

        Ended means all of it: the pidfd becomes readable when the last thread is gone. Until then sockets
        are open, though /proc already calls the process a zombie.
        """
        with self._pidfd() as pidfd:
            if pidfd is None:
                return True
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            ended = bool(poll.poll(max(0, int(seconds * 1000))))
        if ended:
            self._reap()
        return ended

    def kill(self) -> None:
        """SIGKILL the process and all its descendants, and wait until the kernel has removed them."""
        self.send(signal.SIGSTOP)  # so that it neither starts children nor reacts to their deaths
        family = [self, *self._descendants()]
        for process in family:
            process.send(signal.SIGKILL)
        for process in family:
            process.wait(seconds=60)

    def _descendants(self) -> list[Process]:
        children: dict[int, list[int]] = {}
        for pid, stat in _all_stats():
            children.setdefault(int(stat[1]), []).append(pid)
        found: list[Process] = []
        waiting = list(children.get(self.pid, ()))
        while waiting:
            pid = waiting.pop()
            waiting += children.get(pid, ())
            if (process := Process.of(pid)) is not None:
                found.append(process)
        return found

    @contextlib.contextmanager
    def _pidfd(self) -> Iterator[int | None]:
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            yield None
            return
        try:
            stat = _stat(self.pid)
            same = self.boot_id == _boot_id() and stat is not None and int(stat[19]) == self.start_ticks
            yield pidfd if same else None
        finally:
            os.close(pidfd)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):  # not our child: init reaps it
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.exit_status = os.waitstatus_to_exitcode(status)


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat after the name: [0] state, [1] parent, [19] start in ticks."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _all_stats() -> Iterator[tuple[int, list[str]]]:
    for name in os.listdir("/proc"):
        if name.isdecimal() and (stat := _stat(int(name))) is not None:
            yield int(name), stat


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()


def processes(executable: str, cwd: Path) -> list[Process]:
    """The running processes of an executable's name whose working folder is ``cwd``."""
    found = []
    for pid, stat in _all_stats():
        if stat[0] in "ZX":
            continue
        try:
            matches = (
                os.path.basename(os.readlink(f"/proc/{pid}/exe")).removesuffix(" (deleted)") == executable
                and Path(os.readlink(f"/proc/{pid}/cwd")) == cwd
            )
        except OSError:  # gone meanwhile, or another user's
            continue
        if matches and (process := Process.of(pid)) is not None:
            found.append(process)
    return found


def spawn(
    argv: Sequence[str],
    *,
    cwd: Path,
    log: Path,
    env: Mapping[str, str] | None = None,
    owner: Owner | None = None,
    needs: Sequence[Path] = (),
    record_path: Path | None = None,
    record: Mapping[str, Any] | None = None,
    death_signal: int | None = None,
) -> Process:
    """Start a server in a session of its own, its output appended to ``log``.

    ``record_path`` gets ``record`` with the identity of the process, before the server itself runs.
    ``owner`` is who to become (with root's rights only) and ``needs`` the paths that user must reach.
    ``death_signal`` is what the kernel sends the server when this process ends, in whatever way.
    """
    order = {
        "argv": list(argv),
        "cwd": str(cwd),
        "uid": owner.uid if owner else None,
        "gid": owner.gid if owner else None,
        "needs": [str(path) for path in needs],
        "record_path": str(record_path) if record_path else None,
        "record": dict(record or {}),
        "parent": os.getpid() if death_signal else None,
        "death_signal": death_signal,
    }

    def start() -> Process:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", str(_LAUNCHER), json.dumps(order)],
            dict(os.environ if env is None else env),  # not in the order: argv is for all to see
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
        process = Process.of(pid)
        if process is None:
            raise ProcessLookupError(f"pid {pid} vanished before it was waited for")
        return process

    return _spawner(start) if death_signal else start()


class _Spawner:
    """Runs calls on one thread that lives as long as the process.

    The death signal is tied to the parent *thread* (prctl(2)): a server started on a thread of a pool
    would be killed when that thread ends.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: queue.SimpleQueue[tuple[Callable[[], Process], Future[Process]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def __call__(self, call: Callable[[], Process]) -> Process:
        future: Future[Process] = Future()
        with self._lock:
            if self._thread is None or not self._thread.is_alive():  # the latter in a forked child
                self._thread = threading.Thread(target=self._run, name="cdc-local-spawner", daemon=True)
                self._thread.start()
        self._calls.put((call, future))
        return future.result()

    def _run(self) -> None:
        while True:
            call, future = self._calls.get()
            try:
                future.set_result(call())
            except OSError as error:
                future.set_exception(error)


_spawner = _Spawner()
