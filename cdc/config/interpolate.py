"""References to values that are kept elsewhere: ``${env:NAME}``, ``${file:/path:key}``, ``${directory:/dir:file}``.

They are Kafka Connect's EnvVar-, File- and DirectoryConfigProvider. ``${env:NAME:-default}`` is the
shell's: the default stands in when the variable is unset or empty. ``${…}`` without a provider is text, as
in Connect. A trailing newline of a file in a directory is not part of the value.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cdc.config.properties import parse_properties

__all__ = ["PROVIDERS", "REFERENCE", "Interpolation", "interpolate"]

PROVIDERS: Final[Mapping[str, str]] = {
    "org.apache.kafka.common.config.provider.EnvVarConfigProvider": "env",
    "org.apache.kafka.common.config.provider.FileConfigProvider": "file",
    "org.apache.kafka.common.config.provider.DirectoryConfigProvider": "directory",
}
"""Class names of Connect's providers, as `config.providers.<name>.class` has them, and ours."""

REFERENCE: Final = re.compile(r"\$\{([A-Za-z_][\w\-]*):([^}]*)\}")
_BARE: Final = re.compile(r"\$\{([A-Z_][A-Z0-9_]*)\}")


@dataclass(slots=True)
class Interpolation:
    """A value with its references resolved, or the ``problems`` that kept them from it."""

    value: str = field(repr=False)
    secret_parts: list[str] = field(default_factory=list, repr=False)
    problems: list[tuple[str, str]] = field(default_factory=list)
    """What is wrong and what to do about it, for each reference."""


class _Problem(Exception):
    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def interpolate(text: str, environment: Mapping[str, str], aliases: Mapping[str, str]) -> Interpolation:
    """Resolve all references of ``text``. ``aliases`` maps a provider's name in the file to one of ours."""
    result = Interpolation("")

    def resolve(match: re.Match[str]) -> str:
        provider = aliases.get(match[1], match[1])
        try:
            if provider == "env":
                value = _env(match[2], environment)
            elif provider == "file":
                value = _file(match[2])
            elif provider == "directory":
                value = _directory(match[2])
            else:
                raise _unknown(match[1], aliases)
        except _Problem as problem:
            result.problems.append((str(problem), problem.remedy))
            return ""
        result.secret_parts.append(value)
        return value

    if bare := _BARE.fullmatch(text):
        result.problems.append((f"${{{bare[1]}}} names no provider", f"Write ${{env:{bare[1]}}}"))
    result.value = REFERENCE.sub(resolve, text)
    return result


def _unknown(name: str, aliases: Mapping[str, str]) -> _Problem:
    known = sorted({"env", "file", "directory", *aliases})
    near = difflib.get_close_matches(name, known, 1, 0.5)
    hint = f"Did you mean ${{{near[0]}:…}}?" if near else f"Known are {', '.join(known)}"
    return _Problem(f"unknown config provider ${{{name}:…}}", hint)


def _env(argument: str, environment: Mapping[str, str]) -> str:
    name, has_default, default = argument.partition(":-")
    value = environment.get(name)
    if has_default:
        return value or default
    if value is None:
        raise _Problem(f"the environment variable {name} is not set", f"Set it, or write ${{env:{name}:-default}}")
    return value


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise _Problem(f"there is no file {path}", "Create it, or correct the path") from None
    except OSError as error:
        raise _Problem(f"{path} cannot be read: {error.strerror}", "Let the worker's user read it") from None
    except UnicodeDecodeError:
        raise _Problem(f"{path} is not UTF-8 text", "Store the value as UTF-8") from None


def _file(argument: str) -> str:
    path, colon, key = argument.rpartition(":")
    if not colon or not path or not key:
        raise _Problem("a file reference needs a path and a key", "Write ${file:/path/to/file.properties:key}")
    try:
        properties = {name: value for name, value, _ in parse_properties(_read(Path(path)))}
    except ValueError as error:
        raise _Problem(f"{path}: {error}", "Correct the escape") from None
    if key not in properties:
        near = difflib.get_close_matches(key, properties, 1)
        raise _Problem(f"{path} has no key {key}", f"Did you mean {near[0]}?" if near else "Add it to the file")
    return properties[key]


def _directory(argument: str) -> str:
    directory, colon, name = argument.rpartition(":")
    if not colon or not directory or not name or "/" in name:
        raise _Problem("a directory reference needs a directory and a file's name", "Write ${directory:/dir:file}")
    return _read(Path(directory) / name).removesuffix("\n").removesuffix("\r")
