"""Rebuilds and repairs in a cluster whose nodes are emptied, killed and hand slots over meanwhile (H24)."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from fix_bridge import bridged
from fix_servers import Database
from rebuild_feed import Falls, Traffic, Witness, connector, fill, plant, rebuild, running
from sink_feed import Bench, Schemas, Sink, Table, eventually
from test_cluster_faults import mirrored, pid_of

from cdc.errors import RetriableError
from cdc.local.kafka import ApacheKafka
from cdc.local.redis import Redis, Valkey
from cdc.local.redis_cluster import RedisCluster
from cdc.operate.rebuild import run_rebuild
from cdc.operate.verify import compare, run_verify, wait_until_equal
from cdc.redis.cluster.slots import slot_of
from cdc.runtime.rebuild import Progress

pytestmark = pytest.mark.integration

LaunchCluster = Callable[[RedisCluster], RedisCluster]


@pytest.fixture(scope="module")
def schemas() -> Iterator[Schemas]:
    made = Schemas()
    yield made
    made.close()


def test_primaries_that_are_emptied_or_killed_during_a_rebuild_end_equal(
    apache_kafka: ApacheKafka, launch_cluster: LaunchCluster, schemas: Schemas
) -> None:
    """Killed, one comes back empty, as it has neither replica nor disk."""
    cluster = launch_cluster(RedisCluster(Valkey))
    bench = Bench(apache_kafka, cluster, schemas)
    table = bench.table(partitions=2)
    fill(table, 3000)
    with Sink(bench) as sink:
        mirrored(bench, table, sink)
        falls = Falls(bench, table, range(50))
        with falls, Traffic(table, range(50), range(4000, 4020)):
            for phase in ("writing", "sweeping"):
                plant(bench, table, random.Random(phase), spare=100)
                runner, reached = running(bench, table, phase)
                assert reached.wait(60)
                with falls.emptying():
                    cluster.run(cluster.nodes[1], "FLUSHALL")
                runner.join()
        mirrored(bench, table, sink)
        plant(bench, table, random.Random(1), spare=100)
        killed: list[Progress] = []

        def kill(progress: Progress) -> None:
            if progress.phase == "writing" and not killed:
                cluster.nodes[2].kill()
                killed.append(progress)
            elif progress.phase == "waiting" and len(killed) == 1:
                cluster.nodes[2].start()
                killed.append(progress)

        rebuild(bench, table, told=kill)
        assert len(killed) == 2
        mirrored(bench, table, sink)


def test_what_a_failover_takes_back_of_a_rebuild_is_mended_again(
    apache_kafka: ApacheKafka, launch_cluster: LaunchCluster, schemas: Schemas
) -> None:
    """Drift that the replica has, too: no offset and no version tells of it."""
    cluster = launch_cluster(RedisCluster(Valkey, replicas=1))
    bench = Bench(apache_kafka, cluster, schemas)
    table = bench.table(partitions=2)
    for n in range(600):
        table.put(id=n, name=f"n{n}", score=1)
    primary, replica = cluster.nodes[0], cluster.nodes[3]
    theirs = [n for n in range(600) if cluster.owner(slot_of(f"{bench.prefix}:users:{n}".encode())) is primary]
    with Sink(bench) as sink:
        mirrored(bench, table, sink)
        with bench.client() as client:
            for n in theirs[:20]:
                client.hset(f"{bench.prefix}:users:{n}", "name", "not so")
            client.hset(f"{bench.prefix}:users:{theirs[20]}", "extra", "1")
            client.delete(f"{bench.prefix}:users:{theirs[21]}")
        told = int(cluster.run(primary, "INFO", "replication")["master_repl_offset"])
        eventually(lambda: int(cluster.run(replica, "INFO", "replication")["slave_repl_offset"]) >= told)
        os.kill(pid_of(replica), signal.SIGSTOP)
        cluster.run(primary, "CLIENT", "KILL", "TYPE", "replica")  # or it would be on its way
        phases: list[str] = []

        def lose(progress: Progress) -> None:
            if progress.phase == "sweeping" and "sweeping" not in phases:
                primary.kill()
                os.kill(pid_of(replica), signal.SIGCONT)
                eventually(lambda: cluster.owner(0) is replica)
            phases.append(progress.phase)

        done = rebuild(bench, table, told=lose)
        assert "waiting" in phases
        assert done.counts.different >= 20
        mirrored(bench, table, sink)


def test_slots_move_during_a_rebuild(
    apache_kafka: ApacheKafka, launch_cluster: LaunchCluster, schemas: Schemas
) -> None:
    cluster = launch_cluster(RedisCluster(Redis))
    bench = Bench(apache_kafka, cluster, schemas)
    table = bench.table(partitions=3)
    fill(table, 600)
    slots = sorted({slot_of(f"{bench.prefix}:users:{row}".encode()) for row in range(600)})
    with Sink(bench) as sink:
        mirrored(bench, table, sink)
        node = cluster.add_primary()
        planted = plant(bench, table, random.Random(3), spare=100)
        moved = iter(slots[:30])

        def move(progress: Progress) -> None:
            if progress.phase in ("writing", "sweeping"):
                for slot in (one for one, _ in zip(moved, range(10), strict=False)):
                    cluster.move_slot(slot, node)

        with Traffic(table, range(100), range(2000, 2020)), Witness(bench, table, range(100)):
            counts = rebuild(bench, table, told=move).counts
        mirrored(bench, table, sink)
        found = {"missing": counts.missing, "different": counts.different, "ghosts": counts.ghosts}
        assert found == planted


def test_a_primary_that_has_no_witness_yet_holds_a_rebuild_up(
    apache_kafka: ApacheKafka, launch_cluster: LaunchCluster, schemas: Schemas
) -> None:
    """Else no record would count as applied, and missing rows be left to a sink that does not come by again."""
    cluster = launch_cluster(RedisCluster(Redis))
    bench = Bench(apache_kafka, cluster, schemas)
    table = bench.table()
    fill(table, 50)
    with Sink(bench) as sink:
        mirrored(bench, table, sink)
    key = f"{bench.prefix}:users:7".encode()
    cluster.move_slot(slot_of(key), cluster.add_primary())
    with bench.client() as client:
        client.delete(f"{bench.prefix}:users:8")
    with closing(connector(bench).mender(table.topic, 1, "test")) as mender:
        assert mender.offsets() == {}
        with pytest.raises(RetriableError, match="Remedy, if it does not run: start it"):
            mender.hold([key])
    with Sink(bench) as sink:
        rebuild(bench, table, told=lambda _: None)
        mirrored(bench, table, sink)


def test_a_row_that_is_made_again_has_its_records_version(
    apache_kafka: ApacheKafka, redis7_cluster: RedisCluster, schemas: Schemas
) -> None:
    """So that what an earlier record says cannot come back by a replay; with Debezium's records, too."""
    bench = Bench(apache_kafka, redis7_cluster, schemas)
    tables = [bench.table("ours", partitions=2), bench.table("theirs", positions=False)]
    versions: dict[str, bytes] = {}

    def read(table: Table) -> dict[str, bytes]:
        with bench.client() as client:
            return {
                key: client.hget(key, "__cdc:version")
                for key in (f"{bench.prefix}:{table.name}:{n}" for n in range(20))
            }

    with Sink(bench):
        for table in tables:
            for score in range(3):
                for n in range(20):
                    table.put(id=n, name="x", score=score)
            table.flush()
        eventually(lambda: bench.dump() == {**tables[0].expected(), **tables[1].expected()})
    for table in tables:
        versions |= read(table)
        assert None not in versions.values()
        with bench.client() as client:
            for n in range(10):
                client.delete(f"{bench.prefix}:{table.name}:{n}")
            client.hset(f"{bench.prefix}:{table.name}:15", "name", "not so")
        assert rebuild(bench, table).counts.missing == 10
        assert read(table).items() <= versions.items()


