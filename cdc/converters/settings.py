"""The properties of a converter: declared once, read and checked alike.

Whatever configures the registry's client, and whatever Confluent's or Kafka's converters have that makes no difference
here, is passed over; a name that is none of these is an error that names the nearest one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cdc.errors import ConfigError, Finding

__all__ = ["BOOLEAN", "REGISTRY", "Setting", "read_settings"]

BOOLEAN: Final[Mapping[str, Any]] = {"true": True, "false": False}
REGISTRY: Final = ("schema.registry.", "basic.auth.", "bearer.auth.", "ssl.", "proxy.", "http.")
"""How properties of the registry's client begin: a worker hands them to every converter."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One property. ``values`` are the texts it may have and what they mean; without it any text is one."""

    name: str
    default: str
    description: str
    values: Mapping[str, Any] | None = None


def read_settings(
    converter: str, settings: Iterable[Setting], config: Mapping[str, str], ignored: Iterable[str] = ()
) -> dict[str, Any]:
    """The values of all ``settings`` by name. `ConfigError` with a finding for each fault; letter case counts not."""
    known = {setting.name: setting for setting in settings}
    found: dict[str, Any] = {}
    findings = []
    for setting in known.values():
        text = config.get(setting.name, setting.default)
        if setting.values is None:
            found[setting.name] = text
            continue
        folded = {value.lower(): meaning for value, meaning in setting.values.items()}
        if text.lower() in folded:
            found[setting.name] = folded[text.lower()]
        else:
            findings.append(Finding(f"expected one of {', '.join(setting.values)}, got {text!r}", key=setting.name))
    passed_over = {*ignored, "converter.type"}
    for key in config:
        if key not in known and key not in passed_over and not key.startswith(REGISTRY):
            near = difflib.get_close_matches(key, known, n=1)
            remedy = f"Did you mean {near[0]}?" if near else "Remove it"
            findings.append(Finding(f"the {converter} converter has no such property", key=key, remedy=remedy))
    if findings:
        raise ConfigError(findings)
    return found
