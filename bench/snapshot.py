"""Snapshot (W5): the rows that are there already, Postgres to Kafka, beside ``COPY … TO STDOUT`` of the same table.

Times are LogAppendTime, from the first record to the last.
"""

from __future__ import annotations

import argparse
import sys

from bench.bridge import Bridge, source
from bench.ceilings import copy_out
from bench.machine import Meter, peak_rss_mib
from bench.result import Figures, Result, main, parser
from bench.servers import DATABASE, Servers
from bench.topics import prove_topic, read_topic
from bench.workload import TABLE, Workload


def read(servers: Servers, number: int, rows: int, worker: dict[str, str]) -> tuple[dict[str, float], int]:
    """One run, with a source of its own. The figures, and how many rows the topic was proved to hold."""
    name = f"w5_{number}"
    topic = f"{name}.public.{TABLE}"
    properties = source(servers.postgres, DATABASE, [f"public.{TABLE}"], topic_prefix=name)
    with Bridge(servers.kafka, {name: properties}, password=servers.postgres.password, worker=worker) as bridge:
        bridge.wait_running(name)
        task = bridge.task_pid(name)
        meter = Meter({"source task": task, "broker": servers.kafka.pid or 0})
        bridge.wait_streaming(name)
        used, others = meter.stop()
        peak = peak_rss_mib(task)
        reading = read_topic(servers, topic)
        proved = prove_topic(servers, reading, bridge.registry, f"public.{TABLE}")
    told = reading.records - reading.first_records
    return {
        "source: rows/s": told / reading.seconds,
        "source: MB/s of keys and values": reading.bytes / reading.seconds / 1e6,
        **{f"{process}: CPU s per million rows": cpu / rows * 1e6 for process, cpu in used.items()},
        "source task: peak RSS MiB": peak,
        "others: cores kept busy meanwhile": others,
    }, proved


def measure(servers: Servers, arguments: argparse.Namespace) -> Result:
    """All runs over one table, each beside its own COPY."""
    with servers.connect() as connection:
        workload = Workload(connection, arguments.size)
        workload.create()
        workload.fill(arguments.rows)
        connection.execute(f"vacuum analyze {TABLE}")
    settings = {
        "workload": f"W5: {arguments.rows} rows of {arguments.size} B",
        "partitions": arguments.partitions,
        "delivery": "exactly once (Kafka transactions)",
        "runs": arguments.runs,
    }
    result = Result(settings)
    copy_out(servers, TABLE)  # what is in the page cache for one shall be there for all
    for number in range(arguments.runs):
        servers.create_topic(f"w5_{number}.public.{TABLE}", arguments.partitions)
        ceiling = copy_out(servers, TABLE) if number % 2 == 0 else 0.0
        figures, proved = read(servers, number, arguments.rows, dict(arguments.worker))
        ceiling = ceiling or copy_out(servers, TABLE)
        result.runs.append(_beside(figures, arguments.rows / ceiling))
        result.equal = f"topic folded by key = {proved} rows of the table, in each run"
    return result


def _beside(figures: dict[str, float], ceiling: float) -> Figures:
    return {**figures, "COPY TO STDOUT: rows/s": ceiling, "source / COPY": figures["source: rows/s"] / ceiling}


if __name__ == "__main__":
    options = parser(__doc__, rows=500_000, runs=3)
    options.add_argument("--size", type=int, default=230, help="bytes of a row (default 230)")
    sys.exit(main(options.parse_args(), measure))
