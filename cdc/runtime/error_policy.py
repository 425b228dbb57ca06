"""What becomes of records at fault, as ``errors.*`` says: counted, logged, and the queue that they go to."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import structlog

from cdc.kafka.topics import Topics
from cdc.plugin import ConnectorConfig, TaskContext
from cdc.runtime.letters import Cause, Headers, Letter, letter_headers

__all__ = ["QUEUE", "ErrorPolicy"]

_log = structlog.get_logger(__name__)

LARGEST: Final = 16 << 20
QUEUE: Final[Mapping[str, str]] = {
    "cleanup.policy": "delete",
    # A letter has its record's time, which may be years ago.
    "retention.ms": "-1",
    "message.timestamp.type": "CreateTime",
    # What was too large elsewhere, and headers beside it.
    "max.message.bytes": str(LARGEST),
}
"""Settings of a queue that is created."""


class ErrorPolicy:
    """The ``errors.*`` settings of one task, and its counts."""

    def __init__(self, config: ConnectorConfig, context: TaskContext) -> None:
        self._config = config
        self._context = context
        self.ready = False
        """The queue is known to be there."""
        self.tolerant = config.errors_tolerance == "all"
        """Records at fault do not stop the task."""
        self.queue = config.errors_deadletterqueue_topic_name if self.tolerant else ""
        """Topic of the dead letters; empty if there is none."""
        self.failures = self.letters = self.skipped = 0
        self._last: tuple[int, str] | None = None

    def prepare(self, topics: Topics) -> None:
        """Create the queue unless it exists. `RetriableError` when no broker answers, `FatalError` when they refuse."""
        if self.queue and not self.ready:
            replication = self._config.errors_deadletterqueue_topic_replication_factor
            topics.ensure(
                self.queue,
                QUEUE,
                partitions=1,
                replication=replication,
                setting="errors.deadletterqueue.topic.replication.factor",
            )
            self.ready = True

    def headers(self, letter: Letter, cause: Cause) -> Headers:
        """What a letter gets behind the record's own headers."""
        return letter_headers(letter, cause, context=self._config.errors_deadletterqueue_context_headers_enable)

    def put_aside(self, letter: Letter, cause: Cause, message: Mapping[str, Any]) -> None:
        """Count a record that is in the queue or, without one, is skipped; ``message`` is what may be logged of it."""
        self.failures += 1
        if self.queue:
            self.letters += 1
        else:
            self.skipped += 1
        place = letter.topic if letter.offset < 0 else f"{letter.topic}[{letter.partition}] offset {letter.offset}"
        self._last = letter.at, f"{place}: {cause}"
        if self._config.errors_log_enable or not self.queue:
            _log.warning(
                "a record is at fault",
                becomes=f"a dead letter in {self.queue}" if self.queue else "skipped",
                topic=letter.topic,
                **({"partition": letter.partition, "offset": letter.offset} if letter.offset >= 0 else {}),
                **({"position": letter.position} if letter.position else {}),
                stage=letter.stage,
                error=letter.error,
                cause=letter.message,
                **(message if self._config.errors_log_include_messages else {}),
            )

    def figures(self) -> dict[str, Any]:
        """For the task's metrics. Empty as long as nothing was at fault."""
        if self._last is None:
            return {}
        at, said = self._last
        return {
            "errors": self.failures,
            "dead_letters": self.letters,
            "errors_skipped": self.skipped,
            "last_error": said,
            "last_error_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at / 1000)),
        }
