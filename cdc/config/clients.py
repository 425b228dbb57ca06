"""The properties of Kafka clients, out of a worker's: Connect's names, as librdkafka understands them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["client_properties"]

_SHARED: Final = ("security.", "sasl.", "ssl.", "client.")
_JAAS_OPTION: Final = re.compile(r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;]+))')


def client_properties(worker: Mapping[str, str], prefix: str) -> dict[str, Any]:
    """What a client of one kind is made with; ``prefix`` is ``producer.``, ``consumer.`` or ``admin.``.

    The brokers, then what the worker has for all of its clients (``security.protocol``, ``sasl.*``, ``ssl.*``), then
    what it has under the prefix. A JAAS configuration, which only Java reads, becomes user name and password.
    """
    properties: dict[str, Any] = {"bootstrap.servers": worker["bootstrap.servers"]}
    properties |= {key: value for key, value in worker.items() if key.startswith(_SHARED)}
    properties |= {key.removeprefix(prefix): value for key, value in worker.items() if key.startswith(prefix)}
    jaas = properties.pop("sasl.jaas.config", "")
    options = {match[1]: re.sub(r"\\(.)", r"\1", match[2] or match[3] or "") for match in _JAAS_OPTION.finditer(jaas)}
    for name in ("username", "password"):
        if name in options:
            properties.setdefault(f"sasl.{name}", options[name])
    return properties
