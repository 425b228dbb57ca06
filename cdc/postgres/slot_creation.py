"""Who keeps a slot from being made. A slot is consistent only once every transaction that was open before it has ended.

Postgres waits for that without a word and without a limit. Here the wait is told, with the sessions that it is for, and
a stop ends it (docs/traps.md, T25).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import psycopg
import structlog

from cdc.errors import RetriableError
from cdc.postgres.connection import Connection, translate

__all__ = ["CreationWait"]

_log = structlog.get_logger(__name__)

_TELL_S: Final = 2.0
"""How often the ages are told anew."""
_MOST: Final = 5
"""Sessions told at most."""

# Of other roles' sessions only pid, role, application and xid are shown, unless pg_read_all_stats is granted.
_BLOCKERS = """
with blocking (pid) as (select unnest(pg_blocking_pids(%(pid)s)))
select a.pid, format('pid %%s (role %%s, application_name %%s%%s)', a.pid, a.usename, quote_literal(a.application_name),
    coalesce(', from ' || host(a.client_addr), '') || coalesce(', ' || a.state, '')
    || coalesce(format(', transaction open for %%s s', floor(extract(epoch from clock_timestamp() - a.xact_start))), '')
    || coalesce(', last query begun at ' || date_trunc('second', a.query_start), '')) as who,
  a.pid in (select pid from blocking) as blocks, a.xact_start as begun
from pg_stat_activity a
where a.pid in (select pid from blocking) or (
  a.backend_xid is not null and a.pid not in (%(pid)s, pg_backend_pid())
  and coalesce(a.xact_start < clock_timestamp() - make_interval(secs => %(waited)s), true))
union all
select 0, format('prepared transaction %%s (role %%s, prepared for %%s s)', quote_literal(gid), owner,
    floor(extract(epoch from clock_timestamp() - prepared))), true, prepared
from pg_prepared_xacts where prepared < clock_timestamp() - make_interval(secs => %(waited)s)
order by blocks desc, begun nulls last
"""
_RECOVERY = "select pg_is_in_recovery()"


@dataclass(slots=True)
class CreationWait:
    """Called again and again with the pid of the session that makes ``slot``, while it waits.

    ``report`` is told what is waited for, as ``waiting``. `RetriableError` once ``stopping``.
    """

    slot: str
    connection: Callable[[], Connection]
    stopping: Callable[[], bool]
    report: Callable[[str, object], None]
    _begun: float = 0.0
    _told_at: float = 0.0
    _told: tuple[int, ...] | None = None

    def __call__(self, pid: int) -> None:
        if self.stopping():
            raise RetriableError(f"asked to stop while the replication slot {self.slot} was being made")
        now = time.monotonic()
        self._begun = self._begun or now
        if self._told is not None and now - self._told_at < _TELL_S:
            return
        self._told_at = now
        who, text = self._look(pid, now - self._begun)
        self.report("waiting", text)
        if who != self._told:
            self._told = who
            _log.warning("waiting", cause=text)

    def over(self) -> None:
        """The slot is there."""
        if self._told is not None:
            self.report("waiting", "")

    def _look(self, pid: int, waited: float) -> tuple[tuple[int, ...], str]:
        making = f"making the replication slot {self.slot} waits"
        try:
            connection = self.connection()
            standby = connection.execute(_RECOVERY).fetchone()
            if standby is not None and standby[0]:
                return (), (
                    f"{making} for the primary to write down its running transactions, and for those to end. Remedy: "
                    "run on the primary: SELECT pg_log_standby_snapshot();"
                )
            rows = connection.execute(_BLOCKERS, {"pid": pid, "waited": waited}).fetchall()
        except psycopg.Error as error:
            raise translate(error, "asking who keeps the slot from being made") from None
        if not rows:
            return (), f"{making} for the server"
        more = f" and {len(rows) - _MOST} more" if len(rows) > _MOST else ""
        sessions = [row[0] for row in rows if row[0]]
        end = f". SELECT pg_terminate_backend({sessions[0]}); ends the first session" if sessions else ""
        return tuple(row[0] for row in rows), (
            f"{making} for transactions that were open before it: {'; '.join(row[1] for row in rows[:_MOST])}{more}. "
            f"Remedy: let them end{end}"
        )
