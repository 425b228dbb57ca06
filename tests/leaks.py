"""Nothing of a test session shows a password: not its output, the logs of its servers, nor the list of its processes.

A pytest plugin. Output that was captured is looked at when a test reports, whatever its outcome; processes that this
one started (their command lines, and what they have in their environment) when a test is over and its fixtures still
stand; a server's log when the server is closed. What is found fails the test, or the whole session.

What a failed assertion shows of its operands is pytest's and not looked at: only failing tests have it.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

import pytest
from passwords import MARKS

__all__ = ["look"]

_MOST: Final = 64 << 20
"""Bytes of a log that are looked at."""
_found: list[str] = []


def leaked(text: str | bytes) -> bool:
    """Whether a text has a password in it."""
    data = text.encode("utf-8", "replace") if isinstance(text, str) else text
    return any(mark.encode() in data for mark in MARKS)


def look(path: Path, what: str) -> None:
    """Fail if a file shows a password."""
    if not path.exists():
        return
    with path.open("rb") as file:
        lines = file.read(_MOST).splitlines()
    shown = [line for line in lines if leaked(line)]
    if shown:
        _found.append(what)
        pytest.fail(f"{what} shows a password of the tests, {len(shown)} times: {hidden(shown[0])}", pytrace=False)


def hidden(line: bytes) -> str:
    """A line with the mark told apart, so that telling of a leak is none."""
    text = line.decode("utf-8", "replace")
    for mark in MARKS:
        text = text.replace(mark, "<password>")
    return text[:300]


def descendants(pid: int) -> Iterator[int]:
    """The processes that ``pid`` started, and theirs."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:  # it has just ended
        return
    for task in tasks:
        try:
            children = (task / "children").read_text(encoding="ascii").split()
        except OSError:  # it has just ended
            continue
        for child in children:
            yield int(child)
            yield from descendants(int(child))


def shown_by_processes() -> list[str]:
    """What of our processes' command lines and environments has a password in it."""
    found = []
    for pid in set(descendants(os.getpid())):
        for part in ("cmdline", "environ"):
            try:
                data = Path(f"/proc/{pid}/{part}").read_bytes()
            except OSError:  # it has ended, or is another user's
                continue
            found += [f"{part} of process {pid}: {hidden(one)}" for one in data.split(b"\0") if leaked(one)]
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    shown = shown_by_processes() if item.get_closest_marker("integration") else []
    yield
    if shown:
        _found.append(f"{item.nodeid}: {shown[0]}")
        pytest.fail(f"a process shows a password of the tests: {'; '.join(shown)}", pytrace=False)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    for title, content in report.sections:
        if leaked(content):
            line = next((line for line in content.encode().splitlines() if leaked(line)), b"")
            _found.append(f"{report.nodeid}, {title}: {hidden(line)}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _found and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _found:
        terminalreporter.section("passwords that were shown", red=True)
        for one in dict.fromkeys(_found):
            terminalreporter.write_line(one)
