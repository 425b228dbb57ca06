"""``cdc slot``: how it is called, what it prints, its exit status. What it finds is tested on real servers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cdc.cli import app
from cdc.operate import slots
from cdc.operate.slots import ResetPlan, SlotReport

CONFIG = """
worker:
  bootstrap.servers: localhost:1
connectors:
  shop:
    connector.class: postgres
    database.user: cdc
    database.dbname: shop
    topic.prefix: shop
"""

WELL = SlotReport(
    connector="shop",
    slot="cdc_shop",
    exists=True,
    active=True,
    pid=412,
    holder="pid 412 from 10.0.0.5, application_name 'cdc/shop/w', connected since 2026-01-31 12:00:00+00",
    restart_lsn="0/1928890",
    confirmed_flush_lsn="0/1A3C5D8",
    wal_end="0/1A3C9F0",
    retained_bytes=1_130_848,
    wal_status="reserved",
    stored_lsn="0/1A3C5D8",
    behind_bytes=1048,
    unconfirmed_bytes=0,
    would_be_lost="changes from 0/1A3C5D8 to 0/1A3C9F0 (1.0 kB of WAL)",
)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "bridge.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    return str(path)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[SlotReport]:
    reports = [WELL]
    monkeypatch.setattr(slots, "show_slots", lambda _config, _connector: reports)
    return reports


@pytest.mark.parametrize("form", [["slot", "FILE"], ["slot", "show", "FILE"], ["slot", "--output", "text", "FILE"]])
def test_slot_shows_by_default(file: str, found: list[SlotReport], form: list[str]) -> None:
    assert found
    result = CliRunner().invoke(app, [file if part == "FILE" else part for part in form])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        f"shop: slot cdc_shop, held by {WELL.holder}",
        "  wal_status          reserved",
        "  restart_lsn         0/1928890, retains 1.1 MB of WAL",
        "  confirmed_flush_lsn 0/1A3C5D8",
        "  safe_wal_size       without limit",
        "  stored in Kafka     0/1A3C5D8",
        "  end of the WAL      0/1A3C9F0",
        "  lost with the slot  changes from 0/1A3C5D8 to 0/1A3C9F0 (1.0 kB of WAL)",
    ]


def test_what_is_wrong_is_said_and_is_the_exit_status(file: str, found: list[SlotReport]) -> None:
    found.append(SlotReport("other", "cdc_other", problems=["it is gone. Remedy: cdc slot reset"]))
    result = CliRunner().invoke(app, ["slot", file])
    assert result.exit_code == 1
    assert "other: slot cdc_other, not there" in result.stdout
    assert "  WRONG: it is gone. Remedy: cdc slot reset" in result.stdout
    told = json.loads(CliRunner().invoke(app, ["slot", file, "--output", "json"]).stdout)
    assert [slot["problems"] for slot in told["slots"]] == [[], ["it is gone. Remedy: cdc slot reset"]]


def test_a_reset_says_what_it_gives_up_and_asks(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = ResetPlan("shop", "cdc_shop", "changes from 0/1 to 0/2 (1 bytes of WAL)", ["public.t", "public.u"])
    done: list[Any] = []
    monkeypatch.setattr(slots, "plan_reset", lambda _config, _connector: plan)
    monkeypatch.setattr(slots, "reset_slot", lambda _config, connector: done.append(connector) or {})
    command = ["slot", "reset", file, "--connector", "shop"]
    result = CliRunner().invoke(app, command, input="n\n")
    assert (result.exit_code, done) == (1, [])
    assert "given up: changes from 0/1 to 0/2" in result.output
    assert "keys of rows that are gone deleted from the topics: public.t, public.u" in result.output
    result = CliRunner().invoke(app, command, input="")  # nobody to ask
    assert (result.exit_code, done) == (1, [])
    assert CliRunner().invoke(app, command, input="y\n").exit_code == 0
    assert CliRunner().invoke(app, [*command, "--yes"]).exit_code == 0
    assert done == ["shop", "shop"]


def test_a_reset_without_snapshots_says_that_rows_are_not_read() -> None:
    plan = ResetPlan("shop", "cdc_shop", "changes after 0/1", [], unread="snapshot.mode is no_data")
    assert "rows are NOT read again: snapshot.mode is no_data" in plan.text()
