"""When a task that died is started again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.runtime.restarts import RestartPolicy, Restarts

POLICY = RestartPolicy(enabled=True, initial=1.0, maximum=60.0, fatal=30.0, reset=60.0)


def waits(policy: RestartPolicy, count: int, *, fatal: bool = False) -> list[float]:
    restarts = Restarts(policy)
    found = [restarts.failed(0.0, fatal=fatal) for _ in range(count)]
    return [wait for wait in found if wait is not None]


def test_waits_double_up_to_the_longest() -> None:
    for number, wait in enumerate(waits(POLICY, 12)):
        assert min(60.0, 2**number) <= wait <= min(60.0, 2**number) + 0.5


def test_an_error_for_an_operator_waits_longer() -> None:
    for number, wait in enumerate(waits(POLICY, 6, fatal=True)):
        assert min(300.0, 30.0 * 2**number) <= wait <= min(300.0, 30.0 * 2**number) + 15.0


def test_jitter_keeps_tasks_apart() -> None:
    assert len({waits(POLICY, 1)[0] for _ in range(20)}) > 1


def test_a_healthy_minute_puts_earlier_failures_behind() -> None:
    restarts = Restarts(POLICY)
    for _ in range(5):
        restarts.failed(59.9, fatal=False)
    assert restarts.in_a_row == 5
    wait = restarts.failed(60.0, fatal=False)
    assert restarts.in_a_row == 1
    assert wait is not None
    assert wait <= 1.5


def test_never_means_never() -> None:
    assert Restarts(replace(POLICY, enabled=False)).failed(0.0, fatal=False) is None


@given(st.lists(st.tuples(st.floats(0, 1e6), st.booleans()), max_size=60))
def test_a_wait_is_never_negative_nor_beyond_the_limit(history: list[tuple[float, bool]]) -> None:
    restarts = Restarts(POLICY)
    for ran_for, fatal in history:
        wait = restarts.failed(ran_for, fatal=fatal)
        assert wait is not None
        assert 0 < wait <= (315.0 if fatal else 60.5)


@pytest.mark.parametrize("policy", ["backoff", "never"])
def test_the_policy_follows_the_settings(policy: str) -> None:
    from cdc.config import WorkerConfig

    worker = WorkerConfig.model_validate(
        {"bootstrap.servers": "x:1", "task.restart.policy": policy, "task.restart.backoff.initial.ms": "250"}
    )
    made = RestartPolicy.of(worker)
    assert (made.enabled, made.initial, made.maximum) == (policy == "backoff", 0.25, 60.0)
