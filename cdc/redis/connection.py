"""One connection to Redis that never comes back by itself.

A WATCH lives and dies with its connection. redis-py's clients reconnect when it suits them, and an EXEC on the new
connection would succeed without any WATCH (EXACTNESS.md H19). So redis-py opens the connection, with all it knows
of URLs, TLS, users and handshakes, and from then on the socket is used here alone: the first error is the last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

import hiredis
import redis

from cdc.errors import CdcError, RetriableError
from cdc.redis.errors import OF_SERVERS, translate

__all__ = ["Argument", "Wire", "pack"]

_CHUNK: Final = 1 << 18
Argument = bytes | str | int

pack: Final = cast(Callable[[tuple[Argument, ...]], bytes], hiredis.pack_command)
"""One command in Redis's protocol, packed in C."""


class Wire:
    """A connection, open from the first line to the first error. Its methods raise `RetriableError` or `FatalError`."""

    def __init__(self, connect: Callable[[], Any], place: str, remedies: Mapping[str, str] = OF_SERVERS) -> None:
        self._place = place
        self._remedies = remedies
        self._connection: Any = connect()  # Any: redis-py has no types for opening and closing one
        try:
            self._connection.connect()
        except (redis.RedisError, OSError) as error:
            self._connection.disconnect()
            raise translate(error, f"connecting to Redis at {place}", remedies) from error
        self._socket: Any = self._connection._sock  # the connection object is used only to close it
        self._reader = hiredis.Reader()

    def send(self, data: bytes) -> None:
        """Send packed commands."""
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._failed(error) from error

    def reply(self) -> Any:
        """The next reply. Error replies are returned (`hiredis.ReplyError`), not raised: what they mean depends."""
        reader = self._reader
        answer = reader.gets()
        while answer is False:
            try:
                data = self._socket.recv(_CHUNK)
                if not data:
                    raise ConnectionResetError("closed by the server")
                reader.feed(data)
                answer = reader.gets()
            except (OSError, hiredis.ProtocolError) as error:
                raise self._failed(error) from error
        return answer

    def call(self, *commands: Sequence[Argument]) -> list[Any]:
        """Send commands in one go and return their replies. An error reply is raised."""
        self.send(b"".join(pack(tuple(command)) for command in commands))
        replies = [self.reply() for _ in commands]
        for command, answer in zip(commands, replies, strict=True):
            if isinstance(answer, hiredis.ReplyError):
                raise self.refused(answer, str(command[0]))
        return replies

    def ask(self, *command: Argument) -> Any:
        """The reply to one command, error replies included."""
        self.send(pack(command))
        return self.reply()

    def one(self, *command: Argument) -> Any:
        """The reply to one command. An error reply is raised."""
        return self.call(command)[0]

    def refused(self, answer: Exception, doing: str) -> CdcError:
        """The error to raise for an error reply. Closes the connection: nothing may be written on it before a guard."""
        self.close()
        return translate(answer, f"Redis at {self._place}, {doing}", self._remedies)

    def _failed(self, error: Exception) -> RetriableError:
        self.close()
        return RetriableError(f"lost the connection to Redis at {self._place}: {str(error) or type(error).__name__}")

    def close(self) -> None:
        """Close the connection. Never raises."""
        self._connection.disconnect()
