"""``cdc verify``: is every row of Postgres in Redis, field by field, and nothing else?

While the application writes, Redis is always a little behind, and a comparison that takes no account of that finds
differences everywhere. This one reports none that is not there. A key is compared at one look; one that differs is a
*suspect*, looked at again while the usual lag passes, and cleared if any hash seen since equals any version of the row
seen since: Redis had a row that was right within the comparison. What is left goes through rounds:

1. read the row (in a snapshot S1) and its version, ``xmin``;
2. commit a logical message; L is its LSN. Whatever S1 saw had its commit record in the WAL before L;
3. wait until the slot's confirmed position passes L: all changes before L are durable in Kafka (EXACTNESS.md H3); then
   read where the topic ends and wait until the offsets that the sink stores with its data have passed that: all changes
   before L are in Redis;
4. read the hash. It is the row as it was after some commit C of that key, not before the last one S1 saw (by 3), and
   C's record was in the WAL by now, or the stream could not have carried it;
5. note the transactions that run now, and wait until none of them can be C. A commit may be streamed before other
   sessions see it: they do microseconds later, or once a synchronous standby has answered;
6. read the row again, in a snapshot S3, which sees C.

If the row is there in S1 and S3 with the same version, no commit has changed it between the two (each writes a new
xmin), so C left it as S3 shows it, and a hash that is not that is proved to differ. If it has changed, nothing is
proved, the hash is compared with both versions, and there is another round.

If the row is absent in S1 and S3, it may have been inserted and deleted between, and nothing in the table tells. A
ghost therefore needs three such rounds, each with a new L, in which the very same hash is there whenever it is looked
at and the row never is. That is no proof, but the same content would have to be inserted and deleted three times, each
time between two looks.

A key that changes faster than it can be compared, or whose judgement needs what is not there (a source that does not
run, a sink that is behind), is *undecided*: counted, with the reason; the exit status is 3, or 1 beside differences.

Reads are chunks of bounded size, by key range and by SCAN; nothing is written but the logical messages.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Final, Literal

from cdc.config import Config
from cdc.errors import CdcError, ConfigError
from cdc.operate.verify.hashes import Hashes
from cdc.operate.verify.kafka import TopicEnds
from cdc.operate.verify.pairs import Pair, find_pairs, open_redis, sink_offsets
from cdc.operate.verify.progress import BridgeProgress
from cdc.operate.verify.repair import Repair, repair, retell
from cdc.operate.verify.report import NotCompared, Report, TableReport
from cdc.operate.verify.rows import TableRows
from cdc.operate.verify.table import TableComparison
from cdc.postgres.connection import connect

__all__ = ["NotCompared", "Report", "TableReport", "compare", "run_verify", "wait_until_equal"]

PATIENCE_S: Final = 60.0
"""How long the judgement of suspects may take, for each table."""
COULD_NOT: Final = 3
"""Exit status when a part is away, or keys could not be judged."""
_EQUAL_POLL_S: Final = 0.2


def compare(
    config: Config,
    connector: str | None = None,
    table: str | None = None,
    *,
    patience: float = PATIENCE_S,
) -> Report:
    """Compare while the application writes: every table that a source captures and a sink mirrors.

    ``connector`` leaves only one sink, ``table`` one table. ``patience`` in seconds. Raises `ConfigError` when there is
    nothing to compare, `RetriableError` when a part is away, `FatalError` when one refuses.
    """
    return _compare(config, connector, table, patience, None)


def wait_until_equal(config: Config, timeout: float, connector: str | None = None, table: str | None = None) -> Report:
    """For a database at rest: compare again and again until all is equal, at most ``timeout`` seconds.

    Strict: nobody is asked how far the bridge has come, and in the report that is returned whatever differs at one
    look is a difference. Raises as `compare`.
    """
    begun = time.monotonic()
    while True:
        report = _compare(config, connector, table, None, 0)
        waited = time.monotonic() - begun
        if report.equal or waited > timeout:
            break
        time.sleep(_EQUAL_POLL_S)
    if not report.equal:
        report = _compare(config, connector, table, None, None)
    return report


def run_verify(
    config: Config,
    *,
    connector: str | None = None,
    table: str | None = None,
    output: Literal["text", "json"] = "text",
    echo: Callable[[str], None],
    mend: bool = False,
) -> int:
    """``cdc verify``: compare, tell the result to ``echo``; the exit status.

    With ``mend``, what differs is repaired, and all is compared and told again: the status is that of the end.

    0 equal, 1 differences, 3 a part is away or keys could not be judged. `ConfigError` is for the caller: 2.
    """
    repaired: list[Repair] = []
    try:
        report = compare(config, connector, table)
        if mend and report.differing:
            if output == "text":
                echo(report.as_text())
            repaired = repair(config, report.tables)
            report = compare(config, connector, table)
            if report.differing:
                repaired += retell(config, report.tables, PATIENCE_S)
                report = compare(config, connector, table)
    except ConfigError:
        raise
    except CdcError as error:
        echo(config.secrets.redact(f"could not compare: {error}"))
        return COULD_NOT
    if output == "json":
        echo(report.as_json([one.as_json() for one in repaired] if mend else None))
    else:
        for one in repaired:
            echo(f"repaired: {one.as_text()}")
        echo(report.as_text())
    return report.exit_status


def _compare(
    config: Config, connector: str | None, table: str | None, patience: float | None, limit: int | None
) -> Report:
    begun = time.monotonic()
    found = find_pairs(config, connector, table)
    report = Report(not_compared=found.not_compared)
    for pair in found.pairs:
        told = TableReport(pair.sink.name, pair.source.name, pair.table.full_name, pair.topic, ttl=pair.sink.redis_ttl)
        report.tables.append(told)
        _compare_pair(pair, told, patience, limit)
        if limit is not None and report.differing > limit:
            break
    report.seconds = time.monotonic() - begun
    return report


def _compare_pair(pair: Pair, told: TableReport, patience: float | None, limit: int | None) -> None:
    with ExitStack() as open_parts:
        connection = open_parts.enter_context(closing(connect(pair.source.conninfo(), "cdc/verify")))
        # A mark must be flushed, for the walsender to read it, but wait for no standby.
        connection.execute("set synchronous_commit = local")
        client = open_parts.enter_context(closing(open_redis(pair.sink)))
        rows = TableRows(connection, pair.source, pair.table.oid)
        progress = None
        if patience is not None:
            ends = open_parts.enter_context(closing(TopicEnds(pair.worker, pair.topic)))
            offset = sink_offsets(client, pair.sink, pair.topic)
            progress = BridgeProgress(connection, pair.source.slot, pair.topic, ends, offset)
        TableComparison(rows, pair.space(rows), Hashes(client), told, progress, patience or 0.0).run(limit)
