"""Every configuration that the project shows is valid: README, docs, examples, the compose file's bridge."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import cdc.config

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```ya?ml\n(.*?)^```", re.MULTILINE | re.DOTALL)
ENVIRONMENT = {"SHOP_PASSWORD": "from the environment", "PGPASSWORD": "from the environment"}


def shown() -> Iterator[tuple[str, str]]:
    """Name and text of each one."""
    for path in [*sorted((ROOT / "examples").glob("*.yaml")), ROOT / "docker" / "bridge.yaml"]:
        yield f"{path.parent.name}/{path.name}", path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for number, block in enumerate(_BLOCK.findall(path.read_text(encoding="utf-8"))):
            if "connectors:" in block:
                yield f"{path.name}#{number}", block


SHOWN = dict(shown())


def test_the_readme_the_docs_and_the_examples_show_one() -> None:
    assert {"README.md#0", "config.md#0", "examples/bridge.yaml", "docker/bridge.yaml"} <= SHOWN.keys()


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_a_configuration_that_is_shown_is_valid(name: str) -> None:
    config = cdc.config.loads({"bridge.yaml": SHOWN[name]}, ENVIRONMENT)
    assert {spec.kind for spec in config.connectors} == {"source", "sink"}
    assert not config.warnings