def test_a_bridge_into_a_cluster_is_repaired_and_rebuilt_by_command(
    database18: Database, apache_kafka: ApacheKafka, redis7_cluster: RedisCluster
) -> None:
    database18.execute(
        "create table people (id int primary key, name text);"
        "insert into people select i, 'person ' || i from generate_series(1, 500) i"
    )
    settings = {"    redis.uri: ": "    redis.cluster.enabled: true\n    redis.uri: "}
    with bridged(database18, apache_kafka, redis7_cluster, "public.people", settings) as bridge:

        def drift() -> None:
            bridge.redis.hset(f"{bridge.name}:people:3", "name", "not so")
            bridge.redis.delete(f"{bridge.name}:people:4")
            bridge.redis.hset(f"{bridge.name}:people:999999", "id", "999999")
            assert not compare(bridge.config).equal

        drift()
        said: list[str] = []
        run_verify(bridge.config, output="json", mend=True, echo=said.append)
        [told] = json.loads(said[0])["repaired"]
        assert (told["written"], told["removed"], told["refused"]) == (2, 1, "")
        assert wait_until_equal(bridge.config, 30).equal
        drift()
        assert run_rebuild(bridge.config, bridge.sink, [], echo=said.append) == 0
        assert wait_until_equal(bridge.config, 30).equal
