"""A small TCP proxy on loopback that makes the faults of networks: cut, slow, half-open, black-holed, refused.

One `Proxy` stands before one server. What it does to data is decided for all its connections at once; a `Tripwire`
does something at the end of the N-th message that passes, before the next one does.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Self

from cdc.local._ports import free_port

__all__ = ["Direction", "Proxy", "Tripwire", "chunks", "frames_of_postgres"]

_CHUNK: Final = 1 << 16
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing sends RST."""

Direction = Literal["up", "down"]
"""``up`` is from the client to the server."""
Cutter = Callable[[], Callable[[bytes], Iterator[tuple[bytes, bool]]]]
"""Makes, for a connection, what parts its bytes: pieces, and whether a message that counts ends with each."""


def chunks() -> Callable[[bytes], Iterator[tuple[bytes, bool]]]:
    """Every piece that was read from the socket counts."""

    def cut(data: bytes) -> Iterator[tuple[bytes, bool]]:
        yield data, True

    return cut


def frames_of_postgres() -> Callable[[bytes], Iterator[tuple[bytes, bool]]]:
    """Messages of a server of Postgres; those that carry WAL count. For connections without TLS."""
    held = bytearray()

    def cut(data: bytes) -> Iterator[tuple[bytes, bool]]:
        held.extend(data)
        while len(held) >= 5:
            size = 1 + int.from_bytes(held[1:5], "big")
            if len(held) < size:
                return
            message = bytes(held[:size])
            del held[:size]
            yield message, message[:1] == b"d" and message[5:6] == b"w"

    return cut


@dataclass
class Tripwire:
    """Calls ``action`` once, in the proxy's thread, when the ``count``-th message has passed in a direction."""

    direction: Direction
    count: int
    action: Callable[[], None]
    seen: int = field(default=0, init=False)
    sprung: threading.Event = field(default_factory=threading.Event, init=False)


class _Link:
    """One connection: a client, a server, and a thread for each direction."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self.client, self.server = client, server
        self.gone = False
        self.ended = 0
        """Directions that have ended."""
        for source, target, direction in ((client, server, "up"), (server, client, "down")):
            threading.Thread(target=self._pump, args=(source, target, direction), daemon=True).start()

    def reset(self, *sides: socket.socket) -> None:
        """Close these sides at once, without a farewell."""
        self.gone = True
        for side in sides:
            with contextlib.suppress(OSError):
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                side.shutdown(socket.SHUT_RD)  # wakes the thread that reads there
            with contextlib.suppress(OSError):
                side.close()

    def _pump(self, source: socket.socket, target: socket.socket, direction: Direction) -> None:
        cut = self._proxy.cutters[direction]()
        try:
            while data := source.recv(_CHUNK):
                self._proxy.pass_gate(self)
                for piece, counts in cut(data):
                    self._send(target, piece)
                    if counts:
                        self._proxy.count(direction)
            if not self.gone:
                target.shutdown(socket.SHUT_WR)
        except OSError:
            if not self.gone:
                self.reset(self.client, self.server)
        finally:
            self._proxy.end(self)

    def _send(self, target: socket.socket, data: bytes) -> None:
        for begin in range(0, len(data), step := self._proxy.step):
            part = data[begin : begin + step]
            self._proxy.pass_gate(self)
            if self.gone:
                return
            target.sendall(part)
            if rate := self._proxy.bytes_per_second:
                time.sleep(len(part) / rate)


class Proxy:
    """Listens on a port of loopback that stays the same, and passes connections on to ``host:port``."""

    def __init__(self, port: int, host: str = "127.0.0.1", *, up: Cutter = chunks, down: Cutter = chunks) -> None:
        self._target = (host, port)
        self.cutters: Mapping[Direction, Cutter] = {"up": up, "down": down}
        """What counts as a message, for `Tripwire`."""
        self.port = free_port()
        self._gate = threading.Condition()
        self._held = False
        self._links: set[_Link] = set()
        self._silent: set[_Link] = set()
        self._closed = False
        self._listener: socket.socket | None = None
        self.bytes_per_second = 0
        """The rate of each connection and direction; 0 for as fast as can be."""
        self.tripwire: Tripwire | None = None
        self.refuse(refused=False)

    @property
    def endpoint(self) -> str:
        """``host:port``."""
        return f"127.0.0.1:{self.port}"

    @property
    def step(self) -> int:
        """Bytes that are sent in one go."""
        return max(1, self.bytes_per_second // 50) if self.bytes_per_second else _CHUNK

    # -- faults -------------------------------------------------------------------------------------

    def cut(self) -> int:
        """Reset all connections, towards both sides; how many there were."""
        links = self._taken()
        for link in links:
            link.reset(link.client, link.server)
        return len(links)

    def half_open(self) -> None:
        """The server loses all connections and no client hears of it: what they send goes nowhere, nothing comes.

        They stay so until the client gives up, or until `cut`.
        """
        with self._gate:
            links = set(self._links)
            self._silent |= links
        for link in links:
            link.reset(link.server)

    def hold(self, *, held: bool = True) -> None:
        """A black hole: connections are accepted and stay, and no byte passes until it is lifted."""
        with self._gate:
            self._held = held
            self._gate.notify_all()

    def refuse(self, *, refused: bool = True) -> None:
        """Accept no new connections, as a port at which nobody listens."""
        if refused and self._listener is not None:
            listener, self._listener = self._listener, None
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        elif not refused and self._listener is None:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", self.port))
            listener.listen(128)
            self._listener = listener
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def lift(self) -> None:
        """All is well again. Connections that are half-open or were held stay as they are."""
        self.bytes_per_second = 0
        self.tripwire = None
        self.hold(held=False)
        self.refuse(refused=False)

    def close(self) -> None:
        """Stop listening and cut all connections."""
        self._closed = True
        self.refuse()
        self.hold(held=False)
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- for links ----------------------------------------------------------------------------------

    def pass_gate(self, link: _Link) -> None:
        """Wait while data is held."""
        with self._gate:
            while self._held and not link.gone:
                self._gate.wait()

    def count(self, direction: Direction) -> None:
        """One more message has passed."""
        with self._gate:
            wire = self.tripwire
            if wire is None or wire.direction != direction:
                return
            wire.seen += 1
            if wire.seen < wire.count:
                return
            self.tripwire = None
        wire.action()
        wire.sprung.set()

    def end(self, link: _Link) -> None:
        """A direction of a link has ended. The client of a half-open one must not be told, so that one is kept."""
        with self._gate:
            link.ended += 1
            if link.ended < 2 or link in self._silent:
                return
            self._links.discard(link)
        for side in (link.client, link.server):
            side.close()

    # -- parts --------------------------------------------------------------------------------------

    def _taken(self) -> set[_Link]:
        with self._gate:
            links, self._links, self._silent = self._links, set(), set()
            for link in links:
                link.gone = True
            self._gate.notify_all()
        return links

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # closed: refused from now on
                return
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._target, timeout=10)
        except OSError:  # the server is away: as if it had refused the client itself
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.close()
            return
        server.settimeout(None)
        for side in (client, server):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._gate:
            self._links.add(_Link(self, client, server))
        if self._closed:
            self.cut()
