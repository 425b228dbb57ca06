"""Errors of Redis by what can be done about them."""

from __future__ import annotations

import hiredis
import pytest
import redis

from cdc.errors import FatalError, RetriableError
from cdc.mirror.store import Verdict
from cdc.redis.errors import classify, translate


@pytest.mark.parametrize(
    "text",
    [
        "LOADING Redis is loading the dataset in memory",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "READONLY You can't write against a read only replica.",
        "MISCONF Redis is configured to save RDB snapshots",
        "NOREPLICAS Not enough good replicas to write.",
        "MASTERDOWN Link with MASTER is down",
        "CLUSTERDOWN The cluster is down",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "BUSY Redis is busy running a script.",
        "ERR max number of clients reached",
    ],
)
def test_what_passes_is_waited_out(text: str) -> None:
    assert classify(hiredis.ReplyError(text)) is Verdict.RETRY
    assert isinstance(translate(hiredis.ReplyError(text), "writing"), RetriableError)


@pytest.mark.parametrize(
    "error", [ConnectionResetError(), TimeoutError("timed out"), redis.ConnectionError("x"), hiredis.ProtocolError("x")]
)
def test_a_lost_connection_is_waited_out(error: Exception) -> None:
    assert classify(error) is Verdict.RETRY


def test_a_key_of_another_type_is_the_record_s_fault() -> None:
    error = hiredis.ReplyError("WRONGTYPE Operation against a key holding the wrong kind of value")
    assert classify(error) is Verdict.REJECT


@pytest.mark.parametrize(
    "text",
    [
        "NOAUTH Authentication required.",
        "WRONGPASS invalid username-password pair or user is disabled.",
        "NOPERM User cdc has no permissions to run the 'hset' command",
        "MOVED 3999 127.0.0.1:6381",
        "ERR unknown command 'HSET'",
    ],
)
def test_what_only_an_operator_mends_says_how(text: str) -> None:
    assert classify(hiredis.ReplyError(text)) is Verdict.STOP
    error = translate(hiredis.ReplyError(text), "writing")
    assert isinstance(error, FatalError)
    assert "Remedy: " in str(error)


def test_a_wrong_password_at_the_handshake_is_not_waited_out() -> None:
    assert classify(redis.AuthenticationError("invalid username-password pair")) is Verdict.STOP
