"""A Redis that is not what it was: emptied, restored, another one. The mirror notices and heals by itself (H20)."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fix_bridge import Bridge, bridged
from fix_servers import Database

from cdc.local.kafka import EmbeddedKafka
from cdc.local.redis import Valkey
from cdc.operate.verify import wait_until_equal

pytestmark = pytest.mark.integration

TABLE = """
create table customers (id int primary key, name text, visits int not null default 0);
insert into customers select i, 'customer ' || i, 0 from generate_series(1, 300) i;
"""


@pytest.fixture
def store(launch: Callable[[Any], Any]) -> Valkey:
    server: Valkey = launch(Valkey(appendfsync="always"))
    return server


@pytest.fixture
def bridge(database18: Database, embedded_kafka: EmbeddedKafka, store: Valkey) -> Iterator[Bridge]:
    database18.execute(TABLE)
    with bridged(database18, embedded_kafka, store, "public.customers") as running:
        yield running


def change(bridge: Bridge) -> None:
    bridge.database.execute(
        "delete from customers where id % 10 = (select coalesce(max(visits), 0) % 10 from customers);"
        "update customers set visits = visits + 1 where id % 3 = 0;"
        "insert into customers select max(id) + 1, null from customers"
    )


def settled(bridge: Bridge) -> None:
    report = wait_until_equal(bridge.config, 60)
    assert report.equal, report.as_text()


@pytest.mark.parametrize("when", ["while the bridge runs", "while it is stopped"])
def test_a_flushall_is_noticed_and_healed(bridge: Bridge, store: Valkey, when: str) -> None:
    change(bridge)
    settled(bridge)
    if when == "while it is stopped":
        bridge.stop()
    with store.client() as client:
        client.flushall()
    change(bridge)
    if when == "while it is stopped":
        bridge.start()
    settled(bridge)


def test_a_flushall_amid_writes_is_healed(bridge: Bridge, store: Valkey) -> None:
    over = threading.Event()

    def write() -> None:
        while not over.wait(0.005):
            change(bridge)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with store.client() as client:
            for _ in range(5):
                over.wait(0.3)
                client.flushall()
    finally:
        over.set()
        writer.join()
    settled(bridge)


@pytest.mark.parametrize("when", ["while the bridge runs", "while it is stopped"])
def test_an_older_state_that_is_restored_is_healed(bridge: Bridge, store: Valkey, when: str) -> None:
    old = store.directory / "old"
    settled(bridge)
    store.stop()
    shutil.copytree(store.data, old)
    store.start()
    change(bridge)
    change(bridge)
    settled(bridge)
    if when == "while it is stopped":
        bridge.stop()
    store.kill()
    shutil.rmtree(store.data)
    old.rename(store.data)
    store.start()
    if when == "while it is stopped":
        bridge.start()
    settled(bridge)


def test_a_new_empty_redis_is_filled(bridge: Bridge, store: Valkey) -> None:
    change(bridge)
    settled(bridge)
    store.kill()
    shutil.rmtree(store.data)
    store.start()
    settled(bridge)
