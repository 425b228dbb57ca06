"""Finds plugins by the entry points ``cdc.connectors``, ``cdc.converters``, ``cdc.transforms``, ``cdc.predicates``.

A plugin answers to its entry point's name, to the class names in its ``aliases`` and, as in Kafka Connect, to the
last part of these, with or without the suffix ``Connector`` or ``Converter``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, TypeVar

from cdc.errors import ConfigError
from cdc.plugin import Connector, ConnectorConfig, Converter, Predicate, Transform

__all__ = [
    "connector_names",
    "converter_names",
    "find_connector",
    "find_converter",
    "find_predicate",
    "find_transform",
    "load_converter",
]

_CONNECTORS: Final = "cdc.connectors"
_CONVERTERS: Final = "cdc.converters"
_TRANSFORMS: Final = "cdc.transforms"
_PREDICATES: Final = "cdc.predicates"
_Plugin = TypeVar("_Plugin", Connector, Converter, Transform, Predicate)


def find_connector(name: str) -> type[Connector]:
    """The connector that ``name`` means. `ConfigError` names the nearest one, or why a plugin does not load."""
    return _find(name, _CONNECTORS, "Connector", _load_connector)


def find_converter(name: str) -> type[Converter]:
    """The converter that ``name`` means. `ConfigError` names the nearest one, or why a plugin does not load."""
    return _find(name, _CONVERTERS, "Converter", _load_converter)


def load_converter(name: str) -> Converter:
    """A converter that ``name`` means, not configured yet. `ConfigError` as of `find_converter`."""
    return find_converter(name)()


def find_transform(name: str) -> type[Transform]:
    """The transform that ``name`` means. `ConfigError` names the nearest one, or why a plugin does not load."""
    return _find(name, _TRANSFORMS, "Transform", _load_transform)


def find_predicate(name: str) -> type[Predicate]:
    """The predicate that ``name`` means. `ConfigError` names the nearest one, or why a plugin does not load."""
    return _find(name, _PREDICATES, "Predicate", _load_predicate)


def connector_names() -> list[str]:
    """Short names of all installed connectors."""
    return sorted(_entry_points(_CONNECTORS))


def converter_names() -> list[str]:
    """Short names of all installed converters."""
    return sorted(_entry_points(_CONVERTERS))


def _entry_points(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


def _find(name: str, group: str, suffix: str, load: Callable[[EntryPoint], type[_Plugin]]) -> type[_Plugin]:
    points = _entry_points(group)
    if name in points:
        return load(points[name])
    broken: list[str] = []
    known = dict.fromkeys(points)
    for point in points.values():
        try:
            plugin = load(point)
        except ConfigError as error:
            broken.append(str(error))
            continue
        answers = list(_answers(plugin.aliases, suffix))
        if name in answers:
            return plugin
        known |= dict.fromkeys(answers)
    near = difflib.get_close_matches(name, known, 1, 0.5)
    hint = f"did you mean {near[0]}?" if near else f"installed are {', '.join(sorted(points)) or 'none'}"
    raise ConfigError("; ".join([f"there is no {suffix.lower()} {name}: {hint}", *broken]))


def _answers(aliases: tuple[str, ...], suffix: str) -> Iterator[str]:
    for alias in aliases:
        simple = alias.rpartition(".")[2]
        yield from (alias, simple, simple.removesuffix(suffix))


@cache
def _load_connector(point: EntryPoint) -> type[Connector]:
    plugin = _load(point)
    if not (isinstance(plugin, type) and issubclass(plugin, Connector)):
        raise ConfigError(f"{_described(point)} is broken: it is no Connector")
    _require_complete(plugin, point)
    model = getattr(plugin, "config_model", None)
    if not (isinstance(model, type) and issubclass(model, ConnectorConfig)):
        raise ConfigError(f"{_described(point)} is broken: its config_model is no ConnectorConfig")
    return plugin


@cache
def _load_converter(point: EntryPoint) -> type[Converter]:
    plugin = _load(point)
    if not (isinstance(plugin, type) and issubclass(plugin, Converter)):
        raise ConfigError(f"{_described(point)} is broken: it is no Converter")
    _require_complete(plugin, point)
    return plugin


@cache
def _load_transform(point: EntryPoint) -> type[Transform]:
    plugin = _load(point)
    if not (isinstance(plugin, type) and issubclass(plugin, Transform)):
        raise ConfigError(f"{_described(point)} is broken: it is no Transform")
    _require_complete(plugin, point)
    return plugin


@cache
def _load_predicate(point: EntryPoint) -> type[Predicate]:
    plugin = _load(point)
    if not (isinstance(plugin, type) and issubclass(plugin, Predicate)):
        raise ConfigError(f"{_described(point)} is broken: it is no Predicate")
    _require_complete(plugin, point)
    return plugin


def _require_complete(plugin: type, point: EntryPoint) -> None:
    if missing := sorted(getattr(plugin, "__abstractmethods__", ())):
        raise ConfigError(f"{_described(point)} is broken: it lacks {', '.join(missing)}")


def _load(point: EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:
        raise ConfigError(f"{_described(point)} cannot be loaded: {type(error).__name__}: {error}") from error


def _described(point: EntryPoint) -> str:
    return f"the plugin {point.name} ({point.value}{f', of {point.dist.name}' if point.dist else ''})"
