"""The task's slot, from what is there to one that can be streamed: verified, made, waited for, given up on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import structlog

from cdc.errors import RetriableError
from cdc.postgres import preparation
from cdc.postgres.config import PostgresConfig
from cdc.postgres.pgoutput import format_lsn
from cdc.postgres.position import Reset, StoredPosition
from cdc.postgres.server import Server
from cdc.postgres.slot_creation import CreationWait
from cdc.postgres.slots import SlotInfo, drop_slot
from cdc.postgres.stream import ReplicationStream

__all__ = ["SlotKeeper"]

_log = structlog.get_logger(__name__)


class SlotKeeper:
    """``sender_timeout`` is the server's, in seconds; ``report`` tells the supervisor what is waited for."""

    def __init__(
        self,
        config: PostgresConfig,
        server: Server,
        sender_timeout: float,
        stopping: Callable[[], bool],
        report: Callable[[str, object], None],
    ) -> None:
        self._config = config
        self._server = server
        self._sender_timeout = sender_timeout
        self._stopping = stopping
        self._report = report

    def verify(
        self, stream: ReplicationStream, system: Mapping[str, Any], stored: StoredPosition | None, reset: Reset | None
    ) -> None:
        """Stop if the stored position does not fit the server and its slot; do what a reset asks for."""
        slot = self._read()
        if slot is not None and slot.synced and self._server.standby:
            raise RetriableError(
                f"this server is a standby, and keeps the replication slot {slot.name} in step with its primary's: it "
                "can be read after a promotion. Remedy: name the primary in database.hostname, or promote this server"
            )
        if stored is not None:
            preparation.verify_position(
                stored, system, stream.timeline_history, self._config, standby=self._server.standby
            )
        if reset is not None:
            self._give_up(slot, reset)
            slot = None
        preparation.verify_slot(slot, self._config, stored, system["wal_flush"])

    def take(self, stream: ReplicationStream, stored: StoredPosition | None) -> int:
        """Make the slot, or wait until nobody holds it (H5); the LSN from which it can be streamed."""
        config = self._config
        failover = config.slot_failover and not self._server.standby
        slot = self._read()
        if slot is None:
            wait = self.creation(config.slot)
            begin = stream.create_slot(config.slot, wait, failover=failover)
            wait.over()
            return begin
        self._await_free()
        slot = self._read()  # whoever held it may have moved it on
        preparation.verify_slot(slot, config, stored)
        if slot is None:
            raise RetriableError(f"the replication slot {config.slot} was dropped by whoever held it")
        if failover and not slot.failover:
            stream.set_failover(config.slot)
        return slot.confirmed_flush_lsn or slot.restart_lsn or 0

    def creation(self, slot: str) -> CreationWait:
        """What a slot that is being made waits with."""
        return CreationWait(slot, self._server.connection, self._stopping, self._report)

    def _give_up(self, slot: SlotInfo | None, reset: Reset) -> None:
        """Drop the slot, as an operator has asked: its place is taken by a new one, and every table is read again.

        Nothing of that is stored before the first commit: a crash until then begins here again, with yet another slot.
        """
        lost = "" if reset.lsn is None else format_lsn(reset.lsn)
        _log.warning("the slot is made anew and every table is read again, as was asked for", given_up_after=lost)
        if slot is None:
            return
        preparation.verify_ours(slot, self._config)
        self._await_free()
        drop_slot(self._server.connection(), self._config.slot)

    def _await_free(self) -> None:
        preparation.wait_for_slot(self._read, self._config.slot, self._sender_timeout, self._stopping, self._tell)

    def _read(self) -> SlotInfo | None:
        return preparation.slot_of(self._server.connection(), self._config)

    def _tell(self, what: str) -> None:
        if what:
            _log.warning("waiting", cause=what)
        self._report("waiting", what)
