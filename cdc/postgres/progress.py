"""What is stored of each captured table beside the stream's position: how far reading it has come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cdc.postgres.fingerprint import Fingerprint

__all__ = ["AdHoc", "SnapshotProgress"]


@dataclass(slots=True)
class AdHoc:
    """A snapshot of one table that a signal asked for while the table is streamed.

    ``place`` is the signal's. ``where`` is a condition on the rows. With
    ``sweep`` keys that are older than its beginning are removed at its end (EXACTNESS.md H11); ``blocking`` is
    Debezium's other type, whose records are marked as those of an initial snapshot. ``since`` is the position at which
    it began, empty until then; ``after`` and ``rows`` as in `SnapshotProgress`.
    """

    id: str
    place: str
    where: str = ""
    sweep: bool = False
    blocking: bool = False
    paused: bool = False
    since: str = ""
    after: list[str | None] | None = None
    rows: int = 0

    def start_over(self) -> None:
        """Nothing that was read counts."""
        self.since, self.after, self.rows = "", None, 0


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
    queued: bool = False
    """Its changes are told all the same, for the dead letter queue."""
    selection: Mapping[str, str] | None = None
    """Columns that the settings left out or masked when its rows were told (`cdc.postgres.captured.selection_of`)."""
    adhoc: list[AdHoc] = field(default_factory=list)
    """Snapshots that signals asked for, in their order: the first is under way once the table is done."""

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
        if self.queued:
            value["queued"] = True
        if self.selection is not None:
            value["selection"] = dict(self.selection)
        if self.adhoc:
            value["adhoc"] = [asdict(asked) for asked in self.adhoc]
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
        self.queued = bool(stored.get("queued"))
        self.selection = stored.get("selection")
        self.restore_adhoc(stored)
        if "fingerprint" in stored:
            self.fingerprint = Fingerprint.from_json(stored["fingerprint"])

    def restore_adhoc(self, stored: Mapping[str, Any]) -> None:
        """Take up the snapshots that were asked for."""
        self.adhoc = [AdHoc(**asked) for asked in stored.get("adhoc", ())]
