"""The id of the Kafka cluster that a worker belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["ClusterId"]

_TIMEOUT: Final = 2.0


class ClusterId:
    """Called, asks the brokers for the cluster's id, once; ``None`` while they do not answer within 2 seconds."""

    def __init__(self, worker: Mapping[str, str]) -> None:
        self._worker = worker
        self._known: str | None = None

    def __call__(self) -> str | None:
        if self._known is None:
            # Imported here: it takes a tenth of a second, which only this request shall pay.
            from confluent_kafka import KafkaException  # noqa: PLC0415
            from confluent_kafka.admin import AdminClient  # noqa: PLC0415

            from cdc.kafka.settings import client_settings  # noqa: PLC0415

            try:
                client = AdminClient(client_settings(self._worker, "admin"))
                self._known = client.list_topics(timeout=_TIMEOUT).cluster_id
            except KafkaException:
                return None
        return self._known
