"""A transaction of two million rows, from commit to Redis, in bounded memory."""

from __future__ import annotations

import pytest

from bench.giant import BOUND_MIB, transfer
from bench.servers import Servers
from tests.faults.extent import PARTITIONS, ROWS

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]


def test_a_transaction_of_two_million_rows_passes_in_bounded_memory(servers: Servers) -> None:
    passed = transfer(servers, ROWS, PARTITIONS)
    assert passed.rows == ROWS + 1
    assert max(passed.peaks.values()) < BOUND_MIB, passed.peaks
