"""What a task tells its worker arrives whole, in order and without secrets."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.config import Secrets
from cdc.errors import ConfigError, FatalError, RetriableError
from cdc.runtime.reports import Metric, Reader, Reporter, describe
from cdc.runtime.states import Failure, State


def through_a_pipe(*told: tuple[str, Any], secrets: Secrets | None = None) -> list[State | Metric | Failure]:
    reader, writer = os.pipe()
    try:
        reporter = Reporter(writer, (secrets or Secrets()).redact, on_broken=lambda: None)
        for name, value in told:
            reporter.report(name, value)
        return list(Reader().feed(os.read(reader, 1 << 16)))
    finally:
        os.close(reader)
        os.close(writer)


def test_states_and_figures_keep_their_order() -> None:
    assert through_a_pipe(("phase", "snapshot"), ("state", "RUNNING"), ("records", 12), ("lag", {"ms": 1.5})) == [
        ("phase", "snapshot"),
        State.RUNNING,
        ("records", 12),
        ("lag", {"ms": 1.5}),
    ]


def test_a_state_that_connect_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="WAITING"):
        through_a_pipe(("state", "WAITING"))


def test_secrets_in_figures_are_masked_and_the_line_stays_whole() -> None:
    secrets = Secrets(["metric", "value", "hunter2"])
    assert through_a_pipe(("phase", ["login hunter2", {"hunter2": "value"}]), secrets=secrets) == [
        ("phase", ["login ***", {"***": "***"}])
    ]


@given(st.lists(st.tuples(st.text(min_size=1), st.integers()), max_size=20), st.integers(1, 7))
def test_lines_may_come_in_any_pieces(figures: list[tuple[str, int]], size: int) -> None:
    data = b"".join(json.dumps({"metric": name, "value": value}).encode() + b"\n" for name, value in figures)
    reader = Reader()
    told = [item for start in range(0, len(data), size) for item in reader.feed(data[start : start + size])]
    assert told == figures


def test_a_worker_that_is_gone_asks_the_task_to_end() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    broken: list[bool] = []
    try:
        Reporter(writer, str, on_broken=lambda: broken.append(True)).report("records", 1)
    finally:
        os.close(writer)
    assert broken == [True]


@pytest.mark.parametrize(
    ("error", "shown", "fatal"),
    [
        (FatalError("do this"), "do this", True),
        (ConfigError("wrong"), "wrong", True),
        (RetriableError("away"), "away", False),
        (RuntimeError("login with hunter2"), "RuntimeError: login with ***", False),
        (KeyError(), "KeyError: KeyError()", False),
        (UnicodeError("x"), "UnicodeError: x", False),
    ],
)
def test_errors_raised_on_purpose_speak_for_themselves(error: Exception, shown: str, fatal: bool) -> None:
    failure = describe(error, Secrets(["hunter2"]).redact)
    assert (str(failure), failure.fatal) == (shown, fatal)
    assert "hunter2" not in failure.trace
