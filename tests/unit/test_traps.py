"""``docs/traps.md`` has every trap, and every test that it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "traps.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| ([TO]\d+) \|(.*)\|$", PAGE, re.MULTILINE)


def test_every_trap_and_opening_is_told_once_in_order() -> None:
    names = [name for name, _ in ROWS]
    assert names == [f"T{number}" for number in range(1, 35)] + [f"O{number}" for number in range(1, 18)]


def test_every_named_test_exists() -> None:
    missing = []
    for trap, cells in ROWS:
        for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\*|\w+)`", cells):
            file = ROOT / path
            tests = (
                {node.name for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if _is_test(node)}
                if file.is_file()
                else set()
            )
            if not tests or (name != "*" and name not in tests):
                missing.append(f"{trap}: {path}::{name}")
    assert missing == []


def _is_test(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name.startswith("test_")


def test_a_trap_without_a_test_says_so() -> None:
    without = [trap for trap, cells in ROWS if "`tests/" not in cells]
    assert [trap for trap in without if "none yet" not in dict(ROWS)[trap]] == []
