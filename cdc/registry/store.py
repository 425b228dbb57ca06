"""The embedded registry: requests against a `RegistryState` that follows a log.

`SchemaStore` may run in several workers on one topic. Every write is planned on a state that has caught up with
the log, takes its turn as in `cdc.registry.turns`, and is answered only when its records have been read back, so
what was answered is durable and the same everywhere. Reads answer from memory; what is not found
is looked for again after catching up, because a reader of data may ask for an id before this worker has seen it.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from cdc.errors import CdcError
from cdc.registry.errors import RegistryMisconfigured, RegistryUnavailable, RestError
from cdc.registry.plans import Plan
from cdc.registry.records import Record
from cdc.registry.state import RegistryState
from cdc.registry.turns import Intent

__all__ = ["Log", "LogReader", "SchemaStore", "topic_was_replaced"]

_log = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")

# How long a pending intent is left to its writer, which is at work on it, before others complete it.
_PATIENCE = 0.5


class LogReader(Protocol):
    """What a log tells its reader, from one thread, in the order of offsets."""

    def record(self, offset: int, key: bytes | None, value: bytes | None) -> None: ...

    def reached(self, offset: int) -> None:
        """All records below ``offset`` have been told."""

    def failed(self, error: CdcError) -> None:
        """The log will tell nothing more."""


class Log(Protocol):
    """An ordered, durable list of records. All methods may raise `RegistryUnavailable`."""

    def start(self, reader: LogReader) -> None:
        """Make the log if it is missing and begin to tell ``reader`` its records, from the first."""

    def end(self) -> int:
        """The offset that the next record will get, or more."""

    def append(self, records: Sequence[Record]) -> int:
        """Write durably, in this order; the offset of the last. `RestError` 42209 if one is too large."""

    def close(self) -> None: ...


def topic_was_replaced(what: str) -> RegistryMisconfigured:
    """The error for a topic that is not the one that was read: its ids and those in use are not the same."""
    return RegistryMisconfigured(
        f"The schema registry's topic {what}: it was deleted, made again or cut short, so the schema ids in use are not"
        " on it. Restore it, then restart the worker"
    )


class SchemaStore:
    """The state of a registry, kept on ``log``. Thread-safe; its methods block, for about ``timeout`` seconds at most.

    The default is less than clients wait for an answer, so that they are told the cause.
    """

    def __init__(self, log: Log, *, start_timeout: float = 60.0, timeout: float = 9.0) -> None:
        self._log = log
        self._start_timeout = start_timeout
        self._timeout = timeout
        self._state = RegistryState()
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._next = 0
        self._skipped = 0
        self._ready = False
        self._failure: CdcError | None = None

    def start(self) -> None:
        """Read the log to its end; nothing is answered before. May be called again after an error.

        `RegistryUnavailable` when that takes longer than ``start_timeout`` seconds.
        """
        deadline = time.monotonic() + self._start_timeout
        # A topic just created has no leader for a moment.
        retrying = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, RegistryUnavailable) and self._failure is None),
            wait=wait_random_exponential(multiplier=0.05, max=1),
            stop=stop_after_delay(self._start_timeout),
            reraise=True,
        )
        self._wait_for(retrying(self._begin), deadline)
        self._ready = True

    def close(self) -> None:
        """Stop following the log. Requests after this fail."""
        self._failed(RegistryUnavailable("The embedded schema registry has been stopped"))
        self._log.close()

    @property
    def failure(self) -> CdcError | None:
        """Why this store can do nothing more, or None while it works."""
        return self._failure

    @property
    def skipped(self) -> int:
        """How many records of the topic were passed over because they are not a registry's, or contradict it."""
        return self._skipped

    def read(self, question: Callable[[RegistryState], _Answer]) -> _Answer:
        """Answer ``question``; if it raises a `RestError` 404, once more after catching up with the log."""
        try:
            return self._ask(question)
        except RestError as error:
            if error.status != 404:
                raise
        self._catch_up(time.monotonic() + self._timeout)
        return self._ask(question)

    def write(self, make: Callable[[RegistryState], Plan[_Answer]]) -> _Answer:
        """Carry out what ``make`` plans on an up-to-date state, exactly once; ``make`` may be called several times.

        `RegistryUnavailable` leaves open whether it will have been carried out, as after any lost answer.
        """
        deadline = time.monotonic() + self._timeout
        if not self._writing.acquire(timeout=self._timeout):
            raise RegistryUnavailable("Another write to the schema registry takes longer than its time limit")
        try:
            while True:
                self._catch_up(deadline)
                self._complete_pending(deadline)
                with self._changed:
                    self._require_working()
                    plan = make(self._state)
                    intent = Intent(uuid.uuid4().hex, self._next - 1, tuple(plan.records))
                if not intent.records or self._take_turn(intent, deadline):
                    return plan.answer
        finally:
            self._writing.release()

    def _take_turn(self, intent: Intent, deadline: float) -> bool:
        """Append the intent and, if it is accepted, its records. False: somebody was quicker, plan anew."""
        turns = self._state.turns
        with self._changed:
            turns.watch(intent.token)
        try:
            offset = self._log.append([intent.record()])
            if offset <= intent.seen:
                self._failed(topic_was_replaced(f"gave offset {offset} to a record behind offset {intent.seen}"))
            self._wait_for(offset + 1, deadline)
            with self._changed:
                outstanding = turns.outstanding(intent.token)
            if outstanding:
                self._wait_for(self._log.append(outstanding) + 1, deadline)
            with self._changed:
                return turns.completed(intent.token)
        finally:
            with self._changed:
                turns.unwatch(intent.token)

    def _complete_pending(self, deadline: float) -> None:
        """Let another writer finish its turn; if it does not, take it over."""
        while True:
            with self._changed:
                self._changed.wait_for(self._nothing_pending, _PATIENCE)
                self._require_working()
                pending = self._state.turns.pending
                seen = self._next - 1
            if pending is None:
                return
            _log.warning("Completing a write to the schema registry that another worker began and did not finish")
            self._take_turn(replace(pending, seen=seen), deadline)

    def _nothing_pending(self) -> bool:
        return self._state.turns.pending is None or self._failure is not None

    def _catch_up(self, deadline: float) -> None:
        with self._changed:
            self._require_working()
        self._wait_for(self._log.end(), deadline)

    def _wait_for(self, offset: int, deadline: float) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._next >= offset or self._failure is not None, max(0.0, deadline - time.monotonic())
            )
            if self._failure is not None:
                raise self._failure
            if self._next < offset:
                raise RegistryUnavailable(
                    f"The schema registry's topic could not be read up to offset {offset} in time (now {self._next})"
                )

    def _ask(self, question: Callable[[RegistryState], _Answer]) -> _Answer:
        with self._changed:
            self._require_working()
            return question(self._state)

    def _require_working(self) -> None:
        if self._failure is not None:
            raise self._failure
        if not self._ready:
            raise RegistryUnavailable("The embedded schema registry is still reading its topic")

    def _begin(self) -> int:
        if self._failure is not None:
            raise self._failure
        self._log.start(_Reader(self))
        return self._log.end()

    # -- told by the log's thread --------------------------------------------------------------

    def _record(self, offset: int, key: bytes | None, value: bytes | None) -> None:
        with self._changed:
            problem = self._state.apply(offset, key, value)
            self._next = offset + 1
            if problem is not None:
                self._skipped += 1
                _log.warning("Passing over the record at offset %d of the schema registry's topic: %s", offset, problem)

    def _reached(self, offset: int) -> None:
        with self._changed:
            self._next = max(self._next, offset)
            self._changed.notify_all()

    def _failed(self, error: CdcError) -> None:
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()


class _Reader:
    """The store's ear on the log, kept apart from what others may call."""

    def __init__(self, store: SchemaStore) -> None:
        self.record = store._record
        self.reached = store._reached
        self.failed = store._failed
