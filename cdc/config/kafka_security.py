"""Security properties of Kafka's clients, looked at before anything starts: what cannot be translated, by its key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cdc.errors import ConfigError, Finding
from cdc.kafka.security import SECURITY, security_settings

__all__ = ["security_findings"]

_ROLES = ("", "producer.", "consumer.", "admin.")


def security_findings(worker: Mapping[str, str], overrides: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """What is wrong with a worker's properties for Kafka's clients, each under the key that it is given as.

    With ``overrides`` (``producer.override.…``), what is wrong with them on top of the worker's.
    """
    told: set[tuple[str, str]] = set()
    for role in _ROLES:
        prefix = role.replace(".", ".override.") if overrides is not None else role
        given = worker if overrides is None else overrides
        if role and not any(name.startswith(tuple(prefix + family for family in SECURITY)) for name in given):
            continue  # the same as the shared ones
        keys: dict[str, str] = {}
        values: dict[str, str] = {}
        for source, start in ((worker, ""), (worker, role), (overrides or {}, prefix)):
            for name, value in source.items():
                bare = name.removeprefix(start)
                if name.startswith(start) and bare.startswith(SECURITY):
                    keys[bare], values[bare] = name, value
        try:
            security_settings(values)
        except ConfigError as error:
            for finding in error.findings:
                key = keys.get(finding.key, finding.key)
                if (key, finding.message) not in told and (overrides is None or key in overrides):
                    told.add((key, finding.message))
                    yield Finding(finding.message, key, remedy=finding.remedy)
