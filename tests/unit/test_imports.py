"""Imports point one way, as docs/architecture.md says, lazy ones included; and what is pure imports no I/O."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

_BASE = {"errors", "record", "plugin"}

MAY_IMPORT: Mapping[str, set[str]] = {
    "errors": set(),
    "record": {"errors"},
    "plugin": {"errors", "record"},
    "codec": _BASE,
    "kafka": {"errors"},
    "local": {"errors"},
    "observe": {"errors"},
    "registry": {"errors", "tls"},
    "tls": set(),
    "converters": {*_BASE, "codec", "registry"},
    "transforms": {*_BASE, "codec"},
    "postgres": {*_BASE, "codec"},
    "mirror": {*_BASE, "codec"},
    "reader": {*_BASE, "codec"},
    "redis": {*_BASE, "codec", "mirror", "tls"},
    "config": {*_BASE, "kafka", "registry"},
    # Connectors reach the runtime as plugins: it imports none of them.
    "runtime": {*_BASE, "codec", "config", "converters", "kafka", "mirror", "observe", "registry"},
    "operate": {
        *_BASE,
        *(
            "codec",
            "config",
            "converters",
            "kafka",
            "local",
            "mirror",
            "observe",
            "postgres",
            "reader",
            "redis",
            "registry",
        ),
        "runtime",
    },
    "cli": {"config", "errors", "observe", "operate", "runtime"},
    "__init__": {*_BASE, "config", "runtime"},
}
"""Room → rooms that it may import. A room may always import itself."""

PURE = (
    "cdc/codec",
    "cdc/config/kafka_security.py",
    "cdc/kafka/security.py",
    "cdc/postgres/pgoutput.py",
    "cdc/postgres/position.py",
    "cdc/registry/avro.py",
    "cdc/runtime/restarts.py",
)
_IO = {
    *("asyncio", "confluent_kafka", "http", "httpx2", "os", "psycopg", "redis", "requests", "select", "selectors"),
    *("socket", "ssl", "starlette", "subprocess", "threading", "urllib", "uvicorn"),
}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the whole name"
            yield node.module or ""
            if node.module == "cdc":
                yield from (f"cdc.{alias.name}" for alias in node.names)


def room(module: str) -> str | None:
    """The room of ``cdc`` that a module is in; ``None`` for other packages' modules."""
    parts = module.split(".")
    return parts[1] if parts[0] == "cdc" and len(parts) > 1 else None


def files(room_name: str) -> list[Path]:
    package = ROOT / "cdc" / room_name
    return sorted(package.rglob("*.py")) if package.is_dir() else [ROOT / "cdc" / f"{room_name}.py"]


def test_every_room_is_in_the_table() -> None:
    rooms = {path.stem for path in (ROOT / "cdc").glob("*.py")}
    rooms |= {path.name for path in (ROOT / "cdc").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms - MAY_IMPORT.keys() == set()


def test_the_table_has_no_cycle() -> None:
    done: set[str] = set()
    while len(done) < len(MAY_IMPORT):
        ready = {name for name, imported in MAY_IMPORT.items() if name not in done and imported <= done}
        assert ready, f"a cycle among {sorted(MAY_IMPORT.keys() - done)}"
        done |= ready


def test_the_table_is_that_of_the_architecture_page() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    told = {name.strip("`/") for row in rows for name in row.split()}
    assert told == MAY_IMPORT.keys() - {"__init__"}


@pytest.mark.parametrize("name", sorted(MAY_IMPORT))
def test_a_room_imports_only_what_is_below_it(name: str) -> None:
    allowed = MAY_IMPORT[name] | {name}
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in files(name)
        for module in imports(path)
        if (imported := room(module)) is not None and imported not in allowed
    ]
    assert wrong == []


@pytest.mark.parametrize("place", PURE)
def test_what_is_pure_imports_no_io(place: str) -> None:
    path = ROOT / place
    sources = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    wrong = [
        f"{source.relative_to(ROOT)} imports {module}"
        for source in sources
        for module in imports(source)
        if module.split(".")[0] in _IO
    ]
    assert sources
    assert wrong == []
