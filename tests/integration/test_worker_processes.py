"""Tasks as supervised processes: seen when they die, restarted, drained, and never left behind. No servers needed."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

import cdc.config
from cdc.errors import FatalError
from cdc.runtime import supervisor
from cdc.runtime.worker import Worker

TIMEOUT = 60.0
"""Seconds after which a condition that ought to come counts as missed: far beyond what a slow machine needs."""

SECRET = "hunter2!pw"

WORKER = """\
worker:
  bootstrap.servers: 127.0.0.1:1
  schema.registry.url: http://127.0.0.1:1
  listeners: http://127.0.0.1:0
  key.converter: plain
  value.converter: plain
  task.restart.backoff.initial.ms: 50
  task.restart.backoff.max.ms: 50
"""


def configuration(connectors: str, worker: str = "") -> str:
    return WORKER + worker + "connectors:\n" + connectors


@contextmanager
def running(text: str, command: tuple[str, ...]) -> Iterator[Worker]:
    worker = Worker(cdc.config.loads({"bridge.yaml": text}, {}), command=command)
    worker.start()
    try:
        yield worker
    finally:
        worker.request_stop()
        worker.stop()


def task(status: Mapping[str, Any], connector: str, number: int = 0) -> Mapping[str, Any]:
    found: Mapping[str, Any] = status["connectors"][connector]["tasks"][number]
    return found


def reaches(connector: str, **wanted: Any) -> Callable[[Mapping[str, Any]], bool]:
    return lambda status: all(task(status, connector).get(key) == value for key, value in wanted.items())


def wait_for_end(*pids: int) -> None:
    """Until every process is gone; at once for those that are."""
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            assert select.select([handle], [], [], TIMEOUT)[0], f"process {pid} is still there"
        finally:
            os.close(handle)


def test_tasks_run_report_and_drain(dummies: tuple[str, ...]) -> None:
    text = configuration(
        "  shop: {connector.class: sleeper}\n  drain: {connector.class: drain, how: once, marker: /, tasks.max: 3}\n"
    )
    with running(text, dummies) as worker:
        assert worker.wait_for(reaches("shop", state="RUNNING"), TIMEOUT)
        assert worker.wait_for(
            lambda s: all(t["state"] == "RUNNING" for t in s["connectors"]["drain"]["tasks"]), TIMEOUT
        )
        status = worker.status()
        assert task(status, "shop")["metrics"] == {"group": "cdc", "registry": "http://127.0.0.1:1"}
        assert task(status, "shop")["worker_id"] == worker.id
        pids = [t["pid"] for c in status["connectors"].values() for t in c["tasks"]]
        assert len(set(pids)) == 4
        worker.stop()
        status = worker.status()
        assert [t["state"] for c in status["connectors"].values() for t in c["tasks"]] == ["STOPPED"] * 4
        assert task(status, "shop")["metrics"]["drained"] is True
        assert not worker.failed
    wait_for_end(*pids)


def test_a_task_that_dies_is_shown_and_restarted(dummies: tuple[str, ...], tmp_path: Path) -> None:
    text = configuration(f"  c: {{connector.class: crasher, how: once, marker: {tmp_path}/died}}\n")
    seen: list[tuple[str, str]] = []
    worker = Worker(
        cdc.config.loads({"b.yaml": text}, {}),
        command=dummies,
        changed=lambda status, name: seen.append((str(status.state), str(status.failure))) if name == "state" else None,
    )
    with structlog.testing.capture_logs() as logs, worker:
        assert worker.wait_for(lambda s: task(s, "c")["state"] == "RUNNING" and task(s, "c")["restarts"] == 1, TIMEOUT)
        assert "error" not in task(worker.status(), "c")
    assert seen == [
        ("RUNNING", "None"),
        ("FAILED", "RuntimeError: the crasher crashed"),
        ("RESTARTING", "RuntimeError: the crasher crashed"),
        ("RUNNING", "None"),
        ("STOPPED", "None"),
    ]
    (failed,) = [log for log in logs if log["event"] == "task failed"]
    assert (failed["log_level"], failed["cause"]) == ("error", "RuntimeError: the crasher crashed")
    (trace,) = [log["trace"] for log in logs if log["event"] == "trace of the failed task"]
    assert "in run_sink" in trace


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("exit", "the process ended with exit status 3"),
        ("kill", "the process was killed by SIGKILL"),
        ("secret", "RuntimeError: login with '***' failed"),
        ("protocol", "the process broke the status protocol"),
    ],
)
def test_every_kind_of_death_has_its_cause(dummies: tuple[str, ...], how: str, cause: str) -> None:
    text = configuration(f"  c: {{connector.class: crasher, how: {how}, password: {SECRET}}}\n")
    with running(text, dummies) as worker:
        assert worker.wait_for(lambda s: task(s, "c").get("error", "").startswith(cause), TIMEOUT)
        assert worker.wait_for(lambda s: task(s, "c")["restarts"] >= 2, TIMEOUT)
        assert SECRET not in json.dumps(worker.status())


def test_a_task_killed_from_outside_is_started_again(dummies: tuple[str, ...]) -> None:
    with running(configuration("  shop: {connector.class: sleeper}\n"), dummies) as worker:
        for number, kill in enumerate((signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV), 1):
            assert worker.wait_for(reaches("shop", state="RUNNING", restarts=number - 1), TIMEOUT)
            os.kill(task(worker.status(), "shop")["pid"], kill)
        assert worker.wait_for(reaches("shop", state="RUNNING", restarts=3), TIMEOUT)


def test_an_error_for_an_operator_is_shown_with_its_remedy_and_waits_longer(dummies: tuple[str, ...]) -> None:
    text = configuration("  c: {connector.class: crasher, how: fatal}\n")
    with structlog.testing.capture_logs() as logs, running(text, dummies) as worker:
        assert worker.wait_for(reaches("c", state="FAILED"), TIMEOUT)
        remedy = "wal_level is replica. ALTER SYSTEM SET wal_level = logical, then restart Postgres"
        assert task(worker.status(), "c")["error"] == remedy
    (failed,) = [log for log in logs if log["event"] == "task failed"]
    assert failed["cause"] == remedy
    assert failed["restart_in_s"] >= 30


def test_restart_never_leaves_tasks_failed_and_the_worker_ends(dummies: tuple[str, ...]) -> None:
    text = configuration(
        "  c: {connector.class: crasher}\n  d: {connector.class: sleeper, behaviour: finish}\n",
        "  task.restart.policy: never\n",
    )
    with running(text, dummies) as worker:
        assert worker.wait(TIMEOUT)
        assert task(worker.status(), "c")["state"] == "FAILED"
        assert task(worker.status(), "d")["state"] == "STOPPED"
        assert worker.failed


def test_a_task_that_hangs_is_ended_after_the_grace_time(dummies: tuple[str, ...]) -> None:
    text = configuration(
        "  h: {connector.class: sleeper, behaviour: hang}\n", "  task.shutdown.graceful.timeout.ms: 200\n"
    )
    with structlog.testing.capture_logs() as logs, running(text, dummies) as worker:
        assert worker.wait_for(reaches("h", state="RUNNING"), TIMEOUT)
        pid = task(worker.status(), "h")["pid"]
        worker.stop()
        assert task(worker.status(), "h")["state"] == "STOPPED"
    wait_for_end(pid)
    (unclean,) = [log for log in logs if log["event"] == "task did not stop cleanly"]
    assert unclean["cause"] == "the process ended with exit status 1"


def test_a_task_that_stops_answering_altogether_is_killed(dummies: tuple[str, ...]) -> None:
    text = configuration("  h: {connector.class: sleeper}\n", "  task.shutdown.graceful.timeout.ms: 0\n")
    with structlog.testing.capture_logs() as logs, running(text, dummies) as worker:
        assert worker.wait_for(reaches("h", state="RUNNING"), TIMEOUT)
        pid = task(worker.status(), "h")["pid"]
        os.kill(pid, signal.SIGSTOP)
        worker.stop()
    wait_for_end(pid)
    assert "task killed" in {log["event"] for log in logs}


def test_a_failed_task_that_does_not_end_is_killed_and_restarted(
    dummies: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_EXIT_TIMEOUT", 0.1)
    text = configuration("  h: {connector.class: sleeper, behaviour: leave a thread}\n")
    with running(text, dummies) as worker:
        assert worker.wait_for(lambda s: task(s, "h")["restarts"] >= 1, TIMEOUT)
        assert task(worker.status(), "h")["error"] == "RuntimeError: left a thread behind"


def test_a_taken_port_is_a_clear_error(dummies: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        text = configuration("  s: {connector.class: sleeper}\n").replace("http://127.0.0.1:0", address)
        worker = Worker(cdc.config.loads({"b.yaml": text}, {}), command=dummies)
        with pytest.raises(FatalError, match=f"listeners: {address} is in use by another process"):
            worker.start()


def get(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:  # noqa: S310 - our own listener
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, None


def test_the_listener_tells_health_and_version_as_connect_does(dummies: tuple[str, ...]) -> None:
    text = configuration("  s: {connector.class: sleeper}\n  c: {connector.class: crasher, how: fatal}\n")
    with running(text, dummies) as worker:
        assert worker.wait_for(reaches("c", state="FAILED"), TIMEOUT)
        status, health = get(worker.url + "/health")
        assert (status, health["status"]) == (200, "healthy")
        assert health["message"].endswith("FAILED: c-0.")
        status, root = get(worker.url + "/")
        assert status == 200
        assert set(root) == {"version", "commit", "kafka_cluster_id"}
        assert root["kafka_cluster_id"] is None
        assert get(worker.url + "/nothing")[0] == 404


def test_what_a_task_waits_for_is_told_until_it_is_there(dummies: tuple[str, ...], tmp_path: Path) -> None:
    text = configuration(f"  s: {{connector.class: sleeper, behaviour: wait, uri: {tmp_path}/there}}\n")
    with running(text, dummies) as worker:
        assert worker.wait_for(lambda s: task(s, "s")["metrics"].get("waiting") == "Postgres", TIMEOUT)
        assert get(worker.url + "/health")[1]["message"].endswith("WAITING: s-0.")
        assert task(worker.status(), "s")["state"] == "UNASSIGNED"
        (tmp_path / "there").touch()
        assert worker.wait_for(lambda s: "over" in task(s, "s")["metrics"], TIMEOUT)
        assert "waiting" not in task(worker.status(), "s")["metrics"]
        assert task(worker.status(), "s")["state"] == "RUNNING"


class Foreground:
    """``cdc run`` as a process of its own, in a process group of its own, heard by its JSON logs."""

    def __init__(self, tmp_path: Path, text: str) -> None:
        config = tmp_path / "bridge.yaml"
        config.write_text(text, encoding="utf-8")
        self.status_file = tmp_path / "status.json"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cdc_dummies_worker", str(self.status_file), str(config)],
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.lines: list[str] = []

    def wait_for(self, event: str, **wanted: Any) -> dict[str, Any]:
        assert self.process.stderr is not None
        deadline = time.monotonic() + TIMEOUT
        while select.select([self.process.stderr], [], [], deadline - time.monotonic())[0]:
            line = self.process.stderr.readline().decode()
            assert line, f"no {event} before the end of\n{''.join(self.lines)}"
            self.lines.append(line)
            told: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
            if told.get("event") == event and wanted.items() <= told.items():
                return told
        raise AssertionError(f"no {event} in {TIMEOUT} s")

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.status_file.read_text(encoding="utf-8"))
        return status

    def end(self) -> int:
        assert self.process.stderr is not None
        _, rest = self.process.communicate(timeout=TIMEOUT)
        self.lines.append(rest.decode())
        return self.process.returncode


@contextmanager
def foreground(tmp_path: Path, connectors: str, worker: str = "") -> Iterator[Foreground]:
    started = Foreground(tmp_path, configuration(connectors, worker))
    try:
        yield started
    finally:
        started.process.kill()
        started.process.communicate()


SHOP = f"  shop: {{connector.class: sleeper, database.password: {SECRET}, behaviour: tell}}\n"
HANG = f"  shop: {{connector.class: sleeper, database.password: {SECRET}, behaviour: hang}}\n"


@pytest.mark.usefixtures("dummies")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_drains_and_exits_0(tmp_path: Path, number: signal.Signals) -> None:
    with foreground(tmp_path, SHOP) as worker:
        pid = worker.wait_for("told to run")["pid"]
        os.killpg(worker.process.pid, number)
        assert worker.end() == 0
        wait_for_end(pid)
        assert task(worker.status(), "shop")["state"] == "STOPPED"
        assert task(worker.status(), "shop")["metrics"]["drained"] is True
        assert "task failed" not in "".join(worker.lines)


@pytest.mark.usefixtures("dummies")
def test_a_second_signal_kills_what_hangs(tmp_path: Path) -> None:
    with foreground(tmp_path, HANG) as worker:
        pid = worker.wait_for("told to run")["pid"]
        worker.process.send_signal(signal.SIGTERM)
        worker.wait_for("stopping")
        worker.process.send_signal(signal.SIGTERM)
        assert worker.end() == 0
        wait_for_end(pid)
        assert "killed by SIGKILL" in "".join(worker.lines)


@pytest.mark.usefixtures("dummies")
@pytest.mark.parametrize("connectors", [SHOP, HANG], ids=["drains", "hangs"])
def test_a_killed_worker_leaves_no_orphans(tmp_path: Path, connectors: str) -> None:
    with foreground(tmp_path, connectors, "  task.shutdown.graceful.timeout.ms: 300\n") as worker:
        pid = worker.wait_for("told to run")["pid"]
        worker.process.kill()
        wait_for_end(pid)


@pytest.mark.usefixtures("dummies")
def test_no_secret_is_in_arguments_environment_logs_or_status(tmp_path: Path) -> None:
    connectors = SHOP + f"  crash: {{connector.class: crasher, how: secret, password: {SECRET}}}\n"
    with foreground(tmp_path, connectors) as worker:
        pid = worker.wait_for("told to run")["pid"]
        worker.wait_for("trace of the failed task")
        for place in ("cmdline", "environ"):
            assert SECRET.encode() not in Path(f"/proc/{pid}/{place}").read_bytes()
        worker.process.send_signal(signal.SIGTERM)
        assert worker.end() == 0
        assert "***" in "".join(worker.lines)
        assert SECRET not in "".join(worker.lines)
        assert SECRET not in worker.status_file.read_text()


@pytest.mark.usefixtures("dummies")
@pytest.mark.parametrize(
    ("connectors", "status"),
    [("  c: {connector.class: crasher}\n", 1), ("  d: {connector.class: sleeper, behaviour: finish}\n", 0)],
)
def test_a_worker_with_nothing_left_to_run_ends(tmp_path: Path, connectors: str, status: int) -> None:
    with foreground(tmp_path, connectors, "  task.restart.policy: never\n") as worker:
        assert worker.end() == status
