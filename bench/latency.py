"""Commit → visible in Redis, under a light load of single-row commits (W3 and lighter), with synchronous_commit=on.

One process commits at a fixed rate, another asks Redis for the row that is due (HGET) until it has its new value, a
third consumes the topic (read_committed). All read the same clock. A commit's moment is when COMMIT returned to its
client, so what is visible earlier counts as 0. What the poller sees is late by half its interval on the average, which
is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import sys
from collections.abc import Iterator, Mapping
from typing import Final

from bench.bridge import Bridge, redis_sink, source
from bench.latency_processes import commit_at_rate, consume_rows, poll_rows
from bench.mirror import prove_mirror, wait_applied
from bench.result import Figures, Result, delivery, main, parser
from bench.servers import DATABASE, Servers

TABLE: Final = "probe"
TOPIC: Final = f"w3.public.{TABLE}"
KEYS: Final = 1_000
"""Rows, updated in turn."""
_CREATE: Final = f"""
create table {TABLE} (
    id int primary key, seq bigint not null, name text, email text, balance numeric(12,2), visits int, active boolean,
    profile jsonb, updated_at timestamptz
)
"""
_FILL: Final = f"""
insert into {TABLE} select i, 0, 'Somebody Or Other ' || i, 'somebody.or.other' || i || '@example.com', i * 1.25, i,
    true, jsonb_build_object('id', i, 'tags', jsonb_build_array('a', 'b')), now() from generate_series(0, %s) i
"""


def percentile(values: list[int], share: float) -> float:
    """Of nanoseconds, in ms."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] / 1e6


def figures_of(name: str, late: list[int]) -> Figures:
    """p50, p99 and the longest."""
    return {
        f"{name}: p50 ms": percentile(late, 0.5),
        f"{name}: p99 ms": percentile(late, 0.99),
        f"{name}: max ms": max(late) / 1e6,
    }


def run(servers: Servers, rate: int, count: int, warm_up: int, topic: str = TOPIC) -> Figures:
    """``count`` commits after ``warm_up`` others; the figures are of the former."""
    total = warm_up + count
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        ready = manager.Barrier(3)
        results = manager.dict()
        host, port = servers.redis.host, servers.redis.port
        dsn = servers.postgres.dsn(DATABASE)
        workers = [
            context.Process(target=poll_rows, args=(ready, results, host, port, TABLE, KEYS, total)),
            context.Process(
                target=consume_rows, args=(ready, results, servers.kafka.bootstrap_servers, topic, KEYS, total)
            ),
            context.Process(target=commit_at_rate, args=(ready, results, dsn, TABLE, KEYS, rate, total)),
        ]
        try:
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join(total / rate + 120)
                if worker.exitcode != 0:
                    raise RuntimeError(f"a process of the measurement ended with {worker.exitcode}")
        finally:
            for worker in workers:
                if worker.is_alive():
                    worker.terminate()
                    worker.join()
        commits, seen, consumed = results["commits"], results["seen"], results["consumed"]
        intervals, began = sorted(results["intervals"]), results["began"]
    measured = range(warm_up, total)
    to_redis = [max(seen[i] - commits[i], 0) for i in measured]
    to_kafka = [max(consumed[i] - commits[i], 0) for i in measured]
    return {
        **figures_of("commit to Redis", to_redis),
        **figures_of("commit to a Kafka consumer", to_kafka),
        "COMMIT itself: p50 ms": percentile([commits[i] - began[i] for i in measured], 0.5),
        "poll of Redis: median interval ms": intervals[len(intervals) // 2] / 1e6,
        "poll of Redis: p99 interval ms": intervals[int(len(intervals) * 0.99)] / 1e6,
    }


def table_filled(servers: Servers) -> None:
    """Make the table, with its rows."""
    with servers.connect() as connection:
        connection.execute(_CREATE)
        connection.execute(_FILL, [KEYS - 1])


@contextlib.contextmanager
def w3_bridge(servers: Servers, prefix: str, partitions: int, worker: Mapping[str, str]) -> Iterator[Bridge]:
    """A bridge that mirrors the table, streaming; its topics begin with ``prefix``, its sink is ``<prefix>-sink``."""
    topic = f"{prefix}.public.{TABLE}"
    servers.create_topic(topic, partitions)
    connectors = {
        prefix: source(servers.postgres, DATABASE, [f"public.{TABLE}"], topic_prefix=prefix),
        f"{prefix}-sink": redis_sink(servers.redis, [topic]),
    }
    with Bridge(servers.kafka, connectors, password=servers.postgres.password, worker=worker) as bridge:
        bridge.wait_streaming(prefix)
        bridge.wait_running(f"{prefix}-sink")
        yield bridge


def measure(servers: Servers, arguments: argparse.Namespace) -> Result:
    """All runs over one bridge that is streaming."""
    settings = {
        "workload": f"W3: {arguments.rows} single-row UPDATE commits at {arguments.rate}/s after "
        f"{arguments.warm_up} to warm up, synchronous_commit=on, fsync on",
        "partitions": arguments.partitions,
        "delivery": delivery(arguments.worker),
        "runs": arguments.runs,
    }
    result = Result(settings)
    table_filled(servers)
    with (
        w3_bridge(servers, "w3", arguments.partitions, dict(arguments.worker)) as bridge,
        servers.redis.client() as client,
    ):
        for _ in range(arguments.runs):
            wait_applied(servers, client, "w3-sink", [TOPIC], 60.0)
            result.runs.append(run(servers, arguments.rate, arguments.rows, arguments.warm_up))
        wait_applied(servers, client, "w3-sink", [TOPIC], 60.0)
        rows = prove_mirror(bridge)
        result.equal = f"{rows} rows of the table = hashes, after all runs; each commit was seen in Redis and in Kafka"
    return result


if __name__ == "__main__":
    options = parser(__doc__, rows=2_000, runs=3)
    options.add_argument("--rate", type=int, default=100, help="commits a second (default 100)")
    options.add_argument("--warm-up", type=int, default=300, help="commits before those that count (default 300)")
    sys.exit(main(options.parse_args(), measure))
