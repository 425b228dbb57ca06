"""Plans for what people do to a registry: deleting, levels, modes (see `cdc.registry.plans`). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cdc.registry.compatibility import Level
from cdc.registry.contexts import is_valid
from cdc.registry.errors import RestError
from cdc.registry.plans import Plan, get_version, not_read_only, version_record
from cdc.registry.records import Key, Kind, Record, SchemaVersion, dump
from cdc.registry.state import RegistryState

__all__ = [
    "MODES",
    "config_answer",
    "delete_config",
    "delete_mode",
    "delete_subject",
    "delete_version",
    "set_config",
    "set_mode",
]

MODES: Final = ("READWRITE", "READONLY", "READONLY_OVERRIDE", "IMPORT")
_LEVELS: Final = "none, backward, forward, full, backward_transitive, forward_transitive, and full_transitive"
_OTHER_SETTINGS: Final = (
    "alias",
    "aliasForDeks",
    "compatibilityGroup",
    "compatibilityPolicy",
    "defaultMetadata",
    "defaultRuleSet",
    "overrideMetadata",
    "overrideRuleSet",
    "validateFields",
    "validateNewSchemas",
    "validateRules",
)


def delete_version(state: RegistryState, subject: str, number: int, *, permanent: bool) -> Plan[int]:
    """Delete one version: softly, and when that was done before, for good."""
    not_read_only(state, subject)
    if number == -1:
        version = get_version(state, subject, -1, deleted=permanent)
    else:
        version = get_version(state, subject, number, deleted=True)
    name = f"Subject '{subject}' Version {version.version}"
    if version.deleted and not permanent:
        raise RestError(404, 40406, f"{name} was soft deleted. Set permanent=true to delete permanently")
    if not version.deleted and permanent:
        raise RestError(404, 40407, f"{name} was not deleted first before being permanently deleted")
    _not_referenced(state, version, permanent=permanent)
    if not permanent:
        return Plan(version.version, [version_record(state, version.as_deleted())])
    records = [Record(state.raw_key(version.key), None)]
    if len(state.versions(subject, deleted=True)) == 1:
        records += _forget_settings(state, subject)
    return Plan(version.version, records)


def delete_subject(state: RegistryState, subject: str, *, permanent: bool) -> Plan[list[int]]:
    """Delete all versions of a subject: softly, and when that was done before, for good."""
    not_read_only(state, subject)
    every = state.versions(subject, deleted=True)
    alive = [version for version in every if not version.deleted]
    if not every:
        raise RestError(404, 40401, f"Subject '{subject}' not found.")
    if not alive and not permanent:
        raise RestError(404, 40404, f"Subject '{subject}' was soft deleted. Set permanent=true to delete permanently")
    if alive and permanent:
        raise RestError(404, 40405, f"Subject '{subject}' was not deleted first before being permanently deleted")
    for version in every if permanent else alive:
        _not_referenced(state, version, permanent=permanent, but_by=subject)
    if not permanent:
        numbers = [version.version for version in alive]
        value = dump({"subject": subject, "version": numbers[-1]})
        return Plan(numbers, [Record(state.raw_key(Key(Kind.DELETE_SUBJECT, subject)), value)])
    # Descending, so that no version ever refers to one that is gone.
    records = [Record(state.raw_key(version.key), None) for version in reversed(every)]
    return Plan([version.version for version in every], [*records, *_forget_settings(state, subject)])


def set_config(state: RegistryState, subject: str | None, body: Mapping[str, Any]) -> Plan[dict[str, Any]]:
    """Set the compatibility level, and whether schemas are normalized, of a subject or globally."""
    _check_name(subject)
    not_read_only(state, subject)
    unsupported = [name for name in _OTHER_SETTINGS if body.get(name) is not None]
    if unsupported:
        raise RestError(422, 422, f"The embedded registry has no setting {', '.join(unsupported)}")
    config = dict(state.config(subject) or {})
    answer: dict[str, Any] = {}
    level = body.get("compatibility", body.get("compatibilityLevel"))
    if level is not None:
        if not isinstance(level, str) or level.upper() not in Level.__members__:
            raise RestError(422, 42203, f"Invalid compatibility level. Valid values are {_LEVELS}")
        answer["compatibility"] = config["compatibilityLevel"] = level.upper()
    normalize = body.get("normalize")
    if normalize is not None:
        if not isinstance(normalize, bool):
            raise RestError(422, 422, f"normalize is true or false, not {normalize!r}")
        answer["normalize"] = config["normalize"] = normalize
    if not answer:
        raise RestError(422, 42203, f"No compatibility level given. Valid values are {_LEVELS}")
    value = {"subject": subject} if subject is not None else {}
    # Confluent's order: subject, …, normalize, …, compatibilityLevel, …; what is unknown here is kept.
    value |= {name: config[name] for name in ("alias", "aliasForDeks", "normalize") if name in config}
    value |= {name: item for name, item in config.items() if name not in value and name not in ("offset", "ts")}
    return Plan(answer, [Record(state.raw_key(Key(Kind.CONFIG, subject)), dump(value))])


def delete_config(state: RegistryState, subject: str | None) -> Plan[dict[str, Any]]:
    """Take a level back, so that the one above counts."""
    not_read_only(state, subject)
    config = state.config(subject)
    if config is None and subject is not None:
        raise RestError(404, 40401, f"Subject '{subject}' not found.")
    if config is None:
        return Plan(config_answer(state.config_in_scope(None)))
    return Plan(config_answer(config), [Record(state.raw_key(Key(Kind.CONFIG, subject)), None)])


def config_answer(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as the API shows it."""
    return {name: value for name, value in config.items() if name not in ("subject", "offset", "ts")}


