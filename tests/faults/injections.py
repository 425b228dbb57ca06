"""The faults. Each is a function that makes it, lets it last, and mends what does not mend itself.

How long a fault lasts and whom it hits is drawn, so that a round can be played again from its seed.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from typing import Any, Final

import redis

from bench.bridge import PATIENCE_SECONDS
from tests.faults.stage import SINK, SINK_TASKS, WAYS, Stage
from tests.proxy import Direction, Proxy, Tripwire

__all__ = ["FAULTS", "NOT_LOADED", "Fault"]

Fault = Callable[[Stage, random.Random], None]

_MOMENT: Final = (0.05, 1.0)
"""Seconds that a fault lasts, unless it says otherwise."""
_TRIP_S: Final = 20.0
"""How long it is waited for a message that springs a wire; there may be too few left."""
NOT_LOADED: Final = (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError)


def _last(rng: random.Random, low: float = _MOMENT[0], high: float = _MOMENT[1]) -> None:
    time.sleep(rng.uniform(low, high))


# -- processes of the bridge ------------------------------------------------------------------------


def _pid(stage: Stage, connector: str, number: int = 0) -> int:
    def runs() -> bool:
        return bool(stage.bridge.task(connector, number).get("pid"))

    stage.bridge.wait_for(f"{connector}-{number} runs", runs, PATIENCE_SECONDS)
    return stage.bridge.task_pid(connector, number)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it may have ended by itself meanwhile
        os.kill(pid, number)


def kill_worker(stage: Stage, _rng: random.Random) -> None:
    """The worker alone, and a new one at once: the tasks of the old one may still run, and must not do harm."""
    stage.bridge.kill()
    stage.bridge.start()


def stop_worker(stage: Stage, rng: random.Random) -> None:
    stage.bridge.stop()
    _last(rng, 0, 0.3)
    stage.bridge.start()


def kill_source(stage: Stage, _rng: random.Random) -> None:
    _signal(_pid(stage, stage.name), signal.SIGKILL)


def kill_sink(stage: Stage, rng: random.Random) -> None:
    _signal(_pid(stage, SINK, rng.randrange(SINK_TASKS)), signal.SIGKILL)


def kill_tasks(stage: Stage, _rng: random.Random) -> None:
    for pid in [_pid(stage, stage.name), *(_pid(stage, SINK, number) for number in range(SINK_TASKS))]:
        _signal(pid, signal.SIGKILL)


def stopped_source(stage: Stage, rng: random.Random) -> None:
    pid = _pid(stage, stage.name)
    _signal(pid, signal.SIGSTOP)
    _last(rng)
    _signal(pid, signal.SIGCONT)


def stopped_sink(stage: Stage, rng: random.Random) -> None:
    pid = _pid(stage, SINK, rng.randrange(SINK_TASKS))
    _signal(pid, signal.SIGSTOP)
    _last(rng)
    _signal(pid, signal.SIGCONT)


def zombie_sink(stage: Stage, rng: random.Random) -> None:
    """Longer than the session timeout: another task has its partitions when it wakes up."""
    pid = _pid(stage, SINK, rng.randrange(SINK_TASKS))
    _signal(pid, signal.SIGSTOP)
    _last(rng, 7, 9)
    _signal(pid, signal.SIGCONT)


# -- servers ----------------------------------------------------------------------------------------


def _killed(which: str) -> Fault:
    def kill(stage: Stage, rng: random.Random) -> None:
        server: Any = getattr(stage.servers, which)
        server.kill()
        _last(rng, 0, 0.5)
        server.start()

    return kill


def _restarted(which: str) -> Fault:
    def restart(stage: Stage, _rng: random.Random) -> None:
        getattr(stage.servers, which).restart()

    return restart


def _stopped(which: str) -> Fault:
    def stop(stage: Stage, rng: random.Random) -> None:
        pid = getattr(stage.servers, which).pid
        os.kill(pid, signal.SIGSTOP)
        _last(rng)
        os.kill(pid, signal.SIGCONT)

    return stop


def terminate_walsender(stage: Stage, _rng: random.Random) -> None:
    with stage.servers.connect() as connection:
        connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'walsender'")


def terminate_backends(stage: Stage, _rng: random.Random) -> None:
    with stage.servers.connect() as connection:
        connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'cdc/%'")


def stopped_walsender(stage: Stage, rng: random.Random) -> None:
    with stage.servers.connect() as connection:
        found = connection.execute("select pid from pg_stat_activity where backend_type = 'walsender'").fetchall()
    for (pid,) in found:
        _signal(pid, signal.SIGSTOP)
    _last(rng)
    for (pid,) in found:
        _signal(pid, signal.SIGCONT)


def client_pause(stage: Stage, rng: random.Random) -> None:
    with stage.servers.redis.client() as client:
        client.execute_command("CLIENT", "PAUSE", rng.randrange(100, 2000), rng.choice(["WRITE", "ALL"]))


def client_kill(stage: Stage, _rng: random.Random) -> None:
    with stage.servers.redis.client() as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def maxmemory(stage: Stage, rng: random.Random) -> None:
    with stage.servers.redis.client() as client:
        client.config_set("maxmemory", "1mb")
        _last(rng)
        client.config_set("maxmemory", "0")


def readonly(stage: Stage, rng: random.Random) -> None:
    """A replica of nobody keeps its data and takes no writes."""
    with stage.servers.redis.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        _last(rng)
        client.execute_command("REPLICAOF", "NO", "ONE")


def flushall(stage: Stage, _rng: random.Random) -> None:
    with stage.servers.redis.client() as client, stage.watcher.emptied():
        client.flushall()


# -- networks ---------------------------------------------------------------------------------------


def _way(stage: Stage, way: str) -> Proxy:
    return stage.ways.named()[way]


def _cut(way: str) -> Fault:
    def cut(stage: Stage, _rng: random.Random) -> None:
        _way(stage, way).cut()

    return cut


def _slow(way: str) -> Fault:
    def slow(stage: Stage, rng: random.Random) -> None:
        proxy = _way(stage, way)
        proxy.bytes_per_second = rng.randrange(2_000, 50_000)
        _last(rng, 0.5, 2.0)
        proxy.lift()

    return slow


def _half_open(way: str) -> Fault:
    def half_open(stage: Stage, rng: random.Random) -> None:
        """Nobody tells the clients for a while; then something on the way says that it knows no such connection."""
        proxy = _way(stage, way)
        proxy.half_open()
        _last(rng, 0.5, 4.0)
        proxy.cut()

    return half_open


def _black_hole(way: str) -> Fault:
    def black_hole(stage: Stage, rng: random.Random) -> None:
        proxy = _way(stage, way)
        proxy.hold()
        _last(rng, 0.2, 4.0)
        if rng.random() < 0.5:
            proxy.cut()
        proxy.lift()

    return black_hole


def _refused(way: str) -> Fault:
    def refused(stage: Stage, rng: random.Random) -> None:
        proxy = _way(stage, way)
        proxy.refuse()
        proxy.cut()
        _last(rng)
        proxy.lift()

    return refused


# -- at a message -----------------------------------------------------------------------------------


def _tripped(way: str, direction: Direction, act: Callable[[Stage, Proxy, random.Random], Callable[[], None]]) -> Fault:
    def trip(stage: Stage, rng: random.Random) -> None:
        proxy = _way(stage, way)
        wire = Tripwire(direction, rng.randint(1, 12), act(stage, proxy, rng))
        proxy.tripwire = wire
        if not wire.sprung.wait(_TRIP_S / 10):
            stage.touch()  # nothing passes any more: a last change makes it
            wire.sprung.wait(_TRIP_S)
        proxy.tripwire = None

    return trip


def _act_cut(_stage: Stage, proxy: Proxy, _rng: random.Random) -> Callable[[], None]:
    def act() -> None:
        proxy.cut()

    return act


def _act_kill(connector: str, number: int | None) -> Callable[[Stage, Proxy, random.Random], Callable[[], None]]:
    def made(stage: Stage, _proxy: Proxy, rng: random.Random) -> Callable[[], None]:
        which = rng.randrange(SINK_TASKS) if number is None else number
        pid = _pid(stage, connector or stage.name, which)
        return lambda: _signal(pid, signal.SIGKILL)

    return made


_SOURCE: Final = _act_kill("", 0)
_SINK: Final = _act_kill(SINK, None)

FAULTS: Final[dict[str, tuple[float, Fault]]] = {
    "kill -9: worker": (1.5, kill_worker),
    "stop and start: worker": (1, stop_worker),
    "kill -9: source task": (3, kill_source),
    "kill -9: sink task": (3, kill_sink),
    "kill -9: all tasks": (2, kill_tasks),
    "SIGSTOP: source task": (1, stopped_source),
    "SIGSTOP: sink task": (1, stopped_sink),
    "SIGSTOP: sink task, beyond its session": (0.5, zombie_sink),
    "kill -9: Postgres": (2, _killed("postgres")),
    "restart: Postgres": (1, _restarted("postgres")),
    "kill -9: Kafka": (1, _killed("kafka")),
    "restart: Kafka": (0.5, _restarted("kafka")),
    "SIGSTOP: Kafka": (1, _stopped("kafka")),
    "kill -9: Redis": (3, _killed("redis")),
    "restart: Redis": (1, _restarted("redis")),
    "SIGSTOP: Redis": (2, _stopped("redis")),
    "terminate: walsender": (3, terminate_walsender),
    "terminate: all connections to Postgres": (2, terminate_backends),
    "SIGSTOP: walsender": (1, stopped_walsender),
    "CLIENT PAUSE": (2, client_pause),
    "CLIENT KILL": (3, client_kill),
    "maxmemory": (2, maxmemory),
    "READONLY": (2, readonly),
    "FLUSHALL": (1, flushall),
    **{f"cut: {way}": (3, _cut(way)) for way in WAYS},
    **{f"slow: {way}": (1, _slow(way)) for way in WAYS},
    **{f"half-open: {way}": (1, _half_open(way)) for way in WAYS},
    **{f"black hole: {way}": (1, _black_hole(way)) for way in WAYS},
    **{f"refused: {way}": (1.5, _refused(way)) for way in WAYS},
    "cut after n WAL messages": (3, _tripped("Postgres", "down", _act_cut)),
    "kill -9: source task, after n WAL messages": (3, _tripped("Postgres", "down", _SOURCE)),
    "kill -9: source task, after n requests to Kafka": (2, _tripped("Kafka (source)", "up", _SOURCE)),
    "kill -9: source task, after n answers of Kafka": (2, _tripped("Kafka (source)", "down", _SOURCE)),
    "cut after n requests of the source to Kafka": (2, _tripped("Kafka (source)", "up", _act_cut)),
    "kill -9: sink task, after n answers of Kafka": (2, _tripped("Kafka (sink)", "down", _SINK)),
    "kill -9: sink task, after n requests to Redis": (3, _tripped("Redis", "up", _SINK)),
    "cut after n requests to Redis": (3, _tripped("Redis", "up", _act_cut)),
    "cut after n answers of Redis": (3, _tripped("Redis", "down", _act_cut)),
}
"""Every fault of the rounds, with how often it is drawn: dear ones more rarely."""
