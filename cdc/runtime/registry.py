"""The embedded schema registry in the worker's process: its routes for the listener, its store on Kafka."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Final

import structlog
from starlette.routing import BaseRoute
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_when_event_set,
    wait_exponential,
    wait_random,
)

from cdc.kafka.settings import client_settings
from cdc.registry.app import registry_routes
from cdc.registry.log import KafkaLog
from cdc.registry.store import SchemaStore

__all__ = ["EmbeddedRegistry"]

_log = structlog.get_logger(__name__)

_WAIT: Final = wait_exponential(multiplier=0.5, max=15) + wait_random(0, 0.5)
_STOP_TIMEOUT: Final = 2.0


class EmbeddedRegistry:
    """Serves the registry on ``routes``. Kafka being away is waited out in the background; requests fail meanwhile.

    ``changed`` is called when it has become ready.
    """

    def __init__(self, worker: Mapping[str, str], changed: Callable[[], None]) -> None:
        self._store = SchemaStore(KafkaLog(client_settings(worker, "admin")))
        self._changed = changed
        self._stopping = threading.Event()
        self.ready = False
        self._thread = threading.Thread(target=self._start_store, name="registry", daemon=True)
        self.routes: list[BaseRoute] = list(registry_routes(self._store))

    def start(self) -> None:
        """Begin to read the registry's topic; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering. A request to Kafka that is under way is not waited for longer than two seconds."""
        self._stopping.set()
        self._store.close()
        self._thread.join(_STOP_TIMEOUT)

    def _start_store(self) -> None:
        retrying = Retrying(
            retry=retry_if_exception_type(),  # whatever it is: the registry must come back without a restart
            wait=_WAIT,
            stop=stop_when_event_set(self._stopping),
            sleep=sleep_using_event(self._stopping),
            before_sleep=_tell,
            retry_error_callback=lambda _: None,
        )
        retrying(self._store.start)
        if not self._stopping.is_set():
            self.ready = True
            _log.info("embedded schema registry ready")
            self._changed()


def _tell(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    wait = state.next_action.sleep if state.next_action else 0.0
    _log.warning("embedded schema registry not ready", cause=str(error or ""), retry_in_s=round(wait, 1))
