"""`cdc slot` and `cdc slot reset` on the whole bridge: after a gap, Postgres, topic and Redis are equal again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cdc.cli import app
from cdc.runtime.worker import Worker
from tests.integration.test_bridge import Bridge, apache, until
from tests.integration.test_evolution_bridge import _killed, live

__all__ = ["apache"]

pytestmark = pytest.mark.integration


def task(worker: Worker, bridge: Bridge) -> dict[str, Any]:
    """The status of the source's task."""
    found: dict[str, Any] = worker.status()["connectors"][bridge.name]["tasks"][0]
    return found


def slot_of(path: Path, status: int) -> dict[str, Any]:
    """What ``cdc slot FILE`` says of the only source."""
    result = CliRunner().invoke(app, ["slot", str(path), "--output", "json"])
    assert result.exit_code == status, result.output
    (slot,) = json.loads(result.stdout)["slots"]
    assert isinstance(slot, dict)
    return slot


def test_a_gap_is_healed_through_the_topic_though_the_task_is_killed_again_and_again(
    apache: Bridge, tmp_path: Path
) -> None:
    """Rows that were deleted in the gap leave Redis, and the topic too: no rebuild brings them back (H11)."""
    apache.worker_settings = "task.restart.backoff.initial.ms: 50\n  task.restart.backoff.max.ms: 200"
    apache.source = "snapshot.fetch.size: 500"
    apache.database.execute("create table t (id int primary key, v text); create table u (id int primary key)")
    apache.database.execute("insert into t select i, 'old' from generate_series(1, 8000) i; insert into u values (1)")
    path = tmp_path / "bridge.yaml"
    path.write_text(apache.text, encoding="utf-8")
    with apache.running():
        apache.equal()
        well = slot_of(path, 0)
        assert well["problems"] == []
        assert well["active"]
        assert well["pid"]
        assert f"cdc/{apache.name}" in well["holder"]
        assert well["stored_lsn"]
        assert well["retained_bytes"] >= 0
        assert well["unconfirmed_bytes"] >= 0
    apache.database.execute(f"select pg_drop_replication_slot('{well['slot']}')")
    apache.database.execute("delete from t where id > 2000; update t set v = 'new' where id % 7 = 0; delete from u")
    with apache.running() as worker:
        until(lambda: "cdc slot reset FILE" in task(worker, apache).get("error", ""), "an error with its remedy")
        lost = slot_of(path, 1)
        assert not lost["exists"]
        assert "is gone, and changes from" in lost["problems"][0]
        assert CliRunner().invoke(app, ["slot", "reset", str(path), "--connector", apache.name], input="n\n").exit_code
        said = CliRunner().invoke(app, ["slot", "reset", str(path), "--connector", apache.name, "--yes"])
        assert said.exit_code == 0, said.output
        assert "given up: changes from" in said.output
        assert "public.t, public.u" in said.output
        for rows in (500, 2000, 2000):
            until(lambda rows=rows: _read(worker, apache) >= rows, f"{rows} rows read again")  # type: ignore[misc]
            until(lambda: _killed(worker, apache), "a process to kill")
        apache.database.execute("insert into t values (7999, 'again')")
        report = apache.equal()
        assert report.rows == 2001
        until(lambda: live(apache, "t") == 2001 and live(apache, "u") == 0, "topics without ghosts")
        until(lambda: not slot_of(path, 0)["problems"], "a slot without problems")


def _read(worker: Worker, bridge: Bridge) -> float:
    """Rows read by the process that runs now, and before."""
    status = task(worker, bridge)
    metrics = status["metrics"].get("metrics", {})
    return float(metrics.get("snapshot_rows", 0)) if status["state"] == "RUNNING" else 0.0
