"""A standalone worker: its listener, the embedded registry if there is one, and its supervised tasks.

::

    worker = Worker(cdc.config.load(["bridge.yaml"]))
    worker.start()
    ...
    worker.status()["connectors"]["shop"]["tasks"][0]["metrics"]
    worker.stop()
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import structlog

from cdc.config import EMBEDDED, Config, ConnectorSpec
from cdc.observe.logging import LogFormat
from cdc.runtime.child import COMMAND
from cdc.runtime.cluster import ClusterId
from cdc.runtime.listener import Health, Listener
from cdc.runtime.restarts import RestartPolicy
from cdc.runtime.snapshot_routes import snapshot_routes
from cdc.runtime.states import State, TaskStatus
from cdc.runtime.supervisor import Supervisor, TaskPlan
from cdc.runtime.task_process import TaskOrder

__all__ = ["Changed", "Worker"]

_log = structlog.get_logger(__name__)

Changed = Callable[[TaskStatus, str], None]
"""Called with a task and the name of what changed: ``state``, or one of the task's figures."""


class Worker:
    """Runs the connectors of a configuration until it is stopped, or until none of their tasks is left to run.

    ``changed`` is called in the supervisor's thread, and must not block. ``command`` is what a task's process
    runs. `start` raises `cdc.errors.FatalError` if the listener's port is taken.
    """

    def __init__(
        self,
        config: Config,
        *,
        changed: Changed | None = None,
        command: Sequence[str] = COMMAND,
        log_level: str = "INFO",
        log_format: LogFormat = "json",
    ) -> None:
        self.config = config
        self._command = command
        self._log_level = log_level
        self._log_format = log_format
        self._on_change = changed
        self._condition = threading.Condition()
        self._listener: Listener | None = None
        self._supervisor: Supervisor | None = None
        self._registry: Any = None
        self._stop_requests = 0

    def __enter__(self) -> Worker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where the worker answers. Known once it has started."""
        return self._running_listener().url

    @property
    def id(self) -> str:
        """``host:port``, as Connect names its workers. Known once the worker has started."""
        listener = self._running_listener()
        return f"{listener.host}:{listener.port}"

    def start(self) -> None:
        """Start the listener and every task; returns without waiting for them to be at work."""
        if self._listener is not None:
            raise RuntimeError("the worker has been started before")
        properties = self.config.properties
        self._listener = Listener(self.config.worker.listeners, self._health, ClusterId(properties))
        if self.config.embedded_registry:
            from cdc.runtime.registry import EmbeddedRegistry  # noqa: PLC0415 - only those who use it pay for it

            self._registry = EmbeddedRegistry(properties, self._notify)
            self._listener.routes += self._registry.routes
            self._registry.start()
        specs = {spec.name: spec for spec in self.config.connectors}
        self._listener.routes += snapshot_routes(specs, self.status, self.config.secrets.redact)
        plans = [
            TaskPlan(spec.name, task, spec.kind, partial(self._order, spec, task))
            for spec in self.config.connectors
            for task in range(spec.tasks)
        ]
        policy = RestartPolicy.of(self.config.worker)
        self._supervisor = Supervisor(plans, self.id, policy, self._grace, self._changed, self._command)
        self._listener.start()
        _log.info("worker started", url=self.url, tasks=len(plans), group=self.config.worker.group_id)
        if self._stop_requests:  # a signal came before there was anything to stop
            self._supervisor.stop()
        self._supervisor.start()

    def request_stop(self) -> None:
        """Ask everything to drain and end, and return at once; asked again, kill. Safe in a signal handler."""
        self._stop_requests += 1
        if self._supervisor is not None:
            self._supervisor.stop(kill=self._stop_requests > 1)

    def stop(self) -> None:
        """Let the tasks drain, end everything and wait for it; in less than 30 seconds."""
        if not self.stop_requested:
            self.request_stop()
        self.wait()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until no task runs and none will, then close the rest; ``False`` after ``timeout`` seconds."""
        if self._supervisor is not None and not self._supervisor.join(timeout):
            return False
        if self._registry is not None:
            self._registry.stop()
        if self._listener is not None:
            self._listener.stop()
        return True

    def wait_for(self, condition: Callable[[Mapping[str, Any]], bool], timeout: float | None = None) -> bool:
        """Wait until ``condition(status)`` holds; whether it does. Looked at again at each change of any task."""
        with self._condition:
            return self._condition.wait_for(lambda: condition(self.status()), timeout)

    @property
    def stop_requested(self) -> bool:
        """Whether somebody has asked the worker to stop."""
        return self._stop_requests > 0

    @property
    def failed(self) -> bool:
        """Whether any task is FAILED now."""
        return any(status.state is State.FAILED for status in self._statuses())

    def status(self) -> dict[str, Any]:
        """The worker and, for each connector, its state, tasks and their newest figures, as plain values.

        A connector's part is as in Connect's ``/connectors/{name}/status``; its state is that of its process
        side, which is this worker: RUNNING, or STOPPED once all its tasks are.
        """
        connectors: dict[str, Any] = {}
        for spec in self.config.connectors:
            tasks = [status for status in self._statuses() if status.connector == spec.name]
            stopped = bool(tasks) and all(status.state is State.STOPPED for status in tasks)
            connectors[spec.name] = {
                "name": spec.name,
                "type": spec.kind,
                "connector": {
                    "state": str(State.STOPPED if stopped else State.RUNNING if tasks else State.UNASSIGNED),
                    "worker_id": self.id if self._listener else "",
                },
                "tasks": [status.as_dict() for status in tasks],
            }
        worker = {"group": self.config.worker.group_id, "pid": os.getpid(), "url": self.url if self._listener else ""}
        if self._registry is not None:
            worker["registry"] = "ready" if self._registry.ready else "starting"
        return {"worker": worker, "connectors": connectors}

    @property
    def _grace(self) -> float:
        return self.config.worker.task_shutdown_graceful_timeout_ms / 1000

    def _statuses(self) -> list[TaskStatus]:
        return [] if self._supervisor is None else self._supervisor.statuses

    def _running_listener(self) -> Listener:
        if self._listener is None:
            raise RuntimeError("the worker has not been started")
        return self._listener

    def _order(self, spec: ConnectorSpec, task: int) -> TaskOrder:
        return TaskOrder(
            connector=spec.name,
            task=task,
            worker_id=self.id,
            parent=os.getpid(),
            status_fd=-1,
            grace=self._grace,
            log_level=self._log_level,
            log_format=self._log_format,
            properties=dict(spec.properties),
            worker={
                key: self.url if key.endswith("schema.registry.url") and value == EMBEDDED else value
                for key, value in spec.worker.items()
            },
            secrets=self.config.secrets.values(),
        )

    def _notify(self) -> None:
        with self._condition:
            self._condition.notify_all()

    def _changed(self, status: TaskStatus, name: str) -> None:
        self._notify()
        if self._on_change is not None:
            self._on_change(status, name)

    def _health(self) -> Health:
        if self._supervisor is None or not self._supervisor.has_started:
            return "starting", "Worker is starting up its tasks."
        failed = [status.id for status in self._statuses() if status.state is State.FAILED]
        waiting = [status.id for status in self._statuses() if "waiting" in status.metrics]
        told = ["Worker has completed startup and is ready to handle requests."]
        told += [f"{what}: {', '.join(ids)}." for what, ids in (("FAILED", failed), ("WAITING", waiting)) if ids]
        return "healthy", " ".join(told)
