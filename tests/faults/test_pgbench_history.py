"""The policy for a table without primary key, as pgbench has one: refused by name, left out, or a stream of events."""

from __future__ import annotations

import pytest

from bench.mirrored_pgbench import HISTORY, MirroredPgbench, initialize
from bench.servers import Servers
from tests.faults.extent import PARTITIONS, SCALE, SECONDS

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]


def test_a_table_without_key_is_refused_by_name_with_its_remedies(servers: Servers) -> None:
    initialize(servers, SCALE)
    with MirroredPgbench(servers, "shop", PARTITIONS, history=True) as mirrored:
        assert mirrored.bridge.wait_ended() == 2
        told = mirrored.bridge.output
    assert f"public.{HISTORY} has no primary key" in told
    for remedy in ("Add a primary key", "REPLICA IDENTITY FULL", "leave it out of table.include.list"):
        assert remedy in told


def test_a_table_without_key_is_left_out(mirrored: MirroredPgbench) -> None:
    told = mirrored.start(SECONDS).communicate()[0]
    assert "number of transactions actually processed" in told, told
    mirrored.settle()
    assert mirrored.prove() > 100_000
    assert not list(mirrored.client.scan_iter(match=f"{HISTORY}:*"))


def test_a_table_without_key_is_streamed_with_replica_identity_full(servers: Servers) -> None:
    initialize(servers, SCALE)
    with servers.connect() as connection:
        connection.execute(f"alter table {HISTORY} replica identity full")
    with MirroredPgbench(servers, "shop", PARTITIONS, history=True) as mirrored:
        mirrored.bridge.wait_streaming("shop")
        told = mirrored.start(SECONDS).communicate()[0]
        assert "number of transactions actually processed" in told, told
        mirrored.settle()
        assert mirrored.prove() > 100_000
        assert mirrored.prove_history() > 0
