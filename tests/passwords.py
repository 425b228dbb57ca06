"""The passwords of all tests. Each has a mark in it, which nothing may ever show (`leaks.py` looks for it)."""

from __future__ import annotations

from typing import Final

__all__ = ["MARK", "MARKS", "password"]

MARK: Final = "n0t-t0-be-sh0wn"
"""In every password that `password` makes, and nowhere else: a text that has it has leaked one."""

MARKS: Final = (MARK,)
"""What is looked for."""


def password(name: str) -> str:
    """The password of whoever is called ``name``; the same whenever it is asked for."""
    return f"{MARK}-{name.replace(' ', '-')}"
