"""kill -9 of any part, twice in the middle of a run of pgbench: when all is up again, both ends are equal."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Callable
from typing import Final

import pytest

from bench.bridge import PATIENCE_SECONDS
from bench.mirrored_pgbench import SINK, MirroredPgbench
from tests.faults.extent import SECONDS
from tests.faults.ledger import LEDGER

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]

KILLS: Final = 2
PROGRESS: Final = 300
"""Row changes that reach the task before each kill: it happens in full flow."""


def kill_worker(mirrored: MirroredPgbench) -> None:
    """The worker alone, and a new one at once: the tasks of the old one may still run, and must not do harm."""
    mirrored.bridge.kill()
    mirrored.bridge.start()


def kill_source(mirrored: MirroredPgbench) -> None:
    _kill_task(mirrored, mirrored.source)


def kill_sink(mirrored: MirroredPgbench) -> None:
    _kill_task(mirrored, SINK)


def kill_postgres(mirrored: MirroredPgbench) -> None:
    mirrored.servers.postgres.kill()
    mirrored.servers.postgres.start()


def kill_kafka(mirrored: MirroredPgbench) -> None:
    mirrored.servers.kafka.kill()
    mirrored.servers.kafka.start()


def kill_redis(mirrored: MirroredPgbench) -> None:
    mirrored.servers.redis.kill()
    mirrored.servers.redis.start()


def _kill_task(mirrored: MirroredPgbench, connector: str) -> None:
    bridge = mirrored.bridge
    killed = bridge.task_pid(connector)
    os.kill(killed, signal.SIGKILL)
    bridge.wait_for(
        f"{connector} is restarted", lambda: bridge.task(connector).get("pid") not in {None, killed}, PATIENCE_SECONDS
    )


def _changes(mirrored: MirroredPgbench, connector: str, figure: str) -> Callable[[], bool]:
    """A condition: the task has told `PROGRESS` more changes than now. A new task counts from zero."""
    before = mirrored.bridge.task(connector)
    base = mirrored.bridge.metrics(connector).get(figure, 0)

    def reached() -> bool:
        task = mirrored.bridge.task(connector)
        now = mirrored.bridge.metrics(connector).get(figure, 0)
        return bool(now >= (base if task.get("pid") == before.get("pid") else 0) + PROGRESS)

    return reached


def _running(mirrored: MirroredPgbench, pgbench: subprocess.Popen[str]) -> subprocess.Popen[str]:
    """pgbench itself, or another one if it ended, as it does when Postgres is killed."""
    if pgbench.poll() is None:
        return pgbench
    pgbench.communicate()
    return mirrored.start(SECONDS)


@pytest.mark.parametrize("kill", [kill_worker, kill_source, kill_sink, kill_postgres, kill_kafka, kill_redis])
def test_both_ends_are_equal_after_kills_in_the_middle_of_pgbench(
    mirrored: MirroredPgbench, kill: Callable[[MirroredPgbench], None]
) -> None:
    bridge = mirrored.bridge
    pgbench = mirrored.start(SECONDS)
    try:
        for number in range(KILLS):
            pgbench = _running(mirrored, pgbench)
            bridge.wait_for(
                f"changes flow before kill {number + 1}", _changes(mirrored, mirrored.source, "changes"), 300.0
            )
            bridge.wait_for(f"records are written before kill {number + 1}", _changes(mirrored, SINK, "records"), 300.0)
            tasks = [bridge.task_pid(mirrored.source), bridge.task_pid(SINK)]
            kill(mirrored)
            if kill is kill_worker:
                for pid in tasks:
                    _wait_ended(pid)
        told = pgbench.communicate()[0]
        assert "number of transactions actually processed" in told, told
    finally:
        if pgbench.poll() is None:
            pgbench.kill()
            pgbench.communicate()
    heal = mirrored.settle()
    assert mirrored.prove() > 100_000
    for _ in range(KILLS):
        LEDGER.note(f"under pgbench: {kill.__name__.replace('_', ' ')}", heal)
    killed = mirrored.source if kill is kill_source else SINK if kill is kill_sink else None
    for name in (mirrored.source, SINK):
        # An outage of a part is waited out by the tasks.
        assert bridge.task(name)["restarts"] == (KILLS if name == killed else 0), name


def _wait_ended(pid: int) -> None:
    """Until a task whose worker was killed is gone: it leaves no orphan."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([handle], [], [], PATIENCE_SECONDS)[0], f"task {pid} outlives its worker"
    finally:
        os.close(handle)
