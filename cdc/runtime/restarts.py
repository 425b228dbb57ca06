"""When a task that died is started again. Pure: times come in, waits go out; the arithmetic is tenacity's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from tenacity import RetryCallState, Retrying, wait_exponential, wait_random

from cdc.config import WorkerConfig

__all__ = ["RestartPolicy", "Restarts"]

_FATAL_GROWTH: Final = 10
"""The wait after errors that an operator must mend grows to this many times its first value."""


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How long to wait before a restart. Times in seconds."""

    enabled: bool
    initial: float
    maximum: float
    fatal: float
    reset: float

    @classmethod
    def of(cls, worker: WorkerConfig) -> RestartPolicy:
        """The policy that the worker's settings ``task.restart.*`` describe."""
        return cls(
            enabled=worker.task_restart_policy == "backoff",
            initial=worker.task_restart_backoff_initial_ms / 1000,
            maximum=worker.task_restart_backoff_max_ms / 1000,
            fatal=worker.task_restart_backoff_fatal_ms / 1000,
            reset=worker.task_restart_reset_ms / 1000,
        )


@dataclass(slots=True)
class Restarts:
    """Counts one task's failures in a row."""

    policy: RestartPolicy
    in_a_row: int = field(default=0, init=False)

    def failed(self, ran_for: float, *, fatal: bool) -> float | None:
        """Seconds to wait before the restart of a task that failed after ``ran_for`` seconds; ``None``: never.

        Waits double with each failure in a row and are spread by a jitter of half the first one; a task that ran for
        the policy's ``reset`` has put its earlier failures behind it.
        """
        self.in_a_row = 1 if ran_for >= self.policy.reset else self.in_a_row + 1
        if not self.policy.enabled:
            return None
        first = self.policy.fatal if fatal else self.policy.initial
        longest = self.policy.fatal * _FATAL_GROWTH if fatal else self.policy.maximum
        strategy = wait_exponential(multiplier=first, max=longest) + wait_random(0, first / 2)
        attempt = RetryCallState(Retrying(), None, (), {})
        attempt.attempt_number = self.in_a_row
        return strategy(attempt)