def set_mode(state: RegistryState, subject: str | None, mode: str, *, force: bool) -> Plan[dict[str, str]]:
    """Set the mode of a subject or globally. IMPORT wants a subject without schemas, or ``force``."""
    _check_name(subject)
    mode = mode.upper()
    if mode not in MODES:
        raise RestError(422, 42204, f"Invalid mode. Valid values are {', '.join(MODES)}.")
    records = []
    if mode == "IMPORT" and state.mode_in_scope(subject) != "IMPORT" and not force:
        scope = [name for name in state.subjects(deleted=True) if subject in (None, name)]
        if any(state.versions(name) for name in scope):
            raise RestError(422, 42205, "Cannot import since found existing subjects")
        leftovers = [version for name in scope for version in reversed(state.versions(name, deleted=True))]
        for version in leftovers:
            _not_referenced(state, version, permanent=True, but_by=version.subject)
        records = [Record(state.raw_key(version.key), None) for version in leftovers]
    value = {"subject": subject} if subject is not None else {}
    return Plan(
        {"mode": mode}, [*records, Record(state.raw_key(Key(Kind.MODE, subject)), dump({**value, "mode": mode}))]
    )


def delete_mode(state: RegistryState, subject: str) -> Plan[dict[str, str]]:
    """Take a subject's mode back, so that the one above counts."""
    mode = state.mode(subject)
    if mode is None:
        raise RestError(404, 40401, f"Subject '{subject}' not found.")
    return Plan({"mode": mode}, [Record(state.raw_key(Key(Kind.MODE, subject)), None)])


def _check_name(subject: str | None) -> None:
    if subject is not None and not is_valid(subject, setting=True):
        raise RestError(422, 42208, f"The specified subject '{subject}' is not a valid subject name.")


def _forget_settings(state: RegistryState, subject: str) -> list[Record]:
    keys = []
    if state.mode(subject) is not None:
        keys.append(Key(Kind.MODE, subject))
    if state.config(subject) is not None:
        keys.append(Key(Kind.CONFIG, subject))
    return [Record(state.raw_key(key), None) for key in keys]


def _not_referenced(state: RegistryState, version: SchemaVersion, *, permanent: bool, but_by: str = "") -> None:
    others = [other for other in state.referrers(version, deleted=permanent) if other.subject != but_by]
    if others:
        raise RestError(
            422,
            42206,
            f"One or more references exist to the schema {{magic=1,keytype=SCHEMA,subject={version.subject},"
            f"version={version.version}}}: {others[0].subject} version {others[0].version} is one",
        )
