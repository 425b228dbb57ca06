"""What became of every fault that was injected: a table at the end of the run, and a file of it as JSON.

Processes that test side by side (``-n 2``) each have a ledger with a file of their own; what they have comes into the
run's when they end.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

__all__ = ["BEGUN", "LEDGER", "Ledger", "Row"]

_HEAD: Final = ("fault", "injections", "lost", "duplicated", "regressed", "median s to heal", "worst s")


@dataclass
class Row:
    """One kind of fault. ``heal`` has the seconds from the end of each fault until both ends were seen equal."""

    injections: int = 0
    lost: int = 0
    duplicated: int = 0
    regressed: int = 0
    heal: list[float] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.duplicated or self.regressed)


@dataclass
class Ledger:
    """Rows by fault, the seeds of the rounds that were played to their end, and how many histories those were."""

    rows: dict[str, Row] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=list)
    histories: int = 0
    path: Path | None = None
    earlier: int | None = None
    """The last seed of earlier runs, from which this one goes on."""

    @classmethod
    def from_environment(cls) -> Ledger:
        """Kept in ``FAULTS_REPORT``; with ``FAULTS_RESUME=1`` it goes on from what is there."""
        name = os.environ.get("FAULTS_REPORT")
        path = Path(name) if name else None
        made = cls(path=path)
        if path is not None and os.environ.get("FAULTS_RESUME") == "1" and path.exists():
            made.add(json.loads(path.read_text(encoding="utf-8")))
            made.earlier = max(made.seeds, default=None)
        process = os.environ.get("PYTEST_XDIST_WORKER")
        if process is not None:
            own = None if path is None else path.with_name(f"{path.stem}-{process}{path.suffix}")
            return cls(path=own, earlier=made.earlier)
        return made

    def add(self, told: dict[str, Any]) -> None:
        """Count what another ledger has `told`."""
        for name, other in told["faults"].items():
            row = self.rows.setdefault(name, Row())
            row.injections += other["injections"]
            row.lost += other["lost"]
            row.duplicated += other["duplicated"]
            row.regressed += other["regressed"]
            row.heal += other["heal"]
        self.seeds += told["seeds"]
        self.histories += told["histories"]

    def note(
        self, fault: str, heal: float | None = None, *, lost: int = 0, duplicated: int = 0, regressed: int = 0
    ) -> None:
        """One more injection of a fault, and what came of it."""
        row = self.rows.setdefault(fault, Row())
        row.injections += 1
        row.lost += lost
        row.duplicated += duplicated
        row.regressed += regressed
        if heal is not None:
            row.heal.append(round(heal, 3))
        self.save()

    def played(self, seed: int, histories: int) -> None:
        """A round was played to its end."""
        self.seeds.append(seed)
        self.histories += histories
        self.save()

    @property
    def injections(self) -> int:
        return sum(row.injections for row in self.rows.values())

    @property
    def clean(self) -> bool:
        """Nothing lost, nothing doubled, nothing older."""
        return all(row.clean for row in self.rows.values())

    def told(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "injections": self.injections,
            "histories": self.histories,
            "seeds": self.seeds,
            "faults": {name: vars(row) for name, row in sorted(self.rows.items())},
        }

    def save(self) -> None:
        if self.path is None:
            return
        told = self.told()
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        beside.replace(self.path)

    def lines(self) -> list[str]:
        """The table, for people."""
        cells = [_HEAD]
        for name, row in sorted(self.rows.items()):
            median, worst = (f"{statistics.median(row.heal):.1f}", f"{max(row.heal):.1f}") if row.heal else ("", "")
            counts = (row.injections, row.lost, row.duplicated, row.regressed)
            cells.append((name, *map(str, counts), median, worst))
        total = [sum(getattr(row, what) for row in self.rows.values()) for what in ("lost", "duplicated", "regressed")]
        cells.append(("all", str(self.injections), *map(str, total), "", ""))
        widths = [max(len(line[column]) for line in cells) for column in range(len(_HEAD))]
        told = [
            "  ".join(
                text.ljust(width) if column == 0 else text.rjust(width)
                for column, (text, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in cells
        ]
        first, last = (min(self.seeds), max(self.seeds)) if self.seeds else ("none", "none")
        told.append(f"{self.histories} histories in {len(self.seeds)} rounds, seeds {first} to {last}")
        return told


BEGUN: Final = time.monotonic()
"""When the run began."""
LEDGER: Final = Ledger.from_environment()
"""The run's."""
