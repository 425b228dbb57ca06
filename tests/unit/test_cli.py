"""The command line: clear lines on stderr, exit statuses, no traceback, no secret."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cdc import cli
from cdc.errors import ConfigError, FatalError, Finding, RetriableError

SECRET = "hunter2!pw"

BRIDGE = f"""\
worker:
  bootstrap.servers: 127.0.0.1:1
  key.converter: plain
  value.converter: plain
connectors:
  shop:
    connector.class: sleeper
    database.password: {SECRET}
    database.hostname: ${{env:SHOP_HOST}}
"""

Cdc = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cdc(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], dummies: object) -> Cdc:
    """Runs the command line; the value is exit status, stdout, stderr."""
    monkeypatch.setattr(cli, "_session", cli._Session())

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cdc", *map(str, arguments)])
        with pytest.raises(SystemExit) as raised:
            cli.main()
        out, err = capsys.readouterr()
        code = raised.value.code
        return (code if isinstance(code, int) else 0), out, err

    return run


@pytest.fixture
def bridge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHOP_HOST", "db.example")
    path = tmp_path / "bridge.yaml"
    path.write_text(BRIDGE, encoding="utf-8")
    return path


@pytest.mark.parametrize("command", ["run", "check", "config"])
def test_a_configuration_that_is_not_valid_ends_with_2_and_a_line_for_each_fault(
    cdc: Cdc, bridge: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.delenv("SHOP_HOST")
    bridge.write_text(BRIDGE + "    slot.nmae: x\n", encoding="utf-8")
    status, out, err = cdc(command, bridge)
    assert (status, out) == (2, "")
    assert err.splitlines() == [
        f"cdc: {bridge}:9: connectors.shop.database.hostname: the environment variable SHOP_HOST is not set. "
        "Set it, or write ${env:SHOP_HOST:-default}",
        f"cdc: {bridge}:10: connectors.shop.slot.nmae: unknown key. Did you mean slot.name?",
    ]


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_help_names_every_command(cdc: Cdc, arguments: tuple[str, ...]) -> None:
    _, out, err = cdc(*arguments)
    for command in ("run", "check", "verify", "demo", "config", "version"):
        assert f"  {command} " in out + err


@pytest.mark.parametrize("arguments", [("run",), ("nonsense",), ("run", "x.yaml", "--nonsense"), ("config",)])
def test_a_wrong_command_line_ends_with_2(cdc: Cdc, arguments: tuple[str, ...]) -> None:
    status, _, err = cdc(*arguments)
    assert status == 2
    assert "Error" in err
    assert "Traceback" not in err


def test_config_shows_what_is_in_the_file_without_secrets(cdc: Cdc, bridge: Path) -> None:
    status, out, _ = cdc("config", bridge)
    assert status == 0
    shown = yaml.safe_load(out)
    assert shown["connectors"]["shop"] == {
        "connector.class": "sleeper",
        "database.hostname": "${env:SHOP_HOST}",
        "database.password": "***",
    }
    assert json.loads(cdc("config", bridge, "--output", "json")[1]) == shown


def test_the_reference_has_every_property_of_a_connector(cdc: Cdc) -> None:
    status, out, _ = cdc("config", "--reference", "sleeper")
    assert status == 0
    assert "snapshot.mode  (initial | no_data; default initial)" in out
    assert "database.password  (secret text; optional)" in out
    properties = json.loads(cdc("config", "--reference", "io.example.SleeperConnector", "--output", "json")[1])
    assert {known["key"] for known in properties} >= {"name", "connector.class", "tasks.max", "slot.name"}
    assert (
        "| `database.port` | whole number | `5432` | A port. |"
        in cdc("config", "--reference", "sleeper", "--output", "markdown")[1]
    )
    status, _, err = cdc("config", "--reference", "sleepy")
    assert (status, err) == (2, "cdc: there is no connector sleepy: did you mean sleeper?\n")


def test_version_tells_what_takes_part(cdc: Cdc) -> None:
    status, out, _ = cdc("version")
    assert status == 0
    assert out.startswith("cdc 0.")
    assert "psycopg" in out


def raising(error: BaseException) -> Callable[..., Any]:
    def raise_it(*_: object, **__: object) -> None:
        raise error

    return raise_it


@pytest.mark.parametrize(
    ("error", "status", "shown"),
    [
        (FatalError(f"login with {SECRET} failed. Correct it"), 1, "cdc: login with *** failed. Correct it\n"),
        (RetriableError("Kafka is away"), 1, "cdc: Kafka is away\n"),
        (ConfigError([Finding("a", key="b"), Finding("c")]), 2, "cdc: b: a\ncdc: c\n"),
        (
            RuntimeError(f"bug with {SECRET}"),
            1,
            "cdc: internal error: RuntimeError: bug with ***. Run cdc --debug … for the trace\n",
        ),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_every_error_is_one_clear_line(
    cdc: Cdc, bridge: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, shown: str
) -> None:
    monkeypatch.setattr("cdc.config.reference.render_config", raising(error))
    assert cdc("config", bridge) == (status, "", shown)


def test_debug_adds_the_trace_without_secrets(cdc: Cdc, bridge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cdc.config.reference.render_config", raising(RuntimeError(f"bug with {SECRET}")))
    status, _, err = cdc("--debug", "config", bridge)
    assert status == 1
    assert "Traceback" in err
    assert "***" in err
    assert SECRET not in err


def test_run_hands_the_configuration_to_the_worker(cdc: Cdc, bridge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("cdc.observe.logging.configure_logging", lambda *args, **_: seen.append(args[:2]))
    monkeypatch.setattr("cdc.runtime.standalone.run", lambda config, **options: seen.append((config, options)) or 1)
    status, _, _ = cdc("run", bridge, "--log-level", "warning", "--status-file", "/tmp/status.json")  # noqa: S108
    assert status == 1
    assert seen[0] == ("warning", "json")
    config, options = seen[1]
    assert [spec.name for spec in config.connectors] == ["shop"]
    assert options["status_file"] == Path("/tmp/status.json")  # noqa: S108


def test_check_tells_findings_and_how_to_mend_them(cdc: Cdc, bridge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        Finding(
            f"wal_level is replica ({SECRET})", key="connectors.shop", remedy="ALTER SYSTEM SET wal_level = logical"
        )
    ]
    monkeypatch.setattr("cdc.operate.check.check_kafka", lambda _config: found)
    monkeypatch.setattr("cdc.operate.check.check_registry", lambda _config: [])
    assert cdc("check", bridge)[:2] == (
        1,
        "connectors.shop: wal_level is replica (***)\n    ALTER SYSTEM SET wal_level = logical\n",
    )
    status, out, _ = cdc("check", bridge, "--output", "json")
    assert status == 1
    assert json.loads(out) == {
        "ready": False,
        "findings": [
            {
                "message": "wal_level is replica (***)",
                "key": "connectors.shop",
                "where": "",
                "remedy": "ALTER SYSTEM SET wal_level = logical",
            }
        ],
    }
    found.clear()
    assert cdc("check", bridge)[:2] == (0, "ready: Kafka, the schema registry, shop\n")


@pytest.mark.parametrize(
    ("behaviour", "key", "message"),
    [
        ("check fails", "connectors.shop.database.hostname", "wal_level is replica"),
        ("check raises", "connectors.shop", "cannot reach redis://***@host:1"),
    ],
)
def test_check_asks_every_connector(
    cdc: Cdc, bridge: Path, monkeypatch: pytest.MonkeyPatch, behaviour: str, key: str, message: str
) -> None:
    monkeypatch.setattr("cdc.operate.check.check_kafka", lambda _config: [])
    monkeypatch.setattr("cdc.operate.check.check_registry", lambda _config: [])
    bridge.write_text(BRIDGE + f"    behaviour: {behaviour}\n    uri: redis://u:{SECRET}@host:1\n", encoding="utf-8")
    status, out, _ = cdc("check", bridge, "--output", "json")
    (finding,) = json.loads(out)["findings"]
    assert (status, finding["key"], finding["message"]) == (1, key, message)
    assert finding["where"] == f"{bridge}:{9 if key.endswith('hostname') else 6}"
