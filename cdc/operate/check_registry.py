"""Whether the schema registries that a configuration names answer, and whether the embedded one has its port."""

from __future__ import annotations

import json
import os
import socket
import urllib.request
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from cdc.config import EMBEDDED, Config, converter_properties
from cdc.errors import CdcError, DataError, Finding
from cdc.registry.client import RegistryClient

__all__ = ["check_registry"]

_URL: Final = "schema.registry.url"
_NO_ID: Final = 2**31 - 1
"""An id that no registry has given yet: asked for it, one that works says that there is none."""
_TIMEOUT: Final = 5.0


def check_registry(config: Config) -> list[Finding]:
    """Findings about the registry of the worker and those that converters name for themselves."""
    found: list[Finding] = []
    if config.embedded_registry:
        found += _listener(config)
    asked: dict[str, str] = {}
    for spec in config.connectors:
        for is_key in (True, False):
            properties = converter_properties(spec.worker, is_key=is_key)
            url = properties[_URL]
            if url != EMBEDDED and url not in asked:
                own = f"{'key' if is_key else 'value'}.converter.{_URL}"
                asked[url] = f"connectors.{spec.name}.{own}" if own in spec.worker else f"worker.{_URL}"
                found += _remote(url, properties, asked[url])
    return found


def _remote(url: str, properties: Mapping[str, str], key: str) -> list[Finding]:
    try:
        with RegistryClient(url, properties) as client:
            client.schema(_NO_ID)
    except DataError:
        return []
    except CdcError as error:
        return [Finding(str(error), key=key, remedy=f"Start it, or correct {_URL}; {EMBEDDED} is the worker's own")]
    return []


def _listener(config: Config) -> list[Finding]:
    """The embedded registry needs the listener's port: free, or a worker's that is running already."""
    listeners = config.worker.listeners
    parts = urlsplit(listeners)
    if not parts.port:  # any free one
        return []
    family = socket.AF_INET6 if ":" in (parts.hostname or "") else socket.AF_INET
    try:
        socket.create_server((parts.hostname or "", parts.port), family=family).close()
    except OSError as error:
        if _is_worker(listeners):
            return []
        message = f"cannot listen on {listeners}: {os.strerror(error.errno or 0)}"
        return [Finding(message, key="worker.listeners", remedy="Stop what uses the port, or set another one")]
    return []


def _is_worker(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:  # noqa: S310 - the listener's own http://
            return str(json.load(answer).get("commit", "")).startswith("cdc-")
    except (OSError, ValueError, AttributeError):
        return False
