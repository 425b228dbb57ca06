"""The replication connection: the only module that touches psycopg's semi-private parts.

psycopg has no replication API, but its ``PGconn`` speaks COPY BOTH. This shell starts a slot's stream, hands out raw
frames, and sends status updates; it decides nothing.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.pq import ExecStatus

from cdc.errors import CdcError, FatalError, RetriableError
from cdc.postgres.connection import Connection, connect, translate
from cdc.postgres.pgoutput import format_lsn, parse_lsn, status_update

__all__ = ["PublicationMissing", "ReplicationStream"]


WAITING_S: Final = 0.25
"""How often somebody is told that a command still waits."""
CANCEL_S: Final = 5.0


class PublicationMissing(FatalError):
    """The publication did not exist when a change that is to be sent was made: the server cannot pass that change.

    Up to Postgres 17. Later ones tell nothing of such changes, and go on.
    """


class ReplicationStream:
    """A replication connection, and the stream of one slot once it is started.

    For one thread. Errors are `RetriableError` (connection lost, slot busy) or `FatalError`.
    """

    def __init__(self, conninfo: dict[str, str], name: str) -> None:
        self._connection: Connection = connect(conninfo, name, replication=True)
        self._pgconn = self._connection.pgconn
        self._streaming = False

    def identify(self) -> dict[str, Any]:
        """IDENTIFY_SYSTEM: ``system_identifier`` (text), ``timeline``, ``wal_flush`` (LSN)."""
        row = self._one(sql.SQL("IDENTIFY_SYSTEM"), "identifying the system")
        return {"system_identifier": str(row[0]), "timeline": int(row[1]), "wal_flush": parse_lsn(str(row[2]))}

    def timeline_history(self, timeline: int) -> str:
        """The content of the timeline's history file."""
        row = self._one(sql.SQL("TIMELINE_HISTORY {}").format(sql.SQL(str(int(timeline)))), "reading timeline history")
        content = row[1]
        return content.decode() if isinstance(content, bytes) else str(content)

    def create_slot(self, slot: str, waiting: Callable[[int], None], *, failover: bool = False) -> int:
        """Create a logical slot for pgoutput that survives restarts; the LSN from which it is consistent.

        ``waiting`` is called with this session's pid now and then, while the server waits for open transactions to end;
        what it raises ends the attempt. ``failover`` has standbys keep the slot in step (Postgres 17).
        """
        options = "(SNAPSHOT 'nothing', FAILOVER)" if failover else "NOEXPORT_SNAPSHOT"
        query = sql.SQL("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput {}").format(sql.Identifier(slot), sql.SQL(options))
        row = self._patiently(query, f"creating the replication slot {slot}", waiting)
        return parse_lsn(row[1])

    def set_failover(self, slot: str) -> None:
        """Have standbys keep an existing slot in step (Postgres 17)."""
        query = sql.SQL("ALTER_REPLICATION_SLOT {} (FAILOVER true)").format(sql.Identifier(slot))
        try:
            self._connection.execute(query)
        except psycopg.Error as error:
            raise translate(error, f"making {slot} a failover slot") from None

    def export_snapshot(self, slot: str, waiting: Callable[[int], None]) -> tuple[int, str]:
        """A temporary slot's consistent point and the name of the snapshot exported there.

        Transactions whose commit LSN is below the consistent point are in the snapshot, all others are not.
        Both live until this connection is closed or used again. ``waiting`` is as in `create_slot`.
        """
        query = sql.SQL("CREATE_REPLICATION_SLOT {} TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT").format(
            sql.Identifier(slot)
        )
        row = self._patiently(query, f"exporting a snapshot from the temporary slot {slot}", waiting)
        return parse_lsn(row[1]), row[2]

    def start(self, slot: str, lsn: int, publication: str, origin: str = "any") -> None:
        """Start the stream at ``lsn`` (the server moves it up to what the slot has confirmed).

        ``origin`` is ``any``, or ``none`` for the changes that were made on this server alone.
        """
        query = sql.SQL(
            "START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names {}, messages 'true'{})"
        ).format(
            sql.Identifier(slot),
            sql.SQL(format_lsn(lsn)),
            sql.Literal(sql.Identifier(publication).as_string(self._connection)),
            sql.SQL("" if origin == "any" else ", origin 'none'"),
        )
        cursor = self._connection.cursor()
        try:
            if self._pgconn.parameter_status(b"server_encoding") == b"SQL_ASCII":
                # Bytes as they are: in UTF8 the server would end the stream at the first that are none, even at those
                # of a table or a message that nobody asked for.
                self._connection.execute("set client_encoding to 'SQL_ASCII'")
            cursor.execute(query)
        except psycopg.Error as error:
            raise translate(error, f"starting the stream of slot {slot}") from None
        result = cursor.pgresult
        if result is None or result.status != ExecStatus.COPY_BOTH:
            raise FatalError(f"starting the stream of slot {slot}: the server did not switch to COPY BOTH")
        self._streaming = True

    def read(self, timeout: float, max_bytes: int) -> list[bytes]:
        """Raw frames that are there, up to about ``max_bytes``; waits ``timeout`` seconds for the first."""
        frames: list[bytes] = []
        append = frames.append
        pgconn = self._pgconn
        get = pgconn.get_copy_data
        size = 0
        deadline = time.monotonic() + timeout
        try:
            while True:
                length, data = get(1)
                if length > 0:
                    append(bytes(data))
                    size += length
                    if size >= max_bytes:
                        return frames
                elif length == 0:
                    # With something in hand, take what the kernel already has, but do not wait for more.
                    wait = 0.0 if frames else max(0.0, deadline - time.monotonic())
                    ready, _, _ = select.select([pgconn.socket], [], [], wait)
                    if not ready:
                        return frames
                    pgconn.consume_input()
                else:
                    raise self._ended()
        except psycopg.Error as error:
            raise translate(error, "reading the replication stream") from None
        except OSError as error:
            raise RetriableError(f"reading the replication stream: {error}") from None

    def send_status(self, write: int, flush: int, apply: int, *, reply: bool = False) -> None:
        """Send a standby status update. Does not wait: a full socket is flushed by the next call."""
        try:
            self._pgconn.put_copy_data(status_update(write, flush, apply, time.time_ns() // 1000, reply=reply))
            self._pgconn.flush()
        except psycopg.Error as error:
            raise translate(error, "sending a status update") from None

    def close(self) -> None:
        """End the stream and the connection. The slot stays."""
        if self._streaming and not self._connection.closed:
            try:
                self._pgconn.put_copy_end(None)
                self._pgconn.flush()
            except psycopg.Error:
                pass  # the connection is gone already: closing it is all that is left
        self._connection.close()

    def _ended(self) -> Exception:
        result = self._pgconn.get_result()
        message = "" if result is None else result.error_message.decode("utf-8", "replace").strip()
        if result is not None and message:
            state = (result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) or b"").decode()
            text = " ".join(message.split())
            if state == "42704" and "publication" in text:
                return PublicationMissing(f"the replication stream ended: {text}")
            if state[:2] in {"42", "22", "XX", "0A", "55"} and state != "55006":
                return FatalError(f"the replication stream ended: {text} (SQLSTATE {state})")
            return RetriableError(f"the replication stream ended: {text}")
        return RetriableError("the replication stream ended: the server closed it")

    def _patiently(self, query: sql.Composed, doing: str, waiting: Callable[[int], None]) -> list[str]:
        """The row that a command answers with, however long that takes."""
        pgconn = self._pgconn
        try:
            pgconn.send_query(query.as_bytes(self._connection))
            while True:
                pgconn.flush()
                ready, _, _ = select.select([pgconn.socket], [], [], WAITING_S)
                if ready:
                    pgconn.consume_input()
                    if not pgconn.is_busy():
                        break
                else:
                    waiting(pgconn.backend_pid)
            result = pgconn.get_result()
            while pgconn.get_result() is not None:
                pass
        except psycopg.Error as error:
            raise translate(error, doing) from None
        except CdcError:
            # The server does not notice by itself that nobody waits any more, and the half-made slot is in its hands.
            self._connection.cancel_safe(timeout=CANCEL_S)
            raise
        if result is None or result.status != ExecStatus.TUPLES_OK or result.ntuples != 1:
            if result is not None and result.status == ExecStatus.FATAL_ERROR:
                raise translate(psycopg.errors.error_from_result(result), doing)
            raise FatalError(f"{doing}: the server answered without a row")
        return [(result.get_value(0, place) or b"").decode() for place in range(result.nfields)]

    def _one(self, query: sql.Composed | sql.SQL, doing: str) -> tuple[Any, ...]:
        try:
            row: tuple[Any, ...] | None = self._connection.execute(query).fetchone()
        except psycopg.Error as error:
            raise translate(error, doing) from None
        if row is None:
            raise FatalError(f"{doing}: the server answered without a row")
        return row
