"""Owns the task processes: starts them, hears them, restarts those that die, stops them all.

One thread does everything, and lives as long as any of its processes: the kernel counts the thread that
started a process as its parent (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from cdc.runtime.child import COMMAND, Child, exit_reason
from cdc.runtime.restarts import RestartPolicy, Restarts
from cdc.runtime.states import Failure, State, TaskStatus
from cdc.runtime.task_process import TERMINATED, TaskOrder

__all__ = ["Supervisor", "TaskPlan"]

_log = structlog.get_logger(__name__)

_KILL_MARGIN: Final = 1.0
"""Seconds beyond the grace time that a task has to end itself, before it is killed from outside."""
_EXIT_TIMEOUT: Final = 5.0
"""Seconds that a process may live on after it has told of its failure (threads left behind), before it is killed."""


@dataclass(frozen=True)
class TaskPlan:
    """A task to keep running."""

    connector: str
    task: int
    kind: str
    order: Callable[[], TaskOrder] = field(repr=False)
    """What to tell the process; asked for at each start. Its ``status_fd`` is filled in later."""


@dataclass(slots=True)
class _Task:
    plan: TaskPlan
    status: TaskStatus
    restarts: Restarts
    child: Child | None = None
    started: float = 0.0
    due: float | None = 0.0
    """When to start it (monotonic); ``None``: not."""
    deadline: float | None = None
    """When to kill it (monotonic), once it was asked to stop."""
    told: Failure | None = None
    """The failure that its process told before it ended."""
    interrupted: bool = False
    """It was RUNNING and waits now for a part that is away."""


class Supervisor:
    """Keeps tasks running until it is asked to stop, or until none is left to run.

    ``changed(status, name)`` is called, in the supervisor's thread, whenever a task's state or one of its figures
    has changed; it must not block. ``grace`` is in seconds.
    """

    def __init__(
        self,
        plans: Sequence[TaskPlan],
        worker_id: str,
        policy: RestartPolicy,
        grace: float,
        changed: Callable[[TaskStatus, str], None],
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._tasks = [
            _Task(plan, TaskStatus(plan.connector, plan.task, plan.kind, worker_id), Restarts(policy)) for plan in plans
        ]
        self._grace = grace
        self._changed = changed
        self._command = command
        self._selector = selectors.DefaultSelector()
        self._wake, self._waker = socket.socketpair()
        self._wake.setblocking(False)
        self._waker.setblocking(False)
        self._stop_level = 0
        self._acted_level = 0
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor")
        self._error: BaseException | None = None

    @property
    def statuses(self) -> list[TaskStatus]:
        """The tasks as they are now. Read only: the supervisor's thread goes on changing them."""
        return [task.status for task in self._tasks]

    @property
    def has_started(self) -> bool:
        """Whether every task has been started once."""
        return self._started.is_set()

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, kill: bool = False) -> None:
        """Ask all tasks to drain and end, or ``kill`` them. Safe in a signal handler, and before `start`."""
        self._stop_level = 2 if kill else max(1, self._stop_level)
        self._wake_up()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until no task runs and none will; ``False`` after ``timeout`` seconds."""
        self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        self._waker.close()
        if self._error is not None:
            raise RuntimeError("the supervisor failed") from self._error
        return True

    def _wake_up(self) -> None:
        try:
            self._waker.send(b"!")
        except OSError:  # enough wake-ups are waiting, or nobody is left to wake
            return

    def _run(self) -> None:
        try:
            self._selector.register(self._wake, selectors.EVENT_READ)
            self._act()
            self._started.set()
            while self._has_work():
                for key, _ in self._selector.select(self._timeout()):
                    if key.data is None:
                        self._wake.recv(4096)
                    else:
                        self._hear(key.data)
                self._act()
        except BaseException as error:  # noqa: BLE001 - shown by `join`; the tasks end with this thread
            self._error = error
            _log.critical("supervisor failed", exc_info=True)
            for task in self._tasks:
                if task.child is not None:
                    task.child.kill()
                    self._set_state(task, State.FAILED)
        finally:
            self._selector.close()
            self._wake.close()

    def _has_work(self) -> bool:
        return any(task.child is not None or task.due is not None for task in self._tasks)

    def _timeout(self) -> float | None:
        now = time.monotonic()
        times = [moment for task in self._tasks for moment in (task.due, task.deadline) if moment is not None]
        return max(0.0, min(times) - now) if times else None

    def _act(self) -> None:
        if self._acted_level < (level := self._stop_level):
            self._acted_level = level
            self._stop_tasks(kill=level > 1)
        now = time.monotonic()
        for task in self._tasks:
            if task.due is not None and task.due <= now:
                self._start_task(task)
            if task.child is not None and task.deadline is not None and task.deadline <= now:
                _log.error("task killed", **_who(task), cause=self._overdue(task))
                task.deadline = None
                task.child.kill()

    def _overdue(self, task: _Task) -> str:
        if task.told is not None:
            return f"its process did not end within {_EXIT_TIMEOUT:g} s of its failure"
        return f"it did not stop within {self._grace:g} s"

    def _stop_tasks(self, *, kill: bool) -> None:
        _log.info("stopping", tasks=sum(task.child is not None for task in self._tasks), kill=kill)
        for task in self._tasks:
            task.due = None
            if task.child is None:
                self._set_state(task, State.STOPPED)
            elif kill:
                task.child.kill()
            else:
                task.deadline = time.monotonic() + self._grace + _KILL_MARGIN
                task.child.stop()

    def _start_task(self, task: _Task) -> None:
        task.due = None
        task.told = None
        task.interrupted = False
        task.started = time.monotonic()
        task.status.metrics.clear()
        if task.status.failure is not None:
            task.status.restarts += 1
            self._set_state(task, State.RESTARTING)
        try:
            task.child = Child(task.plan.order(), self._command)
        except OSError as error:
            self._ended(task, Failure("OSError", f"the process could not be started: {error.strerror}"))
            return
        task.status.pid = task.child.pid
        self._selector.register(task.child.status_fd, selectors.EVENT_READ, task)
        _log.info("task started", **_who(task), process=task.child.pid)

    def _hear(self, task: _Task) -> None:
        child = task.child
        if child is None:
            return
        try:
            told, ended = child.read()
        except (ValueError, KeyError, TypeError) as error:
            child.kill()
            told, ended = [Failure("", f"the process broke the status protocol: {error}")], True
        for item in told:
            if isinstance(item, Failure):
                task.told = item
                task.deadline = time.monotonic() + _EXIT_TIMEOUT
            elif isinstance(item, State):
                if item is State.RUNNING:
                    task.status.failure = None
                    task.status.metrics.pop("waiting", None)
                self._set_state(task, item)
            else:
                name, value = item
                if name == "waiting":
                    self._waits(task, value)
                else:
                    task.status.metrics[name] = value
                self._changed(task.status, name)
        if ended:
            self._reap(task, child)

    def _waits(self, task: _Task, reason: Any) -> None:
        """A task that waits for a part that is away is not RUNNING, whatever it was, until it waits no more."""
        if reason:
            task.status.metrics["waiting"] = reason
            if task.status.state is State.RUNNING:
                task.interrupted = True
                self._set_state(task, State.UNASSIGNED)
        else:
            task.status.metrics.pop("waiting", None)
            if task.interrupted and task.status.state is State.UNASSIGNED:
                self._set_state(task, State.RUNNING)
            task.interrupted = False

    def _reap(self, task: _Task, child: Child) -> None:
        self._selector.unregister(child.status_fd)
        status = child.reap()
        task.child = None
        task.deadline = None
        task.status.pid = None
        if self._stop_level:
            if status not in {0, TERMINATED}:
                cause = str(task.told) if task.told else exit_reason(status)
                _log.warning("task did not stop cleanly", **_who(task), cause=cause)
            self._set_state(task, State.STOPPED)
        elif status == 0:
            _log.info("task has nothing more to do", **_who(task))
            self._set_state(task, State.STOPPED)
        elif task.told is not None:
            self._ended(task, task.told)
        elif status == TERMINATED:
            self._ended(task, Failure("", "the process was asked to end by a signal"))
        else:
            self._ended(task, Failure("", exit_reason(status)))

    def _ended(self, task: _Task, failure: Failure) -> None:
        wait = task.restarts.failed(time.monotonic() - task.started, fatal=failure.fatal)
        task.status.failure = failure
        task.due = None if wait is None else time.monotonic() + wait
        told: dict[str, Any] = _who(task) | {"cause": str(failure)}
        if wait is not None:
            told["restart_in_s"] = round(wait, 1)
        _log.error("task failed", **told)
        if failure.trace:
            _log.debug("trace of the failed task", **_who(task), trace=failure.trace)
        self._set_state(task, State.FAILED)

    def _set_state(self, task: _Task, state: State) -> None:
        if task.status.state is not state:
            task.status.state = state
            self._changed(task.status, "state")


def _who(task: _Task) -> dict[str, Any]:
    return {"connector": task.plan.connector, "task": task.plan.task}
