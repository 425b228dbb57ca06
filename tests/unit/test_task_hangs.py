"""A task's process whose interpreter stands still is ended, so that its worker starts it again."""

from __future__ import annotations

import subprocess
import sys

PROCESS = """
import ctypes, sys, threading, time
from cdc.runtime.task_process import Control
control = Control(grace=float(sys.argv[1]), hung=1.0, beat=0.1)
threading.Thread(target=control.live, daemon=True).start()
time.sleep(2)  # longer than the watchdog waits: the beats put it off
print("alive", flush=True)
if sys.argv[2] == "hangs":
    ctypes.PyDLL(None).pause()  # holds the interpreter's lock, for ever
control.stop()
if sys.argv[2] == "drains":
    time.sleep(2)
if sys.argv[2] == "lingers":
    threading.Event().wait()  # for ever
"""


def run(grace: float, how: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, str(grace), how], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "alive\n"
    return done.returncode, done.stderr


def test_a_call_that_holds_the_interpreter_for_ever_ends_the_process_and_is_shown() -> None:
    status, told = run(60, "hangs")
    assert status == 1
    assert "Timeout" in told
    assert "line 9 in <module>" in told


def test_a_task_that_drains_longer_than_the_watchdog_waits_is_let() -> None:
    assert run(60, "drains") == (0, "")


def test_a_task_that_does_not_drain_within_its_grace_is_ended() -> None:
    status, told = run(0.2, "lingers")
    assert status == 1
    assert "Timeout" in told
