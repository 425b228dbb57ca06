"""Before anything starts: the configuration against the live sources.

A table that does not exist, a key template that is not the table's key, two tables in one key space: what the file
alone cannot show, the databases can. A source that is away is not waited for here: its task waits, and finds the same.
"""

from __future__ import annotations

from dataclasses import replace

import structlog

from cdc.config import Config
from cdc.errors import Finding, RetriableError
from cdc.plugin import SinkConnector, SourceConnector, Stream

__all__ = ["survey"]

_log = structlog.get_logger(__name__)


def survey(config: Config) -> list[Finding]:
    """All findings, each with its place in the file; no secret in them."""
    found: list[Finding] = []
    streams: list[Stream] = []
    for spec in config.connectors:
        if isinstance(spec.connector, SourceConnector):
            try:
                answer = spec.connector.survey()
            except RetriableError as error:
                _log.warning(
                    "a source cannot be asked yet; its task will wait for it",
                    connector=spec.name,
                    cause=config.secrets.redact(str(error)),
                )
                continue
            streams += answer.streams
            found += spec.placed(answer.findings)
    for spec in config.connectors:
        if isinstance(spec.connector, SinkConnector):
            found += spec.placed(spec.connector.fits(streams))
    redact = config.secrets.redact
    return [replace(finding, message=redact(finding.message), remedy=redact(finding.remedy)) for finding in found]
