"""When a server of Postgres that sends nothing is asked, and when it is given up."""

from __future__ import annotations

import pytest

from cdc.errors import RetriableError
from cdc.postgres.silence import Silence


def test_a_silent_server_is_asked_once_after_half_the_time_and_lost_after_the_other_half() -> None:
    silence = Silence(10)
    assert [silence.ask(now, heard=False) for now in (100, 104.9, 105, 109)] == [False, False, True, False]
    with pytest.raises(RetriableError, match=r"sent nothing for 10\.0 s"):
        silence.ask(110, heard=False)


def test_any_word_begins_it_anew() -> None:
    silence = Silence(10)
    assert [silence.ask(now, heard=False) for now in (0, 5)] == [False, True]
    assert not silence.ask(9, heard=True)
    assert [silence.ask(now, heard=False) for now in (13, 14, 18)] == [False, True, False]


def test_time_in_which_nobody_looked_does_not_count_against_the_server() -> None:
    silence = Silence(10)
    silence.ask(0, heard=True)
    assert silence.ask(500, heard=False)  # asked now, and it has its time to answer
    assert not silence.ask(504, heard=False)


def test_without_a_limit_silence_is_no_fault() -> None:
    silence = Silence(0)
    assert not any(silence.ask(now, heard=False) for now in (0, 10, 1e9))
