"""The server that one life of a task has settled on, of the several that may be configured."""

from __future__ import annotations

from cdc.errors import RetriableError
from cdc.postgres.config import PostgresConfig
from cdc.postgres.connection import Connection, connect
from cdc.postgres.stream import ReplicationStream

__all__ = ["Server"]


class Server:
    """Where a task connects to. After a failover the hosts answer for different histories, so that all connections of
    one life must go to the same: the one that the first of them found."""

    def __init__(self, config: PostgresConfig, name: str) -> None:
        self._config = config
        self._name = name
        self._chosen: tuple[str, str] | None = None
        self._catalog: Connection | None = None
        self._origin: ReplicationStream | None = None
        self.standby = False
        """Whether it was in recovery when the first connection was made."""

    def conninfo(self) -> dict[str, str]:
        """The connection parameters; of one host, once it is chosen."""
        parameters = self._config.conninfo()
        if self._chosen is not None and len(self._config.hosts) > 1:
            parameters.pop("target_session_attrs", None)
            parameters["host"], parameters["port"] = self._chosen
        return parameters

    def connection(self) -> Connection:
        """The connection for questions to the catalog, made when it is needed."""
        if self._catalog is None or self._catalog.closed:
            self._catalog = self.connect()
            if self._chosen is None:
                self._chosen = self._catalog.info.host, str(self._catalog.info.port)
                row = self._catalog.execute("select pg_is_in_recovery()").fetchone()
                self.standby = bool(row and row[0])
        return self._catalog

    def connect(self) -> Connection:
        """A new connection."""
        return connect(self.conninfo(), self._name)

    def stream(self) -> ReplicationStream:
        """A new replication connection."""
        return ReplicationStream(self.conninfo(), self._name)

    def verify_timeline(self, timeline: int) -> None:
        """`RetriableError` when the WAL that a standby has replayed is not of ``timeline`` any more.

        A standby's stream goes on through a promotion, its own or its primary's, without a word. What is stored must
        say on which timeline it was reached, or nobody can tell later whether a server has had it (EXACTNESS.md H4).
        """
        if not self.standby:
            return
        if self._origin is None:
            self._origin = self.stream()
        now = self._origin.identify()["timeline"]
        if now != timeline:
            raise RetriableError(
                f"the server follows timeline {now}, no longer {timeline}: a standby was promoted. Starting again, to "
                "compare the stored position with where the timelines parted"
            )

    def close(self) -> None:
        """Close what was opened, but for the streams that were handed out."""
        if self._origin is not None:
            self._origin.close()
        if self._catalog is not None:
            self._catalog.close()
