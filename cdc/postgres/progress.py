"""What is stored of each captured table beside the stream's position: how far reading it has come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cdc.postgres.fingerprint import Fingerprint

__all__ = ["SnapshotProgress"]


@dataclass(slots=True)
class SnapshotProgress:
    """How far a table's snapshot has come. ``after`` is the key of the last row told, as text.

    ``since`` is the position at which reading it again began, if keys that are then older are to be deleted at its end.
    ``fingerprint`` is the catalog's at or before the beginning. ``failed`` says why its changes are not told.
    """

    oid: int
    schema: str
    name: str
    after: list[str | None] | None = None
    rows: int = 0
    done: bool = False
    since: str = ""
    fingerprint: Fingerprint | None = None
    failed: str = ""
    selection: Mapping[str, str] | None = None
    """Columns that the settings left out or masked when its rows were told (`cdc.postgres.captured.selection_of`)."""

    @property
    def full_name(self) -> str:
        return f"{self.schema}.{self.name}"

    def to_json(self) -> dict[str, object]:
        value: dict[str, object] = {
            "snapshot": "failed" if self.failed else "done" if self.done else "running",
            "after": self.after,
            "rows": self.rows,
            "oid": self.oid,
        }
        if self.since:
            value["since"] = self.since
        if self.failed:
            value["failed"] = self.failed
        if self.selection is not None:
            value["selection"] = dict(self.selection)
        if self.fingerprint is not None:
            value["fingerprint"] = self.fingerprint.to_json()
        return value

    def start_over(self, since: str, now: Fingerprint | None) -> None:
        """Nothing that was told counts: the table is read from its beginning, and keys older than ``since`` go.

        A fingerprint with another key stays: the rows in the topic have that key, and what is done about that is a
        policy.
        """
        then = self.fingerprint
        if then is None or now is None or (then.key_names() == now.key_names()):
            self.fingerprint = now
        self.after, self.rows, self.done, self.since = None, 0, False, since

    def restore(self, stored: Mapping[str, Any]) -> None:
        """Take up what is stored of the table, under whatever OID it was."""
        self.done = stored["snapshot"] == "done"
        self.rows = int(stored["rows"])
        self.after = stored["after"]
        self.since = str(stored.get("since", ""))
        self.failed = str(stored.get("failed", ""))
        self.selection = stored.get("selection")
        if "fingerprint" in stored:
            self.fingerprint = Fingerprint.from_json(stored["fingerprint"])
