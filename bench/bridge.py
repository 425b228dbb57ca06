"""``cdc run`` as its users run it: a process of its own, a configuration file, a status file."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

from cdc.config import Config, load
from cdc.local.kafka import Kafka
from cdc.local.postgres import Postgres
from cdc.local.redis import RedisServer

__all__ = ["Bridge", "BridgeFailed", "redis_sink", "source"]

POLL_SECONDS: Final = 0.02
PATIENCE_SECONDS: Final = 120.0
"""How long a condition that ought to come may take; far beyond what a slow machine needs."""

_PASSWORD: Final = "BRIDGE_PASSWORD"  # noqa: S105 - the name of a variable

Properties = Mapping[str, Any]


class BridgeFailed(Exception):
    """The bridge ended, or did not come to what was waited for. The message ends with its log."""


def source(postgres: Postgres, dbname: str, tables: list[str], **properties: Any) -> dict[str, Any]:
    """The properties of a source of these tables (``schema.table``); underscores in names stand for dots."""
    info = postgres.conninfo(dbname)
    return {
        "connector.class": "postgres",
        "database.hostname": info["host"],
        "database.port": info["port"],
        "database.user": info["user"],
        "database.password": "${env:" + _PASSWORD + "}",
        "database.dbname": dbname,
        "table.include.list": [table.replace(".", r"\.") for table in tables],
        **{name.replace("_", "."): value for name, value in properties.items()},
    }


def redis_sink(redis: RedisServer, topics: list[str], **properties: Any) -> dict[str, Any]:
    """The properties of a sink of these topics."""
    return {
        "connector.class": "redis",
        "topics": topics,
        "redis.uri": redis.url,
        **{name.replace("_", "."): value for name, value in properties.items()},
    }


class Bridge:
    """One worker with the given connectors. As a context manager it starts with the block and stops with it.

    ``worker`` are further properties of the worker, ``environment`` further variables, ``group`` its ``group.id``: a
    bridge started again under the same group and connector names goes on where the last one stopped, if that was killed
    or not.
    """

    def __init__(
        self,
        kafka: Kafka,
        connectors: Mapping[str, Properties],
        *,
        password: str = "",
        group: str = "cdc",
        worker: Properties | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="cdc-bridge-")
        folder = Path(self._directory.name)
        self.file = folder / "bridge.yaml"
        self.log = folder / "log"
        self._status = folder / "status.json"
        self._password = password
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        settings = {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": group,
            "listeners": "http://127.0.0.1:0",
            **(worker or {}),
        }
        self.file.write_text(
            yaml.safe_dump({"worker": settings, "connectors": {k: dict(v) for k, v in connectors.items()}}),
            encoding="utf-8",
        )

    def twin(self) -> Self:
        """Another worker from the same configuration, not started yet, with files of its own."""
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        made._directory = tempfile.TemporaryDirectory(prefix="cdc-bridge-")
        folder = Path(made._directory.name)
        made.file, made.log, made._status = folder / "bridge.yaml", folder / "log", folder / "status.json"
        made.file.write_bytes(self.file.read_bytes())
        made._process = None
        return made

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def environment(self) -> dict[str, str]:
        """With what the configuration refers to."""
        return {**os.environ, _PASSWORD: self._password, **self._environment}

    @property
    def config(self) -> Config:
        """The configuration, read as ``cdc run`` reads it."""
        return load([self.file], self.environment)

    @property
    def pid(self) -> int:
        """The worker's pid."""
        if self._process is None:
            raise BridgeFailed("the bridge has not been started")
        return self._process.pid

    def start(self) -> None:
        """Start the worker; returns at once."""
        self._status.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cdc.cli", "run", str(self.file), "--status-file", str(self._status)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )

    def stop(self) -> int:
        """Ask the worker to stop and wait for it; its exit status. A no-op when it has ended."""
        process = self._process
        if process is None:
            return 0
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        return process.wait(60)

    def kill(self) -> None:
        """SIGKILL to the worker alone, as a crash; its tasks must notice by themselves."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Stop, and forget files and all."""
        try:
            if self._process is not None and self._process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.stop()
                self.kill()
        finally:
            self._directory.cleanup()

    def wait_ended(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait until the worker has ended by itself; its exit status."""
        if self._process is None:
            raise BridgeFailed("the bridge has not been started")
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise BridgeFailed(f"the bridge still runs after {seconds:g} s{self._told()}") from None

    @property
    def output(self) -> str:
        """What the worker and its tasks have written so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def status(self) -> dict[str, Any]:
        """The newest status of the worker; empty before there is one."""
        try:
            found: dict[str, Any] = json.loads(self._status.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return found

    def task(self, connector: str, number: int = 0) -> dict[str, Any]:
        """The newest status of a task; empty before there is one."""
        tasks = self.status().get("connectors", {}).get(connector, {}).get("tasks", [])
        return dict(tasks[number]) if len(tasks) > number else {}

    def metrics(self, connector: str, number: int = 0) -> dict[str, Any]:
        """The newest figures of a task; empty before there are any."""
        return dict(self.task(connector, number).get("metrics", {}).get("metrics", {}))

    def task_pid(self, connector: str, number: int = 0) -> int:
        """The pid of a task that runs."""
        pid = self.task(connector, number).get("pid")
        if not pid:
            raise BridgeFailed(f"the task {connector}-{number} does not run{self._told()}")
        return int(pid)

    @property
    def registry(self) -> str:
        """Where the embedded registry answers."""
        return str(self.status()["worker"]["url"])

    def wait_for(self, what: str, condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until ``condition()``. `BridgeFailed` after ``seconds``, or when the worker ends before."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self._process is None or self._process.poll() is not None:
                raise BridgeFailed(f"the bridge ended before {what}{self._told()}")
            if time.monotonic() > deadline:
                raise BridgeFailed(f"not within {seconds:g} s: {what}{self._told()}")
            time.sleep(POLL_SECONDS)

    def wait_running(self, *connectors: str) -> None:
        """Wait until the first task of each of these is at work."""
        for name in connectors:
            self.wait_for(f"{name} is RUNNING", lambda name=name: self.task(name).get("state") == "RUNNING")  # type: ignore[misc]

    def wait_streaming(self, connector: str, seconds: float = 900.0) -> None:
        """Wait until a source has told all rows that were there before it."""
        self.wait_running(connector)
        self.wait_for(
            f"{connector} has read its snapshot",
            lambda: self.metrics(connector).get("snapshot_tables_left") == 0,
            seconds,
        )

    def _told(self) -> str:
        if not self.log.exists():
            return ""
        lines = self.log.read_bytes()[-20_000:].decode(errors="replace").splitlines()[-20:]
        return "; the end of its log:\n" + "\n".join(lines)
