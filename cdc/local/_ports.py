"""Free ports on loopback."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from collections import deque
from pathlib import Path
from typing import Final

from cdc.local.errors import LocalServerError

__all__ = ["free_port", "is_listening"]

_LOWEST = 12_000
_HIGHEST = 32_000
_BOUND: Final = 200
_RANDOM: Final = random.SystemRandom()  # the common one may have been seeded, in two processes alike


class _Given:
    """Ports that were given out: never twice by one process, nor to two processes while both live.

    Between the choice of a port and the moment when a server listens there are seconds: a broker writes its first
    metadata meanwhile. Each process holds a lock on the byte of a common file whose place is the port's number; the
    kernel takes the locks back when the process ends, in whatever way. And it keeps sockets bound to the last of its
    ports, which never listen: the kernel gives these ports to no outgoing connection, whatever range it takes them
    from, and lets a server bind them that sets SO_REUSEADDR, as all do.
    """

    def __init__(self) -> None:
        self._mine: set[int] = set()
        self._file = (-1, -1)
        self._bound: deque[socket.socket] = deque()

    def take(self, port: int) -> bool:
        """Whether the port is the caller's now."""
        return self._lock(port) and self._bind(port)

    def _bind(self, port: int) -> bool:
        holder = socket.socket()
        try:
            holder.bind(("127.0.0.1", port))  # without SO_REUSEADDR, so that not even another holder has it
        except OSError:
            holder.close()
            return False
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._bound.append(holder)
        if len(self._bound) > _BOUND:
            self._bound.popleft().close()
        return True

    def _lock(self, port: int) -> bool:
        pid, file = self._file
        if pid != os.getpid():  # the first time, or in a forked child, which has none of its parent's locks
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(f"{tempfile.gettempdir()}/cdc-ports-{os.getuid()}", flags, 0o600)
            self._file = os.getpid(), file
        if port in self._mine:
            return False
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except (BlockingIOError, PermissionError):  # POSIX allows either
            return False
        self._mine.add(port)
        return True


_given = _Given()


def free_port() -> int:
    """A port on 127.0.0.1 that nothing uses now, outside of the range for outgoing connections; never given twice.

    Not one that the kernel picks: those are also handed to clients. While a server is down its port
    could be taken by any of them, or a client that keeps trying to reconnect could connect to itself.
    """
    low, _ = (int(part) for part in Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split())
    highest = min(_HIGHEST, low) if low > _LOWEST + 1000 else _HIGHEST
    for _ in range(200):
        port = _RANDOM.randrange(_LOWEST, highest)
        if _given.take(port):
            return port
    raise LocalServerError(f"no free port found on 127.0.0.1 between {_LOWEST} and {highest} in 200 tries")


def is_listening(port: int) -> bool:
    """Whether something accepts connections on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
