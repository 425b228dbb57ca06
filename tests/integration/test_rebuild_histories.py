"""Random histories with drift planted at random, rebuilt at random moments while writes go on and sinks come and go.

A seed is a history. ``REBUILD_SEEDS=7,8,9`` runs others than those of CI.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator

import pytest
from rebuild_feed import Traffic, Witness, mirrored, plant, rebuild
from sink_feed import Bench, Schemas, Sink, Table

from cdc.local.kafka import ApacheKafka
from cdc.local.redis import RedisServer

pytestmark = pytest.mark.integration

SEEDS = [int(seed) for seed in os.environ.get("REBUILD_SEEDS", "1,2").split(",")]
CALM = range(200)
"""Rows that nobody deletes: always there, never older."""


@pytest.fixture(scope="session")
def schemas() -> Iterator[Schemas]:
    made = Schemas()
    yield made
    made.close()


@pytest.fixture
def bench(apache_kafka: ApacheKafka, any_redis: RedisServer, schemas: Schemas) -> Bench:
    return Bench(apache_kafka, any_redis, schemas)


def churn(table: Table, rng: random.Random, over: threading.Event) -> None:
    """Rows that come and go, and truncates."""
    score = 0
    while not over.wait(0.01):
        for _ in range(10):
            score += 1
            n = rng.randrange(300)
            if (n,) in table.rows and rng.random() < 0.4:
                table.delete(id=n)
            else:
                table.put(id=n, name=rng.choice([None, "", f"v{score}"]), score=score)
        if rng.random() < 0.01:
            table.truncate()
        table.producer.poll(0)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_histories_end_equal_and_no_live_row_is_ever_missing_or_older(bench: Bench, seed: int) -> None:
    rng = random.Random(seed)
    users = bench.table("users", partitions=rng.choice([1, 3]))
    orders = bench.table("orders", partitions=rng.choice([1, 2]))
    for n in CALM:
        users.put(id=n, name="first", score=1)
    for n in range(300, 400):
        users.put(id=n, name="drifts", score=1)
    for n in range(100):
        orders.put(id=n, name="first", score=1)
    over = threading.Event()
    churning = threading.Thread(target=churn, args=(orders, random.Random(seed + 1), over))
    sink = Sink(bench, batch_max_records=str(rng.choice([20, 1000])))
    try:
        mirrored(bench, users, orders)
        churning.start()
        with Traffic(users, CALM, range(500, 550)), Witness(bench, users, CALM):
            for _ in range(3):
                plant(bench, users, rng, spare=300)
                runs = [threading.Thread(target=rebuild, args=(bench, table)) for table in (users, orders)]
                for run in runs:
                    over.wait(rng.random() / 2)
                    run.start()
                if rng.random() < 0.7:
                    over.wait(rng.random())
                    sink.stop()
                    assert sink.error is None
                    sink = Sink(bench, batch_max_records=str(rng.choice([20, 1000])))
                for run in runs:
                    run.join()
        over.set()
        churning.join()
        mirrored(bench, users, orders)
    finally:
        over.set()
        sink.stop()
