"""A bridge of each test's own, on servers of its own, all of which may be killed; and the table at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench.mirrored_pgbench import MirroredPgbench, initialize
from bench.servers import Servers
from cdc.local.postgres import SystemPostgres
from cdc.local.redis import Redis
from tests.faults.extent import PARTITIONS, SCALE
from tests.faults.ledger import LEDGER
from tests.faults.stage import Ways, proxied_kafka, ways

Launch = Callable[[Any], Any]


@pytest.fixture
def proxied(launch: Launch) -> Iterator[tuple[Servers, Ways]]:
    """Postgres 15, Apache Kafka, and a Redis that has on disk what it has answered; an empty database; proxies."""
    postgres = launch(SystemPostgres(15, settings={"max_wal_size": "4GB"}))
    kafka, by_source, by_sink = proxied_kafka()
    started = Servers(postgres, launch(kafka), launch(Redis(appendfsync="always")))
    started.create_database()
    with contextlib.closing(ways(started, by_source, by_sink)) as made:
        yield started, made


@pytest.fixture
def servers(proxied: tuple[Servers, Ways]) -> Servers:
    """The servers, past the proxies."""
    return proxied[0]


@pytest.fixture
def proxies(proxied: tuple[Servers, Ways]) -> Ways:
    """The proxies before the servers."""
    return proxied[1]


@pytest.fixture
def mirrored(servers: Servers) -> Iterator[MirroredPgbench]:
    """A database of pgbench's whose first rows are all in Redis, and a bridge that runs."""
    initialize(servers, SCALE)
    with MirroredPgbench(servers, "shop", PARTITIONS) as bridge:
        bridge.bridge.wait_streaming("shop")
        bridge.settle()
        yield bridge


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:  # one of several processes: its ledger comes into that of the one that leads them
        output["ledger"] = LEDGER.told()
    if not LEDGER.clean and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not LEDGER.rows:
        return
    terminalreporter.section("faults")
    for line in LEDGER.lines():
        terminalreporter.write_line(line)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    told = getattr(node, "workeroutput", {}).get("ledger")
    if told is not None:
        LEDGER.add(told)
        LEDGER.save()
