"""Random histories under random faults: nothing is lost, nothing doubled, and no reader ever sees an older value.

A round draws ten histories (random tables, random transactions) from its seed and plays them on one bridge, all
mixed, while faults are injected one after another, the first of them into the snapshot. After each fault Redis must
equal Postgres; at the end of a round the topics, folded by key, must too, value by value. All the time one reader polls
Redis and another follows the topics.

``FAULTS_SEED`` is the first round's seed, each further round has the next one; ``FAULTS_ROUNDS`` is how many are
played, or ``FAULTS_BUDGET`` the seconds since the run began in which new ones are begun (one at least). Processes that
test side by side share them, lane by lane. What fails says its seed, and the faults so far.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from typing import Final

import pytest

from bench.servers import Servers
from tests.faults.injections import FAULTS
from tests.faults.ledger import BEGUN, LEDGER
from tests.faults.stage import Stage, Statements, Ways
from tests.histories import History

pytestmark = [pytest.mark.faults, pytest.mark.timeout(6 * 3600)]

HISTORIES: Final = int(os.environ.get("FAULTS_HISTORIES", "10"))
"""Of a round."""
TRANSACTIONS: Final = int(os.environ.get("FAULTS_TRANSACTIONS", "40"))
"""Of each history, while the bridge runs; as many before."""
FAULTS_A_ROUND: Final = int(os.environ.get("FAULTS_A_ROUND", "20"))
LANES: Final = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
"""How many processes play rounds, each on servers of its own."""


def seeds(lane: int) -> Iterator[int]:
    """The seeds of one lane's rounds."""
    first = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().randrange(10**9))
    if LEDGER.earlier is not None:
        first = LEDGER.earlier + 1
    rounds = int(os.environ.get("FAULTS_ROUNDS", "0"))
    until = BEGUN + float(os.environ.get("FAULTS_BUDGET", "0"))
    number = lane
    while number < max(LANES, rounds) or (not rounds and time.monotonic() < until):
        yield first + number
        number += LANES


def drawn(rng: random.Random) -> str:
    return rng.choices(list(FAULTS), [weight for weight, _ in FAULTS.values()])[0]


def mixed(histories: list[History], rng: random.Random) -> list[Statements]:
    """The transactions of all histories, those of each in their order."""
    left = [iter(history.phases[1]) for history in histories]
    turns = [number for number, history in enumerate(histories) for _ in history.phases[1]]
    rng.shuffle(turns)
    return [next(left[number]) for number in turns]


def run(seed: int, servers: Servers, proxies: Ways) -> None:
    """Play one round."""
    rng = random.Random(f"faults of {seed}")
    histories = [
        History.draw(seed * 1000 + number, phases=2, transactions=TRANSACTIONS, versioned=True, tag=f"~{number}")
        for number in range(HISTORIES)
    ]
    transactions = mixed(histories, rng)
    size = len(transactions) // FAULTS_A_ROUND
    told: list[str] = []
    with Stage(servers, proxies, f"h{seed}", histories) as stage:
        for number in range(FAULTS_A_ROUND):
            fault = drawn(rng)
            told.append(fault)
            try:
                inject(stage, fault, transactions[number * size : (number + 1) * size], rng)
            except Exception as error:
                raise AssertionError(f"FAULTS_SEED={seed}, after the faults {told}") from error
        stage.prove()
        assert stage.watcher.looks
        assert stage.follower.records
    LEDGER.played(seed, len(histories))


def inject(stage: Stage, fault: str, transactions: list[Statements], rng: random.Random) -> None:
    """One fault in the middle of some transactions, and what came of it."""
    pause = random.Random(rng.random())
    place = rng.randrange(len(transactions))
    before = len(stage.follower.fallen), len(stage.watcher.fallen)
    playing = stage.play(transactions, lambda: pause.uniform(0, 0.02))
    try:
        playing.wait(place)
        FAULTS[fault][1](stage, rng)
    finally:
        playing.join()
    try:
        heal = stage.settle()
    except AssertionError:
        LEDGER.note(fault, lost=stage.lost)
        raise
    duplicated = stage.follower.fallen[before[0] :]
    regressed = stage.watcher.fallen[before[1] :]
    LEDGER.note(fault, heal, duplicated=len(duplicated), regressed=len(regressed))
    assert not duplicated, duplicated[:5]
    assert not regressed, regressed[:5]


@pytest.mark.parametrize("lane", range(LANES))
def test_nothing_is_lost_doubled_or_older_whatever_dies(servers: Servers, proxies: Ways, lane: int) -> None:
    for seed in seeds(lane):
        run(seed, servers, proxies)
    assert LEDGER.injections
