"""Source drain (W1): a backlog of mixed operations, Postgres to Kafka, beside pg_recvlogical over the same WAL.

The backlog is made while no source runs; then each run drains it with a source and a slot of its own, right before or
after ``pg_recvlogical`` reads it from another slot to /dev/null. Times are LogAppendTime, from the first record to
the last.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Final

from bench.bridge import Bridge, source
from bench.ceilings import Receiver, receive
from bench.machine import Meter, peak_rss_mib
from bench.result import Figures, Result, delivery, main, parser
from bench.servers import DATABASE, Servers
from bench.topics import end_offsets, prove_topic, read_topic
from bench.workload import TABLE, Generated, Workload

Worker = Sequence[tuple[str, str]]
DRAIN_SECONDS: Final = 900.0


def drain(
    servers: Servers, number: int, generated: Generated, since: dict[int, int], worker: Worker
) -> tuple[dict[str, float], int]:
    """One run: the source drains its slot. The figures, and how many rows the topic was proved to hold."""
    name = f"w1_{number}"
    topic = f"{name}.public.{TABLE}"
    with _bridge(servers, number, worker) as bridge, servers.connect() as connection:

        def walsender() -> int:
            query = "select coalesce(max(active_pid), 0) from pg_replication_slots where slot_name = %s"
            row = connection.execute(query, [f"cdc_{name}"]).fetchone()
            return int(row[0]) if row else 0

        bridge.wait_for("the slot is in use", lambda: walsender() > 0 and bool(bridge.task(name).get("pid")))
        task = bridge.task_pid(name)
        processes = {"source task": task, "walsender": walsender(), "broker": servers.kafka.pid or 0}
        meter = Meter(processes)
        bridge.wait_for(
            "all changes are read", lambda: bridge.metrics(name).get("changes", 0) >= generated.changes, DRAIN_SECONDS
        )
        used, others = meter.stop()
        bridge.wait_for(
            "the slot has confirmed them",
            lambda: _confirmed(servers, f"cdc_{name}", generated.lsn),
        )
        peak = peak_rss_mib(task)
        reading = read_topic(servers, topic, since)
        rows = prove_topic(servers, reading, bridge.registry, f"public.{TABLE}")
    seconds = reading.seconds
    millions = generated.changes / 1e6
    share = (reading.records - reading.first_records) / reading.records
    figures = {
        "source: row changes/s": generated.changes * share / seconds,
        "source: records/s": (reading.records - reading.first_records) / seconds,
        "source: MB/s of keys and values": reading.bytes / seconds / 1e6,
        **{f"{process}: CPU s per million changes": cpu / millions for process, cpu in used.items()},
        "source task: peak RSS MiB": peak,
        "others: cores kept busy meanwhile": others,
    }
    return figures, rows


def _bridge(servers: Servers, number: int, worker: Worker) -> Bridge:
    name = f"w1_{number}"
    properties = source(servers.postgres, DATABASE, [f"public.{TABLE}"], topic_prefix=name)
    return Bridge(servers.kafka, {name: properties}, password=servers.postgres.password, worker=dict(worker))


def _confirmed(servers: Servers, slot: str, lsn: str) -> bool:
    with servers.connect() as connection:
        query = "select confirmed_flush_lsn >= %s::pg_lsn from pg_replication_slots where slot_name = %s"
        row = connection.execute(query, [lsn, slot]).fetchone()
    return bool(row and row[0])


def backlog(
    servers: Servers, arguments: argparse.Namespace, count: int, ceilings: int = 0
) -> tuple[Generated, list[dict[int, int]], float]:
    """A backlog that ``count`` runs drain, each from a slot of its own, and ``ceilings`` readers beside them.

    What was made, where each run's topic begins, and the seconds that it took.
    """
    window = max(3_000, arguments.rows // 10)
    with servers.connect() as connection:
        workload = Workload(connection, arguments.size)
        workload.create()
        workload.fill(window)
        for number in range(count):
            name = f"w1_{number}"
            servers.create_topic(f"{name}.public.{TABLE}", arguments.partitions)
            with _bridge(servers, number, arguments.worker) as bridge:
                bridge.wait_streaming(name)
        for number in range(ceilings):
            connection.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [f"ceiling_{number}"])
        since = [end_offsets(servers, f"w1_{n}.public.{TABLE}") for n in range(count)]
        begun = time.monotonic()
        generated = workload.generate(arguments.rows)
        return generated, since, time.monotonic() - begun


def measure(servers: Servers, arguments: argparse.Namespace) -> Result:
    """All runs over one backlog."""
    generated, since, made = backlog(servers, arguments, arguments.runs, arguments.runs)
    settings = {
        "workload": f"W1: {generated.changes} changes, a third each, 300 a transaction, {arguments.size} B rows",
        "partitions": arguments.partitions,
        "delivery": delivery(arguments.worker),
        "runs": arguments.runs,
    }
    result = Result(settings, notes=[f"the backlog was made in {made:.1f} s by one session"])
    for number in range(arguments.runs):
        ceiling: Receiver | None = None
        if number % 2 == 0:
            ceiling = _receive(servers, number, generated)
        figures, rows = drain(servers, number, generated, since[number], arguments.worker)
        if ceiling is None:
            ceiling = _receive(servers, number, generated)
        result.runs.append(_beside(figures, ceiling, generated))
        result.equal = f"topic folded by key = {rows} rows of the table, in each run"
    return result


def _receive(servers: Servers, number: int, generated: Generated) -> Receiver:
    return receive(servers, f"ceiling_{number}", f"cdc_w1_{number}", generated.lsn)


def _beside(figures: dict[str, float], ceiling: Receiver, generated: Generated) -> Figures:
    rate = generated.changes / ceiling.seconds
    return {
        **figures,
        "pg_recvlogical: row changes/s": rate,
        "pg_recvlogical: its walsender's CPU s per million": ceiling.walsender_cpu / generated.changes * 1e6,
        "source / pg_recvlogical": figures["source: row changes/s"] / rate,
    }


if __name__ == "__main__":
    options = parser(__doc__, rows=300_000, runs=3)
    options.add_argument("--size", type=int, default=200, help="bytes of a row (default 200; W1 has 1600 too)")
    sys.exit(main(options.parse_args(), measure))
