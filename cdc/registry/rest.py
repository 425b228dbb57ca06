"""What every handler of the REST API shares: paths, bodies, answers and errors in Confluent's form."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeGuard, TypeVar
from urllib.parse import unquote

import anyio.to_thread
from anyio import CapacityLimiter
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from cdc.errors import CdcError
from cdc.registry.contexts import normal
from cdc.registry.errors import RestError
from cdc.registry.plans import SchemaRequest
from cdc.registry.records import Reference, dump

__all__ = ["Call", "RawText", "RegistryRoute", "answer", "endpoint"]

_CONTENT_TYPE: Final = "application/vnd.schemaregistry.v1+json"
_MAX_BODY: Final = 4 * 1024 * 1024
_MAX_DRAINED: Final = 64 * 1024 * 1024
_MAX_INT: Final = 2**31 - 1
_Item = TypeVar("_Item")


class RawText(str):
    """An answer sent as it is, not as a JSON string."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Call:
    """A request, its body read and parsed. Accessors raise `RestError` for what is not as it must be."""

    path: dict[str, str]
    query: QueryParams
    body: dict[str, Any]

    @property
    def subject(self) -> str:
        try:
            return normal(unquote(self.path["subject"], errors="strict"))
        except UnicodeDecodeError:
            raise RestError(422, 42208, f"The subject '{self.path['subject']}' is not UTF-8") from None

    @property
    def settings_subject(self) -> str | None:
        """The subject of a config or mode; None where the name means the default context."""
        return self.subject or None

    @property
    def version(self) -> int:
        """The version in the path, -1 for the latest."""
        text = unquote(self.path["version"]).strip()
        number = -1 if text.lower() == "latest" else _integer(text)
        if number is None or not (number == -1 or 0 < number <= _MAX_INT):
            raise RestError(
                422,
                42202,
                f"The specified version '{text}' is not a valid version id. Allowed values are between"
                ' [1, 2^31-1] and the string "latest"',
            )
        return number

    @property
    def schema_id(self) -> int:
        number = _integer(unquote(self.path["id"]))
        if number is None or not 0 <= number <= _MAX_INT:
            raise RestError(404, 404, "HTTP 404 Not Found")
        return number

    def flag(self, name: str) -> bool:
        return self.query.get(name, "").lower() == "true"

    def page(self, items: Sequence[_Item]) -> list[_Item]:
        """The part of ``items`` that ``offset`` and ``limit`` ask for; a limit of 0 or less is none."""
        offset, limit = _integer(self.query.get("offset", "0")), _integer(self.query.get("limit", "-1"))
        if offset is None or offset < 0 or limit is None:
            raise RestError(400, 400, "offset and limit are whole numbers, offset not below 0")
        return list(items[offset:] if limit <= 0 else items[offset : offset + limit])

    def schema(self) -> SchemaRequest:
        """The schema in the body."""
        unsupported = [name for name in ("metadata", "ruleSet") if self.body.get(name) is not None]
        if unsupported:
            raise RestError(
                422,
                42201,
                f"The embedded registry keeps no {' or '.join(unsupported)}; data contracts need Confluent's registry",
            )
        number, version = self._optional("id", int), self._optional("version", int)
        return SchemaRequest(
            schema=self._optional("schema", str) or "",
            schema_type=(self._optional("schemaType", str) or "AVRO").upper(),
            references=tuple(self._references()),
            id=number if number is not None and number >= 0 else None,
            version=version if version is not None and version > 0 else None,
        )

    def text(self, name: str) -> str:
        value = self._optional(name, str)
        if value is None:
            raise RestError(422, 422, f"{name} is missing in the body")
        return value

    def _references(self) -> list[Reference]:
        found = []
        for entry in self._optional("references", list) or []:
            fields = entry if isinstance(entry, dict) else {}
            name, subject, version = fields.get("name"), fields.get("subject"), fields.get("version")
            if not (isinstance(name, str) and isinstance(subject, str)) or not _is_integer(version):
                raise RestError(400, 400, "A reference has a name, a subject and a version, the last a number")
            found.append(Reference(name, subject, version))
        return found

    def _optional(self, name: str, kind: type[_Item]) -> _Item | None:
        value = self.body.get(name)
        if value is None:
            return None
        if not isinstance(value, kind) or isinstance(value, bool) or (kind is int and not _is_integer(value)):
            raise RestError(400, 400, f"{name} in the body must be of type {kind.__name__}, not {type(value).__name__}")
        return value


class RegistryRoute(Route):
    """A route that tells ``%2F`` in a name from a slash between names. Path parameters stay percent-encoded."""

    def __init__(self, path: str, handler: Callable[[Request], Awaitable[Response]], method: str) -> None:
        super().__init__(path, handler, methods=[method])
        self._raw = re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(path)) + "/?")

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http":
            return Match.NONE, {}
        raw = scope.get("raw_path") or scope["path"].encode()
        path = raw.decode("latin-1").partition("?")[0].removeprefix(scope.get("root_path", ""))
        found = self._raw.fullmatch(path)
        if found is None:
            return Match.NONE, {}
        child = {"endpoint": self.endpoint, "path_params": found.groupdict()}
        return (Match.FULL if scope["method"] in (self.methods or ()) else Match.PARTIAL), child


def endpoint(handle: Callable[[Call], Any], limiter: CapacityLimiter) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that runs ``handle``, which may block, in a thread of ``limiter``, and answers as Confluent does."""

    async def serve(request: Request) -> Response:
        try:
            body = await _body(request) if request.method in ("POST", "PUT") else {}
            call = Call(request.path_params, request.query_params, body)
            return answer(await anyio.to_thread.run_sync(handle, call, limiter=limiter))
        except RestError as error:
            return answer({"error_code": error.code, "message": str(error)}, error.status)
        except CdcError as error:
            return answer({"error_code": 50001, "message": f"Error in the backend data store: {error}"}, 500)

    return serve


def answer(content: Any, status: int = 200) -> Response:
    """A response in Confluent's content type."""
    body = content.encode("utf-8", "replace") if isinstance(content, RawText) else dump(content)
    return Response(body, status, media_type=_CONTENT_TYPE)


async def _body(request: Request) -> dict[str, Any]:
    raw = bytearray()
    size = 0
    # What is too large is read to its end all the same, or the client would see a broken connection, not the answer.
    async for chunk in request.stream():
        size += len(chunk)
        if size <= _MAX_BODY:
            raw += chunk
        elif size > _MAX_DRAINED:
            break
    if size > _MAX_BODY:
        raise RestError(413, 413, f"The request body is larger than {_MAX_BODY} bytes, more than any schema may be")
    try:
        body = json.loads(bytes(raw))
        json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise RestError(400, 400, f"The request body is not valid JSON in UTF-8: {error}") from None
    if not isinstance(body, dict):
        raise RestError(400, 400, f"The request body is a JSON {type(body).__name__}, not an object")
    return body


def _is_integer(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and -1 <= value <= _MAX_INT


def _integer(text: str) -> int | None:
    return int(text) if re.fullmatch(r"-?[0-9]{1,10}", text) else None
