"""Servers on this machine: crashes, restarts, strangers in their place, and their end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from confluent_kafka import Consumer, Producer
from fix_servers import create_topic, run_sql, topics
from redis.backoff import NoBackoff
from redis.retry import Retry

from cdc.local import LocalServerError, Server
from cdc.local._process import Process
from cdc.local.kafka import ApacheKafka, EmbeddedKafka, Kafka
from cdc.local.postgres import EmbeddedPostgres, Postgres, SystemPostgres
from cdc.local.redis import Redis, RedisServer, Valkey

pytestmark = pytest.mark.integration

Launch = Callable[[Any], Any]

POSTGRES = pytest.mark.parametrize("kind", [SystemPostgres, EmbeddedPostgres])
REDIS = pytest.mark.parametrize("kind", [Redis, Valkey])


def produce(server: Kafka, topic: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": server.bootstrap_servers, "acks": "all"})
    errors: list[object] = []
    producer.produce(topic, value, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(30) == 0
    assert errors == [None]


def first_value(server: Kafka, topic: str) -> bytes | None:
    consumer = Consumer(
        {
            "bootstrap.servers": server.bootstrap_servers,
            "group.id": "test-local",
            "auto.offset.reset": "earliest",
        }
    )
    try:
        consumer.subscribe([topic])
        message = consumer.poll(60)
        assert message is not None
        assert message.error() is None
        value: bytes | None = message.value()
        return value
    finally:
        consumer.close()


# Postgres


@POSTGRES
def test_postgres_keeps_rows_port_and_password_over_a_crash(launch: Launch, kind: type[Postgres]) -> None:
    server = launch(kind())
    run_sql(server, "CREATE TABLE t AS SELECT 42 AS a")
    before = server.dsn()
    postmaster = server.pid
    server.kill()
    assert not server.is_running()
    assert server.pid is None
    server.start()
    assert server.dsn() == before
    assert server.pid != postmaster
    assert run_sql(server, "SELECT a FROM t") == [(42,)]


@POSTGRES
def test_postgres_starts_though_only_its_postmaster_was_killed_and_a_backend_hangs_on(
    launch: Launch, kind: type[Postgres]
) -> None:
    server = launch(kind())
    with psycopg.connect(**server.conninfo(), autocommit=True) as connection:
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        backend = Process.of(row[0])
        assert backend is not None
        backend.send(signal.SIGSTOP)  # as one that is deep in a computation
        postmaster = Process.of(server.pid)
        assert postmaster is not None
        postmaster.send(signal.SIGKILL)
        assert postmaster.wait(30)
        server.start()
        assert not backend.is_alive()
    assert run_sql(server, "SELECT 1") == [(1,)]


def test_postgres_starts_though_the_pid_in_its_lock_files_is_a_strangers_by_now(launch: Launch) -> None:
    server = launch(EmbeddedPostgres())
    server.kill()
    lock_files = [server.data / "postmaster.pid", *server.data.glob(".s.PGSQL.*.lock")]
    assert len(lock_files) == 2
    # As the server's user: Postgres believes in a pid only if it may send it a signal.
    user = server.data.stat().st_uid if os.geteuid() == 0 else None
    with subprocess.Popen(["sleep", "1000"], user=user) as stranger:
        for path in lock_files:
            lines = path.read_text().splitlines()
            path.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        server.start()
        assert stranger.poll() is None
        stranger.kill()
    assert run_sql(server, "SELECT 1") == [(1,)]


def test_postgres_refuses_a_folder_that_somebody_else_runs_a_server_on(launch: Launch) -> None:
    server = launch(EmbeddedPostgres())
    (server.directory / "process.json").unlink()
    second = EmbeddedPostgres(directory=server.directory)
    with pytest.raises(LocalServerError, match=f"a Postgres server with pid {server.pid} that was not started"):
        second.start()
    assert run_sql(server, "SELECT 1") == [(1,)]


def test_postgres_takes_settings_and_stops_in_each_mode(launch: Launch) -> None:
    server = launch(EmbeddedPostgres(settings={"wal_sender_timeout": "5s", "application_name": "it's"}))
    assert run_sql(server, "SHOW wal_sender_timeout") == [("5s",)]
    assert run_sql(server, "SELECT reset_val FROM pg_settings WHERE name = 'application_name'") == [("it's",)]
    for mode in ("smart", "fast", "immediate"):
        server.stop(mode=mode)
        assert not server.is_running()
        server.start()


def test_postgres_has_its_client_programs(launch: Launch) -> None:
    server = launch(EmbeddedPostgres())
    answer = subprocess.run(
        [server.bin("psql"), "-X", "-A", "-t", "-c", "SELECT 6 * 7", "-h", server.data, "-p", str(server.port)],
        env={**os.environ, "PGUSER": server.user, "PGDATABASE": "postgres"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert answer.stdout == "42\n"
    for program in ("pgbench", "pg_recvlogical", "pg_basebackup"):
        assert os.access(server.bin(program), os.X_OK)
    with pytest.raises(LocalServerError, match="has no program nonsense"):
        server.bin("nonsense")


def test_postgres_works_in_a_folder_that_only_its_owner_can_enter(launch: Launch, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(0o700)
    server = launch(EmbeddedPostgres(directory=closed / "postgres"))
    assert run_sql(server, "SELECT 1") == [(1,)]
    assert closed.stat().st_mode & 0o777 == 0o700
    uid = Path(f"/proc/{server.pid}").stat().st_uid
    assert uid == server.data.stat().st_uid
    assert uid != 0


def test_postgres_works_in_a_folder_with_a_name_too_long_for_a_socket(launch: Launch, tmp_path: Path) -> None:
    server = launch(EmbeddedPostgres(directory=tmp_path / ("long" * 30)))
    assert run_sql(server, "SHOW unix_socket_directories") == [("",)]


def test_a_second_object_on_the_folder_sees_and_stops_the_server(launch: Launch, tmp_path: Path) -> None:
    first = launch(EmbeddedPostgres(directory=tmp_path / "postgres"))
    second = EmbeddedPostgres(directory=tmp_path / "postgres")
    assert second.is_running()
    assert second.pid == first.pid
    assert second.dsn() == first.dsn()
    second.start()
    assert second.pid == first.pid
    second.stop()
    assert not first.is_running()


def test_another_password_or_port_than_the_folders_is_refused(launch: Launch, tmp_path: Path) -> None:
    first = launch(EmbeddedPostgres(directory=tmp_path / "postgres", password="first-secret"))
    with pytest.raises(LocalServerError, match="another password") as caught:
        _ = EmbeddedPostgres(directory=tmp_path / "postgres", password="other-secret").dsn()
    assert "secret" not in str(caught.value).replace("'password'", "")
    with pytest.raises(LocalServerError, match=f"already runs, on port {first.port} and not on 4711"):
        EmbeddedPostgres(directory=tmp_path / "postgres", port=4711).start()


def test_data_of_another_major_version_is_refused(launch: Launch, tmp_path: Path) -> None:
    first = launch(EmbeddedPostgres(directory=tmp_path / "postgres"))
    first.stop()
    (first.data / "PG_VERSION").write_text("14\n")
    with pytest.raises(LocalServerError, match="is of Postgres 14"):
        first.start()


def test_a_server_that_cannot_start_shows_the_end_of_its_log(launch: Launch) -> None:
    with pytest.raises(LocalServerError, match='unrecognized configuration parameter "no_such_setting"'):
        launch(EmbeddedPostgres(settings={"no_such_setting": "1"}))


# Redis


@REDIS
def test_redis_keeps_what_it_acknowledged_over_a_crash(launch: Launch, kind: type[RedisServer]) -> None:
    server = launch(kind(appendfsync="always"))
    assert server.keeps_data
    with server.client() as client:
        client.hset("user:1", mapping={"name": "Ada"})
    port = server.port
    server.kill()
    assert not server.is_running()
    server.start()
    assert server.port == port
    with redis.Redis.from_url(server.url) as client:
        assert client.hgetall("user:1") == {b"name": b"Ada"}


@REDIS
def test_redis_without_a_log_begins_empty(launch: Launch, kind: type[RedisServer]) -> None:
    server = launch(kind(appendonly=False))
    assert not server.keeps_data
    with server.client() as client:
        client.set("a", "1")
    server.restart()
    with server.client() as client:
        assert client.dbsize() == 0


@REDIS
def test_redis_asks_for_the_password_and_shows_it_to_nobody(launch: Launch, kind: type[RedisServer]) -> None:
    password = 'a "quoted" \\ p@ss/word'
    server = launch(kind(password=password, settings={"maxmemory": "50mb"}))
    with redis.Redis.from_url(server.url) as client:
        assert client.config_get("maxmemory") == {"maxmemory": str(50 * 1024 * 1024)}
    at_once = Retry(NoBackoff(), 0)
    with (
        redis.Redis(host=server.host, port=server.port, retry=at_once) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()
    assert b"p@ss" not in Path(f"/proc/{server.pid}/cmdline").read_bytes()
    assert (server.directory / "server.conf").stat().st_mode & 0o077 == 0


def test_servers_listen_on_loopback_only(launch: Launch) -> None:
    for server in (launch(Valkey()), launch(EmbeddedKafka()), launch(EmbeddedPostgres())):
        addresses = [
            line.split()[1]
            for table in ("tcp", "tcp6")
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
            if line.split()[3] == "0A" and line.split()[1].endswith(f":{server.port:04X}")
        ]
        assert addresses == [f"0100007F:{server.port:04X}"]


def test_a_port_that_is_taken_is_an_error_that_names_it(launch: Launch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        with pytest.raises(LocalServerError, match=f"127.0.0.1:{port}: another program listens there"):
            launch(Valkey(port=port))


# Kafka


def test_apache_kafka_keeps_topics_and_records_over_a_crash(launch: Launch) -> None:
    server = launch(ApacheKafka())
    create_topic(server, "kept")
    produce(server, "kept", b"one")
    endpoint = server.bootstrap_servers
    server.kill()
    assert not server.is_running()
    server.start()
    assert server.bootstrap_servers == endpoint
    assert first_value(server, "kept") == b"one"
    server.restart()
    assert "kept" in topics(server)


def test_apache_kafka_is_formatted_anew_if_the_format_was_cut_short(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "kafka" / "data" / "__cluster_metadata-0").mkdir(parents=True)
    server = launch(ApacheKafka(directory=tmp_path / "kafka", settings={"num.partitions": 3}))
    assert topics(server) == set()


def test_the_embedded_broker_forgets_all_and_says_so(launch: Launch) -> None:
    server = launch(EmbeddedKafka())
    assert not server.keeps_data
    create_topic(server, "forgotten")
    assert "forgotten" in topics(server)
    server.restart()
    assert "forgotten" not in topics(server)


# Any server


def test_only_the_server_itself_is_stopped_never_one_that_has_its_pid(launch: Launch, tmp_path: Path) -> None:
    server = launch(Valkey(directory=tmp_path / "redis"))
    server.stop()
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        record = json.loads((tmp_path / "redis" / "process.json").read_text())
        record["pid"] = stranger.pid
        (tmp_path / "redis" / "process.json").write_text(json.dumps(record))
        successor = Valkey(directory=tmp_path / "redis")
        assert not successor.is_running()
        successor.stop()
        successor.kill()
        assert stranger.poll() is None
        stranger.kill()


def test_a_server_in_a_temporary_folder_ends_with_the_program_that_was_killed() -> None:
    program = """
import signal
from cdc.local.redis import Valkey
server = Valkey()
server.start()
print(server.pid, server.directory, flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid, folder = owner.stdout.readline().split()
        server = Process.of(int(pid))
        owner.kill()
    assert server is not None
    assert server.wait(60)
    shutil.rmtree(folder)


def test_a_temporary_folder_goes_with_its_server() -> None:
    with Valkey(die_with_parent=True) as server:
        folder = server.directory
        assert folder.is_dir()
    assert not folder.exists()
    assert isinstance(server, Server)
