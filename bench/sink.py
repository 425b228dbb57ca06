"""Sink drain (W6): a full topic into Redis hashes, beside ``redis-benchmark`` with hashes of the same shape.

The topic is filled by a source: with a snapshot of ``--rows`` rows, so that each record is an HSET, or with
``--mixed`` by W1's inserts, updates and deletes over a tenth as many rows. The rate is from the first hash that is in
Redis to the stored offset at which the topic ends.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import closing
from typing import Any, Final

import redis

from bench.bridge import Bridge, redis_sink, source
from bench.ceilings import hset_rate
from bench.machine import Meter, peak_rss_mib
from bench.mirror import applied, prove_mirror
from bench.result import Result, main, parser
from bench.servers import DATABASE, Servers
from bench.topics import Reading, prove_topic, read_topic
from bench.workload import TABLE, Workload

TOPIC: Final = f"w6.public.{TABLE}"
DRAIN_SECONDS: Final = 900.0
SHAPES: Final = ((1, 16), (1, 64), (50, 16))
"""Clients and pipeline depths of redis-benchmark. The sink has one connection, as the first two have."""


def fill(servers: Servers, arguments: argparse.Namespace) -> Reading:
    """Write the topic, and prove it equal to the table."""
    properties = _source(servers)
    servers.create_topic(TOPIC, arguments.partitions)
    with servers.connect() as connection:
        workload = Workload(connection, arguments.size)
        workload.create()
        workload.fill(max(arguments.rows // 10, 3_000) if arguments.mixed else arguments.rows)
        with Bridge(servers.kafka, {"w6": properties}, password=servers.postgres.password) as bridge:
            bridge.wait_streaming("w6")
            if arguments.mixed:
                made = workload.generate(arguments.rows)
                bridge.wait_for(
                    "the topic is full", lambda: bridge.metrics("w6").get("changes", 0) >= made.changes, DRAIN_SECONDS
                )
            bridge.stop()  # all that was read is written now
            bridge.start()  # for its registry
            bridge.wait_running("w6")
            reading = read_topic(servers, TOPIC)
            prove_topic(servers, reading, bridge.registry, f"public.{TABLE}")
    return reading


def _source(servers: Servers) -> dict[str, Any]:
    return source(servers.postgres, DATABASE, [f"public.{TABLE}"], topic_prefix="w6")


def drain(
    servers: Servers, client: redis.Redis, number: int, reading: Reading, worker: dict[str, str]
) -> tuple[dict[str, float], int]:
    """One run: a new sink empties the topic into an empty Redis."""
    client.flushall()
    client.config_resetstat()
    name = f"w6_sink_{number}"
    sink = redis_sink(servers.redis, [TOPIC])
    with Bridge(servers.kafka, {name: sink}, worker=worker) as bridge:
        bridge.wait_for("the first hash is written", lambda: _written(client) > 0)
        begun, before = time.monotonic(), _written(client)
        already = sum(applied(client, name, TOPIC, list(reading.next)).values())
        task = bridge.task_pid(name)
        processes = {"sink task": task, "redis": servers.redis.pid or 0, "broker": servers.kafka.pid or 0}
        meter = Meter(processes)
        bridge.wait_for(
            "the topic is drained",
            lambda: applied(client, name, TOPIC, list(reading.next)).items() >= reading.next.items(),
            DRAIN_SECONDS,
        )
        seconds = time.monotonic() - begun
        used, others = meter.stop()
        peak = peak_rss_mib(task)
        commands = _written(client) - before
    both = {"w6": _source(servers), name: sink}
    with closing(Bridge(servers.kafka, both, password=servers.postgres.password)) as whole:  # to compare by, not to run
        rows = prove_mirror(whole)
    share = 1 - already / sum(reading.next.values())
    records = reading.records * share
    return {
        "sink: records/s": records / seconds,
        "sink: HSET and DEL/s": commands / seconds,
        **{f"{process}: CPU s per million records": cpu / records * 1e6 for process, cpu in used.items()},
        "sink task: peak RSS MiB": peak,
        "others: cores kept busy meanwhile": others,
    }, rows


def _written(client: redis.Redis) -> int:
    """HSETs and deletions so far. Offsets are stored by SET."""
    stats = client.info("commandstats")
    return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("hset", "del", "unlink"))


def measure(servers: Servers, arguments: argparse.Namespace) -> Result:
    """All runs over one topic, each beside its own redis-benchmark."""
    reading = fill(servers, arguments)
    kind = "mixed operations" if arguments.mixed else "a row each"
    settings = {
        "workload": f"W6: {reading.records} records, {kind}, {arguments.size} B rows, hashes of 9 fields",
        "partitions": arguments.partitions,
        "batches": "MULTI/EXEC with the offset in it, guarded by WATCH",
        "runs": arguments.runs,
    }
    result = Result(settings)
    with servers.redis.client() as client:
        for number in range(arguments.runs):
            client.flushall()
            ceilings = {
                f"redis-benchmark -c {clients} -P {depth}: HSET/s": hset_rate(
                    servers, min(arguments.rows, 300_000), arguments.size, clients=clients, pipeline=depth
                )
                for clients, depth in SHAPES
            }
            figures, rows = drain(servers, client, number, reading, dict(arguments.worker))
            best = max(ceilings.values())
            result.runs.append(
                {**figures, **ceilings, "sink / redis-benchmark's best": figures["sink: records/s"] / best}
            )
            result.equal = f"topic folded by key = {rows} rows of the table = hashes, in each run"
    return result


if __name__ == "__main__":
    options = parser(__doc__, rows=300_000, runs=3)
    options.add_argument("--size", type=int, default=200, help="bytes of a row (default 200)")
    options.add_argument("--mixed", action="store_true", help="W1's operations instead of one record a row")
    sys.exit(main(options.parse_args(), measure))
