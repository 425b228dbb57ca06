"""Stacks on this machine: started, shown, broken, mended, stopped, two at once."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fix_servers import create_topic, missing, run_sql, topics

from cdc.local import MissingPart
from cdc.local._process import Process
from cdc.local.redis import Valkey
from cdc.local.stack import Flavour, Stack

pytestmark = pytest.mark.integration

SCRIPT = Path(__file__).parents[2] / "docker" / "stack"


def stack(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, *arguments], check=False, capture_output=True, text=True, timeout=240)


def shown(directory: Path) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(stack("status", "--dir", directory, "--output", "json").stdout)
    return answer


@pytest.fixture(params=["embedded", "apache"])
def flavour(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Flavour]:
    """Each flavour that is installed; its stack in ``tmp_path/stack`` is stopped afterwards."""
    chosen: Flavour = request.param
    checked = Stack(chosen, tmp_path / "stack")
    for server in checked.parts.values():
        try:
            server.ensure_installed()
        except MissingPart as error:
            missing(error)
    yield chosen
    Stack(chosen, tmp_path / "stack").stop()


def test_a_stack_is_started_shown_broken_mended_and_stopped(flavour: Flavour, tmp_path: Path) -> None:
    directory = tmp_path / "stack"
    assert stack("status", "--flavour", flavour, "--dir", directory).returncode == 3

    started = stack("start", "--flavour", flavour, "--dir", directory, "--output", "json")
    assert started.returncode == 0, started.stderr
    parts = json.loads(started.stdout)["parts"]
    assert [part["state"] for part in parts] == ["running"] * 3

    again = stack("start", "--dir", directory, "--output", "json")
    assert again.returncode == 0
    assert json.loads(again.stdout)["state"] == "already running"
    assert json.loads(again.stdout)["parts"] == parts
    status = stack("status", "--dir", directory)
    assert status.returncode == 0
    assert all(f"{part['endpoint']} │ {part['pid']}" in status.stdout for part in parts)

    here = Stack(flavour, directory)
    run_sql(here.postgres, "CREATE TABLE t AS SELECT 42 AS a")
    with here.redis.client() as client:
        client.set("a", "1")
    if here.kafka.keeps_data:
        create_topic(here.kafka, "kept")

    for broken in parts:
        os.kill(broken["pid"], signal.SIGKILL)
        victim = Process.of(broken["pid"])
        assert victim is None or victim.wait(30)
        states = {part.part: part.state for part in Stack(flavour, directory).status()}
        assert states == {part["part"]: "stopped" if part is broken else "running" for part in parts}
        mended = stack("start", "--dir", directory, "--output", "json")
        assert mended.returncode == 0, mended.stderr
        assert json.loads(mended.stdout)["state"] == "running"
    now = json.loads(mended.stdout)["parts"]
    assert [part["endpoint"] for part in now] == [part["endpoint"] for part in parts]
    assert run_sql(here.postgres, "SELECT a FROM t") == [(42,)]
    with here.redis.client() as client:
        assert client.get("a") == b"1"
    if here.kafka.keeps_data:
        assert "kept" in topics(here.kafka)

    servers = [Process.of(part["pid"]) for part in now]
    assert stack("stop", "--dir", directory).returncode == 0
    assert not any(server is not None and server.is_alive() for server in servers)
    assert stack("stop", "--dir", directory).returncode == 0
    assert stack("status", "--dir", directory).returncode == 3


def test_ports_given_are_ports_used(tmp_path: Path) -> None:
    ports = {name: Valkey().port for name in ("postgres_port", "kafka_port", "redis_port")}
    with Stack("embedded", tmp_path / "stack", **ports, die_with_parent=True) as own:
        assert [server.port for server in own.parts.values()] == list(ports.values())
        assert own.is_running()
    assert not own.is_running()


def test_two_starts_at_once_make_one_stack(tmp_path: Path) -> None:
    directory = tmp_path / "stack"
    try:
        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(lambda _: stack("start", "--dir", directory, "--output", "json"), range(2))
        assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
        assert json.loads(first.stdout)["parts"] == json.loads(second.stdout)["parts"]
    finally:
        Stack("embedded", directory).stop()


@pytest.mark.parametrize("part", ["postgres", "kafka", "redis"])
def test_a_start_that_is_killed_halfway_can_be_repeated(tmp_path: Path, part: str) -> None:
    directory = tmp_path / "stack"
    try:
        with subprocess.Popen([SCRIPT, "start", "--dir", directory], stdout=subprocess.DEVNULL) as starter:
            while not (directory / part).exists():
                with pytest.raises(subprocess.TimeoutExpired):  # it is not done yet
                    starter.wait(0.005)
            starter.kill()
        again = stack("start", "--dir", directory, "--output", "json")
        assert again.returncode == 0, again.stderr
        assert [row["state"] for row in json.loads(again.stdout)["parts"]] == ["running"] * 3
    finally:
        Stack("embedded", directory).stop()


def test_a_stack_of_a_killed_program_ends_with_it(flavour: Flavour, tmp_path: Path) -> None:
    program = f"""
import signal
from pathlib import Path
from cdc.local.stack import Stack
stack = Stack({flavour!r}, {str(tmp_path / "stack")!r}, die_with_parent=True)
stack.start()
print("started", flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "started\n"
        servers = [Process.of(part.pid) for part in Stack(flavour, tmp_path / "stack").status() if part.pid]
        owner.kill()
    assert len(servers) == 3
    assert all(server is not None and server.wait(60) for server in servers)


def test_a_part_that_cannot_start_takes_the_others_back(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        refused = stack("start", "--dir", tmp_path / "stack", "--redis-port", str(port))
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: Valkey")
    assert "another program listens there" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert [part["state"] for part in shown(tmp_path / "stack")["parts"]] == ["stopped"] * 3
