"""A validated configuration: what `cdc.config.load` returns and the worker runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from cdc.config.secrets import Secrets
from cdc.config.worker import EMBEDDED, WorkerConfig
from cdc.errors import Finding
from cdc.plugin import Connector, SinkConnector, SourceConnector

__all__ = ["OVERRIDES", "Config", "ConnectorSpec", "converter_properties"]

OVERRIDES: Final[Mapping[str, str]] = {
    "producer.override.": "producer.",
    "consumer.override.": "consumer.",
    "admin.override.": "admin.",
}
"""Prefixes with which a connector overrides the worker's properties for Kafka's clients."""


@dataclass(frozen=True)
class ConnectorSpec:
    """One connector, validated. ``properties`` are resolved, secrets in clear; ``shown`` is as in the file, masked."""

    name: str
    connector: Connector = field(repr=False)
    properties: Mapping[str, str] = field(repr=False)
    """For the connector's model: without what is meant for converters and clients."""
    worker: Mapping[str, str] = field(repr=False)
    """The worker's properties as this connector's tasks see them, its overrides applied."""
    shown: Mapping[str, str]
    places: Mapping[str, str]
    """Property → ``file:line``; ``""`` is the connector's own."""

    def placed(self, findings: Iterable[Finding]) -> list[Finding]:
        """The connector's own ``findings`` with whole keys and the places of these in the file."""
        scope = f"connectors.{self.name}"
        return [
            replace(
                finding,
                key=f"{scope}.{finding.key}" if finding.key else scope,
                where=self.places.get(finding.key, self.places.get("", "")),
            )
            for finding in findings
        ]

    @property
    def kind(self) -> str:
        """``source``, ``sink`` or ``unknown``, as Connect's REST API has it."""
        if isinstance(self.connector, SourceConnector):
            return "source"
        return "sink" if isinstance(self.connector, SinkConnector) else "unknown"

    @property
    def tasks(self) -> int:
        """How many tasks run: one for a source, whose order is one stream; up to ``tasks.max`` for a sink."""
        return self.connector.config.tasks_max if self.kind == "sink" else 1


@dataclass(frozen=True)
class Config:
    """A whole configuration without a fault."""

    worker: WorkerConfig
    connectors: tuple[ConnectorSpec, ...]
    secrets: Secrets
    properties: Mapping[str, str] = field(repr=False)
    """The worker's properties, resolved, defaults included, secrets in clear."""
    shown: Mapping[str, str] = field(default_factory=dict)
    """The worker's properties as in the file, masked."""
    warnings: tuple[Finding, ...] = ()

    @property
    def embedded_registry(self) -> bool:
        """Whether the worker serves the schema registry itself."""
        return self.worker.schema_registry_url == EMBEDDED


def converter_properties(worker: Mapping[str, str], *, is_key: bool) -> dict[str, str]:
    """What a converter is configured with: its own properties without prefix, and the worker's registry.

    ``worker`` is what a task gets (`ConnectorSpec.worker`). A property of the converter wins over the worker's
    of the same name.
    """
    prefix = "key.converter." if is_key else "value.converter."
    registry = {key: value for key, value in worker.items() if key.startswith("schema.registry.") and value}
    return registry | {key.removeprefix(prefix): value for key, value in worker.items() if key.startswith(prefix)}
