"""What bounds us, measured in the same run: Postgres's own receiver, its COPY, and Redis's own benchmark."""

from __future__ import annotations

import csv
import shutil
import subprocess
import time
from dataclasses import dataclass
from typing import Final

from bench.machine import cpu_seconds
from bench.servers import Servers
from cdc.local import MissingPart

__all__ = ["Receiver", "copy_out", "hset_rate", "receive"]

_COLUMNS: Final = (
    ("id", 7),
    ("string_field", 14),
    ("numeric_field", 6),
    ("timestamp_field", 27),
    ("json_field", 30),
    ("extra_col_0", 0),
    ("extra_col_1", 0),
    ("inserted_at", 26),
    ("updated_at", 26),
)
"""Fields of the hashes that the measured rows become, and how long their values are; 0 is half of the padding."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """How long ``pg_recvlogical`` took, and the CPU seconds of the walsender that served it."""

    seconds: float
    walsender_cpu: float


def receive(servers: Servers, slot: str, publication: str, end_lsn: str) -> Receiver:
    """``pg_recvlogical`` from a slot to /dev/null, until it has passed ``end_lsn``."""
    arguments = ["--slot", slot, "--start", "--no-loop", "--file", "/dev/null", "--endpos", end_lsn]
    for option in ("proto_version=1", f"publication_names={publication}", "messages=true"):
        arguments += ["--option", option]
    program = str(servers.postgres.bin("pg_recvlogical"))
    database = servers.environment()["PGDATABASE"]
    begun = time.monotonic()
    used = 0.0
    with (
        servers.connect() as connection,
        subprocess.Popen([program, "--dbname", database, *arguments], env=servers.environment()) as receiver,
    ):
        pid = None
        while receiver.poll() is None:
            if pid is None:
                row = connection.execute(
                    "select active_pid from pg_replication_slots where slot_name = %s", [slot]
                ).fetchone()
                pid = row[0] if row else None
            else:
                try:
                    used = cpu_seconds(pid)
                except FileNotFoundError:  # it ends with its receiver
                    break
            time.sleep(0.01)
    if receiver.returncode != 0:
        raise subprocess.CalledProcessError(receiver.returncode, receiver.args)
    return Receiver(time.monotonic() - begun, used)


def copy_out(servers: Servers, table: str) -> float:
    """Seconds that ``COPY … TO STDOUT`` to /dev/null takes."""
    begun = time.monotonic()
    servers.run("psql", "-qXc", f"copy {table} to stdout", stdout=subprocess.DEVNULL)
    return time.monotonic() - begun


def hset_rate(servers: Servers, rows: int, size: int, *, clients: int, pipeline: int) -> float:
    """HSETs a second by ``redis-benchmark``: up to ``rows`` hashes of the fields that rows of ``size`` bytes have."""
    padding = max(size - sum(length for _, length in _COLUMNS), 2)
    command = ["hset", "bench:__rand_int__"]
    for name, length in _COLUMNS:
        command += [name, "x" * (length or padding // 2)]
    return _redis_benchmark(
        servers, ["-n", str(rows), "-r", str(rows), "-c", str(clients), "-P", str(pipeline), *command]
    )


def _redis_benchmark(servers: Servers, arguments: list[str]) -> float:
    """Requests a second as ``redis-benchmark`` counts them."""
    program = shutil.which("redis-benchmark")
    if program is None:
        raise MissingPart("redis-benchmark", "apt-get install redis-tools", "no redis-benchmark on the PATH")
    told = subprocess.run(
        [program, "-h", servers.redis.host, "-p", str(servers.redis.port), "--csv", *arguments],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    row = next(csv.DictReader(told.splitlines()))
    return float(row["rps"])
