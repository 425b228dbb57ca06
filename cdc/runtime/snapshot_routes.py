"""Snapshots of a running source over HTTP: asked for, shown, held, gone on with, stopped.

What is asked is written to the source's topic of signals, as ``cdc snapshot`` does; bodies of errors are Kafka
Connect's. Bodies of requests are the data of Debezium's signals.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from cdc.config import ConnectorSpec
from cdc.errors import CdcError, ConfigError, DataError, RetriableError
from cdc.runtime.signals import send

__all__ = ["snapshot_routes"]

_MOST_BYTES: Final = 1 << 20
_KINDS: Final = {"POST": "execute-snapshot", "DELETE": "stop-snapshot"}


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def snapshot_routes(
    specs: Mapping[str, ConnectorSpec], status: Callable[[], Mapping[str, Any]], redact: Callable[[str], str]
) -> list[BaseRoute]:
    """``/connectors/{name}/snapshot``: GET what became of the last signals, POST execute, DELETE stop; PUT ``/pause``
    and ``/resume``."""

    async def answer(request: Request) -> Response:
        try:
            spec = _spec(request, specs)
            if request.method == "GET":
                return JSONResponse(_shown(status(), spec.name))
            kind = _KINDS.get(request.method) or f"{request.url.path.rpartition('/')[2]}-snapshot"
            data = await _body(request)
            return JSONResponse(await run_in_threadpool(send, spec, kind, data), 202)
        except _Refused as error:
            return _error(error.status, str(error))
        except (ConfigError, DataError) as error:
            return _error(400, redact(str(error)))
        except RetriableError as error:
            return _error(503, redact(str(error)))
        except CdcError as error:
            return _error(500, redact(str(error)))

    path = "/connectors/{name}/snapshot"
    return [
        Route(path, answer, methods=["GET", "POST", "DELETE"]),
        Route(path + "/pause", answer, methods=["PUT"]),
        Route(path + "/resume", answer, methods=["PUT"]),
    ]


def _spec(request: Request, specs: Mapping[str, ConnectorSpec]) -> ConnectorSpec:
    name = request.path_params["name"]
    spec = specs.get(name)
    if spec is None:
        raise _Refused(404, f"Connector {name} not found")
    if spec.kind != "source":
        raise _Refused(400, f"Connector {name} is a sink: it takes no snapshots")
    return spec


async def _body(request: Request) -> Mapping[str, Any]:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MOST_BYTES:
            raise _Refused(413, f"the body has more than {_MOST_BYTES} bytes")
    if not body:
        return {}
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        # Not out of pedantry: a browser sends anything else to any address for any page that asks it to.
        raise _Refused(415, "the body must be JSON, and say so: Content-Type: application/json")
    try:
        data = json.loads(body)
        json.dumps(data, ensure_ascii=False).encode()  # half of a surrogate pair is no character
    except (ValueError, RecursionError) as error:
        raise _Refused(400, f"the body is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise _Refused(400, 'the body is a JSON object such as {"data-collections": ["public.orders"]}')
    return data


def _shown(status: Mapping[str, Any], name: str) -> dict[str, Any]:
    tasks = status["connectors"].get(name, {}).get("tasks", [])
    signals: dict[str, Any] = {}
    for task in tasks:
        signals.update(task.get("metrics", {}).get("signals", {}))
    return {"name": name, "signals": signals}


def _error(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error_code": status, "message": message}, status)
