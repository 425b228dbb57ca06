"""One transaction of millions of rows (W4), end to end: memory must stay flat.

Exit status 1 when a task ever had more than 256 MiB resident, or when the ends differ.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from typing import Final

from bench.bridge import Bridge, redis_sink, source
from bench.machine import Meter, peak_rss_mib
from bench.mirror import prove_mirror, wait_applied, wait_field
from bench.result import Result, main, parser
from bench.servers import DATABASE, Servers

BOUND_MIB: Final = 256.0
TABLE: Final = "giant"
TOPIC: Final = f"w4.public.{TABLE}"
_CREATE: Final = f"create table {TABLE} (id bigint primary key, name text not null, created_on timestamptz not null)"
_INSERT: Final = f"insert into {TABLE} select i, 'user ' || i, clock_timestamp() from generate_series(1, %s) i"


@dataclass(frozen=True, slots=True)
class Passed:
    """What one transaction took. Seconds count from its commit; memory is each task's peak in MiB."""

    rows: int
    insert_seconds: float
    seconds: float
    peaks: dict[str, float]
    cpu: dict[str, float]
    others: float

    @property
    def over(self) -> str:
        """The tasks that had more than the bound, in words; empty if none."""
        high = {name: peak for name, peak in self.peaks.items() if peak >= BOUND_MIB}
        return ", ".join(f"the {name} had {peak:.0f} MiB, bound {BOUND_MIB:.0f}" for name, peak in high.items())


def transfer(servers: Servers, rows: int, partitions: int, worker: dict[str, str] | None = None) -> Passed:
    """Send one transaction through a bridge that is streaming, and prove all of it in Redis. Raises `NotEqual`."""
    servers.create_topic(TOPIC, partitions)
    connectors = {
        "w4": source(servers.postgres, DATABASE, [f"public.{TABLE}"], topic_prefix="w4"),
        "w4-sink": redis_sink(servers.redis, [TOPIC]),
    }
    with servers.connect() as connection, servers.redis.client() as client:
        connection.execute(_CREATE)
        with Bridge(servers.kafka, connectors, password=servers.postgres.password, worker=worker) as bridge:
            bridge.wait_streaming("w4")
            bridge.wait_running("w4-sink")
            begun = time.monotonic()
            connection.execute(_INSERT, [rows])
            committed = time.monotonic()
            pids = {"source task": bridge.task_pid("w4"), "sink task": bridge.task_pid("w4-sink")}
            meter = Meter({**pids, "broker": servers.kafka.pid or 0, "redis": servers.redis.pid or 0})
            connection.execute(f"insert into {TABLE} values (0, 'behind it', now())")
            wait_field(bridge, client, f"{TABLE}:0", "name", "behind it")
            wait_applied(servers, client, "w4-sink", [TOPIC], 900.0)
            seconds = time.monotonic() - committed
            used, others = meter.stop()
            same = {"source task": bridge.task_pid("w4"), "sink task": bridge.task_pid("w4-sink")}
            peaks = {name: peak_rss_mib(pid) for name, pid in same.items()}
            proved = prove_mirror(bridge)
            if same != pids:
                raise RuntimeError(f"a task was restarted in between: {pids}, then {same}; see {bridge.log}")
    return Passed(proved, committed - begun, seconds, peaks, used, others)


def measure(servers: Servers, arguments: argparse.Namespace) -> Result:
    """One transaction; its cost, and whether the tasks kept within their bound."""
    passed = transfer(servers, arguments.rows, arguments.partitions, dict(arguments.worker))
    figures = {
        "transaction in Postgres: s": passed.insert_seconds,
        "commit to all rows in Redis: s": passed.seconds,
        "end to end: rows/s": arguments.rows / passed.seconds,
        **{f"{name}: peak RSS MiB": peak for name, peak in passed.peaks.items()},
        **{f"{name}: CPU s per million rows": cpu / arguments.rows * 1e6 for name, cpu in passed.cpu.items()},
        "others: cores kept busy meanwhile": passed.others,
    }
    settings = {
        "workload": f"W4: one INSERT … SELECT of {arguments.rows} rows, 3 columns",
        "partitions": arguments.partitions,
    }
    return Result(settings, [figures], equal=f"{passed.rows} rows of the table = hashes", failed=passed.over)


if __name__ == "__main__":
    sys.exit(main(parser(__doc__, rows=2_000_000).parse_args(), measure))
