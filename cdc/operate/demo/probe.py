"""How long a commit takes to become visible in Redis, measured from outside, as an application would see it."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
import redis

from cdc.errors import CdcError, FatalError
from cdc.operate.demo.shop import Shop
from cdc.postgres.connection import translate as translate_postgres
from cdc.redis.errors import translate as translate_redis

__all__ = ["Lag", "Probe", "percentile"]

KEY: Final = "pulse:1"
PAUSE_S: Final = 0.04
"""Between one measurement and the next."""
LOOK_S: Final = 0.001
"""Between one look at Redis and the next; the least lag that can be told."""
RECENT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Lag:
    """Seconds; ``waiting`` is how long the present measurement has been waiting."""

    p50: float
    p99: float
    count: int
    waiting: float


class Probe:
    """Writes a counter into the row ``pulse`` of Postgres, and polls Redis from the moment COMMIT has returned until
    the counter is there; a measurement ends before the next begins."""

    def __init__(self, shop: Shop, client: redis.Redis) -> None:
        self._shop = shop
        self._client = client
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="probe", daemon=True)
        self._error: CdcError | None = None
        self._recent: deque[tuple[float, float]] = deque()
        self._all: list[float] = []
        self._since: float | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End, also in the middle of a measurement; a no-op before the start. Raises as `raise_error`."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        self.raise_error()

    def raise_error(self) -> None:
        """Raise what ended the thread earlier."""
        if self._error is not None:
            raise self._error

    def recent(self) -> Lag | None:
        """The last ten seconds; ``None`` before the first measurement."""
        newest = time.monotonic()
        return self._lag([lag for at, lag in list(self._recent) if newest - at <= RECENT_S])

    def overall(self) -> Lag | None:
        """Everything since the start."""
        return self._lag(list(self._all))

    def newest(self, count: int) -> list[float]:
        """The newest measurements, in seconds, oldest first."""
        return self._all[-count:]

    def _lag(self, lags: Sequence[float]) -> Lag | None:
        since = self._since
        waiting = 0.0 if since is None else time.monotonic() - since
        if not lags:
            return None
        ordered = sorted(lags)
        return Lag(percentile(ordered, 0.5), percentile(ordered, 0.99), len(ordered), waiting)

    def _run(self) -> None:
        try:
            with self._shop.connect() as connection:
                beat = 0
                while not self._stopping.is_set():
                    beat += 1
                    self._measure(connection, beat)
                    self._stopping.wait(PAUSE_S)
        except psycopg.Error as error:
            self._error = translate_postgres(error, "writing the demo's probe row")
        except redis.RedisError as error:
            self._error = translate_redis(error, "looking for the demo's probe row")
        except CdcError as error:
            self._error = error

    def _measure(self, connection: psycopg.Connection[tuple[Any, ...]], beat: int) -> None:
        changed = connection.execute(
            "update pulse set beat = %s, at = clock_timestamp() where id = 1", (beat,)
        ).rowcount
        begun = self._since = time.monotonic()
        if changed != 1:
            raise FatalError("the demo's probe row (table pulse, id 1) is gone. Remedy: leave the demo's tables alone")
        while not self._stopping.is_set():
            seen: Any = self._client.hget(KEY, "beat")
            if seen is not None and int(seen) >= beat:
                now = time.monotonic()
                self._since = None
                self._all.append(now - begun)
                self._recent.append((now, now - begun))
                while now - self._recent[0][0] > RECENT_S:
                    self._recent.popleft()
                return
            self._stopping.wait(LOOK_S)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of an ordered, non-empty sequence."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
