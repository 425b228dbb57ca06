"""Going over all keys of a table, a page at a time.

SCAN returns every key that is there from the beginning of the scan to its end. A key is touched only if a key space
of the table parses it, whatever the glob matched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cdc.mirror.keys import KeySpace
from cdc.redis.connection import Argument

__all__ = ["Sweep"]

_PAGE: Final = 1000


class Sweep:
    """Where a scan over the keys of some key spaces stands."""

    def __init__(self, spaces: Sequence[KeySpace]) -> None:
        self._spaces = list(spaces)
        self._cursor = b"0"

    @property
    def done(self) -> bool:
        return not self._spaces

    def command(self) -> tuple[Argument, ...]:
        """The SCAN for the next page. Not when `done`."""
        return "SCAN", self._cursor, "MATCH", self._spaces[0].match, "COUNT", _PAGE

    def keys(self, reply: tuple[bytes, list[bytes]]) -> list[bytes]:
        """The keys of the page that are ours; goes on to the next page."""
        cursor, page = reply
        space = self._spaces[0]
        self._cursor = cursor
        if cursor == b"0":
            self._spaces.pop(0)
        return [key for key in page if space.parse(key) is not None]
