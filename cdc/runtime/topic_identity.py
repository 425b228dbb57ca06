"""Whether the topics of a source are still those that it wrote its records to (EXACTNESS.md H17).

A topic that was made anew lacks the rows that were told before, and keys move to other partitions when partitions are
added: there, later records overtake earlier ones. What a topic was when it was first written to is stored with the
source's offsets; a change stops the source.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cdc.errors import FatalError
from cdc.kafka.topics import TopicFacts

__all__ = ["TopicIdentities"]


class TopicIdentities:
    """What is remembered of topics, as records of the offsets topic: ``["<connector>",{"topic":"<name>"}]``."""

    def __init__(self, connector: str, stored: Mapping[str, Any]) -> None:
        self._connector = connector
        self._stored = dict(stored)
        self.fresh: dict[str, Any] = {}
        """What is to be stored with the next offsets."""

    def topics(self) -> list[str]:
        """The topics that something is remembered of."""
        parts = (json.loads(partition)[1] for partition in self._stored)
        return [part["topic"] for part in parts if "topic" in part]

    def note(self, topic: str, facts: TopicFacts | None) -> None:
        """Compare with what is remembered, or remember. `FatalError` when it is another topic, or gone (``None``)."""
        if facts is None:
            raise self._fault(topic, "was deleted, and with it the rows that were told before")
        partition = json.dumps([self._connector, {"topic": topic}], separators=(",", ":"))
        known = self._stored.get(partition)
        now = {"id": facts.id, "partitions": facts.partitions}
        if known is None:
            self._stored[partition] = self.fresh[partition] = now
            return
        changed = ""
        if None not in (known["id"], facts.id) and known["id"] != facts.id:
            changed = "was deleted and made anew, so that it lacks the rows that were told before"
        elif known["partitions"] != facts.partitions:
            changed = (
                f"had {known['partitions']} partitions and has {facts.partitions}, so that later records of a key can "
                "overtake earlier ones"
            )
        if changed:
            raise self._fault(topic, changed)

    def _fault(self, topic: str, changed: str) -> FatalError:
        return FatalError(
            f"topic {topic} {changed}. Remedy: stop the worker; delete the topic if its partitions were changed "
            f"(the next start makes it); run cdc slot reset --connector {self._connector}, "
            "which has every table read again; delete the offset keys of the topic in each sink's store; start the "
            "worker"
        )
