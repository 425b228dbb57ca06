"""pgbench on a mirrored database (W7): seconds after its end until Redis is equal.

Accounts, branches and tellers are mirrored. ``pgbench_history`` has no primary key: the source refuses it by name as
long as it has no REPLICA IDENTITY FULL. Two runs show the two ways on: it is left out of ``table.include.list``; or it
gets REPLICA IDENTITY FULL, and is streamed to a topic of its own with null keys and ``cleanup.policy=delete``, which no
sink mirrors. ``--rows`` is of accounts, 100 000 for each unit of pgbench's scale.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from typing import Final

from bench.bridge import BridgeFailed
from bench.machine import Meter, peak_rss_mib
from bench.mirrored_pgbench import ACCOUNTS, HISTORY, SINK, MirroredPgbench, initialize
from bench.result import Figures, Result, main, parser
from bench.servers import Servers

REFUSAL: Final = re.compile(rf"public\.{HISTORY} has no primary key")


def run(mirrored: MirroredPgbench, seconds: int) -> tuple[Figures, int]:
    """One run of pgbench; its figures, and how many rows were proved equal."""
    bridge, servers = mirrored.bridge, mirrored.servers
    begun = time.monotonic()
    bridge.wait_streaming(mirrored.source)
    mirrored.settle()
    ready = time.monotonic() - begun
    tasks = {"source task": bridge.task_pid(mirrored.source), "sink task": bridge.task_pid(SINK)}
    meter = Meter({**tasks, "broker": servers.kafka.pid or 0, "redis": servers.redis.pid or 0})
    told = mirrored.start(seconds).communicate()[0]
    after = mirrored.settle()
    used, others = meter.stop()
    done = re.search(r"number of transactions actually processed: (\d+)", told)
    rate = re.search(r"tps = ([\d.]+)", told)
    if done is None or rate is None:
        raise BridgeFailed(f"pgbench did not end well:\n{told}")
    rows = mirrored.prove()
    return {
        "first rows until equal: s": ready,
        "pgbench: transactions/s": float(rate[1]),
        "mirrored row changes/s": 3 * float(rate[1]),
        "end of pgbench until equal: s": after,
        **{f"{name}: CPU s per million changes": cpu / (3 * int(done[1])) * 1e6 for name, cpu in used.items()},
        **{f"{name}: peak RSS MiB": peak_rss_mib(pid) for name, pid in tasks.items()},
        "others (Postgres and pgbench among them): cores": others,
    }, rows


def refused(mirrored: MirroredPgbench) -> str:
    """Start with ``pgbench_history`` as it is: the words in which the bridge refuses it."""
    with mirrored:
        status = mirrored.bridge.wait_ended()
        told = mirrored.bridge.output
    if status != 2 or not REFUSAL.search(told):
        raise BridgeFailed(f"the bridge was expected to refuse {HISTORY}; it ended with {status} and said: {told}")
    return told[told.index(f"public.{HISTORY}") :].strip()


def measure(servers: Servers, arguments: argparse.Namespace) -> Result:
    """Refused by name, then left out, then with REPLICA IDENTITY FULL."""
    scale = max(arguments.rows // ACCOUNTS, 1)
    initialize(servers, scale)
    settings = {
        "workload": f"W7: pgbench -i -s {scale}, pgbench -c 4 -T {arguments.seconds}",
        "partitions": arguments.partitions,
        "runs": f"1. {HISTORY} left out, 2. streamed with REPLICA IDENTITY FULL",
    }
    result = Result(settings)
    words = refused(MirroredPgbench(servers, "refused", arguments.partitions, history=True))
    result.notes.append(f"as it is, the source refuses {HISTORY}: {words}")
    with MirroredPgbench(servers, "out", arguments.partitions, worker=dict(arguments.worker)) as mirrored:
        figures, rows = run(mirrored, arguments.seconds)
        result.runs.append(figures)
        result.equal = f"{rows} rows of accounts, branches and tellers = hashes"
    with servers.connect() as connection, servers.redis.client() as client:
        connection.execute(f"alter table {HISTORY} replica identity full")
        client.flushall()
    with MirroredPgbench(
        servers, "full", arguments.partitions, history=True, worker=dict(arguments.worker)
    ) as mirrored:
        figures, rows = run(mirrored, arguments.seconds)
        result.runs.append(figures)
        history = mirrored.prove_history()
        result.equal += f", in both runs; {history} rows of {HISTORY} = records without keys, cleanup.policy=delete"
    return result


if __name__ == "__main__":
    options = parser(__doc__, rows=10 * ACCOUNTS)
    options.add_argument("--seconds", type=int, default=60, help="how long pgbench runs (default 60)")
    sys.exit(main(options.parse_args(), measure))
