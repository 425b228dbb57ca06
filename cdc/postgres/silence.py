"""How long a server that sends nothing is believed to be there.

A walsender that has nothing to tell sends nothing, for ever. If a firewall forgot the connection, or the server's host
went away without a farewell, that looks the same. So it is asked to reply when it has been silent for half the time,
and taken for lost when no reply comes within the other half.
"""

from __future__ import annotations

from cdc.errors import RetriableError

__all__ = ["Silence"]


class Silence:
    """Pure: times come in, in seconds. ``timeout`` 0 means that silence is never a fault."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._heard_at: float | None = None
        self._asked_at: float | None = None

    def ask(self, now: float, *, heard: bool) -> bool:
        """After each look at the connection: whether to ask the server for a reply. `RetriableError` when it is lost.

        Time counts only from a question on, because nobody may have looked for long: Kafka was away, and the answer
        of a server that is there has been waiting since.
        """
        if heard or self._heard_at is None:
            self._heard_at, self._asked_at = now, None
        elif self._timeout > 0 and self._asked_at is None:
            if now - self._heard_at >= self._timeout / 2:
                self._asked_at = now
                return True
        elif self._asked_at is not None and now - self._asked_at >= self._timeout / 2:
            raise RetriableError(
                f"the server of Postgres has sent nothing for {now - self._heard_at:.1f} s, asked for a reply too: the "
                "connection counts as lost (wal.receiver.timeout.ms)"
            )
        return False
