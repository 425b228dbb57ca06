"""The reference of all properties is complete, and docs/config.md is what it says today."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cdc.config import WorkerConfig, find_connector, loads
from cdc.config.plugins import connector_names
from cdc.config.reference import render_reference

ROOT = Path(__file__).parents[2]


def test_the_page_in_docs_is_current() -> None:
    page = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert page == render_reference("all", "markdown") + "\n", (
        "a property has changed; run: cdc config --reference all --output markdown > docs/config.md"
    )


def test_the_connectors_are_those_of_the_package() -> None:
    assert connector_names() == ["postgres", "redis"]


@pytest.mark.parametrize("name", ["worker", "postgres", "redis"])
def test_every_property_is_told_with_what_it_does(name: str) -> None:
    model = WorkerConfig if name == "worker" else find_connector(name).config_model
    told = json.loads(render_reference(name, "json"))
    assert len(told) == len(model.model_fields)
    assert [known["key"] for known in told if not known["description"]] == []
    assert [known["key"] for known in told if known["key"] != known["key"].strip() or "_" in known["key"]] == []


def test_no_secret_has_a_default() -> None:
    everything = json.loads(render_reference("all", "json"))
    assert [p["key"] for properties in everything.values() for p in properties if p["secret"] and p["default"]] == []


def test_the_example_of_the_page_is_a_valid_configuration() -> None:
    page = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    example = page.split("```yaml\n")[1].split("```")[0]
    config = loads({"bridge.yaml": example}, {"SHOP_PASSWORD": "x"})
    assert [(spec.name, spec.kind) for spec in config.connectors] == [("shop", "source"), ("shop-cache", "sink")]
