"""The watch over passwords: a session in which one is shown fails, though all its tests pass."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from passwords import password

TESTS = Path(__file__).parents[1]
HEAD = """
import logging, pathlib, subprocess, sys
import leaks, pytest
from passwords import password
SECRET = password("x")
WAIT = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
"""
SHOWING = """
def test_out(): print("login with", SECRET)
def test_err(): sys.stderr.write(SECRET)
def test_log(): logging.getLogger("x").warning(SECRET)
def test_file(tmp_path):
    (tmp_path / "log").write_text(SECRET)
    leaks.look(tmp_path / "log", "the log of a server")
@pytest.fixture(params=["argument", "environment"])
def child(request):
    more = [SECRET] if request.param == "argument" else []
    environment = {"P": SECRET} if request.param == "environment" else {}
    pipe = subprocess.PIPE
    with subprocess.Popen([*WAIT, *more], stdin=pipe, stdout=pipe, env=environment) as process:
        process.stdout.readline()  # until the program is there, /proc shows no arguments of it
        yield
@pytest.mark.integration
def test_child(child): pass
"""


def run(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(HEAD + body, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    integration: x\n", encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "leaks", "-p", "no:cacheprovider", str(folder)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_is_shown_fails_the_session(tmp_path: Path) -> None:
    found = run(tmp_path, SHOWING)
    assert found.returncode == 1
    summary = found.stdout.partition("passwords that were shown")[2]
    for what in (
        "test_out, Captured stdout call: login with <password>",
        "test_err, Captured stderr call",
        "test_log, Captured log call",
        "the log of a server",
        "test_child[argument]: cmdline of process",
        "test_child[environment]: environ of process",
    ):
        assert what in summary, what
    assert password("x") not in found.stdout.partition("passwords that were shown")[2]


def test_a_session_that_shows_none_passes(tmp_path: Path) -> None:
    assert run(tmp_path, "def test(): assert SECRET\n").returncode == 0
