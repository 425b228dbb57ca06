"""A bridge of each test's own, on servers of its own, all of which may be killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench.mirrored_pgbench import MirroredPgbench, initialize
from bench.servers import Servers
from cdc.local.kafka import ApacheKafka
from cdc.local.postgres import SystemPostgres
from cdc.local.redis import Redis
from tests.faults.extent import PARTITIONS, SCALE

Launch = Callable[[Any], Any]


@pytest.fixture
def servers(launch: Launch) -> Servers:
    """Postgres 15, Apache Kafka, and a Redis that has on disk what it has answered; an empty database."""
    postgres = launch(SystemPostgres(15, settings={"max_wal_size": "4GB"}))
    started = Servers(postgres, launch(ApacheKafka()), launch(Redis(appendfsync="always")))
    started.create_database()
    return started


@pytest.fixture
def mirrored(servers: Servers) -> Iterator[MirroredPgbench]:
    """A database of pgbench's whose first rows are all in Redis, and a bridge that runs."""
    initialize(servers, SCALE)
    with MirroredPgbench(servers, "shop", PARTITIONS) as bridge:
        bridge.bridge.wait_streaming("shop")
        bridge.settle()
        yield bridge
