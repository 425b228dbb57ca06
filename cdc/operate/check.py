"""``cdc check``: what of the databases, Kafka, the registry and the stores would keep a configuration from working.

Every finding has the exact statement, command or setting that mends it. Nothing is changed anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Literal

from cdc.config import Config, ConnectorSpec
from cdc.errors import CdcError, Finding
from cdc.operate.check_kafka import BOOTSTRAP, check_kafka
from cdc.operate.check_registry import check_registry
from cdc.runtime.survey import survey

__all__ = ["check", "render"]


def check(config: Config) -> list[Finding]:
    """All findings, each once: of Kafka, of the registry, then of the connectors in file order; no secret in them."""
    found = check_kafka(config)
    reachable = not any(finding.key == BOOTSTRAP for finding in found)
    if reachable or not config.embedded_registry:
        found += check_registry(config)
    found += survey(config)
    for spec in config.connectors:
        found += _check_connector(spec)
    once: dict[str, Finding] = {}
    for finding in found:  # what several looks see, the first one tells
        once.setdefault(finding.message, finding)
    redact = config.secrets.redact
    return [
        replace(finding, message=redact(finding.message), remedy=redact(finding.remedy)) for finding in once.values()
    ]


def _check_connector(spec: ConnectorSpec) -> list[Finding]:
    try:
        return spec.placed(spec.connector.check())
    except CdcError as error:
        return spec.placed([Finding(str(error))])


def render(config: Config, findings: Sequence[Finding], output: Literal["text", "json"]) -> str:
    """The findings for a person (two lines each, what and how to mend it) or for a program."""
    if output == "json":
        told = [asdict(finding) for finding in findings]
        return json.dumps({"ready": not findings, "findings": told}, indent=2)
    if not findings:
        parts = ", ".join(["Kafka", "the schema registry", *(spec.name for spec in config.connectors)])
        return f"ready: {parts}"
    lines: list[str] = []
    for finding in findings:
        lines.append(": ".join(part for part in (finding.where, finding.key, finding.message) if part))
        if finding.remedy:
            lines.append(f"    {finding.remedy}")
    return "\n".join(lines)
