"""The reader of chunks, without a server: what it waits for before it reads, and what it keeps ready."""

from __future__ import annotations

from typing import cast

import pytest
from structlog.testing import capture_logs

from cdc.errors import FatalError
from cdc.postgres import snapshot
from cdc.postgres.chunks import Begun, Reading
from cdc.postgres.connection import Connection


class Marking:
    """A connection that takes messages."""

    def __init__(self) -> None:
        self.statements = 0

    def execute(self, _statement: object) -> None:
        self.statements += 1


def reader() -> snapshot.ChunkReader:
    return snapshot.ChunkReader({}, "test", 10, "run", lambda _connection, _oid: None, 1)


def test_it_waits_for_those_who_wrote_when_it_began_and_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [{"3/1": 70, "4/9": 0}, {"3/1": 70, "5/5": 90}, {"3/1": 70, "5/5": 90}, {"5/5": 90}]
    monkeypatch.setattr(snapshot, "writers", lambda *_: looks.pop(0))
    monkeypatch.setattr(snapshot, "running_before", lambda *_: None)
    monkeypatch.setattr(snapshot, "TELL_S", 0.0)
    with capture_logs() as logs:
        reader()._await_writers(cast(Connection, None), Reading(1, "public", "t"))
    assert looks == [], "it did not wait until the last of them had ended"
    assert [(log["table"], log["pids"]) for log in logs] == [("public.t", [70])]


def test_it_stops_waiting_when_nobody_wants_the_rows_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "writers", lambda *_: {"3/1": 70})
    monkeypatch.setattr(snapshot, "running_before", lambda *_: None)
    reading = Reading(1, "public", "t")
    reading.cancel()
    reader()._await_writers(cast(Connection, None), reading)


def test_a_marker_of_another_run_is_nobodys_and_one_of_this_run_has_its_chunk() -> None:
    chunks, marking = reader(), Marking()
    begun = Begun("run/1", Reading(1, "public", "t"))
    chunks._mark(cast(Connection, marking), begun)
    assert marking.statements == 1
    assert chunks.take("other/1") is None
    assert chunks.take("run/1") is begun
    with pytest.raises(FatalError, match="no chunk waits for it"):
        chunks.take("run/1")
