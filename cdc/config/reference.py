"""The reference of all properties, made from the models, and a configuration as it may be shown."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from importlib.resources import files
from typing import Final, Literal

from cdc.config import plugins
from cdc.config.model import Config
from cdc.config.models import Property, properties_of
from cdc.config.worker import PASSED_ON, REGISTRY_CLIENT, WorkerConfig

__all__ = ["Output", "render_config", "render_reference"]

Output = Literal["text", "json", "markdown"]

_WORKER: Final = "worker"
_ALL: Final = "all"
_COMMON: Final = (
    "key.converter.*, value.converter.*: settings of the converters, as theirs",
    "transforms, transforms.*, predicates, predicates.*: of sources, as Kafka Connect has them",
    "topic.creation.default.*: partitions, replication factor and settings of the topics that a source creates",
    "producer.override.*, consumer.override.*, admin.override.*: librdkafka's settings, over the worker's",
)


def render_reference(name: str, output: Output) -> str:
    """All properties of ``worker``, of a connector, or of ``all``, in the form that ``output`` names."""
    sections = {section: _properties(section) for section in _sections(name)}
    if output == "json":
        told = {section: [asdict(known) for known in properties] for section, properties in sections.items()}
        return json.dumps(told if name == _ALL else told[name], indent=2)
    if output == "markdown":
        return files("cdc.config").joinpath("reference.md").read_text(encoding="utf-8") + "\n".join(
            _markdown(section, sections[section]) for section in sections
        )
    return "\n\n".join(_text(section, properties) for section, properties in sections.items())


def render_config(config: Config, output: Output) -> str:
    """What a valid configuration says, references unresolved and secrets masked."""
    worker = dict(sorted(config.shown.items()))
    connectors = {spec.name: dict(sorted(spec.shown.items())) for spec in config.connectors}
    if output == "json":
        return json.dumps({"worker": worker, "connectors": connectors}, indent=2)
    import yaml  # noqa: PLC0415 - only this output needs it

    text: str = yaml.safe_dump({"worker": worker, "connectors": connectors}, sort_keys=False, allow_unicode=True)
    return text.rstrip()


def _sections(name: str) -> list[str]:
    return [_WORKER, *plugins.connector_names()] if name == _ALL else [name]


def _properties(section: str) -> list[Property]:
    return properties_of(WorkerConfig if section == _WORKER else plugins.find_connector(section).config_model)


def _title(section: str) -> str:
    return "Worker" if section == _WORKER else f"Connector {section}"


def _prefixes(section: str) -> Iterable[str]:
    if section != _WORKER:
        return _COMMON
    passed_on = ", ".join(f"{prefix}*" for prefix in PASSED_ON)
    registry = ", ".join(f"{prefix}*" if prefix.endswith(".") else prefix for prefix in REGISTRY_CLIENT)
    return (
        f"{passed_on}: passed on to Kafka's clients and to converters",
        f"{registry}: of the registry's client, named as Confluent's serializers have them",
    )


def _facts(known: Property) -> str:
    default = "required" if known.required else f"default {known.default}" if known.default else "optional"
    return f"{known.type}; {default}"


def _text(section: str, properties: Iterable[Property]) -> str:
    lines = [_title(section), ""]
    for known in properties:
        lines.append(f"  {', '.join((known.key, *known.aliases))}  ({_facts(known)})")
        lines += textwrap.wrap(known.description, 100, initial_indent="      ", subsequent_indent="      ")
    lines += ["", *(f"  {line}" for line in _prefixes(section))]
    return "\n".join(lines)


def _markdown(section: str, properties: Iterable[Property]) -> str:
    lines = [f"## {_title(section)}", "", "| property | type | default | what it does |", "|---|---|---|---|"]
    for known in properties:
        keys = ", ".join(f"`{key}`" for key in (known.key, *known.aliases))
        default = "*required*" if known.required else f"`{known.default}`" if known.default else ""
        lines.append(f"| {keys} | {_cell(known.type)} | {default} | {_cell(known.description)} |")
    lines += ["", *(f"* {_cell(line)}" for line in _prefixes(section)), ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return re.sub(r"([|<>*_])", r"\\\1", text)
