"""One table against one key space: every row, then every key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from cdc.mirror.keys import KeySpace
from cdc.operate.verify.compare import Found, drift, shortened
from cdc.operate.verify.hashes import Hashes
from cdc.operate.verify.judge import Judge, Progress, Suspect
from cdc.operate.verify.keys import postgres_text
from cdc.operate.verify.report import TableReport
from cdc.operate.verify.rows import Row, TableRows

__all__ = ["TableComparison", "row_key"]

SUSPECTS: Final = 20_000
"""Suspects are judged together, so that the bridge is waited for once; at most so many, so that memory is bounded."""


class TableComparison:
    """Compares, and counts in ``report``.

    With ``progress``, suspects are judged as `cdc.operate.verify` argues. Without, whatever differs at one look is a
    difference: for a database that is at rest.
    """

    def __init__(
        self,
        rows: TableRows,
        space: KeySpace,
        hashes: Hashes,
        report: TableReport,
        progress: Progress | None,
        patience: float,
    ) -> None:
        self._rows = rows
        self._space = space
        self._hashes = hashes
        self._report = report
        self._judge = None if progress is None else Judge(self._find, hashes.read, progress, patience)
        self._suspects: list[Suspect] = []

    def run(self, limit: int | None = None) -> None:
        """Compare all rows and keys; stop early once more than ``limit`` keys differ."""
        self._compare_rows(limit)
        if not self._enough(limit):
            self._look_for_ghosts(limit)

    def _compare_rows(self, limit: int | None) -> None:
        after: tuple[str, ...] | None = None
        while (rows := self._rows.chunk(after)) and not self._enough(limit):
            keys = [self._key_of(row) for row in rows]
            for key, row, found in zip(keys, rows, self._hashes.read(keys), strict=True):
                if row.hash != found:
                    self._suspect(key, row, found)
            self._report.rows += len(rows)
            self._report.fields += len(rows) * self._rows.width
            after = rows[-1].key
        self._settle()

    def _look_for_ghosts(self, limit: int | None) -> None:
        for batch in self._hashes.scan(self._space.match):
            mine: dict[bytes, tuple[str, ...]] = {}
            for key in dict.fromkeys(batch):
                parsed = self._space.parse(key)
                if parsed is not None:
                    self._report.keys += 1
                    row_key = self._row_key(parsed)
                    if row_key is None:
                        self._report.add_foreign(shortened(key, 200))
                    else:
                        mine[key] = row_key
            there = {self._key_of(row) for row in self._rows.find(list(mine.values()), keys_only=True)}
            for key, row_key in mine.items():
                if key not in there:
                    self._suspect_ghost(key, row_key)
            if self._enough(limit):
                break
        self._settle()

    def _suspect(self, key: bytes, row: Row, found: Found) -> None:
        if self._judge is None:
            self._report.add(key, drift(key, row.hash, found))
            return
        self._add(Suspect(key, row.key))

    def _suspect_ghost(self, key: bytes, row_key: tuple[str, ...]) -> None:
        if not self._rows.is_valid(row_key):
            self._report.add_foreign(shortened(key, 200))
        elif self._judge is None:
            self._report.add(key, drift(key, None, None))
        else:
            self._add(Suspect(key, row_key))

    def _add(self, suspect: Suspect) -> None:
        self._suspects.append(suspect)
        if len(self._suspects) >= SUSPECTS:
            self._settle()

    def _settle(self) -> None:
        if self._suspects and self._judge is not None:
            self._judge.settle(self._suspects, self._report)
        self._suspects = []

    def _enough(self, limit: int | None) -> bool:
        return limit is not None and self._report.differing > limit

    def _find(self, suspects: Sequence[Suspect]) -> Mapping[bytes, Row]:
        return self._by_key(self._rows.find([suspect.row_key for suspect in suspects]))

    def _by_key(self, rows: Iterable[Row]) -> dict[bytes, Row]:
        return {self._key_of(row): row for row in rows}

    def _key_of(self, row: Row) -> bytes:
        return self._space.render([row.hash[column.name.encode()] for column in self._space.columns])

    def _row_key(self, parsed: Mapping[str, bytes]) -> tuple[str, ...] | None:
        return row_key(self._rows, parsed)


def row_key(rows: TableRows, parsed: Mapping[str, bytes]) -> tuple[str, ...] | None:
    """Text of the key columns in the table's order; ``None`` when no value has such a canonical text."""
    try:
        return tuple(
            postgres_text(kind, parsed[name]) for name, kind in zip(rows.info.key, rows.key_types, strict=True)
        )
    except ValueError:
        return None
