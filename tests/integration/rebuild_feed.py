"""What tests of rebuilds share: drift planted, rows written and watched meanwhile, rebuilds that are cut off."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import redis
from sink_feed import Bench, Table, eventually

from cdc.redis.config import RedisConfig
from cdc.redis.connector import RedisSinkConnector
from cdc.runtime.rebuild import Progress, Rebuild, Rebuilt


class Stop(Exception):
    """The rebuild ends here, as a kill ends it: nothing runs behind it."""


class Cut:
    """A mender that ends with `Stop` at its n-th call, before or after the call is made."""

    def __init__(self, mender: Any, at: int) -> None:
        self._mender = mender
        self.left = at

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._mender, name)
        if name == "close" or not callable(call):
            return call

        def counted(*arguments: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                raise Stop
            answer = call(*arguments)
            if self.left == -1:
                raise Stop
            return answer

        return counted


def connector(bench: Bench, cut: int = 0, **settings: str) -> RedisSinkConnector:
    made = RedisSinkConnector(RedisConfig.model_validate(bench.settings(**settings)))
    if cut:
        original: Callable[..., Any] = made.mender
        made.mender = lambda *arguments: Cut(original(*arguments), cut)  # type: ignore[method-assign]
    return made


def unhindered(progress: Progress) -> None:
    assert progress.phase != "waiting", progress.cause


def rebuild(
    bench: Bench,
    table: Table,
    *,
    cut: int = 0,
    told: Callable[[Progress], None] | None = None,
    stopping: Callable[[], bool] = lambda: False,
    settings: dict[str, str] | None = None,
    **options: Any,
) -> Rebuilt:
    return Rebuild(
        connector(bench, cut, **(settings or {})),
        bench.worker(),
        table.topic,
        table.partitions,
        told=told or unhindered,
        stopping=stopping,
        **options,
    ).run()


def mirrored(bench: Bench, *tables: Table) -> None:
    expected: dict[str, dict[str, str]] = {}
    for table in tables:
        table.flush()
        expected |= table.expected()
    with contextlib.suppress(AssertionError):
        eventually(lambda: bench.dump() == expected, patience=60)
        return
    assert bench.dump() == expected


def plant(bench: Bench, table: Table, rng: random.Random, spare: int = 0) -> dict[str, int]:
    """Drift of every kind, in rows whose id is at least ``spare``: hand-deleted hashes, altered and lost fields, extra
    fields, ghosts."""
    ids = sorted(key[0] for key in table.rows if key[0] >= spare)
    rng.shuffle(ids)
    named = [n for n in ids if table.rows[n,]["name"] is not None]
    gone, altered, lost, extended = named[:5], named[5:10], named[10:15], named[15:20]
    name = f"{bench.prefix}:{table.name}:"
    with bench.client() as client:
        for n in gone:
            client.delete(f"{name}{n}")
        for n in altered:
            client.hset(f"{name}{n}", "name", "not so")
        for n in lost:
            client.hdel(f"{name}{n}", "name")
        for n in extended:
            client.hset(f"{name}{n}", "extra", "1")
        for n in range(5):
            client.hset(f"{name}{900_000 + n}", mapping={"id": str(n), "name": "nobody"})
    return {"missing": len(gone), "different": len(altered) + len(lost) + len(extended), "ghosts": 5}


class Witness:
    """Polls rows that are never deleted: each is always there, and its score never falls."""

    def __init__(self, bench: Bench, table: Table, ids: range) -> None:
        self._bench = bench
        self._keys = [f"{bench.prefix}:{table.name}:{n}" for n in ids]
        self._over = threading.Event()
        self.faults: list[str] = []
        self.reads = 0
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        best = dict.fromkeys(self._keys, 0)
        with self._bench.client() as client:
            while not self._over.is_set():
                pipe = client.pipeline(transaction=False)
                for key in self._keys:
                    pipe.hget(key, "score")
                try:
                    scores = pipe.execute()
                except (redis.RedisError, AttributeError):  # redis-py, while slots move
                    continue
                for key, score in zip(self._keys, scores, strict=True):
                    self.reads += 1
                    if score is None:
                        self.faults.append(f"{key} is missing")
                    elif int(score) < best[key]:
                        self.faults.append(f"{key} fell from {best[key]} to {int(score)}")
                    else:
                        best[key] = int(score)

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        assert self.faults == []
        assert self.reads > 0


class Traffic:
    """Writes rows while the block runs, at about a thousand a second: each write of a row has a higher score."""

    def __init__(self, table: Table, ids: range, deletes: range = range(0)) -> None:
        self._table = table
        self._ids = ids
        self._deletes = deletes
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.score = 1000

    def _run(self) -> None:
        rng = random.Random(1)
        while not self._over.wait(0.005):
            for _ in range(5):
                self.score += 1
                n = rng.choice(self._ids)
                self._table.put(id=n, name=f"live {self.score}", score=self.score)
            if self._deletes and rng.random() < 0.5:
                n = rng.choice(self._deletes)
                if (n,) in self._table.rows and rng.random() < 0.7:
                    self._table.delete(id=n)
                else:
                    self._table.put(id=n, score=self.score)
            self._table.producer.poll(0)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def fill(table: Table, rows: int) -> None:
    """Rows with histories: updates, deletes, rows made again."""
    for n in range(rows):
        table.put(id=n, name=f"first {n}", score=1)
    for n in range(0, rows, 3):
        table.put(id=n, name=None if n % 2 else f"second {n}", score=2)
    for n in range(rows, rows + 50):
        table.put(id=n, name="short-lived", score=1)
        table.delete(id=n)
    for n in range(rows + 40, rows + 50):
        table.put(id=n, name="again", score=3)


def running(bench: Bench, table: Table, phase: str) -> tuple[threading.Thread, threading.Event]:
    """A rebuild in a thread, and what is set when it comes to a phase."""
    reached = threading.Event()

    def told(progress: Progress) -> None:
        if progress.phase == phase:
            reached.set()

    runner = threading.Thread(target=lambda: rebuild(bench, table, told=told))
    runner.start()
    return runner, reached


class Falls(Witness):
    """Rows may be missing once the store was emptied, and then only rise."""

    def __init__(self, bench: Bench, table: Table, ids: range) -> None:
        super().__init__(bench, table, ids)
        self._emptied = 0
        """Odd while the store is being emptied."""

    @contextlib.contextmanager
    def emptying(self) -> Iterator[None]:
        """The store is emptied in this block: rows begin to rise anew."""
        self._emptied += 1
        yield
        self._emptied += 1

    def _run(self) -> None:
        best: dict[str, int] = {}
        since = 0
        with self._bench.client() as client:
            while not self._over.is_set():
                before = self._emptied
                pipe = client.pipeline(transaction=False)
                for key in self._keys:
                    pipe.hget(key, "score")
                scores = pipe.execute()
                self.reads += len(scores)
                if before != self._emptied or before % 2:
                    continue
                if before != since:
                    best, since = {}, before
                for key, score in zip(self._keys, scores, strict=True):
                    if score is None:
                        continue
                    if int(score) < best.get(key, 0):
                        self.faults.append(f"{key} fell from {best[key]} to {int(score)}")
                    best[key] = int(score)


def left_nothing(bench: Bench, table: Table) -> bool:
    with bench.client() as client:
        return client.exists(f"__cdc:rebuild:{{{bench.prefix}-sink}}:{table.topic}") == 0
