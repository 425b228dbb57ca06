"""An epoch is above every position that was ever told (EXACTNESS.md H2)."""

from __future__ import annotations

import pytest

from cdc.postgres import preparation
from cdc.postgres.preparation import next_epoch


@pytest.mark.parametrize("clock", [0.0, 1_795_650_000.0, 4e9])
@pytest.mark.parametrize("stored", [0, 1, 1_795_650_000, 2_000_000_000])
def test_an_epoch_is_above_the_stored_one_whatever_the_clock(
    stored: int, clock: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation.time, "time", lambda: clock)
    assert next_epoch(stored) > stored


def test_an_epoch_after_lost_offsets_is_above_those_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation.time, "time", lambda: 1_795_650_000.0)
    before = next_epoch(0)
    monkeypatch.setattr(preparation.time, "time", lambda: 1_795_650_060.0)
    assert next_epoch(0) > before
