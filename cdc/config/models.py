"""What a typed model says of properties: the known keys, and its errors in plain words."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Union, get_args, get_origin

from pydantic import AliasChoices, BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

__all__ = ["Fault", "Property", "faults", "nearest", "properties_of"]

_SHOWN: Final = 60
"""Longest value, in characters, that an error repeats."""


@dataclass(frozen=True, slots=True)
class Property:
    """One property of a model, as the documentation has it."""

    key: str
    aliases: tuple[str, ...]
    type: str
    required: bool
    default: str
    description: str
    secret: bool


@dataclass(frozen=True, slots=True)
class Fault:
    """One error of a model in plain words; ``key`` is empty when no single property is at fault."""

    key: str
    message: str
    remedy: str = ""
    missing: bool = field(default=False)


def properties_of(model: type[BaseModel]) -> list[Property]:
    """The properties of a ``model``, in the order in which it declares them."""
    found = []
    for name, info in model.model_fields.items():
        keys = _keys(name, info)
        found.append(
            Property(
                key=keys[0],
                aliases=keys[1:],
                type=_type(info.annotation),
                required=info.is_required(),
                default=_default(info),
                description=info.description or "",
                secret=SecretStr in _flat(info.annotation),
            )
        )
    return found


def nearest(name: str, known: Iterable[str], template: str = "Did you mean {}?") -> str:
    """A question after the known name nearest to ``name``, or nothing."""
    near = difflib.get_close_matches(name, list(known), 1, 0.6)
    return template.format(near[0]) if near else ""


def faults(error: ValidationError, properties: Iterable[Property], show: Callable[[str, str], str]) -> list[Fault]:
    """The errors of a validation, in plain words.

    ``show(key, value)`` gives the value as it may be shown: as in the file, nothing of a secret.
    """
    table = {key: known for known in properties for key in (known.key, *known.aliases)}
    return [_fault(details, table, show) for details in error.errors(include_url=False)]


def _fault(details: ErrorDetails, table: Mapping[str, Property], show: Callable[[str, str], str]) -> Fault:
    key = str(details["loc"][0]) if details["loc"] else ""
    kind, context, value = details["type"], details.get("ctx", {}), details["input"]
    if kind == "missing":
        return Fault(key, "is required", _describe(table.get(key)), missing=True)
    if kind == "extra_forbidden":
        return Fault(key, "unknown key", _nearest_tail(key, table) or nearest(key, table))
    if kind in {"value_error", "assertion_error"}:
        return Fault(key, str(context.get("error", "")) or "is not valid")
    got = f", got {show(key, value)}" if isinstance(value, str) else ""
    if kind == "literal_error":
        # Not pydantic's own rendering: it would put quotes and an "or" around every name.
        choices = _choices(table.get(key), str(context.get("expected", "")))
        hint = nearest(value, choices) if isinstance(value, str) and "***" not in got else ""
        return Fault(key, f"expected one of {', '.join(choices)}{got}", hint)
    return Fault(key, f"expected {_expected(kind, context, table.get(key))}{got}")


def _nearest_tail(key: str, known: Iterable[str]) -> str:
    """A key is often right but for its first part (``hostname`` for ``database.hostname``)."""
    tails = [name for name in known if name.endswith("." + key)]
    return f"Did you mean {tails[0]}?" if len(tails) == 1 else ""


def _choices(known: Property | None, expected: str) -> list[str]:
    if known and " | " in known.type:
        return known.type.split(" | ")
    return re.findall(r"'([^']*)'", expected) or [expected]


_EXPECTED: Final[Mapping[str, str]] = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "decimal_parsing": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "too_short": "at least {min_length} items",
    "too_long": "at most {max_length} items",
    "string_pattern_mismatch": "text that matches {pattern}",
    "url_parsing": "a URL",
    "url_scheme": "a URL that begins with {expected_schemes}",
    "path_not_file": "the path of a file that exists",
    "path_not_directory": "the path of a directory that exists",
    "list_type": "a comma-separated list",
    "enum": "one of {expected}",
}


def _expected(kind: str, context: Mapping[str, Any], known: Property | None) -> str:
    if kind in _EXPECTED:
        return _EXPECTED[kind].format(**context)
    return known.type if known else "another value"


def _describe(known: Property | None) -> str:
    return known.description if known else ""


def _keys(name: str, info: FieldInfo) -> tuple[str, ...]:
    alias = info.validation_alias or info.alias or name
    if isinstance(alias, AliasChoices):
        return tuple(str(choice) for choice in alias.choices)
    return (str(alias),)


def _flat(annotation: Any) -> list[Any]:
    if get_origin(annotation) in {Union, types.UnionType}:
        return [part for argument in get_args(annotation) for part in _flat(argument)]
    return [annotation]


_NAMES: Final[Mapping[Any, str]] = {
    str: "text",
    SecretStr: "secret text",
    int: "whole number",
    float: "number",
    bool: "true | false",
}


def _type(annotation: Any) -> str:
    names: list[str] = []
    for part in _flat(annotation):
        if get_origin(part) is Literal:
            names += [str(choice) for choice in get_args(part)]
        elif get_origin(part) in {list, tuple, set, frozenset}:
            names.append("comma-separated list")
        elif part is not type(None):
            names.append(_NAMES.get(part, "text"))
    return " | ".join(dict.fromkeys(names))


def _default(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined or value is None or isinstance(value, SecretStr):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple | set | frozenset):
        return ",".join(str(item) for item in value)
    return str(value)
