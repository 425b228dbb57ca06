"""Whether a key whose row and hash were seen to differ really does. The argument is in `cdc.operate.verify`.

Pure but for what it is given: how to read rows, hashes and the progress of the bridge, and how to wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from cdc.operate.verify.compare import Found, digest, drift, shortened
from cdc.operate.verify.report import TableReport
from cdc.operate.verify.rows import Row

__all__ = ["Judge", "Progress", "Suspect"]

QUICK_PAUSES: Final = (0.005, 0.01, 0.02, 0.03, 0.05, 0.05, 0.1, 0.1, 0.2, 0.2, 0.4, 0.4, 0.8)
"""Seconds between looks while the usual lag of a healthy bridge passes."""
ROUND_PAUSES: Final = (0.005, 0.01, 0.02, 0.03, 0.05)
"""Between the looks before each further round."""
ABSENT_ROUNDS: Final = 3
"""Rounds in which a row must be absent throughout, with the same hash there each time."""


class Progress(Protocol):
    """What is known of how far the bridge has come. Deadlines are of `time.monotonic`."""

    def mark(self) -> int:
        """An LSN that no commit visible before this call is beyond."""

    def wait_applied(self, mark: int, deadline: float) -> str:
        """Wait until the sink has applied all that committed before ``mark``; the reason if that cannot be said."""

    def wait_visible(self, deadline: float) -> str:
        """Wait until all that the sink can have applied by now is visible to new snapshots; the reason if not."""


@dataclass(slots=True)
class Suspect:
    """A key that differed when it was first looked at, or has no row."""

    key: bytes
    row_key: tuple[str, ...]
    rows: set[bytes] = field(default_factory=set)
    """Digests of all versions of the row seen since."""
    hashes: set[bytes] = field(default_factory=set)
    """Digests of all hashes seen since."""
    found: bytes = b""
    rounds: int = 0


class Judge:
    """Decides suspects of one table.

    ``find`` gives the rows of suspects by key of Redis, ``read`` what Redis holds. ``patience`` is how many seconds a
    decision may take. Once the sink's progress could not be established, later suspects are not waited for.
    """

    def __init__(
        self,
        find: Callable[[Sequence[Suspect]], Mapping[bytes, Row]],
        read: Callable[[Sequence[bytes]], list[Found]],
        progress: Progress,
        patience: float,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._find = find
        self._read = read
        self._progress = progress
        self._patience = patience
        self._wait = wait
        self._gave_up = ""

    def settle(self, suspects: Sequence[Suspect], report: TableReport) -> None:
        """Clear each suspect, or count it in ``report`` as a difference or as undecided."""
        left = self._look(suspects, (0.0, *QUICK_PAUSES))
        if left and not self._gave_up:
            left = self._prove(left, report)
        for suspect in left:
            reason = (
                self._gave_up or f"the row kept changing for {self._patience:g} s, faster than it could be compared"
            )
            report.add_undecided(shortened(suspect.key, 200), reason)

    def _look(self, suspects: Sequence[Suspect], pauses: Sequence[float]) -> list[Suspect]:
        """Those that are not cleared by a look after each pause."""
        left = list(suspects)
        for pause in pauses:
            self._wait(pause)
            rows = self._find(left)
            hashes = self._read([suspect.key for suspect in left])
            left = [s for s, found in zip(left, hashes, strict=True) if not _cleared(s, rows.get(s.key), found)]
            if not left:
                break
        return left

    def _prove(self, left: list[Suspect], report: TableReport) -> list[Suspect]:
        """Rounds as in the argument; returns those that no round decided."""
        deadline = time.monotonic() + self._patience
        while left and time.monotonic() < deadline:
            before = self._find(left)
            reason = self._progress.wait_applied(self._progress.mark(), deadline)
            if not reason:
                hashes = self._read([suspect.key for suspect in left])
                reason = self._progress.wait_visible(deadline)
            if reason:
                self._gave_up = reason
                break
            after = self._find(left)
            left = [
                suspect
                for suspect, found in zip(left, hashes, strict=True)
                if not _decided(suspect, before.get(suspect.key), found, after.get(suspect.key), report)
            ]
            if left:
                left = self._look(left, ROUND_PAUSES)
        return left


def _cleared(suspect: Suspect, row: Row | None, found: Found) -> bool:
    """Whether some hash seen since the suspect was first looked at was the row, as it was at some moment since."""
    suspect.rows.add(digest(None if row is None else row.hash))
    suspect.hashes.add(digest(found))
    return not suspect.rows.isdisjoint(suspect.hashes)


def _decided(suspect: Suspect, before: Row | None, found: Found, after: Row | None, report: TableReport) -> bool:
    if _cleared(suspect, before, found) or _cleared(suspect, after, found):
        return True
    if before is not None and after is not None:
        suspect.rounds = 0
        if before.version != after.version or before.hash != after.hash:
            return False
    elif before is None and after is None:
        same = digest(found)
        suspect.rounds = suspect.rounds + 1 if same == suspect.found else 1
        suspect.found = same
        if suspect.rounds < ABSENT_ROUNDS:
            return False
    else:
        suspect.rounds = 0
        return False
    report.add(suspect.key, drift(suspect.key, None if after is None else after.hash, found))
    return True
