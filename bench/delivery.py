"""What exactly-once delivery costs: the source's drain rate and the lag of single commits, with Kafka transactions and
with an idempotent producer alone (``exactly.once.source.support``).

Both drain the same backlog, in turns, each from a slot of its own; then both stream single-row commits, in turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import Final

from bench.latency import run as stream
from bench.latency import table_filled, w3_bridge
from bench.mirror import prove_mirror, wait_applied
from bench.result import Figures, Result, main, parser
from bench.servers import Servers
from bench.source import backlog, drain

SUPPORT: Final = "exactly.once.source.support"
DELIVERIES: Final = {"exactly once": "enabled", "at least once": "disabled"}
RATE: Final = 100
WARM_UP: Final = 300


def drained(servers: Servers, arguments: argparse.Namespace) -> tuple[dict[str, list[float]], str]:
    """Drain rates of each delivery, and what was proved."""
    rates: dict[str, list[float]] = {name: [] for name in DELIVERIES}
    count = arguments.runs * len(DELIVERIES)
    generated, since, _ = backlog(servers, arguments, count)
    rows = 0
    for number in range(count):
        name = list(DELIVERIES)[number % 2 if number // 2 % 2 == 0 else 1 - number % 2]
        worker = [*arguments.worker, (SUPPORT, DELIVERIES[name])]
        figures, rows = drain(servers, number, generated, since[number], worker)
        rates[name].append(figures["source: row changes/s"])
    return rates, f"each topic folded by key = {rows} rows of the table"


def lagged(servers: Servers, arguments: argparse.Namespace) -> tuple[dict[str, list[Figures]], str]:
    """Lag figures of each delivery, and what was proved."""
    lags: dict[str, list[Figures]] = {name: [] for name in DELIVERIES}
    table_filled(servers)
    rows = 0
    for number in range(arguments.runs):
        for name in sorted(DELIVERIES, reverse=bool(number % 2)):
            worker = {**dict(arguments.worker), SUPPORT: DELIVERIES[name]}
            prefix = f"w3_{'e' if DELIVERIES[name] == 'enabled' else 'a'}{number}"
            with w3_bridge(servers, prefix, arguments.partitions, worker) as bridge, servers.redis.client() as client:
                topic, sink = f"{prefix}.public.probe", f"{prefix}-sink"
                wait_applied(servers, client, sink, [topic], 60.0)
                lags[name].append(stream(servers, RATE, arguments.commits, WARM_UP, topic))
                wait_applied(servers, client, sink, [topic], 60.0)
                rows = prove_mirror(bridge)
                client.flushall()
    return lags, f"{rows} rows of the table = hashes after each run of commits"


def measure(servers: Servers, arguments: argparse.Namespace) -> Result:
    """The drains, then the streams."""
    result = Result(
        {
            "workload": f"W1 with {arguments.rows} changes; {arguments.commits} single-row commits at {RATE}/s",
            "partitions": arguments.partitions,
            "runs": f"{arguments.runs} of each delivery, in turns",
        }
    )
    rates, equal = drained(servers, arguments)
    lags, also = lagged(servers, arguments)
    result.equal = f"{equal}; {also}"
    for number in range(arguments.runs):
        figures: dict[str, float] = {}
        for name in DELIVERIES:
            figures[f"{name}: row changes/s"] = rates[name][number]
            for what in ("commit to Redis: p50 ms", "commit to Redis: p99 ms", "commit to a Kafka consumer: p50 ms"):
                figures[f"{name}, {what}"] = lags[name][number][what]
        result.runs.append(figures)
    once, least = (statistics.median(rates[name]) for name in DELIVERIES)
    half = [statistics.median(lag["commit to Redis: p50 ms"] for lag in lags[name]) for name in DELIVERIES]
    result.notes.append(
        f"exactly once costs {100 * (1 - once / least):.1f} % of the drain rate and {half[0] - half[1]:.1f} ms of p50"
    )
    return result


if __name__ == "__main__":
    options = parser(__doc__, rows=150_000, runs=3)
    options.add_argument("--size", type=int, default=200, help="bytes of a row (default 200)")
    options.add_argument("--commits", type=int, default=1_000, help="commits that count in each run (default 1000)")
    sys.exit(main(options.parse_args(), measure))
