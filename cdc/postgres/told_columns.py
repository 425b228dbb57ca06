"""Columns that rows were told with and of which the catalog shows nothing any more. Pure (EXACTNESS.md H12).

A column that was added and dropped, or renamed and named back, leaves the catalog's columns as they were. Rows that
were written meanwhile were told with it, and keep it until they are told again.
"""

from __future__ import annotations

from cdc.postgres.fingerprint import Fingerprint

__all__ = ["ToldColumns"]


class ToldColumns:
    """By table, the lists of columns that its fingerprint does not have; and how many looks had none of them."""

    def __init__(self) -> None:
        self._told: dict[int, dict[tuple[str, ...], int]] = {}

    def telling(self, oid: int, names: tuple[str, ...], fingerprint: Fingerprint | None) -> None:
        """Rows are told with these columns, in the order of the table."""
        if fingerprint is not None and not fingerprint.has(names):
            self._told.setdefault(oid, {})[names] = 0

    def undone(self, oid: int, now: Fingerprint) -> tuple[str, ...]:
        """Columns that rows were told with and that are not there; empty if there are none. They are then forgotten."""
        told = self._told.get(oid, {})
        for names in list(told):
            told[names] += not now.has(names)
            if told[names] > 1:  # the first of these looks may have been under way before there were such columns
                self.forget(oid)
                return names
        return ()

    def accepted(self, oid: int, now: Fingerprint) -> None:
        """This is the table's fingerprint from now on."""
        self._told[oid] = {names: looks for names, looks in self._told.get(oid, {}).items() if not now.has(names)}

    def forget(self, oid: int) -> None:
        """The table is gone, or its rows are told again."""
        self._told.pop(oid, None)
