"""The id of the Kafka cluster that a worker belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cdc.config import client_properties

__all__ = ["ClusterId"]

_TIMEOUT: Final = 2.0


class ClusterId:
    """Called, asks the brokers for the cluster's id, once; ``None`` while they do not answer within 2 seconds."""

    def __init__(self, worker: Mapping[str, str]) -> None:
        self._worker = worker
        self._known: str | None = None

    def __call__(self) -> str | None:
        if self._known is None:
            from confluent_kafka import KafkaException  # noqa: PLC0415 - 100 ms that only this request pays
            from confluent_kafka.admin import AdminClient  # noqa: PLC0415

            try:
                client = AdminClient(client_properties(self._worker, "admin."))
                self._known = client.list_topics(timeout=_TIMEOUT).cluster_id
            except KafkaException:
                return None
        return self._known
