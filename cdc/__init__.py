"""Keeps key-value stores in sync with Postgres through Kafka.

What is exported here is the public API: running a worker from Python, and writing plugins. Names are
loaded when they are first used, so that importing one of the package's modules costs no more than that module.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cdc.config import Config, load
    from cdc.errors import CdcError, ConfigError, DataError, FatalError, Finding, RetriableError
    from cdc.plugin import (
        Connector,
        ConnectorConfig,
        Converter,
        SinkConnector,
        SourceConnector,
        SourceTask,
        TaskContext,
    )
    from cdc.runtime.worker import Worker

__all__ = [
    "CdcError",
    "Config",
    "ConfigError",
    "Connector",
    "ConnectorConfig",
    "Converter",
    "DataError",
    "FatalError",
    "Finding",
    "RetriableError",
    "SinkConnector",
    "SourceConnector",
    "SourceTask",
    "TaskContext",
    "Worker",
    "load",
]

_HOMES = {
    "cdc.config": {"Config", "load"},
    "cdc.errors": {"CdcError", "ConfigError", "DataError", "FatalError", "Finding", "RetriableError"},
    "cdc.runtime.worker": {"Worker"},
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'cdc' has no attribute {name!r}")
    home = next((module for module, names in _HOMES.items() if name in names), "cdc.plugin")
    return getattr(import_module(home), name)
