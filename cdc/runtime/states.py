"""The states of tasks and what a worker tells about them. Names are Kafka Connect's."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["Failure", "State", "TaskStatus"]


class State(StrEnum):
    """The state of a task, as Connect's REST API names it."""

    UNASSIGNED = "UNASSIGNED"
    """Not started yet, or started and not at work: not yet, or not while it waits for a part that is away."""
    RUNNING = "RUNNING"
    """At work: connected to everything it needs."""
    FAILED = "FAILED"
    """Ended by an error. It is restarted if the policy says so."""
    RESTARTING = "RESTARTING"
    """Started again after a failure, and not yet at work."""
    STOPPED = "STOPPED"
    """Ended because it was asked to, or because it had nothing more to do."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task ended. ``fatal``: an operator must act, and ``message`` says what to do. No secrets in it."""

    error: str
    message: str
    trace: str = ""
    fatal: bool = False

    def __str__(self) -> str:
        return f"{self.error}: {self.message}" if self.error else self.message


@dataclass(slots=True)
class TaskStatus:
    """What is known of one task."""

    connector: str
    task: int
    kind: str
    worker: str
    state: State = State.UNASSIGNED
    pid: int | None = None
    restarts: int = 0
    failure: Failure | None = None
    """The last failure; kept until the task runs again."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """The newest value of each figure or text that the task reported (`cdc.plugin.TaskContext.report`).

    ``waiting`` is there only while the task waits for a part that is away, and says for which.
    """

    @property
    def id(self) -> str:
        """``<connector>-<task>``, as in Connect's logs."""
        return f"{self.connector}-{self.task}"

    def as_dict(self) -> dict[str, Any]:
        """The task as in Connect's ``/status``, and what we know beyond that."""
        told: dict[str, Any] = {
            "id": self.task,
            "state": str(self.state),
            "worker_id": self.worker,
            "pid": self.pid,
            "restarts": self.restarts,
            "metrics": dict(self.metrics),
        }
        if self.failure is not None:
            told["error"] = str(self.failure)
            told["trace"] = self.failure.trace or str(self.failure)
        return told
