"""Rows made again from the topic while the sink goes on: all drift mended, no live key ever missing or older (H24)."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions
from rebuild_feed import (
    Falls,
    Stop,
    Traffic,
    Witness,
    fill,
    left_nothing,
    mirrored,
    plant,
    rebuild,
    running,
)
from sink_feed import Bench, Schemas, Sink, SinkProcess, eventually

from cdc.errors import FatalError, RetriableError
from cdc.local.kafka import ApacheKafka
from cdc.local.redis import Redis, RedisServer
from cdc.record import HEADER_UNKNOWN
from cdc.runtime.rebuild import Progress

pytestmark = pytest.mark.integration


@pytest.fixture(scope="session")
def schemas() -> Iterator[Schemas]:
    made = Schemas()
    yield made
    made.close()


@pytest.fixture(params=["redis7", "redis7_cluster"])
def bench(request: pytest.FixtureRequest, apache_kafka: ApacheKafka, schemas: Schemas) -> Bench:
    return Bench(apache_kafka, request.getfixturevalue(request.param), schemas)


@pytest.fixture
def any_bench(apache_kafka: ApacheKafka, any_redis: RedisServer, schemas: Schemas) -> Bench:
    return Bench(apache_kafka, any_redis, schemas)


def test_a25_all_drift_is_mended_while_rows_change_and_nobody_sees_a_live_row_missing_or_older(
    any_bench: Bench,
) -> None:
    bench, rng = any_bench, random.Random(7)
    table = bench.table(partitions=3)
    fill(table, 400)
    with Sink(bench) as sink:
        mirrored(bench, table)
        planted = plant(bench, table, rng, spare=200)
        with Traffic(table, range(200), range(2000, 2050)), Witness(bench, table, range(200)):
            done = rebuild(bench, table)
        mirrored(bench, table)
        assert sink.ended() is None
    counts = done.counts
    assert {"missing": counts.missing, "different": counts.different, "ghosts": counts.ghosts} == planted
    assert not done.resumed
    assert bench.offset(table.topic) is not None


def test_a_rebuild_of_what_is_right_writes_nothing(bench: Bench) -> None:
    table = bench.table(partitions=2)
    fill(table, 100)
    with Sink(bench):
        mirrored(bench, table)
    done = rebuild(bench, table)
    assert (done.counts.rows, done.keys) == (110, 110)
    assert (done.counts.missing, done.counts.different, done.counts.ghosts) == (0, 0, 0)
    assert left_nothing(bench, table)


def test_a_rebuild_that_is_cut_at_any_call_is_gone_on_with_and_ends_the_same(bench: Bench) -> None:
    table = bench.table(partitions=2)
    fill(table, 60)
    rng = random.Random(3)
    with Sink(bench):
        mirrored(bench, table)
        resumed = cuts = 0
        with Witness(bench, table, range(20)):
            for cut in (1, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 30):
                plant(bench, table, rng, spare=20)
                try:
                    rebuild(bench, table, cut=cut)
                except Stop:
                    cuts += 1
                    table.put(id=rng.randrange(60), name=f"cut {cut}", score=1000 + cut)
                    table.delete(id=105)
                    table.put(id=105, score=cut)
                    resumed += rebuild(bench, table).resumed
                    mirrored(bench, table)
                else:
                    break
    assert cuts >= 6
    assert resumed >= 4


def test_a_rebuild_that_is_interrupted_goes_on_where_it_was(bench: Bench) -> None:
    table = bench.table(partitions=2)
    fill(table, 3000)
    with Sink(bench):
        mirrored(bench, table)
    phases: list[Progress] = []
    with pytest.raises(RetriableError, match="asked to stop"):
        rebuild(
            bench,
            table,
            told=phases.append,
            stopping=lambda: any(one.phase == "writing" and one.done > 0 for one in phases),
        )
    assert {one.phase for one in phases} == {"reading", "writing"}
    done = rebuild(bench, table)
    assert done.resumed
    assert done.counts.rows < 3010
    assert left_nothing(bench, table)


def test_a_truncate_during_a_rebuild_leaves_nothing_behind(bench: Bench) -> None:
    table = bench.table(partitions=3)
    fill(table, 300)
    with Sink(bench):
        mirrored(bench, table)
        for round_ in range(3):
            plant(bench, table, random.Random(round_))
            runner, started = running(bench, table, "reading")
            started.wait(30)
            table.truncate()
            fill(table, 100)
            table.flush()
            runner.join()
            mirrored(bench, table)


def test_a_store_that_is_emptied_during_a_rebuild_heals_and_never_falls(bench_alone: Bench) -> None:
    bench = bench_alone
    table = bench.table(partitions=2)
    for score in range(1, 30):
        for n in range(300):
            table.put(id=n, name=f"n{score}", score=score)
    with Sink(bench, batch_max_records="50"):
        mirrored(bench, table)
        falls = Falls(bench, table, range(300))
        with falls:
            for _ in range(2):
                runner, started = running(bench, table, "writing")
                started.wait(30)
                with bench.client() as client, falls.emptying():
                    client.flushall()
                runner.join()
                mirrored(bench, table)


@pytest.fixture
def bench_alone(apache_kafka: ApacheKafka, launch: Callable[[Redis], Redis], schemas: Schemas) -> Bench:
    """With a Redis of its own, which may be emptied."""
    return Bench(apache_kafka, launch(Redis(appendonly=False)), schemas)


def test_a_sink_that_is_killed_in_any_phase_of_a_rebuild_goes_on(bench: Bench) -> None:
    table = bench.table(partitions=2)
    fill(table, 600)
    sink = SinkProcess(bench, batch_max_records="50")
    try:
        mirrored(bench, table)
        with Traffic(table, range(100), range(2000, 2020)), Witness(bench, table, range(100)):
            for phase in ("reading", "writing", "sweeping"):
                plant(bench, table, random.Random(phase), spare=100)
                runner, reached = running(bench, table, phase)
                reached.wait(60)
                sink.kill()
                sink.close()
                sink = SinkProcess(bench, batch_max_records="50")
                runner.join()
        mirrored(bench, table)
    finally:
        sink.close()


def test_rows_told_in_parts_are_made_whole_again(bench: Bench) -> None:
    table = bench.table()
    unknown = {HEADER_UNKNOWN: b'["name"]'}
    for n in range(20):
        table.put(id=n, name=f"n{n}", score=1)
    for n in range(4000):  # so that the parts of a row are read at different times
        table.put(id=100 + n % 50, name="between", score=n)
    for n in range(0, 20, 2):
        table.put(id=n, score=2, headers=unknown)
        table.rows[n,]["name"] = f"n{n}"
    for n in range(0, 20, 4):
        table.put(id=n, score=3, headers=unknown)
        table.rows[n,]["name"] = f"n{n}"
    with Sink(bench):
        mirrored(bench, table)
        with bench.client() as client:
            for n in range(20):
                client.delete(f"{bench.prefix}:users:{n}")
        assert rebuild(bench, table).counts.missing == 20
        mirrored(bench, table)


def test_without_a_running_sink_what_it_had_applied_is_mended(bench: Bench) -> None:
    table = bench.table()
    fill(table, 50)
    with Sink(bench):
        mirrored(bench, table)
    expected = bench.dump()
    plant(bench, table, random.Random(1), spare=3)
    table.put(id=1, name="not applied yet", score=9)
    table.delete(id=2)
    table.flush()
    rebuild(bench, table)
    assert bench.dump() == expected
    with Sink(bench):
        mirrored(bench, table)


def test_keys_of_others_are_left_alone_and_named(bench: Bench) -> None:
    table = bench.table()
    fill(table, 30)
    with Sink(bench):
        mirrored(bench, table)
    mine, others = f"{bench.prefix}:users:7", [f"{bench.prefix}:users:x", f"{bench.prefix}:users:1:2"]
    with bench.client() as client:
        client.delete(mine)
        client.set(mine, "a text")
        for key in others:
            client.set(key, "a text")
        try:
            done = rebuild(bench, table)
            assert done.counts.foreign == [mine]
            assert client.get(mine) == b"a text"
            assert [client.get(key) for key in others] == [b"a text"] * 2
        finally:
            client.delete(mine, *others)


def test_a_row_whose_last_record_is_a_dead_letter_is_left_as_it_is(bench: Bench) -> None:
    table = bench.table()
    fill(table, 30)
    table.send(table.key_of({"id": 7}), b"\0\0\0\0\1garbage")
    table.send(table.key_of({"id": 9}), b"\0\0\0\0\1garbage")
    table.put(id=9, name="after", score=5)
    tolerant = {"errors_tolerance": "all"}
    with Sink(bench, **tolerant):
        mirrored(bench, table)
    with bench.client() as client:
        for n in (7, 9):
            client.hset(f"{bench.prefix}:users:{n}", "name", "replayed")
    assert rebuild(bench, table, settings=tolerant).counts.different == 1
    assert bench.dump()["users:7"]["name"] == "replayed"
    assert bench.dump()["users:9"]["name"] == "after"


def test_only_the_keys_that_are_asked_for_are_mended(bench: Bench) -> None:
    table = bench.table()
    fill(table, 40)
    with Sink(bench):
        mirrored(bench, table)
    name = f"{bench.prefix}:users:"
    with bench.client() as client:
        client.delete(f"{name}1", f"{name}2")
        for n in (900_001, 900_002, 900_003):
            client.hset(f"{name}{n}", "id", "1")
        client.hset(f"{name}3", "extra", "1")
    only = {f"{name}{n}".encode(): True for n in (1, 3, 900_001)}
    only[f"{name}900003".encode()] = False
    counts = rebuild(bench, table, only=only).counts
    assert (counts.missing, counts.different, counts.ghosts) == (1, 1, 1)
    left = bench.dump().keys() ^ table.expected().keys()
    assert left == {"users:2", "users:900002", "users:900003"}


# --- the command -----------------------------------------------------------------------------------------


def configuration(bench: Bench, directory: Path) -> Path:
    path = directory / "sink.yaml"
    worker = {"bootstrap.servers": bench.kafka.bootstrap_servers, "schema.registry.url": bench.schemas.url}
    settings = bench.settings()
    path.write_text(json.dumps({"worker": worker, "connectors": {settings.pop("name"): settings}}), encoding="utf-8")
    return path


def command(bench: Bench, directory: Path, *options: str) -> list[str]:
    name = f"{bench.prefix}-sink"
    return [
        sys.executable,
        "-m",
        "cdc.cli",
        "rebuild",
        str(configuration(bench, directory)),
        "--connector",
        name,
        *options,
    ]


def test_the_command_tells_what_it_did(bench: Bench, tmp_path: Path) -> None:
    users, events = bench.table(), bench.table("events", policy="delete")
    fill(users, 50)
    events.put(id=1)
    with Sink(bench):
        mirrored(bench, users, events)
    plant(bench, users, random.Random(1))
    run = subprocess.run(command(bench, tmp_path, "--output", "json"), capture_output=True, text=True, check=False)
    assert run.returncode == 1
    told = json.loads(run.stdout)
    assert "events has cleanup.policy=delete" in told["refused"][0]
    [topic] = told["topics"]
    assert (topic["topic"], topic["missing"], topic["different"], topic["ghosts"]) == (users.topic, 5, 15, 5)
    phases = {json.loads(line)["phase"] for line in run.stderr.splitlines()}
    assert phases == {"reading", "writing", "sweeping"}
    run = subprocess.run(command(bench, tmp_path, "--topic", users.topic), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert f"{users.topic}: 60 rows compared, 0 missing and 0 different ones written, 0 ghosts removed" in run.stdout
    run = subprocess.run(command(bench, tmp_path, "--topic", "nobody"), capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert f"reads no topic nobody. Those that it reads and that exist are {events.topic}" in run.stderr


@pytest.mark.parametrize(
    ("phase", "number"),
    [
        ("reading", signal.SIGKILL),
        ("writing", signal.SIGKILL),
        ("sweeping", signal.SIGKILL),
        ("writing", signal.SIGINT),
    ],
)
def test_a_command_that_is_ended_in_any_phase_is_gone_on_with(
    bench: Bench, tmp_path: Path, phase: str, number: signal.Signals
) -> None:
    table = bench.table(partitions=2)
    fill(table, 1500)
    with Sink(bench):
        mirrored(bench, table)
        plant(bench, table, random.Random(1), spare=100)
        with Traffic(table, range(100)), Witness(bench, table, range(100)):
            process = subprocess.Popen(
                command(bench, tmp_path, "--output", "json"),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert process.stderr is not None
            with process, process.stderr:
                for line in process.stderr:
                    if f'"phase": "{phase}"' in line:
                        process.send_signal(number)
                        break
                process.stderr.read()
            # It may have been done before the signal came.
            assert process.returncode in (0, -signal.SIGKILL if number == signal.SIGKILL else 130)
            again = subprocess.run(command(bench, tmp_path), capture_output=True, text=True, check=False)
            assert again.returncode == 0, again.stderr
        mirrored(bench, table)
    assert left_nothing(bench, table)


# --- what forbids it -------------------------------------------------------------------------------------


def test_a_topic_trimmed_by_time_is_refused_by_name(bench: Bench) -> None:
    for policy in ("delete", "compact,delete"):
        table = bench.table(policy.replace(",", ""), policy=policy)
        table.put(id=1)
        with Sink(bench):
            eventually(lambda: f"{table.name}:1" in bench.dump())  # noqa: B023
        with pytest.raises(FatalError, match=f"{table.topic} has cleanup.policy={policy}.*Remedy: let the source"):
            rebuild(bench, table)


def test_h17_a_topic_with_other_partitions_is_refused(bench: Bench) -> None:
    table = bench.table()
    fill(table, 5)
    with Sink(bench):
        mirrored(bench, table)
    admin = AdminClient({"bootstrap.servers": bench.kafka.bootstrap_servers})
    admin.create_partitions([NewPartitions(table.topic, 3)])[table.topic].result(30)
    table.partitions = 3
    with pytest.raises(FatalError, match="its partitions were raised"):
        rebuild(bench, table)
    table.partitions = 1
    with pytest.raises(FatalError, match="it was made anew"):
        rebuild(bench, table, topic_id="another")


def test_h22_a_template_that_changed_and_tables_that_share_keys_are_refused(bench: Bench) -> None:
    table = bench.table()
    fill(table, 5)
    with Sink(bench):
        mirrored(bench, table)
    with pytest.raises(FatalError, match=r"now says.*Remedy: set the template back"):
        rebuild(bench, table, settings={"redis_key": bench.prefix + ":{table}:{id}"})
    with bench.client() as client:
        entry = client.hget("__cdc:tables", f"{bench.prefix}-sink {table.topic}")
        assert entry is not None
        other = entry.replace(b"-sink", b"-other")
        client.hset("__cdc:tables", f"{bench.prefix}-other {table.topic}", other)
        try:
            with pytest.raises(FatalError, match="would share keys such as"):
                rebuild(bench, table)
        finally:
            client.hdel("__cdc:tables", f"{bench.prefix}-other {table.topic}")


def test_where_nothing_was_mirrored_there_is_nothing_to_do(bench: Bench) -> None:
    table = bench.table()
    fill(table, 5)
    done = rebuild(bench, table)
    assert (done.keys, done.counts.rows) == (0, 0)
    with Sink(bench):
        mirrored(bench, table)


def test_an_outage_of_redis_is_waited_out(bench_alone: Bench) -> None:
    bench = bench_alone
    table = bench.table()
    fill(table, 100)
    with Sink(bench):
        mirrored(bench, table)
    phases: list[Progress] = []
    bench.redis.kill()
    runner = threading.Thread(target=lambda: rebuild(bench, table, told=phases.append))
    runner.start()
    eventually(lambda: any(one.phase == "waiting" for one in phases))
    bench.redis.start()
    runner.join(60)
    assert not runner.is_alive()


def test_a_row_with_an_expiry_gets_it_again(bench: Bench) -> None:
    table = bench.table()
    fill(table, 20)
    with Sink(bench, redis_ttl="1000"):
        mirrored(bench, table)
    with bench.client() as client:
        client.delete(f"{bench.prefix}:users:1")
        rebuild(bench, table, settings={"redis_ttl": "1000"})
        assert 990 < client.ttl(f"{bench.prefix}:users:1") <= 1000
