"""The proxy of the fault tests makes the faults that it says."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.proxy import Proxy, Tripwire, frames_of_postgres


@contextlib.contextmanager
def echoing() -> Iterator[int]:
    """A server that sends back what it gets; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()

        def echo(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                while data := connection.recv(65536):
                    connection.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        yield int(listener.getsockname()[1])


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with echoing() as port, Proxy(port) as made:
        yield made


def dial(proxy: Proxy, timeout: float = 30) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=timeout)


def said(connection: socket.socket, text: bytes) -> bytes:
    connection.sendall(text)
    return connection.recv(100)


def test_what_is_sent_passes_and_an_end_is_passed_on(proxy: Proxy) -> None:
    with dial(proxy) as client:
        assert said(client, b"hello") == b"hello"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""


def test_cut_resets_the_connections_there_are_and_takes_new_ones(proxy: Proxy) -> None:
    with dial(proxy) as client:
        assert said(client, b"1") == b"1"
        assert proxy.cut() == 1
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with dial(proxy) as client:
        assert said(client, b"2") == b"2"


def test_refused_then_accepted_again(proxy: Proxy) -> None:
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        dial(proxy)
    proxy.lift()
    with dial(proxy) as client:
        assert said(client, b"3") == b"3"


def test_held_data_comes_when_the_hold_is_lifted(proxy: Proxy) -> None:
    proxy.hold()
    with dial(proxy, 0.2) as client:
        with pytest.raises(TimeoutError):
            said(client, b"4")
        proxy.lift()
        client.settimeout(30)
        assert client.recv(1) == b"4"


def test_half_open_tells_the_client_nothing_until_it_is_cut(proxy: Proxy) -> None:
    with dial(proxy, 0.2) as client:
        assert said(client, b"5") == b"5"
        proxy.half_open()
        for _ in range(2):
            with pytest.raises(TimeoutError):
                said(client, b"6")
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_slow_is_slow(proxy: Proxy) -> None:
    proxy.bytes_per_second = 10_000
    with dial(proxy) as client:
        begun = time.monotonic()
        client.sendall(b"x" * 2000)
        left = 2000
        while left:
            left -= len(client.recv(left))
        assert time.monotonic() - begun >= 0.15  # the last of ten parts may be read before its pause


def test_a_tripwire_acts_once_after_the_given_message(proxy: Proxy) -> None:
    wire = Tripwire("up", 2, lambda: proxy.cut() and None)
    proxy.tripwire = wire
    with dial(proxy) as client:
        assert said(client, b"7") == b"7"
        assert not wire.sprung.is_set()
        client.sendall(b"8")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert wire.sprung.wait(30)
    with dial(proxy) as client:
        assert said(client, b"9") == b"9"


def test_messages_of_postgres_are_told_apart_wherever_they_are_broken() -> None:
    def message(kind: bytes, payload: bytes) -> bytes:
        return kind + (len(payload) + 4).to_bytes(4, "big") + payload

    sent = [message(b"R", b"\0" * 4), message(b"d", b"w" + b"x" * 30), message(b"d", b"k123"), message(b"d", b"wy")]
    for size in (1, 3, 7, 1000):
        cut = frames_of_postgres()
        whole = b"".join(sent)
        found = [piece for begin in range(0, len(whole), size) for piece in cut(whole[begin : begin + size])]
        assert found == list(zip(sent, [False, True, False, True], strict=True))
