"""The process of one task: ``python -m cdc.runtime.task_process``, started by the worker and by nobody else.

* The first line of stdin is the task's whole configuration (`TaskOrder`) as JSON: secrets are in neither argv nor
  environment. Stdin then stays open as the control pipe: a line ``stop`` asks the task to stop, and its end means
  that the worker is gone, however it died.
* Status goes to an inherited pipe as JSON lines (`cdc.runtime.reports`), logs to stderr.
* Asked to stop, the task has the grace time to drain. Then it is ended without the help of the interpreter
  (`faulthandler`), so that not even a call that never returns leaves an orphan, and shows where it hung.
* While it runs, the same watchdog ends it, exit status 1, if its interpreter stands still for `HUNG_S`: a library that
  waits for ever with the interpreter's lock in its hands (librdkafka #4884) would otherwise stop the task in silence.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from cdc.config import Secrets, find_connector
from cdc.errors import ConfigError
from cdc.observe.logging import LogFormat, configure_logging
from cdc.plugin import Connector, SinkConnector, SourceConnector, TaskContext
from cdc.runtime.reports import Reporter, describe

__all__ = ["TERMINATED", "Control", "Runner", "TaskOrder", "main"]

Runner = Callable[[Any, TaskContext, Mapping[str, str]], None]
"""Runs a task until it is asked to stop: connector, context, worker's properties."""

TERMINATED: Final = 128 + signal.SIGTERM
"""Exit status of a task that drained because of a signal which did not come from its worker."""

HUNG_S: Final = 60.0
"""Seconds without a step of any Python thread after which the process is taken for hung."""
BEAT_S: Final = 5.0
_PR_SET_PDEATHSIG: Final = 1
_GC_THRESHOLD: Final = 50_000
"""Objects made and not freed before a collection. A batch of rows is thousands of objects that all live for a moment
and have no cycles; with Python's 700, a tenth of a task's time went into looking at them again and again."""


@dataclass(frozen=True, slots=True)
class TaskOrder:
    """All that a task's process is told. ``grace`` is in seconds."""

    connector: str
    task: int
    worker_id: str
    parent: int
    status_fd: int
    grace: float
    log_level: str
    log_format: LogFormat
    properties: dict[str, str] = field(repr=False)
    worker: dict[str, str] = field(repr=False)
    secrets: list[str] = field(repr=False)

    def line(self) -> bytes:
        """The order as the line that the process reads."""
        return json.dumps(asdict(self)).encode() + b"\n"


class Control:
    """Whether to stop, and why; and the watchdog, in C: it needs neither the interpreter nor the task's cooperation."""

    def __init__(self, grace: float, hung: float = HUNG_S, beat: float = BEAT_S) -> None:
        self.stopping = threading.Event()
        self.signalled = False
        self._grace = grace
        self._hung = hung
        self._beat = beat
        self._lock = threading.RLock()
        """There is one watchdog: a beat must not put off the end of the grace time. Held, a signal may come."""

    def stop(self) -> None:
        with self._lock:
            if not self.stopping.is_set():
                self.stopping.set()
                _end_in(max(self._grace, 0.1))

    def live(self) -> None:
        """Put the watchdog off, again and again, until the task is to stop. Runs in a thread of its own."""
        while not self.stopping.is_set():
            with self._lock:
                if not self.stopping.is_set():
                    _end_in(self._hung)
            self.stopping.wait(self._beat)

    def on_signal(self, _number: int, _frame: object) -> None:
        self.signalled = not self.stopping.is_set()
        self.stop()

    def follow(self) -> None:
        """Read the control pipe until it says stop or ends. Runs in a thread of its own."""
        while (line := _read_line()).endswith(b"\n"):
            if line == b"stop\n":
                break
        self.stop()


def _end_in(seconds: float) -> None:
    """End the process then, showing where its threads are, unless this is called again."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or sys.stderr)


def _read_line() -> bytes:
    """The next line of stdin; without its end when stdin has ended.

    Unbuffered: a thread that waits in `sys.stdin` would hold its lock when the interpreter shuts down.
    """
    line = bytearray()
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return bytes(line)


def main(run_source: Runner | None = None, run_sink: Runner | None = None) -> int:
    """Run the task that stdin describes; exit status 0 unless it failed or was terminated.

    The runners default to `cdc.runtime.source_task.run_source_task` and `cdc.runtime.sink_task.run_sink_task`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the worker tells us what to do
    first = _read_line()
    if not first.endswith(b"\n"):
        return TERMINATED  # the worker died while it was starting us
    order = TaskOrder(**json.loads(first))
    faulthandler.enable()
    os.set_inheritable(order.status_fd, False)
    control = Control(order.grace)
    signal.signal(signal.SIGTERM, control.on_signal)
    _die_with(order.parent)
    threading.Thread(target=control.follow, name="control", daemon=True).start()
    threading.Thread(target=control.live, name="beats", daemon=True).start()
    secrets = Secrets(order.secrets)
    configure_logging(
        order.log_level, order.log_format, secrets.redact, connector=order.connector, task=order.task, pid=os.getpid()
    )
    reporter = Reporter(order.status_fd, secrets.redact, on_broken=control.stop)
    context = TaskContext(order.connector, order.task, order.worker_id, reporter.report, control.stopping.is_set)
    try:
        _run(_connector(order), context, order.worker, run_source, run_sink)
    except BaseException as error:  # noqa: BLE001 - the last frame: whatever it was, the worker shall know
        reporter.failed(describe(error, secrets.redact))
        return 1
    finally:
        control.stop()  # a thread left behind shall not keep the process beyond the grace time
    return TERMINATED if control.signalled else 0


def _die_with(parent: int) -> None:
    """On Linux, have SIGTERM sent when the worker dies: quicker than the end of the pipe when we are busy."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the call
            raise SystemExit(TERMINATED)


def _connector(order: TaskOrder) -> Connector:
    plugin = find_connector(order.properties["connector.class"])
    return plugin(plugin.config_model.model_validate(order.properties))


def _run(
    connector: Connector,
    context: TaskContext,
    worker: Mapping[str, str],
    run_source: Runner | None,
    run_sink: Runner | None,
) -> None:
    gc.freeze()  # modules stay: they need not be looked at in every collection
    gc.set_threshold(_GC_THRESHOLD)
    # Imported here: a source does not pay for the sink's libraries, and the other way round.
    if isinstance(connector, SourceConnector):
        if run_source is None:
            from cdc.runtime.source_task import run_source_task  # noqa: PLC0415

            run_source = run_source_task
        run_source(connector, context, worker)
    elif isinstance(connector, SinkConnector):
        if run_sink is None:
            from cdc.runtime.sink_task import run_sink_task  # noqa: PLC0415

            run_sink = run_sink_task
        run_sink(connector, context, worker)
    else:
        raise ConfigError(f"{type(connector).__name__} is neither a source nor a sink connector")


if __name__ == "__main__":
    sys.exit(main())
