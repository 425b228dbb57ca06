"""A request against the registry's state → the records that carry it out and the answer, or a `RestError`.

The decisions, error codes and texts are those of Confluent's Schema Registry (``KafkaSchemaRegistry`` and its REST
resources), as far as the embedded registry goes; what it does not take is refused by name. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from cdc.registry.avro import AvroSchema, parse
from cdc.registry.compatibility import Level, check
from cdc.registry.contexts import is_valid, qualify
from cdc.registry.errors import InvalidSchema, RestError
from cdc.registry.records import Record, Reference, SchemaVersion
from cdc.registry.state import RegistryState

__all__ = [
    "SCHEMA_TYPES",
    "Plan",
    "SchemaRequest",
    "compatibility_of",
    "compatibility_problems",
    "get_version",
    "invalid_schema",
    "lookup",
    "not_read_only",
    "register",
    "version_record",
]

SCHEMA_TYPES: Final = ("JSON", "PROTOBUF", "AVRO")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Plan(Generic[_Answer]):
    """What to answer once ``records`` are on the topic, in this order; none: the answer stands already."""

    answer: _Answer
    records: Sequence[Record] = ()


@dataclass(frozen=True, slots=True)
class SchemaRequest:
    """The body of a request with a schema. ``id`` and ``version`` are for IMPORT mode only."""

    schema: str
    schema_type: str = "AVRO"
    references: tuple[Reference, ...] = field(default=())
    id: int | None = None
    version: int | None = None


def invalid_schema(message: str) -> RestError:
    return RestError(422, 42201, message)


def register(state: RegistryState, subject: str, request: SchemaRequest, *, normalize: bool) -> Plan[SchemaVersion]:
    """Register a schema: the version it has then, new or found."""
    if not is_valid(subject):
        raise RestError(422, 42208, f"The specified subject '{subject}' is not a valid subject name.")
    _check_register_mode(state, subject, request)
    candidate = _canonical(state, subject, request, normalize=normalize, strict=request.id is None)
    importing = request.id is not None
    found = None if importing and request.version else _find(state, candidate, deleted=False)
    if found is not None and request.id in (None, found.id):
        return Plan(found)
    every = state.versions(subject, deleted=True)
    number = request.version or (every[-1].version + 1 if every else 1)
    if importing:
        return _import(state, candidate, request.id or 0, number)
    if request.version and number != (every[-1].version + 1 if every else 1):
        raise invalid_schema(f"Version {number} is not one more than the previous version")
    problems = compatibility_problems(state, candidate, state.versions(subject))
    if problems:
        raise RestError(
            409,
            409,
            f'Schema being registered is incompatible with an earlier schema for subject "{subject}", details:'
            f" [{', '.join(problems)}]",
        )
    schema_id = state.id_of(candidate)
    new = _numbered(candidate, number, schema_id if schema_id is not None else state.next_id(subject))
    # As in Confluent's: a schema that comes back replaces its soft-deleted versions, unless somebody refers to them.
    replaced = [old for old in every if old.deleted and old.id == new.id and not state.referrers(old, deleted=True)]
    return Plan(new, [*(Record(state.raw_key(old.key), None) for old in replaced), version_record(state, new)])


def lookup(
    state: RegistryState, subject: str, request: SchemaRequest, *, normalize: bool, deleted: bool
) -> SchemaVersion:
    """The version under which a schema is registered; 40401 or 40403 if it is not."""
    candidate = _canonical(state, subject, request, normalize=normalize, strict=False)
    found = _find(state, candidate, deleted=deleted)
    if found is None:
        _require_subject(state, subject, deleted=deleted)
        raise RestError(404, 40403, "Schema not found")
    return found


def get_version(state: RegistryState, subject: str, number: int, *, deleted: bool) -> SchemaVersion:
    """One version, -1 being the latest; 40401 or 40402 if there is none."""
    versions = state.versions(subject, deleted=deleted)
    found = versions[-1:] if number == -1 else [version for version in versions if version.version == number]
    if not found:
        _require_subject(state, subject, deleted=deleted)
        raise RestError(404, 40402, f"Version {number} not found.")
    return found[0]


def compatibility_problems(
    state: RegistryState, candidate: SchemaVersion, previous: Sequence[SchemaVersion]
) -> list[str]:
    """Why ``candidate`` may not follow ``previous`` under the level in force; empty when it may."""
    level_name = state.config_in_scope(candidate.subject).get("compatibilityLevel", "")
    try:
        level = Level(level_name)
    except ValueError:
        raise RestError(500, 50001, f"The topic holds an unknown compatibility level: {level_name!r}") from None
    if level is Level.NONE or not previous:
        return []
    if any(old.schema_type != candidate.schema_type for old in (previous if level.transitive else previous[-1:])):
        return ["Incompatible because of different schema type", f"{{compatibility: '{level}'}}"]
    if candidate.schema_type != "AVRO":
        return [
            f"The embedded registry judges the compatibility of Avro schemas only: a further {candidate.schema_type}"
            f" schema of subject '{candidate.subject}' needs compatibility level NONE",
            f"{{compatibility: '{level}'}}",
        ]
    try:
        earlier = [(old.version, _parse(state, old, strict=False)) for old in previous]
    except InvalidSchema as error:
        return [f"An earlier version cannot be read: {error}", f"{{compatibility: '{level}'}}"]
    return check(level, _parse(state, candidate, strict=False), earlier)


def compatibility_of(
    state: RegistryState, subject: str, request: SchemaRequest, number: int | None, *, normalize: bool
) -> list[str]:
    """Problems of registering a schema after version ``number`` (-1: latest; None: all, as the level asks)."""
    candidate = _canonical(state, subject, request, normalize=normalize, strict=False)
    previous = state.versions(subject)
    if number == -1:
        previous = previous[-1:]
    elif number is not None:
        previous = [version for version in previous if version.version == number]
        if not previous:
            raise RestError(404, 40402, f"Version {number} not found.")
    return compatibility_problems(state, candidate, previous)


def version_record(state: RegistryState, version: SchemaVersion) -> Record:
    """The record that puts a version on the topic."""
    return Record(state.raw_key(version.key), version.value())


def not_read_only(state: RegistryState, subject: str | None) -> None:
    """Refuse (42205) what would change a subject that is in a read-only mode."""
    if state.mode_in_scope(subject).startswith("READONLY"):
        raise RestError(422, 42205, f"Subject {subject or '(global)'} is in read-only mode")


def _check_register_mode(state: RegistryState, subject: str, request: SchemaRequest) -> None:
    not_read_only(state, subject)
    mode = state.mode_in_scope(subject)
    if request.id is not None and mode != "IMPORT":
        raise RestError(422, 42205, f"Subject {subject} is not in import mode: a schema id may not be given")
    if request.id is None and mode != "READWRITE":
        raise RestError(422, 42205, f"Subject {subject} is not in read-write mode but in mode {mode}")


def _import(state: RegistryState, candidate: SchemaVersion, schema_id: int, number: int) -> Plan[SchemaVersion]:
    holder = state.by_id(schema_id, candidate.subject)
    if holder is not None and holder.schema != candidate.schema:
        raise RestError(422, 42205, f"Overwrite new schema with id {schema_id} is not permitted.")
    new = _numbered(candidate, number, schema_id)
    for old in state.versions(candidate.subject, deleted=True):
        if old.version == number and old.id != schema_id:
            raise RestError(422, 42205, f"Version {number} of {old.subject} has id {old.id} and is not overwritten")
    return Plan(new, [version_record(state, new)])


def _canonical(
    state: RegistryState, subject: str, request: SchemaRequest, *, normalize: bool, strict: bool
) -> SchemaVersion:
    """The request as a version without number and id (0), its text in canonical form."""
    if not request.schema.strip():
        raise invalid_schema("Empty schema")
    if request.schema_type not in SCHEMA_TYPES:
        raise invalid_schema(f"Invalid schema type {request.schema_type}: it is one of {', '.join(SCHEMA_TYPES)}")
    normalize = normalize or state.config_in_scope(subject).get("normalize") is True
    references = tuple(sorted(set(request.references))) if normalize else request.references
    draft = SchemaVersion(subject, 0, 0, request.schema, request.schema_type, references)
    texts = _referenced(state, draft)
    text = request.schema
    if request.schema_type == "AVRO":
        try:
            text = parse(text, texts, strict=strict, normalize=normalize).text
        except InvalidSchema as error:
            raise invalid_schema(f"Invalid schema of type AVRO, details: {error}") from None
    elif request.schema_type == "JSON":
        text = _canonical_json(text)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise invalid_schema("The schema has half a surrogate pair (\\ud800 to \\udfff), which is no text") from None
    return SchemaVersion(subject, 0, 0, text, request.schema_type, references)


def _canonical_json(text: str) -> str:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid_schema(f"Invalid schema of type JSON, details: {error}") from None
    if not isinstance(schema, dict | bool):
        raise invalid_schema("Invalid schema of type JSON, details: a JSON Schema is an object, true or false")
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))


def _numbered(candidate: SchemaVersion, number: int, schema_id: int) -> SchemaVersion:
    return SchemaVersion(
        candidate.subject, number, schema_id, candidate.schema, candidate.schema_type, candidate.references
    )


def _find(state: RegistryState, candidate: SchemaVersion, *, deleted: bool) -> SchemaVersion | None:
    """The newest version of the subject with this content, also where its text was stored in another form."""
    versions = state.versions(candidate.subject, deleted=deleted)[::-1]
    exact = next((version for version in versions if version.content == candidate.content), None)
    if exact is not None or candidate.schema_type != "AVRO":
        return exact
    return next((version for version in versions if _same_avro(state, version, candidate)), None)


def _same_avro(state: RegistryState, version: SchemaVersion, candidate: SchemaVersion) -> bool:
    if (version.schema_type, version.references, version.metadata, version.rule_set) != (
        candidate.schema_type,
        candidate.references,
        None,
        None,
    ):
        return False
    try:
        return _parse(state, version, strict=False).text == candidate.schema
    except InvalidSchema:
        return False


def _parse(state: RegistryState, version: SchemaVersion, *, strict: bool) -> AvroSchema:
    return parse(version.schema, _referenced(state, version), strict=strict)


def _referenced(state: RegistryState, version: SchemaVersion) -> list[str]:
    """The texts of all schemas that ``version`` refers to, directly or not, in order of dependence."""
    texts: dict[tuple[str, int], str] = {}

    def visit(referrer: SchemaVersion, open_: frozenset[tuple[str, int]]) -> None:
        for reference in referrer.references:
            subject = qualify(reference.subject, referrer.subject)
            found = state.versions(subject, deleted=True)
            if reference.version == -1:
                target = next((v for v in reversed(found) if not v.deleted), None)
            else:
                target = next((v for v in found if v.version == reference.version), None)
            if target is None:
                raise invalid_schema(
                    f'No schema reference found for subject "{reference.subject}" and version {reference.version}'
                )
            place = (target.subject, target.version)
            if place in open_:
                raise invalid_schema(f'The references of subject "{target.subject}" go round in a circle')
            if place not in texts:
                visit(target, open_ | {place})
                texts[place] = target.schema

    visit(version, frozenset())
    return list(texts.values())


def _require_subject(state: RegistryState, subject: str, *, deleted: bool) -> None:
    if not state.versions(subject, deleted=deleted):
        raise RestError(404, 40401, f"Subject '{subject}' not found.")
