"""``docker/``: what can be checked of the files without a Docker engine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

DOCKER = Path(__file__).parents[2] / "docker"

IMAGES = {
    "postgres": "postgres:18",
    "kafka": "apache/kafka:4.3.0",
    "redis": "redis:8",
    "bridge": "cdc:0.1.0",
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return document


@pytest.mark.parametrize("service", IMAGES)
def test_each_image_is_pinned_to_a_full_version(compose: dict[str, Any], service: str) -> None:
    image = compose["services"][service]["image"]
    assert image.startswith(IMAGES[service])
    assert re.search(r":\d+\.\d+(\.\d+)?(-[a-z]+)?$", image)


def test_there_are_no_other_services(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == set(IMAGES)


@pytest.mark.parametrize("service", IMAGES)
def test_each_service_has_a_health_check_and_comes_back(compose: dict[str, Any], service: str) -> None:
    definition = compose["services"][service]
    assert definition["restart"] == "unless-stopped"
    check = definition["healthcheck"]
    assert check["test"][0] in ("CMD", "CMD-SHELL")
    assert all(isinstance(word, str) for word in check["test"])
    assert {"interval", "timeout", "retries", "start_period"} <= check.keys()


def test_ports_are_published_on_loopback_only(compose: dict[str, Any]) -> None:
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(published) == 3
    assert all(re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port) for port in published)


def test_the_bridge_waits_for_healthy_parts(compose: dict[str, Any]) -> None:
    waits = compose["services"]["bridge"]["depends_on"]
    assert waits == {part: {"condition": "service_healthy"} for part in ("postgres", "kafka", "redis")}


def test_environment_values_are_strings_as_compose_asks(compose: dict[str, Any]) -> None:
    values = [value for service in compose["services"].values() for value in service.get("environment", {}).values()]
    assert values
    assert all(isinstance(value, str) for value in values)


def test_every_mounted_file_and_volume_is_there(compose: dict[str, Any]) -> None:
    sources = [
        volume.split(":")[0] for service in compose["services"].values() for volume in service.get("volumes", [])
    ]
    named = {source for source in sources if not source.startswith(".")}
    assert named == set(compose["volumes"])
    assert all((DOCKER / source).is_file() for source in sources if source.startswith("."))
    build = compose["services"]["bridge"]["build"]
    assert (DOCKER / build["context"] / build["dockerfile"]).resolve() == DOCKER / "Dockerfile"


def test_secrets_have_no_default(compose: dict[str, Any]) -> None:
    secrets = [
        value
        for service in compose["services"].values()
        for name, value in service.get("environment", {}).items()
        if "PASSWORD" in name
    ]
    assert len(secrets) == 3
    assert all(re.fullmatch(r"\$\{[A-Z_]+:\?set it to .+\}", value) for value in secrets)


def test_postgres_is_ready_for_logical_replication(compose: dict[str, Any]) -> None:
    assert "wal_level=logical" in compose["services"]["postgres"]["command"]


def test_the_kafka_listener_of_the_bridge_is_advertised_under_the_service_name(compose: dict[str, Any]) -> None:
    bridge = yaml.safe_load((DOCKER / "bridge.yaml").read_text())
    environment = compose["services"]["kafka"]["environment"]
    advertised = environment["KAFKA_ADVERTISED_LISTENERS"].split(",")
    assert f"INSIDE://{bridge['worker']['bootstrap.servers']}" in advertised


def test_the_image_runs_the_command_as_an_ordinary_user() -> None:
    lines = (DOCKER / "Dockerfile").read_text().splitlines()
    stages = [line.split() for line in lines if line.startswith("FROM ")]
    assert [stage[1] for stage in stages] == ["python:3.11.14-slim-bookworm"] * 2
    assert 'ENTRYPOINT ["cdc"]' in lines
    assert lines.index("USER cdc") < lines.index('ENTRYPOINT ["cdc"]')


def test_the_build_is_given_every_file_it_copies() -> None:
    copied = {
        word.removeprefix("./")
        for line in (DOCKER / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }
    allowed = {
        line.removeprefix("!")
        for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert copied == allowed
    assert all((DOCKER.parent / path).exists() for path in copied)


def test_the_stack_script_is_portable_shell() -> None:
    assert (DOCKER / "stack").stat().st_mode & 0o111
    subprocess.run(["/bin/sh", "-n", DOCKER / "stack"], check=True)
