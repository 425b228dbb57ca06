"""A slow or dead part stops reading upstream: memory stays flat, and Postgres never kills a walsender for silence.

The server's ``wal_sender_timeout`` is 2 s, and a part is away for ``FAULTS_AWAY`` seconds under load.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final
from zlib import crc32

import pytest

from bench.machine import peak_rss_mib
from bench.servers import Servers
from cdc.local.postgres import SystemPostgres
from cdc.local.redis import Redis
from tests.faults.ledger import LEDGER
from tests.faults.stage import SINK, Stage, Ways, proxied_kafka, ways
from tests.fix_servers import started

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]

AWAY_S: Final = float(os.environ.get("FAULTS_AWAY", "60"))
GROWTH_MIB: Final = 160.0
"""How much a task may grow, whatever is away: its queues are bounded by bytes, and this is their sum with room."""
WIDE: Final = 1_000_000
"""Bytes of a wide value."""
RATE: Final = 6 << 20
"""Bytes of values that are committed in a second."""
KEYS_BYTES: Final = 32 << 20
"""Rows are written again and again, so that this is all there is of them at a time."""
SLOW: Final = {
    "Kafka slow for the source": "Kafka (source)",
    "Kafka slow for the sink": "Kafka (sink)",
    "Redis slow": "Redis",
}
"""The way that is slow; the others do without a proxy, which could not carry the load."""
_KILLED: Final = "terminating walsender process due to replication timeout"


@pytest.fixture(scope="module")
def impatient() -> Iterator[tuple[Servers, Ways]]:
    """Servers whose Postgres gives up a silent walsender's client after two seconds."""
    with contextlib.ExitStack() as stack:
        settings = {"max_wal_size": "4GB", "wal_sender_timeout": "2s", "fsync": "off"}
        postgres = stack.enter_context(started(SystemPostgres(15, settings=settings)))
        kafka, by_source, by_sink = proxied_kafka()
        broker = stack.enter_context(started(kafka))
        servers = Servers(postgres, broker, stack.enter_context(started(Redis(appendfsync="no"))))
        servers.create_database()
        yield servers, stack.enter_context(contextlib.closing(ways(servers, by_source, by_sink)))


@pytest.fixture
def stage(impatient: tuple[Servers, Ways], request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A bridge that streams, with one table ``load``. What is larger than a broker takes by default may pass."""
    servers, proxies = impatient
    worker = {"producer.message.max.bytes": 4 << 20}
    topics = {"topic.creation.default.max.message.bytes": 4 << 20}
    tables = [
        "create table load (id bigint primary key, body text)",
        "alter table load alter body set storage external",
    ]
    name = f"bp{crc32(request.node.name.encode())}"
    with Stage(
        servers, proxies, name, [], tables=tables, worker=worker, source_properties=topics, sink_tasks=1
    ) as made:
        made.bridge.wait_streaming(name)
        made.settle()
        yield made


class Load:
    """Commits rows until the block ends; how many bytes their values had."""

    def __init__(self, servers: Servers, rows: int, size: int) -> None:
        self._servers, self._rows, self._size = servers, rows, size
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")
        self.bytes = 0

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        upsert = (
            "insert into load select %s + i, (select body from texts where texts.id = i %% 100)"
            " from generate_series(1, %s) i on conflict (id) do update set body = excluded.body"
        )
        begun = time.monotonic()
        begin = 0
        with self._servers.connect() as connection:
            # Texts that do not compress, made beforehand: what is bounded is what is really there.
            connection.execute(
                "create temp table texts as select i id, (select string_agg(md5(random()::text || i || j), '')"
                " from generate_series(1, %s) j) body from generate_series(0, 99) i",
                [self._size // 32],
            )
            while not self._over.wait(max(0.0, begun + self.bytes / RATE - time.monotonic())):
                connection.execute(upsert, [begin, self._rows])
                begin = (begin + self._rows) % (KEYS_BYTES // self._size)
                self.bytes += self._rows * self._size


def walsenders(servers: Servers) -> list[int]:
    with servers.connect() as connection:
        found = connection.execute("select pid from pg_stat_activity where backend_type = 'walsender'").fetchall()
    return [pid for (pid,) in found]


def killed_for_silence(servers: Servers) -> int:
    return servers.postgres.log.read_text(encoding="utf-8", errors="replace").count(_KILLED)


@contextlib.contextmanager
def stopped(server: Any) -> Iterator[None]:
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


@contextlib.contextmanager
def dead(server: Any) -> Iterator[None]:
    server.kill()
    try:
        yield
    finally:
        server.start()


@contextlib.contextmanager
def slow(stage: Stage, way: str, rate: int) -> Iterator[None]:
    proxy = stage.ways.named()[way]
    proxy.bytes_per_second = rate
    try:
        yield
    finally:
        proxy.lift()


def endure(stage: Stage, name: str, fault: contextlib.AbstractContextManager[Any], rows: int, size: int) -> None:
    """A fault under load; afterwards memory was bounded, no walsender was killed, and all is equal."""
    servers = stage.servers
    pids = {"source": stage.bridge.task_pid(stage.name), "sink": stage.bridge.task_pid(SINK)}
    before = {task: peak_rss_mib(pid) for task, pid in pids.items()}
    streaming, killed = walsenders(servers), killed_for_silence(servers)
    assert len(streaming) == 1
    with Load(servers, rows, size) as load, fault:
        time.sleep(AWAY_S)
        # The same, or none: a source may also let go of the stream until its broker is back.
        assert set(walsenders(servers)) <= set(streaming)
    assert load.bytes > 2 * (GROWTH_MIB * (1 << 20)) or AWAY_S < 55, "too little load to show a bound"
    heal = stage.settle(600)
    LEDGER.note(f"{name} under load", heal)
    assert killed_for_silence(servers) == killed
    grown = {task: peak_rss_mib(pid) - before[task] for task, pid in pids.items()}
    assert max(grown.values()) < GROWTH_MIB, f"grown by {grown} MiB, after {load.bytes >> 20} MiB of values"
    stage.prove()


Away = Callable[[Stage], contextlib.AbstractContextManager[Any]]
PARTS: Final[dict[str, Away]] = {
    "Kafka dead": lambda stage: dead(stage.servers.kafka),
    "Kafka stopped": lambda stage: stopped(stage.servers.kafka),
    "Redis stopped": lambda stage: stopped(stage.servers.redis),
    **{part: lambda stage, way=way: slow(stage, way, 300_000) for part, way in SLOW.items()},  # type: ignore[misc]
}


@pytest.mark.parametrize("part", PARTS)
def test_memory_is_bounded_and_no_walsender_killed_while_a_part_is_away(stage: Stage, part: str) -> None:
    endure(stage, part, PARTS[part](stage), rows=500, size=3200)


def test_wide_rows_are_bounded_by_bytes(stage: Stage) -> None:
    endure(stage, "Redis stopped, rows of 1 MB", stopped(stage.servers.redis), rows=5, size=WIDE)
