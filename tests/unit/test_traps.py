"""``docs/traps.md`` and ``docs/hazards.md`` have every trap, hazard and case, and every test that they name exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLES = {
    "traps.md": [("T", 34), ("O", 17)],
    "hazards.md": [("H", 24), ("S", 35), ("P", 26)],
}
"""Page → its tables, each with the letter of its rows and how many there are."""


def rows(page: str) -> list[tuple[str, str]]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(r"^\| ([A-Z]\d+) \|(.*)\|$", text, re.MULTILINE)


@cache
def names_in(path: str) -> frozenset[str]:
    file = ROOT / path
    if not file.is_file():
        return frozenset()
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"))


@pytest.mark.parametrize("page", TABLES)
def test_everything_is_told_once_in_order(page: str) -> None:
    wanted = [f"{letter}{number}" for letter, count in TABLES[page] for number in range(1, count + 1)]
    assert [name for name, _ in rows(page)] == wanted


@pytest.mark.parametrize("page", TABLES)
def test_every_named_test_exists(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    missing = []
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\*|\w+)`", text):
        tests = names_in(path)
        if not tests or (name != "*" and name not in tests):
            missing.append(f"{path}::{name}")
    assert missing == []


@pytest.mark.parametrize("page", TABLES)
def test_what_has_no_test_says_so(page: str) -> None:
    without = [(name, cells) for name, cells in rows(page) if "`tests/" not in cells]
    assert [name for name, cells in without if "none yet" not in cells] == []
