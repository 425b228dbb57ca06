"""All that the bridge talks to, as one thing to start, show and stop.

A stack is a folder: ``stack.json`` says its flavour, and each part has a folder with its pid, port, log,
data and password (`cdc.local.Server`). Nothing else knows about a running stack, so any process can show
and stop it, and one that was killed halfway through a start or a stop leaves nothing to clean up.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, get_args

from cdc.local._server import Server
from cdc.local.errors import LocalServerError, MissingPart
from cdc.local.kafka import ApacheKafka, EmbeddedKafka, Kafka
from cdc.local.postgres import EmbeddedPostgres, Postgres, SystemPostgres
from cdc.local.redis import Redis, RedisServer, Valkey

__all__ = ["Flavour", "PartStatus", "Stack"]

Flavour = Literal["embedded", "apache"]

State = Literal["running", "not answering", "stopped"]


@dataclass(frozen=True, slots=True)
class PartStatus:
    """One part of a stack as it is now."""

    part: str
    """``postgres``, ``kafka`` or ``redis``."""
    name: str
    endpoint: str | None
    """``host:port``; None before the first start if the port is not given."""
    pid: int | None
    state: State
    log: str


class Stack:
    """One Postgres, one Kafka broker and one Redis on 127.0.0.1.

    ``embedded`` consists of wheels alone (Postgres 18, Valkey 9, a Kafka-compatible broker that keeps its
    topics in memory); ``apache`` of Apache Kafka 4.3 and the system's Postgres and Redis. ``directory``
    and the ports as in `Server`. As a context manager a stack ends with its block.

    Raises `LocalServerError` for a folder that holds a stack of another flavour.
    """

    def __init__(
        self,
        flavour: Flavour = "embedded",
        directory: str | os.PathLike[str] | None = None,
        *,
        postgres_port: int | None = None,
        kafka_port: int | None = None,
        redis_port: int | None = None,
        die_with_parent: bool = False,
    ) -> None:
        if flavour not in get_args(Flavour):
            raise ValueError(f"flavour is {flavour!r}; known are {', '.join(get_args(Flavour))}")
        self._temporary = directory is None
        if directory is None:
            die_with_parent = True  # as in `Server`: nobody else could find and stop it
            directory = tempfile.mkdtemp(prefix=f"cdc-stack-{flavour}-")
        self.directory = Path(directory).absolute()
        self.flavour = flavour
        found = flavour_of(self.directory)
        if found not in (None, flavour):
            raise LocalServerError(
                f"{self.directory} holds a stack of flavour {found}, not {flavour}. Use another folder"
            )
        postgres_class = EmbeddedPostgres if flavour == "embedded" else SystemPostgres
        self.postgres: Postgres = postgres_class(
            directory=self.directory / "postgres", port=postgres_port, die_with_parent=die_with_parent
        )
        kafka_class = EmbeddedKafka if flavour == "embedded" else ApacheKafka
        self.kafka: Kafka = kafka_class(
            directory=self.directory / "kafka", port=kafka_port, die_with_parent=die_with_parent
        )
        redis_class = Valkey if flavour == "embedded" else Redis
        self.redis: RedisServer = redis_class(
            directory=self.directory / "redis", port=redis_port, die_with_parent=die_with_parent
        )

    @property
    def parts(self) -> dict[str, Server]:
        """The servers by name."""
        return {"postgres": self.postgres, "kafka": self.kafka, "redis": self.redis}

    def start(self) -> None:
        """Start what does not run yet and return when every part answers.

        If a part does not start, those this call started are stopped again. Raises `MissingPart`, for all
        missing parts at once and before anything is started, and `LocalServerError`.
        """
        with self._locked():
            self._ensure_installed()
            (self.directory / "stack.json").write_text(json.dumps({"flavour": self.flavour}) + "\n", encoding="utf-8")
            new = [server for server in self.parts.values() if not server.is_running()]
            try:
                _each(list(self.parts.values()), "start")
            except BaseException:
                _each(new, "stop")
                raise

    def stop(self) -> None:
        """Stop what runs. A no-op when nothing does."""
        if flavour_of(self.directory) is not None:
            with self._locked():
                _each(list(self.parts.values()), "stop")

    def status(self) -> list[PartStatus]:
        """Every part as it is now. Asks each running server a question."""
        return [_status(part, server) for part, server in self.parts.items()]

    def is_running(self) -> bool:
        """Whether every part runs and answers."""
        return all(part.state == "running" for part in self.status())

    def close(self) -> None:
        """Stop everything and remove the folder if that was a temporary one."""
        self.stop()
        if self._temporary:
            shutil.rmtree(self.directory)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ensure_installed(self) -> None:
        missing: list[MissingPart] = []
        for server in self.parts.values():
            try:
                server.ensure_installed()
            except MissingPart as error:
                missing.append(error)
        if len(missing) == 1:
            raise missing[0]
        if missing:
            remedies = dict.fromkeys(error.remedy for error in missing)
            raise MissingPart(", ".join(error.part for error in missing), " && ".join(remedies))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time starts or stops a stack; the kernel gives the lock of a dead one back."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o711)
        with (self.directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def flavour_of(directory: Path) -> Flavour | None:
    """The flavour of the stack in a folder, None when there is none."""
    try:
        flavour: Flavour = json.loads((directory / "stack.json").read_text(encoding="utf-8"))["flavour"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise LocalServerError(f"{directory}/stack.json is damaged ({error!r}); remove it") from error
    return flavour


def _status(part: str, server: Server) -> PartStatus:
    pid = server.pid
    if pid is None:
        state: State = "stopped"
    else:
        state = "running" if server.answers() else "not answering"
    endpoint = server.endpoint if server.known_port else None
    return PartStatus(part, server.name, endpoint, pid, state, str(server.log))


def _each(servers: list[Server], action: Literal["start", "stop"]) -> None:
    """Do it to all at the same time; the first error is raised when all are done."""
    with ThreadPoolExecutor(max_workers=len(servers) or 1) as pool:
        running = [pool.submit(getattr(server, action)) for server in servers]
    for future in running:
        future.result()
