"""The dead letters of a sink task: durable in the queue before the task goes on.

At least once: after a crash between the queue and what follows, the same record is put aside again, with the same
coordinates in its headers.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from cdc.errors import RetriableError
from cdc.kafka.producer import RecordProducer, RecordTooLarge
from cdc.kafka.topics import Topics
from cdc.mirror.assembly import Rejected
from cdc.mirror.partitions import original
from cdc.plugin import ConnectorConfig, TaskContext
from cdc.runtime.error_policy import LARGEST, ErrorPolicy
from cdc.runtime.letters import Cause, Headers, Letter, made

__all__ = ["SinkErrors"]

PATIENCE_S: Final = 10.0
"""How long the queue may take before the task waits for it as for anything that is away."""


class SinkErrors:
    """Puts records aside. ``classes`` are the names of what executes each of Connect's stages."""

    def __init__(
        self, config: ConnectorConfig, worker: Mapping[str, str], context: TaskContext, classes: Mapping[str, str]
    ) -> None:
        self._worker = worker
        self._context = context
        self._classes = classes
        self._producer: RecordProducer | None = None
        self._deadline = 0.0
        self.policy = ErrorPolicy(config, context)

    def prepare(self) -> None:
        """Have the queue. `RetriableError` when no broker answers, `FatalError` when they refuse to create it."""
        if self.policy.queue and not self.policy.ready:
            self.policy.prepare(Topics(self._worker, lambda: None))

    def put_aside(self, rejected: Sequence[Rejected]) -> None:
        """Keep records in the queue, if there is one, and count them. They are durable when this returns.

        `RetriableError` if the queue does not take them in time: they are to be read again.
        """
        letters = [self._letter(each) for each in rejected]
        if self.policy.queue:
            self._deadline = time.monotonic() + PATIENCE_S
            try:
                self._send(rejected, letters)
            except BaseException:
                self.close()  # nothing of it may come later than what is put aside next
                raise
        for each, (letter, cause) in zip(rejected, letters, strict=True):
            self.policy.put_aside(letter, cause, _told(each))

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close()
            self._producer = None

    def _letter(self, rejected: Rejected) -> tuple[Letter, Cause]:
        message = rejected.message
        cause = Cause(rejected.stage, self._classes.get(rejected.stage, ""), rejected.error)
        where = message.topic(), message.partition(), message.offset()
        return made(cause, self._context.connector, self._context.task, *where), cause

    def _send(self, rejected: Sequence[Rejected], letters: Sequence[tuple[Letter, Cause]]) -> None:
        try:
            for each, (letter, cause) in zip(rejected, letters, strict=True):
                self._produce(each, letter, cause)
            self._started().commit()
        except RecordTooLarge:
            # Which one it was is known when each is alone.
            self.close()
            for each, (letter, cause) in zip(rejected, letters, strict=True):
                self._send_alone(each, letter, cause)

    def _send_alone(self, rejected: Rejected, letter: Letter, cause: Cause) -> None:
        try:
            self._produce(rejected, letter, cause)
            self._started().commit()
        except RecordTooLarge:
            self.close()
            value = original(rejected.message).value() or b""
            self._produce(rejected, replace(letter, size=len(value)), cause)
            self._started().commit()

    def _produce(self, rejected: Rejected, letter: Letter, cause: Cause) -> None:
        message = original(rejected.message)
        headers: Headers = [*(message.headers() or ()), *self.policy.headers(letter, cause)]
        kind, stamp = message.timestamp()
        value = message.value() if letter.size < 0 else None
        timestamp = stamp if kind else 0
        self._started().produce(self.policy.queue, message.key(), value, headers, timestamp=timestamp)

    def _started(self) -> RecordProducer:
        if self._producer is None:
            largest = max(LARGEST, int(self._worker.get("producer.message.max.bytes", 0)))
            self._producer = RecordProducer(self._worker, None, self._pump, {"message.max.bytes": largest})
            self._producer.start()
        return self._producer

    def _pump(self) -> None:
        if time.monotonic() > self._deadline:
            raise RetriableError(f"the dead letter queue {self.policy.queue} takes no records")


def _told(rejected: Rejected) -> dict[str, Any]:
    """What ``errors.log.include.messages`` shows of a record: as in Connect not its contents."""
    return {"timestamp": rejected.message.timestamp()[1]}
