"""The embedded schema registry for a command that reads records: its own, on any free port, from the same topic.

So it does not matter whether a worker runs, nor where it listens. Nothing is registered through it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from cdc.config import EMBEDDED, Config, ConnectorSpec
from cdc.runtime.listener import Health, Listener
from cdc.runtime.registry import EmbeddedRegistry

__all__ = ["with_registry"]


@contextmanager
def with_registry(config: Config, spec: ConnectorSpec) -> Iterator[Mapping[str, str]]:
    """The worker's properties for a connector, with a registry that answers in place of ``embedded``."""
    if EMBEDDED not in spec.worker.values():
        yield spec.worker
        return
    registry = EmbeddedRegistry(config.properties, _nothing)
    listener = Listener("http://127.0.0.1:0", _health, _unknown, registry.routes)
    listener.start()
    registry.start()
    try:
        yield {
            key: listener.url if key.endswith("schema.registry.url") and value == EMBEDDED else value
            for key, value in spec.worker.items()
        }
    finally:
        registry.stop()
        listener.stop()


def _nothing() -> None:
    """Whoever asks too early asks again."""


def _health() -> Health:
    return "healthy", ""


def _unknown() -> str | None:
    return None
