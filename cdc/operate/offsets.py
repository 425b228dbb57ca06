"""``cdc offsets``: what a source connector has stored about where it stands, shown or deleted.

Deleting makes the connector start over with a snapshot, under a new epoch, so that nothing it writes then looks like a
replay (EXACTNESS.md H2); keys of rows that are gone stay in the topics, unlike after a reset (`cdc.operate.slots`).
It takes the connector's transactional id, which fences a task that still runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal

from cdc.config import Config, ConnectorSpec
from cdc.errors import ConfigError, Finding
from cdc.kafka.offsets import encode_offset, read_offsets
from cdc.kafka.producer import RecordProducer
from cdc.kafka.topics import Topics

__all__ = ["change_offsets", "delete_offsets", "render", "show_offsets", "source_of"]


def show_offsets(config: Config, connector: str) -> dict[str, Any]:
    """All offsets of a source connector: partition (JSON text) → offset. `ConfigError` when there is no such source."""
    spec = source_of(config, connector)
    topic = _topic(config)
    partitions = Topics(spec.worker, _nothing).ensure(topic, {"cleanup.policy": "compact"})
    return read_offsets(spec.worker, topic, partitions, connector, _nothing, lambda: False)


def delete_offsets(config: Config, connector: str) -> dict[str, Any]:
    """Delete all of them; what was deleted.

    The places of signals stay: those that were acted on are not acted on again.
    """
    deleted: dict[str, Any] = {}

    def change(found: Mapping[str, Any]) -> Mapping[str, Any]:
        deleted.update((key, value) for key, value in found.items() if "signals" not in json.loads(key)[1])
        return dict.fromkeys(deleted)

    change_offsets(config, connector, change)
    return deleted


def change_offsets(
    config: Config, connector: str, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> dict[str, Any]:
    """Write what ``change`` makes of the stored offsets (``None`` deletes one); the offsets as they were.

    A task that runs is fenced off before they are read, and starts again from what is written here.
    """
    spec = source_of(config, connector)
    producer = RecordProducer(spec.worker, f"{config.worker.group_id}-{connector}-0", _nothing)
    try:
        producer.start()
        found = show_offsets(config, connector)
        for partition, offset in change(found).items():
            key, value = encode_offset(partition, offset)
            producer.produce(_topic(config), key, value)
        producer.commit()
    finally:
        producer.close()
    return found


def render(offsets: Mapping[str, Any], output: Literal["text", "json"]) -> str:
    """One line for each partition, or Connect's JSON form."""
    if output == "json":
        told = [{"partition": json.loads(key)[1], "offset": value} for key, value in sorted(offsets.items())]
        return json.dumps({"offsets": told}, indent=2)
    return "\n".join(f"{key}  {json.dumps(value)}" for key, value in sorted(offsets.items())) or "no offsets"


def source_of(config: Config, connector: str) -> ConnectorSpec:
    """The source connector of that name; `ConfigError` when there is none."""
    sources = {spec.name: spec for spec in config.connectors if spec.kind == "source"}
    if connector not in sources:
        known = ", ".join(sources) or "none"
        raise ConfigError([Finding(f"there is no source connector {connector}", remedy=f"Sources are: {known}")])
    return sources[connector]


def _topic(config: Config) -> str:
    return config.worker.offset_storage_topic or f"{config.worker.group_id}-offsets"


def _nothing() -> None:
    """Nobody has to be kept alive."""
