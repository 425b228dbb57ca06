"""A disk that is full, under Kafka's log and under Redis's append-only file: nothing is lost once there is room again.

The disk is a small tmpfs, which only root can mount (or one who may use sudo).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import pytest

from bench.servers import Servers
from cdc.local.postgres import SystemPostgres
from cdc.local.redis import Redis
from tests.faults.ledger import LEDGER
from tests.faults.stage import PATIENCE_S, SINK, Stage, proxied_kafka, ways

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

Launch = Callable[[Any], Any]
TABLES = ("create table filling (id int primary key, body text, version bigint not null)",)
SIZE_MIB = 48


def _root(*command: str) -> None:
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    try:
        subprocess.run([*sudo, *command], check=True, capture_output=True, text=True)
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        told = getattr(error, "stderr", "") or str(error)
        pytest.fail(f"{command[0]} needs root or sudo without a password: {told}")


class Disk:
    """A small file system at ``folder``, which must not be there yet; gone with the block."""

    def __init__(self, folder: Path, mib: int = SIZE_MIB) -> None:
        self.folder, self._mib = folder, mib
        self._filler = folder / "filler"

    def __enter__(self) -> Disk:
        self.folder.mkdir(parents=True)
        _root("mount", "-t", "tmpfs", "-o", f"size={self._mib}m,uid={os.getuid()}", "tmpfs", str(self.folder))
        return self

    def __exit__(self, *_: object) -> None:
        _root("umount", "-l", str(self.folder))

    def fill(self) -> None:
        """Leave no room at all."""
        with contextlib.suppress(OSError), self._filler.open("wb", buffering=0) as filler:
            while True:
                filler.write(b"x" * (1 << 16))

    def clear(self) -> None:
        self._filler.unlink(missing_ok=True)


def write(stage: Stage, begin: int, rows: int) -> None:
    with stage.servers.connect() as connection:
        connection.execute(
            "insert into filling select i, repeat(md5(i::text), 20), i from generate_series(%s::int, %s) i"
            " on conflict (id) do update set version = excluded.version + 1000000",
            [begin, begin + rows - 1],
        )


@contextlib.contextmanager
def filled(
    launch: Launch, folder: Path, which: Literal["kafka", "redis"], fsync: Literal["always", "everysec"]
) -> Iterator[tuple[Stage, Disk]]:
    """A bridge whose Kafka or Redis has its data on a small disk."""
    with ExitStack() as stack:
        disk = stack.enter_context(Disk(folder / "disk", 160 if which == "kafka" else SIZE_MIB))
        places = {name: (disk.folder if name == which else folder) / name for name in ("kafka", "redis")}
        kafka, by_source, by_sink = proxied_kafka(directory=places["kafka"])
        redis = Redis(directory=places["redis"], appendfsync=fsync)
        servers = Servers(launch(SystemPostgres(15)), launch(kafka), launch(redis))
        servers.create_database()
        made = stack.enter_context(contextlib.closing(ways(servers, by_source, by_sink)))
        stage = stack.enter_context(Stage(servers, made, f"full_{which}_{fsync}", [], tables=TABLES, sink_tasks=1))
        stage.bridge.wait_streaming(stage.name)
        write(stage, 1, 200)
        stage.settle()
        yield stage, disk


@pytest.mark.parametrize("fsync", ["always", "everysec"])
def test_a_full_disk_under_redis_loses_nothing(
    launch: Launch, tmp_path: Path, fsync: Literal["always", "everysec"]
) -> None:
    """With ``everysec`` Redis refuses writes (MISCONF); with ``always`` it ends, rather than answer what is not so."""
    with filled(launch, tmp_path, "redis", fsync) as (stage, disk):
        disk.fill()
        write(stage, 100, 400)
        stage.bridge.wait_for(
            "the sink waits", lambda: "waiting" in stage.bridge.task(SINK).get("metrics", {}), PATIENCE_S
        )
        disk.clear()
        if not stage.servers.redis.is_running():
            stage.servers.redis.start()
        heal = stage.settle()
        LEDGER.note(f"disk full: Redis, appendfsync {fsync}", heal, regressed=len(stage.watcher.fallen))
        assert not stage.watcher.fallen
        stage.prove()


def test_a_full_disk_under_kafka_loses_nothing(launch: Launch, tmp_path: Path) -> None:
    """A broker whose only log directory fails halts; with room it is started again."""
    with filled(launch, tmp_path, "kafka", "everysec") as (stage, disk):
        disk.fill()
        for begin in range(0, 4000, 400):
            write(stage, begin, 400)
        kafka = stage.servers.kafka
        stage.bridge.wait_for("the broker has halted", lambda: not kafka.is_running(), PATIENCE_S)
        disk.clear()
        kafka.start()
        heal = stage.settle()
        fallen = len(stage.follower.fallen), len(stage.watcher.fallen)
        LEDGER.note("disk full: Kafka", heal, duplicated=fallen[0], regressed=fallen[1])
        assert fallen == (0, 0)
        stage.prove()
