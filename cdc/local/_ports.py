"""Free ports on loopback."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path

from cdc.local.errors import LocalServerError

__all__ = ["free_port", "is_listening"]

_LOWEST = 12_000
_HIGHEST = 32_000


def free_port() -> int:
    """A port on 127.0.0.1 that nothing uses now, outside of the range for outgoing connections.

    Not one that the kernel picks: those are also handed to clients. While a server is down its port
    could be taken by any of them, or a client that keeps trying to reconnect could connect to itself.
    """
    low, _ = (int(part) for part in Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split())
    highest = min(_HIGHEST, low) if low > _LOWEST + 1000 else _HIGHEST
    for _ in range(200):
        port = random.randrange(_LOWEST, highest)  # noqa: S311 - not a secret
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise LocalServerError(f"no free port found on 127.0.0.1 between {_LOWEST} and {highest} in 200 tries")


def is_listening(port: int) -> bool:
    """Whether something accepts connections on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
