"""A database of pgbench's and a bridge that mirrors it into Redis."""

from __future__ import annotations

import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]

from bench.bridge import Bridge, redis_sink, source
from bench.mirror import prove_mirror, wait_applied, wait_field
from bench.servers import DATABASE, Servers
from bench.topics import NotEqual, by_schema, read_topic
from cdc.codec.avro_fields import compile_fields
from cdc.codec.canonical import from_postgres

__all__ = ["ACCOUNTS", "HISTORY", "MIRRORED", "SINK", "MirroredPgbench", "initialize"]

MIRRORED: Final = ("pgbench_accounts", "pgbench_branches", "pgbench_tellers")
HISTORY: Final = "pgbench_history"
ACCOUNTS: Final = 100_000
"""Accounts of one unit of scale."""
SINK: Final = "cache"

_HISTORY_COLUMNS: Final = {"tid": "int4", "bid": "int4", "aid": "int4", "delta": "int4", "mtime": "timestamp"}


def initialize(servers: Servers, scale: int) -> None:
    """``pgbench -i``."""
    servers.run("pgbench", "-i", "-q", "-s", str(scale), capture_output=True)


class MirroredPgbench:
    """The bridge of one database; it runs within the ``with`` block.

    ``name`` names the source and begins its topics. With ``history``, the source captures ``pgbench_history`` too.
    """

    def __init__(
        self,
        servers: Servers,
        name: str,
        partitions: int,
        *,
        history: bool = False,
        worker: Mapping[str, str] | None = None,
    ) -> None:
        self.servers = servers
        self.source = name
        self.client = servers.redis.client()
        self.topics = [f"{name}.public.{table}" for table in MIRRORED]
        tables = [f"public.{table}" for table in (*MIRRORED, *([HISTORY] if history else []))]
        connectors = {
            name: source(servers.postgres, DATABASE, tables, topic_prefix=name),
            SINK: redis_sink(servers.redis, self.topics),
        }
        self.bridge = Bridge(
            servers.kafka,
            connectors,
            password=servers.postgres.password,
            group=name,
            worker={"topic.creation.default.partitions": partitions, **(worker or {})},
        )

    def __enter__(self) -> Self:
        self.bridge.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self.bridge.close()

    def start(self, seconds: int, clients: int = 4) -> subprocess.Popen[str]:
        """Start pgbench, which ends after ``seconds``, or when Postgres goes away."""
        return subprocess.Popen(
            [str(self.servers.postgres.bin("pgbench")), "-c", str(clients), "-T", str(seconds), DATABASE],
            env=self.servers.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def settle(self, patience: float = 900.0) -> float:
        """Wait until Redis has all that is committed now; the seconds it took. Raises `NotEqual`.

        A last change is the mark: a source tells commits in their order, so when the mark is in Redis, all changes
        before it are in their topics.
        """
        begun = time.monotonic()
        mark = f"mark {time.time_ns()}"
        with self.servers.connect() as connection:
            connection.execute("update pgbench_branches set filler = %s where bid = 1", [mark])
        # The column is character(88), which keeps its blanks.
        wait_field(self.bridge, self.client, "pgbench_branches:1", "filler", mark.ljust(88), patience)
        wait_applied(self.servers, self.client, SINK, self.topics, patience)
        return time.monotonic() - begun

    def prove(self) -> int:
        """Compare every row with its hash; how many there are. Raises `NotEqual`."""
        return prove_mirror(self.bridge)

    def prove_history(self) -> int:
        """Compare the records of ``pgbench_history`` with its rows, as multisets; how many. Raises `NotEqual`.

        pgbench truncates the table when it begins, and only inserts after that: the truncate is in each partition, and
        counts for what stands before it there.
        """
        topic = f"{self.source}.public.{HISTORY}"
        policy = _cleanup_policy(self.servers, topic)
        if policy != "delete":
            raise NotEqual(f"{topic} has cleanup.policy={policy}")
        value_plan = by_schema(self.bridge.registry, compile_fields)
        partitions: defaultdict[int, Counter[tuple[bytes | None, ...]]] = defaultdict(Counter)

        def count(number: int, key: bytes | None, value: bytes | None) -> None:
            if key is not None or value is None:
                raise NotEqual(f"{topic} has a record with the key {key!r} and the value {value!r}")
            fields, rest = value_plan(value).decode(value, 5)
            if fields is not None:
                row = dict(zip(fields[::2], fields[1::2], strict=True))
                partitions[number][tuple(row.get(name.encode()) for name in _HISTORY_COLUMNS)] += 1
            elif rest == b"t":
                partitions[number].clear()
            else:
                raise NotEqual(f"{topic} has a record of the kind {rest!r}")

        read_topic(self.servers, topic, each=count)
        told = sum(partitions.values(), Counter[tuple[bytes | None, ...]]())
        with self.servers.connect() as connection:
            columns = ", ".join(f"{name}::text" for name in _HISTORY_COLUMNS)
            rows = connection.execute(f"select {columns} from {HISTORY}").fetchall()
        there = Counter(
            tuple(
                from_postgres(kind, None if text is None else text.encode())
                for kind, text in zip(_HISTORY_COLUMNS.values(), row, strict=True)
            )
            for row in rows
        )
        if told != there or not rows:
            raise NotEqual(
                f"{HISTORY}: {(told - there).total()} records are no rows, {(there - told).total()} of {len(rows)} "
                f"rows have no record, such as {next(iter((told - there) or (there - told)), None)}"
            )
        return len(rows)


def _cleanup_policy(servers: Servers, topic: str) -> str:
    admin = AdminClient({"bootstrap.servers": servers.kafka.bootstrap_servers, "log_level": 4})
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    return str(admin.describe_configs([resource])[resource].result(30)["cleanup.policy"].value)
