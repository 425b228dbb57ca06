"""Java's ``.properties`` files, as `java.util.Properties.load` reads them, with lines."""

from __future__ import annotations

import re
from typing import Final

from cdc.config.tree import Findings, Place, Scalar, Table

__all__ = ["parse_properties", "read_properties"]

_SPACE: Final = " \t\f"
_KEY: Final = re.compile(r"((?:[^\\=: \t\f]|\\.)*)[ \t\f]*[=:]?[ \t\f]*", re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_CONTROL: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


def read_properties(text: str, file: str, order: int, findings: Findings) -> Table | None:
    """The properties of a text, in a table without nesting; ``None`` and a finding when it has an odd escape."""
    top = Place(order, 0, file)
    try:
        parsed = parse_properties(text)
    except ValueError as error:
        findings.add(top, str(error))
        return None
    return Table(
        tuple((key, (place := top._replace(line=line)), Scalar(value, place)) for key, value, line in parsed), top
    )


def parse_properties(text: str) -> list[tuple[str, str, int]]:
    """Key, value and line of each property. `ValueError` for a backslash-u without four hex digits."""
    found: list[tuple[str, str, int]] = []
    lines = iter(enumerate(re.split(r"\r\n|\r|\n", text), 1))
    for number, physical in lines:
        line = physical.lstrip(_SPACE)
        if not line or line[0] in "#!":
            continue
        while _continues(line):
            _, following = next(lines, (0, ""))
            line = line[:-1] + following.lstrip(_SPACE)
        split = _KEY.match(line)
        assert split is not None  # noqa: S101 - the expression matches any text
        found.append((_unescape(split[1], number), _unescape(line[split.end() :], number), number))
    return found


def _continues(line: str) -> bool:
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _unescape(text: str, line: int) -> str:
    def replace(match: re.Match[str]) -> str:
        escape = match[1]
        if escape == "u":
            raise ValueError(f"line {line}: \\u is not followed by four hexadecimal digits")
        return chr(int(escape[1:], 16)) if len(escape) > 1 else _CONTROL.get(escape, escape)

    return _ESCAPE.sub(replace, text)
