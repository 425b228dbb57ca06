"""The public face of the package: what ``cdc`` exports, and that every module's ``__all__`` is true."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest

import cdc

MODULES = [found.name for found in pkgutil.walk_packages(cdc.__path__, "cdc.") if "._" not in found.name]


@pytest.mark.parametrize("name", MODULES)
def test_all_names_what_a_module_has_to_offer(name: str) -> None:
    if name.startswith("cdc.codec.protobuf_"):
        pytest.importorskip("google.protobuf")  # an extra
    module = importlib.import_module(name)
    listed = getattr(module, "__all__", None)
    if listed is None:
        assert not _public(module), f"{name} has public names and no __all__"
        return
    assert len(set(listed)) == len(listed)
    assert [each for each in listed if not hasattr(module, each)] == []
    assert [each for each in listed if each.startswith("_")] == []


def _public(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def test_the_package_exports_its_public_face() -> None:
    assert sorted(cdc.__all__) == cdc.__all__
    assert {name: getattr(cdc, name).__name__ for name in cdc.__all__} == {name: name for name in cdc.__all__}
    with pytest.raises(AttributeError, match="nothing"):
        cdc.nothing  # noqa: B018


def test_importing_the_package_is_cheap() -> None:
    program = "import sys, cdc; print(*sorted(name for name in sys.modules if name.startswith(('cdc', 'pydantic'))))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert loaded.split() == ["cdc"]


def test_help_needs_none_of_the_libraries_that_take_time() -> None:
    program = "import sys, cdc.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    slow = {"pydantic", "yaml", "structlog", "confluent_kafka", "psycopg", "redis", "fastavro", "uvicorn", "starlette"}
    assert slow & set(loaded.split()) == set()
