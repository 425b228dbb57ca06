"""`cdc run` as an operator runs it: one file, real servers, signals, kill -9, and every kind of bad input."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fix_servers import Database

from cdc.local.kafka import Kafka
from cdc.local.redis import RedisServer

pytestmark = pytest.mark.integration

TIMEOUT = 90.0
PASSWORD = "hunter2!pw"


@dataclass
class Bridge:
    """A configuration file and the servers that it names."""

    path: Path
    database: Database
    redis: RedisServer
    prefix: str

    def edit(self, old: str, new: str) -> None:
        text = self.path.read_text(encoding="utf-8")
        assert old in text
        self.path.write_text(text.replace(old, new), encoding="utf-8")

    def line(self, start: str) -> int:
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return next(number for number, line in enumerate(lines, 1) if line.strip().startswith(start))

    def mirrored(self, number: int) -> dict[bytes, bytes]:
        with self.redis.client() as client:
            found: dict[bytes, bytes] = client.hgetall(f"{self.prefix}:{number}")
            return found


@pytest.fixture
def bridge(tmp_path: Path, database18: Database, valkey9: RedisServer, embedded_kafka: Kafka) -> Bridge:
    name = f"b{uuid.uuid4().hex[:8]}"
    role = f"role_{name}"
    database18.execute(f"create role {role} login superuser password '{PASSWORD}'")
    database18.execute("create table customers (id int primary key, name text, note text)")
    database18.execute("create table orders (id int, line int, primary key (id, line))")
    database18.execute("insert into customers select n, 'name ' || n from generate_series(1, 100) n")
    where = database18.conninfo
    path = tmp_path / "bridge.yaml"
    path.write_text(
        f"""\
worker:
  bootstrap.servers: {embedded_kafka.bootstrap_servers}
  group.id: {name}
  listeners: http://127.0.0.1:0
connectors:
  shop-{name}:
    connector.class: postgres
    database.hostname: {where["host"]}
    database.port: {where["port"]}
    database.user: {role}
    database.password: ${{env:SHOP_PASSWORD}}
    database.dbname: {database18.name}
    topic.prefix: {name}
    table.include.list: [public.customers]
  cache-{name}:
    connector.class: redis
    topics.regex: {name}\\.public\\..*
    redis.uri: {valkey9.url}
    redis.key: "{name}:{{id}}"
""",
        encoding="utf-8",
    )
    return Bridge(path, database18, valkey9, name)


def cdc(*arguments: str | Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cdc.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SHOP_PASSWORD": PASSWORD, **(environment or {})},
        start_new_session=True,
    )


@contextmanager
def running(bridge: Bridge) -> Iterator[subprocess.Popen[str]]:
    """`cdc run`, its log in a file, so that no full pipe holds it up."""
    with (bridge.path.parent / "log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cdc.cli", "run", bridge.path, "--status-file", bridge.path.parent / "status.json"],
            stderr=log,
            env={**os.environ, "SHOP_PASSWORD": PASSWORD},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(condition: Callable[[], bool], bridge: Bridge) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, (bridge.path.parent / "log").read_text()[-4000:]
        time.sleep(0.05)


def pids(bridge: Bridge) -> list[int]:
    status: dict[str, Any] = json.loads((bridge.path.parent / "status.json").read_text())
    return [task["pid"] for connector in status["connectors"].values() for task in connector["tasks"] if task["pid"]]


def is_gone(pid: int) -> bool:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], TIMEOUT)[0])
    finally:
        os.close(handle)


def test_rows_are_mirrored_and_a_signal_ends_everything(bridge: Bridge) -> None:
    with running(bridge) as worker:
        until(lambda: bridge.mirrored(100) == {b"id": b"100", b"name": b"name 100"}, bridge)
        bridge.database.execute(
            "update customers set name = 'new', note = 'n' where id = 7; delete from customers where id = 8"
        )
        until(lambda: bridge.mirrored(7) == {b"id": b"7", b"name": b"new", b"note": b"n"}, bridge)
        until(lambda: bridge.mirrored(8) == {}, bridge)
        tasks = pids(bridge)
        assert len(tasks) == 2
        os.killpg(worker.pid, signal.SIGINT)
        assert worker.wait(TIMEOUT) == 0
        assert all(is_gone(pid) for pid in tasks)
    log = (bridge.path.parent / "log").read_text()
    assert PASSWORD not in log
    assert "Traceback" not in log
    assert '"task failed"' not in log


def test_a_killed_worker_leaves_nothing_behind_and_its_successor_goes_on(bridge: Bridge) -> None:
    with running(bridge) as worker:
        until(lambda: bridge.mirrored(1) != {}, bridge)
        tasks = pids(bridge)
        bridge.database.execute("insert into customers select n, 'more' from generate_series(101, 2000) n")
        worker.kill()
        worker.wait()
        assert all(is_gone(pid) for pid in tasks)
    bridge.database.execute("update customers set name = 'later' where id = 2000")
    with running(bridge) as worker:
        until(lambda: bridge.mirrored(2000).get(b"name") == b"later", bridge)
        until(lambda: all(bridge.mirrored(n) for n in (1, 101, 1999)), bridge)
        worker.terminate()
        assert worker.wait(TIMEOUT) == 0


@pytest.mark.parametrize(
    ("old", "new", "key", "message"),
    [
        (
            "[public.customers]",
            "[public.custmers]",
            "table.include.list",
            "the table public.custmers does not exist in",
        ),
        ('{id}"', '{name}"', "redis.key", "name"),
        ("[public.customers]", "[public.customers, public.orders]", "redis.key", "orders"),
        ("database.dbname: ", "database.dbname: no", "database.user", "does not exist"),
        ("${env:SHOP_PASSWORD}", f"wrong-{PASSWORD}", "database.user", "password authentication failed"),
    ],
    ids=["table", "template", "key space", "database", "password"],
)
@pytest.mark.parametrize("command", ["run", "check"])
def test_what_the_live_database_refuses_is_one_line_and_nothing_starts(
    bridge: Bridge, command: str, old: str, new: str, key: str, message: str
) -> None:
    bridge.edit(old, new)
    out, err = (process := cdc(command, bridge.path)).communicate(timeout=TIMEOUT)
    assert process.returncode == (2 if command == "run" else 1)
    told = err if command == "run" else out
    lines = [line for line in told.splitlines() if message in line]
    assert len(lines) == 1, told
    assert f"{bridge.path}:" in lines[0]
    assert f".{key}: " in lines[0]
    assert PASSWORD not in out + err
    assert "Traceback" not in out + err


def test_check_finds_a_ready_bridge_ready(bridge: Bridge) -> None:
    out, err = (process := cdc("check", bridge.path)).communicate(timeout=TIMEOUT)
    assert (process.returncode, err) == (0, ""), out
    assert out == f"ready: Kafka, the schema registry, shop-{bridge.prefix}, cache-{bridge.prefix}\n"
