"""What the records of a ``_schemas`` topic add up to: subjects, versions, ids, levels and modes.

`RegistryState` is told the records in order and answers questions; it never writes and never fails on a record. The
rules for records are those of Confluent's ``KafkaStoreMessageHandler``, so that a topic written by a real registry
means the same here: an id belongs to the first schema that carries it, soft-deleted schemas keep their ids, a schema
whose every version has been deleted for good is forgotten. Pure; not thread-safe.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

from cdc.registry.contexts import GLOBAL_CONTEXT, context_key, context_of, qualify
from cdc.registry.records import Key, Kind, Record, RecordError, SchemaVersion, decode_key, decode_value
from cdc.registry.turns import Turns

__all__ = ["DEFAULT_LEVEL", "DEFAULT_MODE", "RegistryState"]

DEFAULT_LEVEL: Final = "BACKWARD"
DEFAULT_MODE: Final = "READWRITE"


class _Ids:
    """The ids of one context; each context counts for itself."""

    def __init__(self) -> None:
        self.uses: dict[int, dict[tuple[str, int], SchemaVersion]] = {}
        self.by_content: dict[tuple[Any, ...], int] = {}
        self.highest = 0


class RegistryState:
    """The state after the records applied so far."""

    def __init__(self) -> None:
        self.turns = Turns()
        self._subjects: dict[str, dict[int, SchemaVersion]] = {}
        self._ids: defaultdict[str, _Ids] = defaultdict(_Ids)
        self._configs: dict[str | None, dict[str, Any]] = {}
        self._modes: dict[str | None, str] = {}
        self._raw_keys: dict[Key, bytes] = {}

    # -- records -------------------------------------------------------------------------------

    def apply(self, offset: int, raw_key: bytes | None, value: bytes | None) -> str | None:
        """Take in the record at ``offset``. Returns why it was passed over, or None if it was not."""
        problem = None
        try:
            key = decode_key(raw_key)
            if key.kind == Kind.NOOP:
                self.turns.noop(offset, value)
                return None
            self._raw_keys[key] = raw_key or b""
            self._apply(key, None if value is None else decode_value(value))
        except RecordError as error:
            problem = str(error)
        self.turns.changed(Record(raw_key or b"", value))
        return problem

    def _apply(self, key: Key, body: dict[str, Any] | None) -> None:
        match key.kind:
            case Kind.SCHEMA if body is None:
                self._remove(key)
            case Kind.SCHEMA:
                self._put(SchemaVersion.from_body(key, body or {}))
            case Kind.CONFIG:
                _set_or_clear(self._configs, key.subject, body)
            case Kind.MODE:
                _set_or_clear(self._modes, key.subject, None if body is None else str(body.get("mode", DEFAULT_MODE)))
            case Kind.DELETE_SUBJECT if body is not None and isinstance(body.get("version"), int):
                for version in self._versions(key.subject):
                    if version.version <= body["version"] and not version.deleted:
                        self._put(version.as_deleted())
            case Kind.CLEAR_SUBJECT if body is not None:
                for subject in self._in_scope(key.subject):
                    for version in self._versions(subject):
                        if version.deleted:
                            self._remove(version.key)

    def _put(self, version: SchemaVersion) -> None:
        ids = self._ids[context_of(version.subject)]
        holder = next(iter(ids.uses.get(version.id, {}).values()), None)
        if holder is not None and holder.schema != version.schema:
            raise RecordError(
                f"{version.subject} version {version.version}: id {version.id} belongs to another schema, that of"
                f" {holder.subject} version {holder.version}"
            )
        versions = self._subjects.setdefault(version.subject, {})
        former = versions.get(version.version)
        if former is not None and former.id != version.id:
            self._remove(former.key)
            versions = self._subjects.setdefault(version.subject, {})
        versions[version.version] = version
        ids.uses.setdefault(version.id, {})[version.subject, version.version] = version
        ids.by_content.setdefault(version.content, version.id)
        ids.highest = max(ids.highest, version.id)

    def _remove(self, key: Key) -> None:
        versions = self._subjects.get(key.subject or "", {})
        version = versions.pop(key.version or 0, None)
        if version is None:
            return
        if not versions:
            del self._subjects[version.subject]
        ids = self._ids[context_of(version.subject)]
        uses = ids.uses[version.id]
        del uses[version.subject, version.version]
        if not uses:
            del ids.uses[version.id]
            if ids.by_content.get(version.content) == version.id:
                del ids.by_content[version.content]

    def _versions(self, subject: str | None) -> list[SchemaVersion]:
        return sorted(self._subjects.get(subject or "", {}).values(), key=lambda version: version.version)

    def _in_scope(self, subject: str | None) -> list[str]:
        """The subjects a key without a subject, of a context, or of one subject is about."""
        return [name for name in self._subjects if subject in (None, name, context_key(name))]

    # -- questions -----------------------------------------------------------------------------

    def raw_key(self, key: Key) -> bytes:
        """The bytes under which ``key`` stands on the topic: compaction knows keys by their bytes only."""
        return self._raw_keys.get(key) or key.encode()

    def versions(self, subject: str, *, deleted: bool = False) -> list[SchemaVersion]:
        """A subject's versions in ascending order, soft-deleted ones only on request."""
        return [version for version in self._versions(subject) if deleted or not version.deleted]

    def subjects(self, *, deleted: bool = False) -> list[str]:
        """The subjects with a version, in the order of their names."""
        return sorted(
            subject
            for subject, versions in self._subjects.items()
            if deleted or any(not version.deleted for version in versions.values())
        )

    def by_id(self, schema_id: int, subject: str | None = None) -> SchemaVersion | None:
        """A version with this id, of ``subject`` if that has one; soft-deleted ones answer as well."""
        uses = self._ids[context_of(subject or "")].uses.get(schema_id)
        if not uses:
            return None
        own = [version for version in uses.values() if version.subject == subject]
        return (own or list(uses.values()))[-1]

    def by_guid(self, guid: str) -> tuple[str, SchemaVersion] | None:
        """The context and a version of the schema with this GUID."""
        for context, ids in self._ids.items():
            for uses in ids.uses.values():
                version = next(iter(uses.values()))
                if version.guid == guid.lower():
                    return context, version
        return None

    def uses(self, schema_id: int, subject: str | None = None, *, deleted: bool = False) -> list[SchemaVersion] | None:
        """All versions with this id in the context of ``subject``; None if the id is unknown."""
        uses = self._ids[context_of(subject or "")].uses.get(schema_id)
        if uses is None:
            return None
        found = [version for version in uses.values() if deleted or not version.deleted]
        return sorted(found, key=lambda version: (version.subject, version.version))

    def id_of(self, version: SchemaVersion) -> int | None:
        """The id that this content has in the context of the subject."""
        return self._ids[context_of(version.subject)].by_content.get(version.content)

    def next_id(self, subject: str) -> int:
        """The smallest id above all that the subject's context has ever shown."""
        return self._ids[context_of(subject)].highest + 1

    def referrers(self, version: SchemaVersion, *, deleted: bool) -> list[SchemaVersion]:
        """The versions that use this one by reference."""
        return [
            other
            for other in self._all()
            if (deleted or not other.deleted)
            and any(
                (qualify(ref.subject, other.subject), ref.version) == (version.subject, version.version)
                for ref in other.references
            )
        ]

    def contexts(self) -> list[str]:
        """The contexts with subjects, the default one (``.``) among them always."""
        return sorted({".", *(context_of(subject) for subject in self._subjects)})

    def config(self, subject: str | None) -> dict[str, Any] | None:
        """The config set for exactly this subject, context key or (None) globally."""
        return self._configs.get(subject)

    def config_in_scope(self, subject: str | None) -> dict[str, Any]:
        """The config in force: the subject's, else its context's, else the global one, else the default."""
        found = {"compatibilityLevel": DEFAULT_LEVEL}
        for scope in reversed(_scopes(subject)):
            found |= self._configs.get(scope, {})
        return found

    def mode(self, subject: str | None) -> str | None:
        """The mode set for exactly this subject, context key or (None) globally."""
        return self._modes.get(subject)

    def mode_in_scope(self, subject: str | None) -> str:
        """The mode in force, found as in `config_in_scope`."""
        return next((self._modes[scope] for scope in _scopes(subject) if scope in self._modes), DEFAULT_MODE)

    def _all(self) -> Iterator[SchemaVersion]:
        for versions in self._subjects.values():
            yield from versions.values()


def _scopes(subject: str | None) -> list[str | None]:
    """Where a setting for ``subject`` is looked for, in this order."""
    top = None if subject is None else context_key(subject)
    return [subject, top, GLOBAL_CONTEXT] if subject != top else [top, GLOBAL_CONTEXT]


def _set_or_clear(table: dict[str | None, Any], key: str | None, value: Any) -> None:
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value
