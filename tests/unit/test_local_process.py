"""Processes that are known by more than a pid, and end with their parent if told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdc.local import _process
from cdc.local._process import Process, spawn

_SLEEP = ["/bin/sleep", "1000"]


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Process]:
    process = spawn(_SLEEP, cwd=tmp_path, log=tmp_path / "log", death_signal=signal.SIGKILL)
    yield process
    process.kill()


def read_pids(path: Path, starter: subprocess.Popen[bytes], count: int) -> list[int]:
    """Wait until the starter has written ``count`` pids."""
    while True:
        pids = path.read_text().split() if path.exists() else []
        if len(pids) == count:
            return [int(pid) for pid in pids]
        with pytest.raises(subprocess.TimeoutExpired):
            starter.wait(0.02)


def test_a_process_is_known_by_its_start_not_only_by_its_pid(sleeper: Process) -> None:
    assert sleeper.is_alive()
    assert Process.of(sleeper.pid) == sleeper

    earlier = Process(sleeper.pid, sleeper.start_ticks - 1, sleeper.boot_id)
    assert not earlier.is_alive()
    before_reboot = Process(sleeper.pid, sleeper.start_ticks, "another boot")
    assert not before_reboot.is_alive()

    earlier.kill()
    before_reboot.send(signal.SIGKILL)
    assert sleeper.is_alive()


def test_a_killed_process_is_gone_and_reaped(sleeper: Process) -> None:
    sleeper.kill()
    assert not sleeper.is_alive()
    assert sleeper.exit_status == -signal.SIGKILL
    assert not Path(f"/proc/{sleeper.pid}").exists()
    sleeper.kill()  # nothing left to do


def test_waiting_tells_ended_from_running(sleeper: Process) -> None:
    assert not sleeper.wait(0)
    sleeper.send(signal.SIGTERM)
    assert sleeper.wait(30)
    assert sleeper.exit_status == -signal.SIGTERM


def test_killing_takes_the_whole_family_along(tmp_path: Path) -> None:
    script = "sleep 1000 & sh -c 'sleep 1000 & echo $! > pids.new; mv pids.new pids; wait' & wait"
    parent = spawn(["/bin/sh", "-c", script], cwd=tmp_path, log=tmp_path / "log")
    while not (tmp_path / "pids").exists():
        assert not parent.wait(0.02)
    grandchild = Process.of(int((tmp_path / "pids").read_text()))
    assert grandchild is not None
    parent.kill()
    assert not parent.is_alive()
    assert not grandchild.is_alive()


def test_the_record_names_the_process_before_it_runs(tmp_path: Path) -> None:
    record = tmp_path / "process.json"
    process = spawn(
        ["/bin/cat", str(record)],
        cwd=tmp_path,
        log=tmp_path / "log",
        record_path=record,
        record={"port": 4711},
    )
    assert process.wait(30)
    assert (tmp_path / "log").read_text() == record.read_text()
    for part in ('"port": 4711', f'"pid": {process.pid}', f'"start_ticks": {process.start_ticks}'):
        assert part in record.read_text()


def test_the_environment_reaches_the_server_and_stays_out_of_every_argv(tmp_path: Path) -> None:
    process = spawn(
        ["/bin/sh", "-c", 'tr "\\0" " " < /proc/$$/cmdline; echo "$PASSWORD"'],
        cwd=tmp_path,
        log=tmp_path / "log",
        env={"PASSWORD": "hunter2", "PATH": os.environ["PATH"]},
    )
    assert process.wait(30)
    command_line, _, environment = (tmp_path / "log").read_text().rpartition("echo")
    assert "hunter2" not in command_line
    assert environment.split()[-1] == "hunter2"


def test_a_server_gets_default_signal_handling_and_private_files(tmp_path: Path) -> None:
    process = spawn(["/bin/sh", "-c", "grep SigIgn /proc/$$/status; umask"], cwd=tmp_path, log=tmp_path / "log")
    assert process.wait(30)
    ignored, umask = (tmp_path / "log").read_text().replace("SigIgn:", "").split()
    assert not int(ignored, 16) & 1 << (signal.SIGPIPE - 1)
    assert int(umask, 8) == 0o077
    assert (tmp_path / "log").stat().st_mode & 0o077 == 0


def test_a_program_that_is_not_there_is_an_error_in_the_log(tmp_path: Path) -> None:
    process = spawn([str(tmp_path / "nothing")], cwd=tmp_path, log=tmp_path / "log")
    assert process.wait(30)
    assert process.exit_status == 127
    assert "No such file or directory" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("death_signal", [None, signal.SIGKILL])
def test_only_a_process_with_a_death_signal_ends_with_its_killed_parent(
    tmp_path: Path, death_signal: int | None
) -> None:
    program = f"""
import os, signal, threading
from pathlib import Path
from cdc.local._process import spawn
here = Path({str(tmp_path)!r})
process = spawn({_SLEEP!r}, cwd=here, log=here / "log", death_signal={death_signal and int(death_signal)!r})
(here / "new").write_text(str(process.pid))
(here / "new").rename(here / "pids")
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", program]) as starter:
        (pid,) = read_pids(tmp_path / "pids", starter, 1)
        process = Process.of(pid)
        starter.kill()
    assert process is not None
    if death_signal:
        assert process.wait(30)
    else:
        assert process.is_alive()
        process.kill()


def test_the_end_of_the_thread_that_started_it_does_not_end_a_process(tmp_path: Path) -> None:
    started: list[Process] = []
    thread = threading.Thread(
        target=lambda: started.append(spawn(_SLEEP, cwd=tmp_path, log=tmp_path / "log", death_signal=signal.SIGKILL))
    )
    thread.start()
    thread.join()
    (process,) = started
    try:
        assert not process.wait(0.2)
    finally:
        process.kill()


def test_processes_are_found_by_program_and_folder(tmp_path: Path, sleeper: Process) -> None:
    while not (found := _process.processes("sleep", tmp_path.resolve())):
        assert not sleeper.wait(0.01)  # it has not become the program yet
    assert found == [sleeper]
    assert _process.processes("sleep", tmp_path.parent.resolve()) == []
    assert _process.processes("other", tmp_path.resolve()) == []
