"""The figures of a sink task: counts, lag, latency of the last second, memory."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterable
from typing import Any, Final

from cdc.mirror.assembly import Counts

__all__ = ["SinkMetrics", "percentile"]

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_SAMPLES_PER_BATCH: Final = 64


class SinkMetrics:
    """Collects figures. Latency is from a record's timestamp to the moment Redis said that it is applied."""

    def __init__(self) -> None:
        self.batches = 0
        self._latencies: list[float] = []
        self._before = (time.monotonic(), 0)

    def applied(self, timestamps: Iterable[int]) -> None:
        """A batch is settled; ``timestamps`` (ms since 1970) are those of some of its records."""
        self.batches += 1
        now = time.time() * 1000
        self._latencies += [now - stamp for stamp in timestamps if stamp > 0]

    @staticmethod
    def sample(count: int) -> int:
        """Which part of ``count`` records is looked at: every n-th."""
        return max(1, count // _SAMPLES_PER_BATCH)

    def figures(self, counts: Counts, lag: int) -> dict[str, Any]:
        """What is reported, and the begin of the next interval."""
        now = time.monotonic()
        since, records = self._before
        self._before = (now, counts.records)
        latencies, self._latencies = sorted(self._latencies), []
        keyless = sum(counts.keyless.values())
        figures: dict[str, Any] = {
            "records": counts.records,
            "puts": counts.records - counts.deletes - counts.replays - counts.foreign - keyless - counts.rejected,
            "deletes": counts.deletes,
            "replays": counts.replays,
            "skipped": counts.foreign,
            "keyless": dict(counts.keyless),
            "batches": self.batches,
            "records_per_s": round((counts.records - records) / max(now - since, 1e-3)),
            "lag": lag,
            "rss_kb": _rss_kb(),
            "rss_peak_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        }
        if latencies:
            figures["latency_p50_ms"] = round(percentile(latencies, 0.50), 1)
            figures["latency_p99_ms"] = round(percentile(latencies, 0.99), 1)
        return figures


def percentile(ordered: list[float], share: float) -> float:
    """The value below or at which ``share`` of the values are; they come in order, one at least."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _rss_kb() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * _PAGE // 1024
