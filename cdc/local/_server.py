"""The life cycle that all local servers share.

A server's folder holds ``process.json`` (port, pid and identity of the process, written before the
server runs), ``log`` and ``data/``. The record makes the server known to other processes: a second
`Server` on the same folder finds it running, shows it and stops it.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import signal
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from cdc.local import _process
from cdc.local._ports import free_port, is_listening
from cdc.local._process import Owner, Process
from cdc.local.errors import LocalServerError

__all__ = ["Command", "Server"]

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Command:
    """How one server is run."""

    argv: Sequence[str]
    env: Mapping[str, str] | None = None
    owner: Owner | None = None
    needs: Sequence[Path] = field(default=())
    """What the owner must be able to reach."""


class Server(ABC):
    """One server on 127.0.0.1 with a folder of its own.

    ``directory`` None means a temporary folder, removed when the ``with`` block ends. ``port`` None or 0
    means a free one, chosen at the first start and kept in the folder. With ``die_with_parent``, and
    always in a temporary folder (nobody else could find and stop it), the kernel ends the server as soon
    as the process that started it is gone, whatever ended that.
    """

    name: ClassVar[str]
    """What messages call it."""
    host: ClassVar[str] = "127.0.0.1"

    _start_seconds: ClassVar[float] = 60
    _stop_seconds: ClassVar[float] = 30
    _stop_signal: ClassVar[int] = signal.SIGTERM
    _death_signal: ClassVar[int] = signal.SIGKILL

    def __init__(
        self,
        *,
        directory: str | os.PathLike[str] | None = None,
        port: int | None = None,
        die_with_parent: bool = False,
    ) -> None:
        self._directory = Path(directory).absolute() if directory is not None else None
        self._temporary = directory is None
        self._port = self._given_port = port or None
        self.die_with_parent = die_with_parent or directory is None
        self._process: Process | None = None

    # What each kind of server says about itself

    @abstractmethod
    def ensure_installed(self) -> None:
        """Find the programs, or download them. Raises `MissingPart`."""

    @abstractmethod
    def _prepare(self) -> Command:
        """Make data and configuration ready for a start. May be called again after a crash."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether a real request is answered now."""

    @property
    @abstractmethod
    def version(self) -> str:
        """The version of the program."""

    # What all have

    @property
    def keeps_data(self) -> bool:
        """Whether data survives a restart."""
        return True

    @property
    def directory(self) -> Path:
        """The server's folder; a temporary one is made when asked for the first time."""
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix=f"cdc-{type(self).__name__.lower()}-"))
        return self._directory

    @property
    def data(self) -> Path:
        """The folder of the server's own files."""
        return self.directory / "data"

    @property
    def log(self) -> Path:
        """The file with the server's output, of all its runs."""
        return self.directory / "log"

    @property
    def port(self) -> int:
        """The port on 127.0.0.1; chosen and kept when asked for the first time."""
        if self._port is None:
            self._port = self.known_port or free_port()
        return self._port

    @property
    def known_port(self) -> int | None:
        """The port if it is chosen: given, or used by an earlier start in this folder."""
        return self._port or self._record().get("port")

    @property
    def endpoint(self) -> str:
        """``host:port``."""
        return f"{self.host}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The pid of the running server (of Postgres, the postmaster), None when it does not run."""
        process = self._running()
        return process.pid if process else None

    def is_running(self) -> bool:
        """Whether the server's process is there, whoever started it."""
        return self._running() is not None

    def start(self) -> None:
        """Start the server and return when it answers. A no-op when it already runs.

        Raises `MissingPart` when a program is not installed and `LocalServerError`, with the end of the
        log, when the server does not come up.
        """
        self.ensure_installed()
        if self._running() is not None:
            if self._given_port not in (None, self._port):
                raise LocalServerError(
                    f"{self.name} in {self.directory} already runs, on port {self._port} and not on "
                    f"{self._given_port}. Stop it first"
                )
            self._await_answer(log_offset=None)
            return
        self._make_directory()
        command = self._prepare()
        if is_listening(self.port):
            raise LocalServerError(
                f"{self.name} cannot start on {self.endpoint}: another program listens there. "
                "Choose another port or stop that program"
            )
        offset = self.log.stat().st_size if self.log.exists() else 0
        self._process = _process.spawn(
            command.argv,
            cwd=self.directory,
            log=self.log,
            env=command.env,
            owner=command.owner,
            needs=command.needs,
            record_path=self._record_path,
            record={"port": self.port},
            death_signal=self._death_signal if self.die_with_parent else None,
        )
        try:
            self._await_answer(log_offset=offset)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop the server cleanly; after half a minute, kill it. A no-op when it does not run."""
        self._stop(self._stop_signal)

    def kill(self) -> None:
        """SIGKILL to the server and all its children, as a crash. Its data stays as it is."""
        if (process := self._running()) is not None:
            process.kill()

    def restart(self) -> None:
        """Stop and start again, with the same port and data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop the server and remove its folder if that was a temporary one."""
        self.stop()
        if self._temporary and self._directory is not None:
            shutil.rmtree(self._directory)
            self._directory = None

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

    def __repr__(self) -> str:
        where = self._directory or "a temporary folder"
        return f"<{type(self).__name__} {self.host}:{self._port or 'unset'} in {where}>"

    # Helpers

    def _make_directory(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o711)  # a server that is not root must reach its data below

    @property
    def _record_path(self) -> Path:
        return self.directory / "process.json"

    def _record(self) -> dict[str, Any]:
        if self._directory is None:
            return {}
        try:
            record = json.loads((self._directory / "process.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except ValueError as error:
            raise LocalServerError(f"{self._directory}/process.json is damaged ({error}); remove it") from error
        return dict(record)

    def _running(self) -> Process | None:
        if self._process is not None and self._process.is_alive():
            return self._process
        record = self._record()
        if not record:
            return None
        process = Process(record["pid"], record["start_ticks"], record["boot_id"])
        if not process.is_alive():
            return None
        self._process = process
        self._port = int(record["port"])
        return process

    def _stop(self, signal_number: int) -> None:
        if (process := self._running()) is None:
            return
        process.send(signal_number)
        if not process.wait(self._stop_seconds):
            _log.warning("%r did not stop within %g s and is killed", self, self._stop_seconds)
            process.kill()

    def _await_answer(self, log_offset: int | None) -> None:
        deadline = time.monotonic() + self._start_seconds
        while True:
            process = self._process
            if process is None or not process.is_alive():
                status = process.exit_status if process else None
                ended = f"ended with status {status}" if status is not None else "ended"
                raise LocalServerError(f"{self.name} {ended} while starting{self._log_tail(log_offset)}")
            if self.answers():
                return
            if time.monotonic() > deadline:
                raise LocalServerError(
                    f"{self.name} did not answer on {self.endpoint} within {self._start_seconds:g} s"
                    f"{self._log_tail(log_offset)}"
                )
            process.wait(_POLL_SECONDS)

    def _log_tail(self, offset: int | None, lines: int = 15) -> str:
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(offset or 0)
            tail = log.read()[-20_000:].decode(errors="replace").splitlines()[-lines:]
        return f"; the end of {self.log}:\n" + "\n".join(tail)

    def _secret(self, name: str, given: str | None) -> str:
        """The password kept in the folder's file ``name``, made by the first start."""
        path = self.directory / name
        if path.exists():
            kept = path.read_text(encoding="utf-8").strip()
            if given is not None and given != kept:
                raise LocalServerError(
                    f"{self.name} in {self.directory} was made with another password than the one given. "
                    "Use that one (it is in the file 'password' there) or another folder"
                )
            return kept
        self._make_directory()
        secret = given if given is not None else secrets.token_urlsafe(18)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(secret + "\n")
        return secret
