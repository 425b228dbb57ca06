"""Connect's chain of transforms: ``transforms``, ``transforms.<name>.*``, ``predicates``, ``predicates.<name>.*``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cdc.config.plugins import find_predicate, find_transform
from cdc.errors import ConfigError, Finding
from cdc.plugin import Predicate, Transform

__all__ = ["Step", "is_transform_key", "load_transforms", "unlisted_transforms"]

_KINDS: Final = ("transforms", "predicates")
_OF_A_STEP: Final = frozenset({"type", "predicate", "negate"})


@dataclass(frozen=True)
class Step:
    """A transform, configured, and the records it is for: all, or those where ``predicate`` is not ``negate``."""

    transform: Transform
    predicate: Predicate | None = None
    negate: bool = False


def is_transform_key(key: str) -> bool:
    """Whether a connector's property is about its transforms."""
    return key in _KINDS or key.startswith(tuple(f"{kind}." for kind in _KINDS))


def load_transforms(properties: Mapping[str, str]) -> list[Step]:
    """The chain that a connector's ``properties`` describe, in order. `ConfigError` has all that is wrong with it."""
    findings: list[Finding] = []
    predicates: dict[str, Predicate] = {}
    for name in _listed(properties, "predicates", findings):
        predicate = _predicate(name, properties, findings)
        if predicate is not None:
            predicates[name] = predicate
    steps = []
    for name in _listed(properties, "transforms", findings):
        step = _step(name, properties, predicates, findings)
        if step is not None:
            steps.append(step)
    if findings:
        raise ConfigError(findings)
    return steps


def unlisted_transforms(properties: Mapping[str, str]) -> list[str]:
    """Properties of transforms and predicates that are not in the lists: they do nothing."""
    found = []
    for kind in _KINDS:
        listed = {part.strip() for part in properties.get(kind, "").split(",")}
        found += [key for key in properties if key.startswith(f"{kind}.") and key.split(".", 2)[1] not in listed]
    return found


def _listed(properties: Mapping[str, str], kind: str, findings: list[Finding]) -> list[str]:
    names = [part.strip() for part in properties.get(kind, "").split(",") if part.strip()]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        findings.append(Finding(f"names {', '.join(twice)} more than once", key=kind))
    return list(dict.fromkeys(names))


def _own(properties: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {key.removeprefix(prefix): value for key, value in properties.items() if key.startswith(prefix)}


def _predicate(name: str, properties: Mapping[str, str], findings: list[Finding]) -> Predicate | None:
    prefix = f"predicates.{name}."
    own = _own(properties, prefix)
    kind = own.pop("type", "")
    if not kind:
        findings.append(Finding("is required", key=f"{prefix}type", remedy="Set it to the predicate's class"))
        return None
    try:
        predicate = find_predicate(kind)()
    except ConfigError as error:
        findings.append(Finding(str(error), key=f"{prefix}type"))
        return None
    return predicate if _configured(predicate, own, prefix, findings) else None


def _step(
    name: str, properties: Mapping[str, str], predicates: Mapping[str, Predicate], findings: list[Finding]
) -> Step | None:
    prefix = f"transforms.{name}."
    own = _own(properties, prefix)
    kind, wanted, negate = own.get("type", ""), own.get("predicate", ""), own.get("negate", "false").lower()
    if not kind:
        findings.append(Finding("is required", key=f"{prefix}type", remedy="Set it to the transform's class"))
        return None
    if negate not in ("true", "false"):
        findings.append(Finding(f"expected true or false, found {negate!r}", key=f"{prefix}negate"))
    listed = {part.strip() for part in properties.get("predicates", "").split(",")}
    if wanted and wanted not in listed:
        findings.append(
            Finding(f"there is no predicate {wanted}", key=f"{prefix}predicate", remedy="List it in predicates")
        )
    try:
        transform = find_transform(kind)()
    except ConfigError as error:
        findings.append(Finding(str(error), key=f"{prefix}type"))
        return None
    rest = {key: value for key, value in own.items() if key not in _OF_A_STEP}
    if not _configured(transform, rest, prefix, findings) or (wanted and wanted not in predicates):
        return None
    return Step(transform, predicates.get(wanted), negate == "true")


def _configured(
    part: Transform | Predicate, properties: Mapping[str, str], prefix: str, findings: list[Finding]
) -> bool:
    try:
        part.configure(properties)
    except ConfigError as error:
        findings += [Finding(each.message, f"{prefix}{each.key}", "", each.remedy) for each in error.findings]
        return False
    return True
