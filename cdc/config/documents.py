"""The files of one command line, put together: a worker's properties and each connector's, still unresolved.

Accepted are our YAML (``worker:`` and ``connectors:``), the same as JSON, Connect's connector configurations in JSON
(``{"name", "config"}`` as POST takes it, or flat as PUT does) and ``.properties`` files: of a worker,
or of a connector if they have ``connector.class`` or ``name``, as `connect-standalone` takes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cdc.config.jsonfile import read_json
from cdc.config.models import nearest
from cdc.config.properties import read_properties
from cdc.config.tree import Entry, Findings, Node, Place, Scalar, Table, flatten
from cdc.config.yamlfile import read_yaml

__all__ = ["Documents", "Section", "read_documents", "read_texts"]

_SECTIONS = ("worker", "connectors")


@dataclass(slots=True)
class Section:
    """The properties of a worker or of a connector, and where they begin."""

    place: Place
    entries: dict[str, Entry]


@dataclass(slots=True)
class Documents:
    """All that was read. ``worker`` is ``None`` if no file has worker settings; ``first`` is the first file."""

    first: Place
    worker: Section | None = None
    connectors: dict[str, Section] = field(default_factory=dict)


def read_documents(paths: Sequence[Path], findings: Findings) -> Documents:
    """Read the files in the order given."""
    texts: dict[str, str] = {}
    seen: set[str] = set()
    for order, path in enumerate(paths):
        name = str(path)
        place = Place(order, 0, name)
        if name in seen:
            findings.add(place, "is given twice on the command line", remedy="Name it once")
            continue
        seen.add(name)
        try:
            texts[name] = path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            findings.add(place, "there is no such file")
        except UnicodeDecodeError as error:
            findings.add(place, f"is not UTF-8 text (byte {error.start})", remedy="Save it as UTF-8")
        except OSError as error:
            findings.add(place, f"cannot be read: {error.strerror}")
    return read_texts(texts, findings)


def read_texts(texts: Mapping[str, str], findings: Findings) -> Documents:
    """Put together the ``texts`` of files by their names."""
    documents = Documents(Place(0, 0, next(iter(texts), "")))
    for order, (file, text) in enumerate(texts.items()):
        top = Place(order, 0, file)
        suffix = Path(file).suffix.lower()
        if suffix == ".properties":
            if (table := read_properties(text, file, order, findings)) is not None:
                _add_properties(table, top, documents, findings)
        elif suffix == ".json" or (suffix not in {".yaml", ".yml"} and text.lstrip().startswith("{")):
            if (table := read_json(text, file, order, findings)) is not None:
                _add_tree(table, top, documents, findings)
        elif (table := read_yaml(text, file, order, findings)) is not None:
            _add_tree(table, top, documents, findings)
    return documents


def _add_tree(table: Table, top: Place, documents: Documents, findings: Findings) -> None:
    keys = [key for key, _, _ in table.pairs]
    if "connector.class" in keys:
        _add_flat(table, top, documents, findings)
        return
    config = table.get("config")
    if isinstance(config, Table) and "name" in keys:
        _add_posted(table, config, documents, findings)
        return
    if not set(keys) & set(_SECTIONS):
        hint = nearest(keys[0], _SECTIONS) if keys else ""
        findings.add(
            table.place, "has neither worker: nor connectors:", remedy=hint or "See cdc config --reference for both"
        )
        return
    seen: dict[str, Place] = {}
    for key, place, node in table.pairs:
        if key.startswith("x-"):  # as in Compose files: a place for YAML anchors
            continue
        if key not in _SECTIONS:
            findings.add(place, "unknown key", key, nearest(key, _SECTIONS) or "Known are worker and connectors")
        elif key in seen:
            findings.add(place, f"given twice, first at {seen[key]}", key, "Put both under one")
        elif (inner := _table(node, place, key, findings)) is not None:
            if key == "worker":
                _add_worker(inner, place, documents, findings)
            else:
                _add_connectors(inner, documents, findings)
        seen.setdefault(key, place)


def _table(node: Node, place: Place, key: str, findings: Findings) -> Table | None:
    """The keys and values under ``key``; none for null, ``None`` and a finding for anything else."""
    if isinstance(node, Table):
        return node
    if isinstance(node, Scalar) and node.text is None:
        return Table((), place)
    findings.add(place, "expected keys and values", key)
    return None


def _add_worker(table: Table, place: Place, documents: Documents, findings: Findings) -> None:
    entries = flatten(table, "worker", findings)
    if documents.worker is None:
        documents.worker = Section(place, entries)
        return
    for key, entry in entries.items():
        if (first := documents.worker.entries.get(key)) is not None:
            findings.add(entry.place, f"given twice, first at {first.place}", f"worker.{key}", "Remove one of the two")
        documents.worker.entries.setdefault(key, entry)


def _add_connectors(table: Table, documents: Documents, findings: Findings) -> None:
    for name, place, node in table.pairs:
        scope = f"connectors.{name}"
        properties = _table(node, place, scope, findings)
        if properties is None:
            continue
        section = Section(place, flatten(properties, scope, findings))
        inner = section.entries.get("name")
        if inner is not None and inner.text != name:
            findings.add(inner.place, f"the connector is called {name} above", f"{scope}.name", "Remove the line")
        _add_connector(name, section, documents, findings)


def _add_posted(table: Table, config: Table, documents: Documents, findings: Findings) -> None:
    name = table.get("name")
    for key, place, node in table.pairs:
        if key == "initial_state" and not (isinstance(node, Scalar) and (node.text or "").upper() == "RUNNING"):
            findings.add(place, "only RUNNING can be had with cdc run", key, "Leave the connector out of the file")
        elif key not in {"name", "config", "initial_state"}:
            findings.add(place, "unknown key", key, nearest(key, ["name", "config", "initial_state"]))
    if not (isinstance(name, Scalar) and name.text and name.text.strip()):
        findings.add(table.place, "the connector has no name", "name")
        return
    text = name.text.strip()
    section = Section(table.place, flatten(config, f"connectors.{text}", findings))
    inner = section.entries.get("name")
    if inner is not None and inner.text != text:
        findings.add(inner.place, f"differs from the name {text} outside of config", f"connectors.{text}.name")
    _add_connector(text, section, documents, findings)


def _add_properties(table: Table, top: Place, documents: Documents, findings: Findings) -> None:
    if {"connector.class", "name"} & {key for key, _, _ in table.pairs}:
        _add_flat(table, top, documents, findings)
    else:
        _add_worker(table, top, documents, findings)


def _add_flat(table: Table, top: Place, documents: Documents, findings: Findings) -> None:
    node = table.get("name")
    if not (isinstance(node, Scalar) and node.text and node.text.strip()):
        findings.add(top, "the connector has no name", "name", "Add name=… , unique in the worker")
        return
    name = node.text.strip()
    _add_connector(name, Section(top, flatten(table, f"connectors.{name}", findings)), documents, findings)


def _add_connector(name: str, section: Section, documents: Documents, findings: Findings) -> None:
    key = f"connectors.{name}"
    if not name or name != name.strip() or not name.isprintable():
        findings.add(section.place, "a connector's name is printable text without spaces around it", key)
    elif (first := documents.connectors.get(name)) is not None:
        findings.add(section.place, f"there is a connector of this name at {first.place}", key, "Rename one of them")
    else:
        documents.connectors[name] = section
