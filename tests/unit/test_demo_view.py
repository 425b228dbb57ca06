"""What the demo shows fits a terminal, and says the same in one line of text."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cdc.operate.demo.probe import Lag, percentile
from cdc.operate.demo.run import _named
from cdc.operate.demo.view import Figures, line, picture

HASH = {
    "id": "42",
    "name": "Ürün Lovelace",
    "tier": "gold",
    "points": "1200",
    "interests": '["日本料理","' + "x" * 500 + '"]',
    **{f"field {number}": "value" for number in range(8)},
}


def figures(**changed: object) -> Figures:
    known = {
        "elapsed": 3.2,
        "seconds": 20.0,
        "written": 1_234_567,
        "transactions": 12_345,
        "rate": 512.4,
        "streamed": 2_345_678,
        "mirrored": 2_345_600,
        "mirror_rate": 1000.0,
        "keys": 98_765,
        "lag": Lag(0.0081, 0.123, 100, 0.0),
        "tasks": {"shop": "RUNNING", "shop-cache": "WAITING"},
        "key": "customers:42",
        "hash": HASH,
        "fresh": frozenset({"points"}),
        "lags_ms": tuple(float(number) for number in range(24)),
    }
    return Figures(**(known | changed))  # type: ignore[arg-type]


def rendered(now: Figures, width: int) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width, height=24, force_terminal=True, color_system=None).print(picture(now, "A → B → C"))
    return file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_the_picture_fits_the_terminal(width: int) -> None:
    lines = rendered(figures(), width)
    assert len(lines) <= 24
    assert all(text.startswith(("│", "╭", "╰")) and text.endswith(("│", "╮", "╯")) for text in lines)


def test_the_picture_shows_figures_and_the_hash() -> None:
    text = "\n".join(rendered(figures(), 80))
    for part in ("1,234,567 row changes", "p50 8.1 ms", "p99 123 ms", "HGETALL customers:42", "gold", "17 s left"):
        assert part in text
    assert "WAITING" in text


def test_before_the_first_row_there_is_a_picture_too() -> None:
    text = "\n".join(rendered(figures(elapsed=None, lag=None, hash={}, tasks={}), 80))
    assert "starting" in text
    assert "measuring" in text


def test_a_measurement_that_waits_is_shown_as_waiting() -> None:
    assert "waiting for 4 s" in "\n".join(rendered(figures(lag=Lag(0.01, 0.02, 5, 4.2)), 80))


def test_the_line_says_the_same() -> None:
    text = line(figures())
    assert "\n" not in text
    for part in ("3 s: 1,234,567 row changes", "p50 8.1 ms, p99 123 ms", "customers:42: tier gold, points 1200"):
        assert part in text
    assert line(figures(elapsed=None, lag=None, hash={})).startswith("starting: ")


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50), st.floats(0.01, 1))
def test_percentiles_are_values_with_enough_others_below(values: list[float], share: float) -> None:
    ordered = sorted(values)
    found = percentile(ordered, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9


@pytest.mark.parametrize(
    ("name", "version", "shown"),
    [
        ("Postgres 18 (embedded)", "18.6", "Postgres 18.6 (embedded)"),
        ("Apache Kafka 4.3.0", "4.3.0", "Apache Kafka 4.3.0"),
        ("Redis (system)", "7.0.15", "Redis 7.0.15 (system)"),
    ],
)
def test_servers_are_named_with_their_version_once(name: str, version: str, shown: str) -> None:
    assert _named(name, version) == shown
