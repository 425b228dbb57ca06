"""COPY's text format → raw rows. Pure.

The rules are those of the Postgres manual, "COPY, Text Format": columns are separated by tabs, rows end with a newline,
``\\N`` is NULL, and backslash escapes stand for the characters that would break this.
"""

from __future__ import annotations

import re
from typing import Final

from cdc.errors import FatalError
from cdc.record import RawRow

__all__ = ["parse_row"]

_NULL: Final = rb"\N"
_BACKSLASH: Final = 0x5C
_ESCAPE: Final = re.compile(rb"\\(x[0-9A-Fa-f]{1,2}|[0-7]{1,3}|.)", re.DOTALL)
_OCTAL: Final = b"01234567"
_NAMED: Final = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


def parse_row(line: bytes, width: int) -> RawRow:
    """One line without its newline → the text of its columns, ``None`` for NULL."""
    if width == 0 and not line:
        return []
    row: RawRow = line.split(b"\t")
    if len(row) != width:
        raise FatalError(f"a row of COPY has {len(row)} columns, {width} were asked for")
    if _BACKSLASH in line:
        for i, value in enumerate(row):
            if _BACKSLASH in value:
                row[i] = None if value == _NULL else _ESCAPE.sub(_unescape, value)
    return row


def _unescape(match: re.Match[bytes]) -> bytes:
    escaped = match[1]
    named = _NAMED.get(escaped)
    if named is not None:
        return named
    if escaped[:1] == b"x" and len(escaped) > 1:
        return bytes([int(escaped[1:], 16)])
    if escaped[0] in _OCTAL:
        return bytes([int(escaped, 8) & 0xFF])
    return escaped
