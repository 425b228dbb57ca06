"""Settings of transforms and predicates: typed models, their faults as findings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from cdc.errors import ConfigError, Finding

__all__ = ["Settings", "java_pattern", "java_replacement", "names", "read"]

_NAMED_GROUP = re.compile(r"\(\?<(?=[A-Za-z])")
_REFERENCE = re.compile(r"\\(.)|\$\{(\w+)\}|\$(\d)")


class Settings(BaseModel):
    """A field ``add_fields`` is the property ``add.fields``; unknown properties are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=lambda name: name.replace("_", "."), hide_input_in_errors=True
    )


_Model = TypeVar("_Model", bound=Settings)


def read(model: type[_Model], config: Mapping[str, str]) -> _Model:
    """The settings in ``config``; `ConfigError` with a finding for every fault."""
    try:
        return model.model_validate(dict(config))
    except ValidationError as error:
        findings = []
        for fault in error.errors(include_input=False, include_url=False):
            key = ".".join(str(part) for part in fault["loc"])
            unknown = fault["type"] == "extra_forbidden"
            message = "there is no such property" if unknown else fault["msg"].removeprefix("Value error, ")
            findings.append(Finding(message, key=key, remedy="Remove it" if unknown else ""))
        raise ConfigError(findings) from None


def names(value: str) -> list[str]:
    """The parts of a comma-separated list."""
    return [part.strip() for part in value.split(",") if part.strip()]


def java_pattern(text: str) -> re.Pattern[str]:
    """A regular expression in Java's spelling of named groups. `ValueError` for what is none."""
    try:
        return re.compile(_NAMED_GROUP.sub("(?P<", text))
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from None


def java_replacement(pattern: re.Pattern[str], text: str) -> str:
    """A replacement in Java's spelling (``$1``, ``${name}``) as Python's. `ValueError` for a group that is missing."""

    def reference(match: re.Match[str]) -> str:
        if match[1] is not None:
            return match[1].replace("\\", r"\\")
        group = match[2] or match[3]
        known = int(group) <= pattern.groups if group.isdigit() else group in pattern.groupindex
        if not known:
            raise ValueError(f"{text!r} refers to group {group}, which {pattern.pattern!r} does not have")
        return rf"\g<{group}>"

    return _REFERENCE.sub(reference, text)
