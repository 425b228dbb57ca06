"""``cdc verify --repair``: differences that were proved are mended, those and nothing else, through Kafka.

The topic's last record of a differing key is written again, and a key is removed of which the topic tells no row, both
under the guard of a rebuild (`cdc.runtime.rebuild`): what the sink writes meanwhile is neither lost nor set back. Only
keys that were proved to have no row in Postgres are removed. Then all is compared again. What differs still, differs in
the topic: the source is asked to tell those rows anew (`cdc.operate.snapshot`), or the whole table with a sweep where
the topic tells of rows that Postgres does not have. So deletes are written by the source alone, which looks again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any, Final

from cdc.config import Config
from cdc.errors import CdcError, RetriableError
from cdc.kafka.topics import topics_there
from cdc.operate.registry import with_registry
from cdc.operate.snapshot import Order, await_outcome, order_of, render, send_order, succeeded
from cdc.operate.verify.pairs import find_pairs
from cdc.operate.verify.report import TableReport
from cdc.operate.verify.rows import TableRows
from cdc.operate.verify.table import row_key
from cdc.postgres.connection import connect
from cdc.runtime.rebuild import Progress, Rebuild

__all__ = ["Repair", "repair", "retell"]

KEYS_AN_ORDER: Final = 500
"""Keys in the condition of one order to the source."""


@dataclass(frozen=True, slots=True)
class Repair:
    """What was done about one table and sink; ``refused`` says why nothing was, or why not all."""

    sink: str
    source: str
    table: str
    topic: str
    written: int = 0
    removed: int = 0
    told: int = 0
    """Keys that the source was asked for, since the topic had them wrong."""
    refused: str = ""

    def as_text(self) -> str:
        """One line."""
        done = f"{self.written} rows written again, {self.removed} ghosts removed"
        if self.told:
            done = f"{self.told} keys read again by {self.source}, because the topic differed from Postgres"
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
            return _of(table, refused="the topic is not there")
        with with_registry(config, spec) as worker:
            job = Rebuild(
                sink, worker, table.topic, facts.partitions, told=_away, stopping=_never, topic_id=facts.id, only=only
            )
            counts = job.run().counts
    except CdcError as error:
        return _of(table, refused=config.secrets.redact(str(error)))
    others = f"{len(counts.foreign)} keys hold something else than a row: remove or rename them"
    refused = others if counts.foreign else ""
    return _of(table, written=counts.missing + counts.different, removed=counts.ghosts, refused=refused)


def retell(config: Config, tables: Sequence[TableReport], patience: float) -> list[Repair]:
    """Have the source tell again what differs although the topic's last records are in the store.

    Waits up to ``patience`` seconds for each order.
    """
    return [_retell(config, table, patience) for table in tables if _wrong_in_topic(table)]


def _wrong_in_topic(table: TableReport) -> list[bytes]:
    """What differs still, but for keys that hold something else: a sink would stop at their records."""
    return [key for key, kind in table.found.items() if kind != "foreign"]


def _retell(config: Config, table: TableReport, patience: float) -> Repair:
    try:
        for order in _orders(config, table):
            outcome = _await(config, table.source, send_order(config, table.source, order)["id"], patience)
            if not succeeded(outcome):
                return _of(table, refused=render(outcome, "text"))
    except CdcError as error:
        return _of(table, refused=config.secrets.redact(str(error)))
    return _of(table, told=len(_wrong_in_topic(table)))


def _await(config: Config, source: str, identifier: str, patience: float) -> Mapping[str, Any]:
    found = await_outcome(config, source, identifier, patience)
    if found is None:
        raise RetriableError(f"{source} has not done what it was asked for within {patience:.0f} s: does it run?")
    return found


def _orders(config: Config, table: TableReport) -> Iterator[Order]:
    """What the source is asked for: the rows of the keys, or all and a sweep if any key has no row."""
    name = re.escape(table.table)
    if "ghost" in table.found.values():
        yield order_of([name], sweep=True)
        return
    [pair] = [pair for pair in find_pairs(config, table.sink, table.table).pairs if pair.source.name == table.source]
    with closing(connect(pair.source.conninfo(), "cdc/verify")) as connection:
        rows = TableRows(connection, pair.source, pair.table.oid)
        space = pair.space(rows)
        parsed = (space.parse(key) for key in _wrong_in_topic(table))
        keys = [key for found in parsed if found is not None and (key := row_key(rows, found)) is not None]
        for start in range(0, len(keys), KEYS_AN_ORDER):
            yield order_of([name], rows.condition(keys[start : start + KEYS_AN_ORDER]))


def _of(table: TableReport, **done: Any) -> Repair:
    return Repair(table.sink, table.source, table.table, table.topic, **done)


def _away(progress: Progress) -> None:
    """Nobody watches: what is away is told as the reason."""
    if progress.cause:
        raise CdcError(progress.cause)


def _never() -> bool:
    return False
