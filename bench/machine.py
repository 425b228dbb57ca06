"""What the kernel knows of processes and of the machine: CPU time, peak memory, how busy others keep it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

__all__ = ["Meter", "cpu_seconds", "description", "peak_rss_mib"]

_TICKS: Final = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process since it began, its threads included, its children not."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def peak_rss_mib(pid: int) -> float:
    """The most memory a process has ever had resident (VmHWM), in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(f"process {pid} has ended: it has no VmHWM any more")


class Meter:
    """CPU seconds of named processes, and of the whole machine, from `start` to `stop`."""

    def __init__(self, processes: Mapping[str, int]) -> None:
        self._processes = dict(processes)
        self._begun = time.monotonic()
        self._machine = _busy_seconds()
        self._before = {name: cpu_seconds(pid) for name, pid in self._processes.items()}

    def stop(self) -> tuple[dict[str, float], float]:
        """CPU seconds of each process, and how many cores all others kept busy on the average."""
        used = {name: cpu_seconds(pid) - self._before[name] for name, pid in self._processes.items()}
        elapsed = max(time.monotonic() - self._begun, 1 / _TICKS)
        others = (_busy_seconds() - self._machine - sum(used.values())) / elapsed
        return used, max(others, 0.0)


def _busy_seconds() -> float:
    """What all cores together have worked, time stolen by the host's other guests included."""
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = (
        int(ticks) for ticks in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq + steal) / _TICKS


def description() -> dict[str, str]:
    """The machine, for the head of a result."""
    uname = os.uname()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return {
        "cpu": _first(
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory:.0f} GiB",
        "kernel": f"{uname.sysname} {uname.release}",
        "load average before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def _first(lines: Iterable[str]) -> str:
    return next(iter(lines), "unknown")
