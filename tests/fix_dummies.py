"""Connectors without servers (``tests/plugins``), visible to this process and to those it starts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

_PLUGINS = Path(__file__).parent / "plugins"


@pytest.fixture
def dummies(monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Makes the dummy plugins findable; the value is the command of a task's process that can run them."""
    monkeypatch.syspath_prepend(str(_PLUGINS))
    path = os.pathsep.join(filter(None, [str(_PLUGINS), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
    return (sys.executable, "-m", "cdc_dummies")
