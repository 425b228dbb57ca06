"""The judgement of suspects against a simulated bridge: a table, a hash that follows it with a lag, and a clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from cdc.operate.verify.compare import Found
from cdc.operate.verify.judge import QUICK_PAUSES, ROUND_PAUSES, Judge, Suspect
from cdc.operate.verify.report import TableReport
from cdc.operate.verify.rows import Row

KEY = b"t:1"


@dataclass
class Bridge:
    """One row. ``history`` are its values, one a commit, the first at commit 0; commit n happens at time n.

    ``lag`` is how many commits the hash is behind; ``stuck`` pins the hash, as drift does.
    """

    history: list[str | None]
    lag: int = 0
    stuck: str | None = None
    is_stuck: bool = False
    extra: bool = False
    behind: str = ""
    restless: bool = False
    """A new value with every commit, for ever, in place of ``history``."""
    hidden: int = 0
    """How many of the last commits are in the stream and not visible yet."""
    now: int = 0
    waits: list[float] = field(default_factory=list)

    def tick(self) -> None:
        self.now += 1

    def _at(self, commit: int) -> str | None:
        if self.restless:
            return f"value {commit}"
        return self.history[max(0, min(commit, len(self.history) - 1))]

    def find(self, suspects: Sequence[Suspect]) -> dict[bytes, Row]:
        self.tick()
        commit = self.now if self.restless else min(self.now, len(self.history) - 1) - self.hidden
        value = self._at(commit)
        if value is None:
            return {}
        return {KEY: Row(("1",), b"%d" % max(0, commit), {b"v": value.encode()})} if suspects else {}

    def read(self, keys: Sequence[bytes]) -> list[Found]:
        self.tick()
        value = self.stuck if self.is_stuck else self._at(self.now - self.lag)
        if value is None:
            return [None for _ in keys]
        return [{b"v": value.encode(), **({b"x": b"y"} if self.extra else {})} for _ in keys]

    def mark(self) -> int:
        return self.now

    def wait_applied(self, mark: int, deadline: float) -> str:
        assert deadline > 0
        if not self.behind:
            self.now = max(self.now, mark + self.lag)
        return self.behind

    def wait_visible(self, deadline: float) -> str:
        assert deadline > 0
        self.hidden = 0
        return ""


def judge(bridge: Bridge, patience: float = 0.5) -> TableReport:
    report = TableReport("cache", "shop", "public.t", "shop.public.t")
    Judge(bridge.find, bridge.read, bridge, patience, bridge.waits.append).settle([Suspect(KEY, ("1",))], report)
    return report


@pytest.mark.parametrize("lag", [0, 1, 2, 5, 20])
def test_a_hash_that_follows_is_cleared_however_far_behind(lag: int) -> None:
    bridge = Bridge([f"value {n}" for n in range(100)], lag=lag)
    assert judge(bridge).differing == 0


@pytest.mark.parametrize("lag", [0, 1, 3, 10])
def test_a_row_that_comes_and_goes_is_cleared(lag: int) -> None:
    bridge = Bridge([None if n % 2 else "here" for n in range(500)], lag=lag)
    assert judge(bridge).differing == 0


def test_a_hash_that_misses_is_found() -> None:
    report = judge(Bridge(["value"], is_stuck=True))
    assert (report.missing, report.undecided, report.drifts[0].kind) == (1, 0, "missing")


def test_a_ghost_is_found_after_it_was_there_three_times() -> None:
    bridge = Bridge(["old", None], is_stuck=True, stuck="old", now=5)
    report = judge(bridge)
    assert (report.ghost, report.undecided) == (1, 0)
    assert bridge.waits == [0.0, *QUICK_PAUSES, *ROUND_PAUSES, *ROUND_PAUSES]


def test_an_altered_field_is_found_and_shown() -> None:
    report = judge(Bridge(["right"], is_stuck=True, stuck="wrong"))
    assert report.different == 1
    assert (report.drifts[0].fields[0].expected, report.drifts[0].fields[0].found) == ("right", "wrong")


def test_an_extra_field_is_found() -> None:
    report = judge(Bridge(["right"], extra=True))
    assert report.different == 1
    assert (report.drifts[0].fields[0].field, report.drifts[0].fields[0].expected) == ("x", None)


def test_a_commit_that_waits_for_a_standby_is_not_a_difference() -> None:
    bridge = Bridge(["before", "after"], hidden=1, now=1)
    assert judge(bridge).differing == 0


def test_a_sink_that_is_behind_leaves_its_suspects_undecided_and_is_not_waited_for_twice() -> None:
    bridge = Bridge(["new"], is_stuck=True, stuck="old", behind="the sink is not running")
    report = TableReport("cache", "shop", "public.t", "shop.public.t")
    judge = Judge(bridge.find, bridge.read, bridge, 0.5, bridge.waits.append)
    judge.settle([Suspect(KEY, ("1",))], report)
    bridge.behind = "asked again"
    judge.settle([Suspect(KEY, ("1",))], report)
    assert (report.differing, report.undecided, report.reasons) == (0, 2, ["the sink is not running"])


def test_drift_in_a_row_that_never_rests_is_undecided_and_not_claimed() -> None:
    bridge = Bridge([], restless=True, extra=True)
    report = judge(bridge)
    assert (report.differing, report.undecided) == (0, 1)
    assert "kept changing" in report.reasons[0]
