"""A running bridge for tests: ``examples/bridge.yaml`` on the session's servers, under names of its own."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import redis
from fix_servers import Database

from cdc.config import Config, loads
from cdc.local.kafka import Kafka
from cdc.operate.verify import wait_until_equal
from cdc.runtime.worker import Worker

EXAMPLE = Path(__file__).parents[1] / "examples" / "bridge.yaml"


@dataclass
class Bridge:
    """The configuration, the database and the client of what a bridge connects. ``name`` is the source's."""

    name: str
    config: Config
    database: Database
    redis: redis.Redis
    text: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    worker: Worker | None = None

    @property
    def sink(self) -> str:
        return f"{self.name}-cache"

    def start(self) -> None:
        self.worker = Worker(self.config, log_level="WARNING")
        self.worker.start()

    def reconfigure(self, replacements: dict[str, str]) -> None:
        """Go on with another configuration from the next `start` on: replacements in its text."""
        for old, new in replacements.items():
            assert old in self.text, old
            self.text = self.text.replace(old, new)
        self.config = loads({"bridge.yaml": self.text}, self.environment)

    def stop(self) -> None:
        if self.worker is not None:
            self.worker.stop()
            self.worker = None

    def hash(self, key: str) -> dict[str, str]:
        found: Any = self.redis.hgetall(key)
        return {name.decode(): value.decode() for name, value in found.items()}


class Store(Protocol):
    """What a bridge needs of the server that it mirrors to."""

    @property
    def url(self) -> str: ...

    def client(self) -> redis.Redis: ...


@contextlib.contextmanager
def bridged(
    database: Database, kafka: Kafka, server: Store, tables: str, replacements: dict[str, str] | None = None
) -> Iterator[Bridge]:
    """Run the example for some tables of a database until the block ends, beginning when all their rows are mirrored.

    ``tables`` is a ``table.include.list``, ``replacements`` are made in the example's text. Keys begin with the
    source's name, so that bridges share servers.
    """
    name = f"t{uuid.uuid4().hex[:8]}"
    text = EXAMPLE.read_text(encoding="utf-8").replace("shop", name)
    for old, new in {
        "[public.customers, public.orders]": f'"{tables}"',
        "127.0.0.1:8083": "127.0.0.1:0",
        '"{table}:{pk}"': f'"{name}:{{table}}:{{pk}}"',
        **(replacements or {}),
    }.items():
        assert old in text, old
        text = text.replace(old, new)
    if not kafka.keeps_data:  # the embedded broker lets a group form after half of this time
        text += "    consumer.override.session.timeout.ms: 6000\n"
    info = database.conninfo
    environment = {
        "KAFKA": kafka.bootstrap_servers,
        "PGHOST": info["host"],
        "PGPORT": str(info["port"]),
        "PGUSER": info["user"],
        "PGPASSWORD": info["password"],
        "PGDATABASE": info["dbname"],
        "REDIS_URL": server.url,
    }
    config = loads({"bridge.yaml": text}, environment)
    with server.client() as client:
        bridge = Bridge(name, config, database, client, text, environment)
        try:
            bridge.start()
            report = wait_until_equal(config, 60)
            assert report.equal, report.as_text()
            yield bridge
        finally:
            bridge.stop()
            for key in client.scan_iter(match=f"{name}:*"):
                client.delete(key)
