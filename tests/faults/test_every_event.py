"""kill -9 at every event of a short history: after the first WAL message, after the second, and so on to the last.

The short history is played again for each index, until it ends before the wire is sprung: then every index was hit.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Final
from zlib import crc32

import pytest
from psycopg import sql

from bench.servers import Servers
from tests.faults.ledger import LEDGER
from tests.faults.stage import SINK, Stage, Statements, Ways
from tests.proxy import Direction, Tripwire

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

_STEPS: Final = (
    ("insert into rows select i, 'new', nextval('versions') from generate_series(1, 3) i",),
    ("update rows set body = 'changed', version = default where id = 1", "delete from rows where id = 2"),
    ("update rows set id = 10, version = default where id = 3",),
    ("truncate rows",),
    ("insert into rows values (1, 'again'), (2, null)",),
    ("delete from rows",),
)
"""Transactions; at the end the table is as it was at the beginning."""
HISTORY: Final[list[Statements]] = [[sql.SQL(text).format() for text in step] for step in _STEPS]
TABLES: Final = (
    "create sequence versions",
    "create table rows (id int primary key, body text, version bigint not null default nextval('versions'))",
)


def task(connector: str) -> Callable[[Stage], Callable[[], None]]:
    """Kills this connector's task; the source's is called by the name of the stage."""

    def made(stage: Stage) -> Callable[[], None]:
        name = connector or stage.name
        stage.bridge.wait_for(f"{name} runs", lambda: bool(stage.bridge.task(name).get("pid")))
        pid = stage.bridge.task_pid(name)
        return lambda: os.kill(pid, signal.SIGKILL)

    return made


def cut(way: str) -> Callable[[Stage], Callable[[], None]]:
    def made(stage: Stage) -> Callable[[], None]:
        proxy = stage.ways.named()[way]
        return lambda: proxy.cut() and None

    return made


@pytest.mark.parametrize(
    ("name", "way", "direction", "act", "atleast"),
    [
        ("kill -9: source task, at every WAL message", "Postgres", "down", task(""), 15),
        ("kill -9: source task, at every request to Kafka", "Kafka (source)", "up", task(""), 3),
        ("kill -9: sink task, at every request to Redis", "Redis", "up", task(SINK), 3),
        ("kill -9: sink task, at every answer of Redis", "Redis", "down", task(SINK), 3),
        ("cut at every answer of Redis", "Redis", "down", cut("Redis"), 3),
        ("cut at every answer of Kafka to the source", "Kafka (source)", "down", cut("Kafka (source)"), 3),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_at_every_event(
    servers: Servers,
    proxies: Ways,
    name: str,
    way: str,
    direction: Direction,
    act: Callable[[Stage], Callable[[], None]],
    atleast: int,
) -> None:
    proxy = proxies.named()[way]
    with Stage(servers, proxies, f"e{crc32(name.encode())}", [], tables=TABLES, sink_tasks=1) as stage:
        stage.bridge.wait_streaming(stage.name)
        stage.settle()
        for index in range(1, 60):
            wire = Tripwire(direction, index, act(stage))
            proxy.tripwire = wire
            stage.play(HISTORY, lambda: 0.15).join()  # so that each transaction goes its way alone
            heal = stage.settle()
            if not wire.sprung.is_set():
                break
            LEDGER.note(name, heal, duplicated=len(stage.follower.fallen), regressed=len(stage.watcher.fallen))
            assert not stage.follower.fallen, (index, stage.follower.fallen)
            assert not stage.watcher.fallen, (index, stage.watcher.fallen)
        proxy.lift()
        assert index > atleast
        stage.prove()
