"""What a comparison found, as data, and as text or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

from cdc.operate.verify.compare import THE_KEY, Drift, Kind

__all__ = ["REPAIRABLE", "SHOWN_DRIFTS", "NotCompared", "Report", "TableReport"]

REPAIRABLE: Final = 100_000
"""Differing keys of a table that one repair mends."""

SHOWN_DRIFTS: Final = 100
"""Differing keys of a table that a report names; beyond that they are counted."""


@dataclass(slots=True)
class TableReport:
    """One table and the key space of one sink.

    ``rows`` and ``fields`` were compared (a field for each column of a row, NULLs too); ``keys`` were found by the scan
    of the key space. ``undecided`` keys differed and could not be judged, ``reasons`` say why. ``foreign`` keys look
    like keys of this table but no row can have them: they are named, and no difference. Where rows expire (``ttl``, in
    seconds), a row without a hash is ``expired``, and no difference either.
    """

    sink: str
    source: str
    table: str
    topic: str
    ttl: int | None = None
    rows: int = 0
    fields: int = 0
    keys: int = 0
    missing: int = 0
    ghost: int = 0
    different: int = 0
    undecided: int = 0
    foreign: int = 0
    expired: int = 0
    drifts: list[Drift] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    undecided_keys: list[str] = field(default_factory=list)
    foreign_keys: list[str] = field(default_factory=list)
    found: dict[bytes, Kind | Literal["foreign"]] = field(default_factory=dict, repr=False)
    """The differing keys themselves, for a repair: at most `REPAIRABLE`; ``foreign`` are those that hold no hash."""

    @property
    def differing(self) -> int:
        """Keys proved to differ."""
        return self.missing + self.ghost + self.different

    def add(self, key: bytes, drift: Drift) -> None:
        """Count a proved difference, and keep it if there are not many."""
        if self.ttl is not None and drift.kind == "missing":
            self.expired += 1
            return
        if len(self.found) < REPAIRABLE:
            self.found[key] = "foreign" if drift.fields and drift.fields[0].field == THE_KEY else drift.kind
        setattr(self, drift.kind, getattr(self, drift.kind) + 1)
        if len(self.drifts) < SHOWN_DRIFTS:
            self.drifts.append(drift)

    def add_undecided(self, key: str, reason: str) -> None:
        """Count a key that could not be judged."""
        self.undecided += 1
        if reason not in self.reasons:
            self.reasons.append(reason)
        if len(self.undecided_keys) < SHOWN_DRIFTS:
            self.undecided_keys.append(key)

    def add_foreign(self, key: str) -> None:
        """Count a key that no row can have."""
        self.foreign += 1
        if len(self.foreign_keys) < SHOWN_DRIFTS:
            self.foreign_keys.append(key)


@dataclass(frozen=True, slots=True)
class NotCompared:
    """A captured table that is not mirrored by any sink, and why."""

    source: str
    table: str
    reason: str


@dataclass(slots=True)
class Report:
    """The result of a comparison. ``seconds`` is how long it took."""

    tables: list[TableReport] = field(default_factory=list)
    not_compared: list[NotCompared] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)

    @property
    def fields(self) -> int:
        return sum(table.fields for table in self.tables)

    @property
    def differing(self) -> int:
        return sum(table.differing for table in self.tables)

    @property
    def undecided(self) -> int:
        return sum(table.undecided for table in self.tables)

    @property
    def equal(self) -> bool:
        """Whether every row was compared and none differs."""
        return self.differing == 0 and self.undecided == 0

    @property
    def exit_status(self) -> int:
        """0 equal, 1 differences, 3 keys that could not be judged."""
        if self.differing:
            return 1
        return 3 if self.undecided else 0

    def as_json(self, repaired: list[dict[str, Any]] | None = None) -> str:
        """All of it as one JSON object; with what was repaired before, if that was asked for."""
        value: dict[str, Any] = {"equal": self.equal, "rows": self.rows, "fields": self.fields}
        value |= {"differing": self.differing, "undecided": self.undecided, "seconds": round(self.seconds, 3)}
        value["tables"] = [asdict(replace(table, found={})) for table in self.tables]
        for told in value["tables"]:
            del told["found"]
        value["not_compared"] = [asdict(table) for table in self.not_compared]
        if repaired is not None:
            value["repaired"] = repaired
        return json.dumps(value, indent=2, ensure_ascii=False)

    def as_text(self) -> str:
        """For people: a line a table, then what is wrong, then the sum."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        for table in self.tables:
            state = "equal" if not table.differing and not table.undecided else "DIFFERS" if table.differing else "open"
            yield f"{table.table} → {table.sink}: {state}, {table.rows} rows, {table.fields} fields, {table.keys} keys"
            for drift in table.drifts:
                yield f"  {drift.kind}: {drift.key}"
                for difference in drift.fields:
                    yield f"    {difference.field}: {_shown(difference.expected)} in Postgres, " + (
                        f"{_shown(difference.found)} in Redis"
                    )
                if drift.more_fields:
                    yield f"    and {drift.more_fields} more fields"
            if table.differing > len(table.drifts):
                yield f"  and {table.differing - len(table.drifts)} more keys"
            if table.undecided:
                yield f"  {table.undecided} keys could not be judged ({', '.join(table.undecided_keys[:3])}, …):"
                yield from (f"    {reason}" for reason in table.reasons)
            if table.expired:
                yield f"  {table.expired} rows have no hash, which may have expired ({table.ttl} s to live)"
            if table.foreign:
                yield f"  {table.foreign} keys look like this table's, but no row can have them: " + (
                    ", ".join(table.foreign_keys[:3])
                )
        for skipped in self.not_compared:
            yield f"{skipped.table}: not mirrored: {skipped.reason}"
        result = "equal"
        if self.differing:
            kinds = ("missing", "ghost", "different")
            counts = {kind: sum(getattr(table, kind) for table in self.tables) for kind in kinds}
            result = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
        if self.undecided:
            result = f"{result}; {self.undecided} could not be judged" if self.differing else "not proved equal"
        yield (
            f"{result}: {len(self.tables)} tables, {self.rows} rows, {self.fields} fields compared "
            f"in {self.seconds:.1f} s"
        )


def _shown(value: str | None) -> str:
    return "absent" if value is None else repr(value)
