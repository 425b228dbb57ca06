"""The keys under which a source's offsets are stored: Connect's partitions, as JSON text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["Partitions"]


class Partitions:
    """Those of one connector: of the stream, as Debezium names it, of each table, and of signals."""

    def __init__(self, connector: str, server: str) -> None:
        self._connector = connector
        self._server = server
        self.stream = self._text({})
        self.outcomes = self._text({"signals": "outcomes"})
        """What has become of the last signals (`cdc.postgres.adhoc.AdHocs`)."""

    def table(self, full_name: str) -> str:
        return self._text({"table": full_name})

    def tables(self, offsets: Mapping[str, Any]) -> dict[str, Any]:
        """What is stored of tables, by full name."""
        found = {}
        for partition, value in offsets.items():
            owner, parts = json.loads(partition)
            if owner == self._connector and parts.get("server") == self._server and "table" in parts:
                found[parts["table"]] = value
        return found

    def _text(self, parts: Mapping[str, str]) -> str:
        return json.dumps([self._connector, {"server": self._server, **parts}], separators=(",", ":"))
