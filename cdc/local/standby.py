"""A standby of a local Postgres: made by ``pg_basebackup``, fed by streaming replication through a slot of its own."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from cdc.local import _process
from cdc.local._process import Owner
from cdc.local.errors import LocalServerError
from cdc.local.postgres import EmbeddedPostgres, owner_of_servers

__all__ = ["EmbeddedStandby"]


class EmbeddedStandby(EmbeddedPostgres):
    """A standby of ``primary``, which must run when it starts for the first time; roles and passwords are the same.

    ``slot`` is the physical slot on the primary that keeps WAL for it. ``settings`` are its own, over the primary's.
    """

    name: ClassVar[str] = "Postgres 18 (embedded standby)"

    def __init__(
        self,
        primary: EmbeddedPostgres,
        *,
        slot: str = "standby",
        directory: str | os.PathLike[str] | None = None,
        port: int | None = None,
        settings: Mapping[str, str | int] | None = None,
        die_with_parent: bool = False,
    ) -> None:
        super().__init__(
            directory=directory,
            port=port,
            user=primary.user,
            password=primary.password,
            settings={"hot_standby_feedback": "on", **primary.settings, **(settings or {})},
            die_with_parent=die_with_parent,
        )
        self._primary = primary
        self._slot = slot

    def promote(self) -> None:
        """Make it a primary; returns when it is one."""
        self._command([str(self.bin("pg_ctl")), "promote", "-w", "-D", str(self.data)], self.data, "promoting")

    def _initdb(self, owner: Owner | None) -> None:
        """Copy the primary's data folder, under another name until it is whole."""
        with tempfile.TemporaryDirectory(prefix="initdb-", dir=self.directory) as work:
            Path(work).chmod(0o711)
            new = Path(work) / "data"
            new.mkdir(0o700)
            if owner is not None:
                os.chown(new, owner.uid, owner.gid)
            primary = self._primary
            # With a database in it: keeping logical slots in step needs one (Postgres 17).
            target = f"host={primary.host} port={primary.port} user={primary.user} dbname=postgres"
            command = [str(self.bin("pg_basebackup")), "-d", target, "-D", str(new), "-X", "stream", "-c", "fast"]
            self._command([*command, "-R", "-C", "-S", self._slot, "--no-sync"], new, "pg_basebackup")
            new.rename(self.data)

    def _command(self, argv: list[str], needs: Path, what: str) -> None:
        process = _process.spawn(
            argv,
            cwd=self.directory,
            log=self.log,
            env={**os.environ, "PGPASSWORD": self._primary.password},
            owner=owner_of_servers(),
            needs=[Path(argv[0]), needs],
            death_signal=signal.SIGKILL if self.die_with_parent else None,
        )
        try:
            ended = process.wait(self._start_seconds)
        finally:
            process.kill()
        if not ended or process.exit_status != 0:
            raise LocalServerError(f"{what} failed{self._log_tail(None)}")
