"""``cdc verify --repair``: differences that were proved are mended, those and nothing else, through Kafka.

The topic's last record of a differing key is written again, and a key is removed of which the topic tells no row, both
under the guard of a rebuild (`cdc.runtime.rebuild`): what the sink writes meanwhile is neither lost nor set back. Only
keys that were proved to have no row in Postgres are removed. Then all is compared again. What differs still, differs in
the topic: the source has to tell it anew, which a store cannot do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cdc.config import Config
from cdc.errors import CdcError
from cdc.kafka.topics import topics_there
from cdc.operate.registry import with_registry
from cdc.operate.verify.report import TableReport
from cdc.runtime.rebuild import Progress, Rebuild

__all__ = ["Repair", "repair"]


@dataclass(frozen=True, slots=True)
class Repair:
    """What was done about one table and sink; ``refused`` says why nothing was, or why not all."""

    sink: str
    table: str
    topic: str
    written: int = 0
    removed: int = 0
    refused: str = ""

    def as_text(self) -> str:
        """One line."""
        done = f"{self.written} rows written again, {self.removed} ghosts removed"
        return f"{self.table} → {self.sink}: {done}" + (f"; {self.refused}" if self.refused else "")

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def repair(config: Config, tables: Sequence[TableReport]) -> list[Repair]:
    """Mend what was found to differ. A table that cannot be mended is told, and does not keep others from it."""
    return [_repair(config, table) for table in tables if table.found]


def _repair(config: Config, table: TableReport) -> Repair:
    [spec] = [spec for spec in config.connectors if spec.name == table.sink]
    sink: Any = spec.connector
    only = {key: kind == "ghost" for key, kind in table.found.items()}
    try:
        facts = topics_there(spec.worker, lambda name: name == table.topic).get(table.topic)
        if facts is None:
            return Repair(table.sink, table.table, table.topic, refused="the topic is not there")
        with with_registry(config, spec) as worker:
            job = Rebuild(
                sink, worker, table.topic, facts.partitions, told=_away, stopping=_never, topic_id=facts.id, only=only
            )
            counts = job.run().counts
    except CdcError as error:
        return Repair(table.sink, table.table, table.topic, refused=config.secrets.redact(str(error)))
    others = f"{len(counts.foreign)} keys hold something else than a row: remove or rename them"
    refused = others if counts.foreign else ""
    return Repair(table.sink, table.table, table.topic, counts.missing + counts.different, counts.ghosts, refused)


def _away(progress: Progress) -> None:
    """Nobody watches: what is away is told as the reason."""
    if progress.cause:
        raise CdcError(progress.cause)


def _never() -> bool:
    return False
