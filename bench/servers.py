"""The servers of a measurement: Postgres, Kafka and Redis, started for it and stopped with it."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from platform import python_version
from typing import Any, Final

import psycopg
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from psycopg import sql

from cdc.local import Server
from cdc.local.kafka import ApacheKafka, EmbeddedKafka, Kafka
from cdc.local.postgres import EmbeddedPostgres, Postgres, SystemPostgres
from cdc.local.redis import Redis, RedisServer, Valkey

__all__ = ["DATABASE", "Connection", "Servers", "servers"]

DATABASE: Final = "bench"
Connection = psycopg.Connection[tuple[Any, ...]]

_POSTGRES: Final[Mapping[str, str | int]] = {
    # No checkpoint in the middle of a run; the rest is Postgres's default, fsync included.
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "shared_buffers": "512MB",
}


@dataclass(frozen=True)
class Servers:
    """Running servers and an empty database."""

    postgres: Postgres
    kafka: Kafka
    redis: RedisServer

    def create_database(self) -> None:
        """Create the database."""
        with psycopg.connect(**self.postgres.conninfo(), autocommit=True) as admin:
            admin.execute(sql.SQL("create database {}").format(sql.Identifier(DATABASE)))

    def connect(self, **options: Any) -> Connection:
        """A connection to the database, in autocommit mode unless told otherwise."""
        return psycopg.connect(**{"autocommit": True, **self.postgres.conninfo(DATABASE), **options})

    def create_topic(self, name: str, partitions: int, **config: str) -> None:
        """Create a topic that stamps records when it appends them, which the source then finds and leaves as it is."""
        admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap_servers, "log_level": 4})
        settings = {"message.timestamp.type": "LogAppendTime", "cleanup.policy": "compact"}
        settings |= {key.replace("_", "."): value for key, value in config.items()}
        topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=settings)
        admin.create_topics([topic])[name].result(30)

    def run(self, program: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run one of Postgres's programs on the database. The password goes by the environment."""
        command = [str(self.postgres.bin(program)), *arguments]
        return subprocess.run(command, check=True, env=self.environment(), text=True, **options)

    def environment(self) -> dict[str, str]:
        """libpq's variables for the database, and nothing else."""
        info = self.postgres.conninfo(DATABASE)
        return {
            "PATH": "/usr/bin:/bin",
            "PGHOST": info["host"],
            "PGPORT": str(info["port"]),
            "PGUSER": info["user"],
            "PGPASSWORD": info["password"],
            "PGDATABASE": info["dbname"],
        }

    def versions(self) -> dict[str, str]:
        """What runs here, for the head of a result."""
        return {
            "cdc": f"{version('cdc')} on Python {python_version()}",
            "libraries": ", ".join(
                f"{name} {version(name)}" for name in ("psycopg", "confluent-kafka", "fastavro", "redis", "hiredis")
            ),
            "postgres": f"{_named(self.postgres)} (fsync on, {_settings(_POSTGRES)})",
            "kafka": _named(self.kafka),
            "redis": f"{_named(self.redis)} (AOF {self.redis.appendfsync})",
        }


@contextlib.contextmanager
def servers(flavour: str) -> Iterator[Servers]:
    """Start one of each: ``apache`` is Apache Kafka with Debian's Postgres and Redis, ``embedded`` is wheels alone."""
    embedded = flavour == "embedded"
    with contextlib.ExitStack() as stack:
        postgres: Postgres = stack.enter_context((EmbeddedPostgres if embedded else SystemPostgres)(settings=_POSTGRES))
        kafka: Kafka = stack.enter_context((EmbeddedKafka if embedded else ApacheKafka)())
        redis: RedisServer = stack.enter_context((Valkey if embedded else Redis)())
        started = Servers(postgres, kafka, redis)
        started.create_database()
        yield started


def _named(server: Server) -> str:
    return server.name if server.version in server.name else f"{server.name} {server.version}"


def _settings(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings)[1:-1].replace('"', "").replace(": ", "=")
