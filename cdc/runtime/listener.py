"""The HTTP listener of a worker: health, what it is, and whatever routes are mounted beside (the registry).

Paths and bodies of ``/`` and ``/health`` are Kafka Connect's.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Final, Literal
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from cdc.errors import FatalError

__all__ = ["CONNECT_VERSION", "Health", "Listener"]

CONNECT_VERSION: Final = "4.3.0"
"""The version of Kafka Connect whose REST API this is; clients compare it. Ours is in ``commit``."""

Health = tuple[Literal["healthy", "starting", "unhealthy"], str]
"""Connect's word for a worker's health, and a message."""

_STATUS: Final = {"healthy": 200, "starting": 503, "unhealthy": 500}


class Listener:
    """Serves HTTP from a thread of its own. ``url`` is known as soon as it is made: port 0 has become a real one."""

    def __init__(
        self,
        address: str,
        health: Callable[[], Health],
        cluster_id: Callable[[], str | None],
        routes: Sequence[BaseRoute] = (),
    ) -> None:
        parts = urlsplit(address)
        host, port = parts.hostname or "127.0.0.1", parts.port or 0
        self._socket = _bind(host, port, address)
        bound = self._socket.getsockname()[1]
        self.host = f"[{host}]" if ":" in host else host
        self.port: int = bound
        self.url = f"http://{self.host}:{bound}"
        self.routes = list(routes)
        self._health = health
        self._cluster_id = cluster_id
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Answer from now on. Connections made since the listener exists have been waiting."""

        def health(_request: Request) -> JSONResponse:
            status, message = self._health()
            return JSONResponse({"status": status, "message": message}, _STATUS[status])

        def root(_request: Request) -> JSONResponse:
            told = {"version": CONNECT_VERSION, "commit": f"cdc-{version('cdc')}"}
            return JSONResponse(told | {"kafka_cluster_id": self._cluster_id()})

        app = Starlette(routes=[Route("/", root), Route("/health", health), *self.routes])
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="listener", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Finish the requests under way and close."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join()
        self._socket.close()


def _bind(host: str, port: int, address: str) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise FatalError(
                f"listeners: {address} is in use by another process. Stop it, or set listeners to another "
                f"port (http://{host}:0 is any free one)"
            ) from error
        raise FatalError(f"listeners: cannot listen on {address}: {os.strerror(error.errno or 0)}") from error
