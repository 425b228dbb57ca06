"""Confluent's Schema Registry REST API over a `SchemaStore`: the part that serializers and people use."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from anyio import CapacityLimiter
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cdc.registry import admin, plans
from cdc.registry.errors import RestError
from cdc.registry.records import SchemaVersion
from cdc.registry.rest import Call, RawText, RegistryRoute, answer, endpoint
from cdc.registry.state import RegistryState
from cdc.registry.store import SchemaStore

__all__ = ["registry_app", "registry_routes"]

_READERS: Final = 16
_WRITERS: Final = 4


def registry_app(store: SchemaStore) -> Starlette:
    """The API as an application of its own; errors outside it (404, 405) are in Confluent's form too."""

    async def http_error(_request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        text = error.detail if isinstance(error, HTTPException) else "Internal Server Error"
        return answer({"error_code": status, "message": f"HTTP {status} {text}"}, status)

    return Starlette(routes=registry_routes(store), exception_handlers={HTTPException: http_error})


def registry_routes(store: SchemaStore) -> list[Route]:
    """The API's routes, to be mounted at the root of a listener, beside others.

    Handlers run in threads of their own, so that a Kafka that does not answer holds up neither the event loop nor
    (for writes) those who only read.
    """
    api = _Api(store)
    readers, writers = CapacityLimiter(_READERS), CapacityLimiter(_WRITERS)
    reads: list[tuple[str, str, Callable[[Call], Any]]] = [
        ("GET", "/", lambda _call: {}),
        ("GET", "/contexts", api.contexts),
        ("GET", "/subjects", api.subjects),
        ("POST", "/subjects/{subject}", api.lookup),
        ("GET", "/subjects/{subject}/versions", api.versions),
        ("GET", "/subjects/{subject}/versions/{version}", api.version),
        ("GET", "/subjects/{subject}/versions/{version}/schema", api.version_text),
        ("GET", "/subjects/{subject}/versions/{version}/referencedby", api.referenced_by),
        ("GET", "/schemas", api.schemas),
        ("GET", "/schemas/types", lambda _call: list(plans.SCHEMA_TYPES)),
        ("GET", "/schemas/ids/{id}", api.schema),
        ("GET", "/schemas/ids/{id}/schema", api.schema_text),
        ("GET", "/schemas/ids/{id}/subjects", api.schema_subjects),
        ("GET", "/schemas/ids/{id}/versions", api.schema_versions),
        ("GET", "/schemas/guids/{guid}", api.schema_by_guid),
        ("GET", "/config", api.config),
        ("GET", "/config/{subject}", api.config),
        ("GET", "/mode", api.mode),
        ("GET", "/mode/{subject}", api.mode),
        ("POST", "/compatibility/subjects/{subject}/versions", api.compatibility),
        ("POST", "/compatibility/subjects/{subject}/versions/{version}", api.compatibility),
    ]
    writes: list[tuple[str, str, Callable[[Call], Any]]] = [
        ("POST", "/subjects/{subject}/versions", api.register),
        ("DELETE", "/subjects/{subject}", api.delete_subject),
        ("DELETE", "/subjects/{subject}/versions/{version}", api.delete_version),
        ("PUT", "/config", api.set_config),
        ("PUT", "/config/{subject}", api.set_config),
        ("DELETE", "/config", api.delete_config),
        ("DELETE", "/config/{subject}", api.delete_config),
        ("PUT", "/mode", api.set_mode),
        ("PUT", "/mode/{subject}", api.set_mode),
        ("DELETE", "/mode/{subject}", api.delete_mode),
    ]
    return [
        RegistryRoute(path, endpoint(handle, limiter), method)
        for limiter, table in ((readers, reads), (writers, writes))
        for method, path, handle in table
    ]


class _Api:
    """One method for each path; each turns a `Call` into the body of the answer."""

    def __init__(self, store: SchemaStore) -> None:
        self._store = store

    # -- subjects ------------------------------------------------------------------------------

    def register(self, call: Call) -> dict[str, Any]:
        subject, request, normalize = call.subject, call.schema(), call.flag("normalize")
        found = self._store.write(lambda state: plans.register(state, subject, request, normalize=normalize))
        # Not the text: a client would then cache the canonical text in place of its own and ask again each time.
        return _without_nones({"id": found.id, "version": found.version, "guid": found.guid})

    def lookup(self, call: Call) -> dict[str, Any]:
        subject, request, normalize, deleted = call.subject, call.schema(), call.flag("normalize"), call.flag("deleted")
        return _entity(
            self._store.read(lambda state: plans.lookup(state, subject, request, normalize=normalize, deleted=deleted))
        )

    def subjects(self, call: Call) -> list[str]:
        prefix = call.query.get("subjectPrefix", ":*:")
        only, deleted = call.flag("deletedOnly"), call.flag("deleted") or call.flag("deletedOnly")

        def question(state: RegistryState) -> list[str]:
            found = state.subjects(deleted=deleted)
            return [name for name in found if _has_prefix(name, prefix) and not (only and name in state.subjects())]

        return call.page(self._store.read(question))

    def versions(self, call: Call) -> list[int]:
        subject, only = call.subject, call.flag("deletedOnly")
        deleted = call.flag("deleted") or only

        def question(state: RegistryState) -> list[int]:
            found = state.versions(subject, deleted=deleted)
            if not found:
                raise RestError(404, 40401, f"Subject '{subject}' not found.")
            return [version.version for version in found if version.deleted or not only]

        return call.page(self._store.read(question))

    def version(self, call: Call) -> dict[str, Any]:
        return _entity(self._version(call))

    def version_text(self, call: Call) -> RawText:
        return RawText(self._version(call).schema)

    def referenced_by(self, call: Call) -> list[int]:
        target, deleted = self._version(call, deleted=True), call.flag("deleted")
        users = self._store.read(lambda state: state.referrers(target, deleted=deleted))
        return call.page(sorted({user.id for user in users}))

    def delete_version(self, call: Call) -> int:
        subject, number, permanent = call.subject, call.version, call.flag("permanent")
        return self._store.write(lambda state: admin.delete_version(state, subject, number, permanent=permanent))

    def delete_subject(self, call: Call) -> list[int]:
        subject, permanent = call.subject, call.flag("permanent")
        return self._store.write(lambda state: admin.delete_subject(state, subject, permanent=permanent))

    def compatibility(self, call: Call) -> dict[str, Any]:
        subject, request, normalize = call.subject, call.schema(), call.flag("normalize")
        number = call.version if "version" in call.path else None
        verbose = call.flag("verbose")
        try:
            problems = self._store.read(
                lambda state: plans.compatibility_of(state, subject, request, number, normalize=normalize)
            )
        except RestError as error:
            if not (verbose and error.code == 42201):
                raise
            problems = [str(error)]
        return {"is_compatible": not problems} | ({"messages": problems} if verbose else {})

    def _version(self, call: Call, *, deleted: bool = False) -> SchemaVersion:
        subject, number, deleted = call.subject, call.version, deleted or call.flag("deleted")
        return self._store.read(lambda state: plans.get_version(state, subject, number, deleted=deleted))

    # -- schemas -------------------------------------------------------------------------------

    def schema(self, call: Call) -> dict[str, Any]:
        found = _entity(self._schema(call))
        if call.flag("fetchMaxId"):
            found["maxId"] = self._store.read(lambda state: state.next_id(call.query.get("subject", "")) - 1)
        return {name: value for name, value in found.items() if name != "id"}

    def schema_text(self, call: Call) -> RawText:
        return RawText(self._schema(call).schema)

    def schema_subjects(self, call: Call) -> list[str]:
        return call.page(sorted({use.subject for use in self._uses(call)}))

    def schema_versions(self, call: Call) -> list[dict[str, Any]]:
        return call.page([{"subject": use.subject, "version": use.version} for use in self._uses(call)])

    def schema_by_guid(self, call: Call) -> dict[str, Any]:
        guid = call.path["guid"]

        def question(state: RegistryState) -> SchemaVersion:
            found = state.by_guid(guid)
            if found is None:
                raise RestError(404, 40403, f"Schema {guid} not found")
            return found[1]

        return _entity(self._store.read(question))

    def schemas(self, call: Call) -> list[dict[str, Any]]:
        prefix, deleted, latest = (
            call.query.get("subjectPrefix", ":*:"),
            call.flag("deleted"),
            call.flag("latestOnly"),
        )

        def question(state: RegistryState) -> list[SchemaVersion]:
            names = [name for name in state.subjects(deleted=deleted) if _has_prefix(name, prefix)]
            found = [state.versions(name, deleted=deleted) for name in names]
            return [version for versions in found for version in (versions[-1:] if latest else versions)]

        return [_entity(version) for version in call.page(self._store.read(question))]

    def contexts(self, call: Call) -> list[str]:
        return call.page(self._store.read(lambda state: state.contexts()))

    def _schema(self, call: Call) -> SchemaVersion:
        number, subject = call.schema_id, call.query.get("subject")

        def question(state: RegistryState) -> SchemaVersion:
            found = state.by_id(number, subject)
            if found is None:
                raise RestError(404, 40403, f"Schema {number} not found")
            return found

        return self._store.read(question)

    def _uses(self, call: Call) -> list[SchemaVersion]:
        number, subject, deleted = call.schema_id, call.query.get("subject"), call.flag("deleted")

        def question(state: RegistryState) -> list[SchemaVersion]:
            found = state.uses(number, subject, deleted=deleted)
            if found is None:
                raise RestError(404, 40403, "Schema not found")
            return found

        return self._store.read(question)

    # -- config and mode -----------------------------------------------------------------------

    def config(self, call: Call) -> dict[str, Any]:
        subject = call.settings_subject if call.path else None
        in_scope = subject is None or call.flag("defaultToGlobal")

        def question(state: RegistryState) -> dict[str, Any]:
            found = state.config_in_scope(subject) if in_scope else state.config(subject)
            if found is None:
                raise RestError(404, 40408, f"Subject '{subject}' does not have subject-level compatibility configured")
            return admin.config_answer(found)

        return self._store.read(question)

    def set_config(self, call: Call) -> dict[str, Any]:
        subject, body = call.settings_subject if call.path else None, call.body
        return self._store.write(lambda state: admin.set_config(state, subject, body))

    def delete_config(self, call: Call) -> dict[str, Any]:
        subject = call.settings_subject if call.path else None
        return self._store.write(lambda state: admin.delete_config(state, subject))

    def mode(self, call: Call) -> dict[str, str]:
        subject = call.settings_subject if call.path else None
        in_scope = subject is None or call.flag("defaultToGlobal")

        def question(state: RegistryState) -> dict[str, str]:
            found = state.mode_in_scope(subject) if in_scope else state.mode(subject)
            if found is None:
                raise RestError(404, 40409, f"Subject '{subject}' does not have subject-level mode configured")
            return {"mode": found}

        return self._store.read(question)

    def set_mode(self, call: Call) -> dict[str, str]:
        subject = call.settings_subject if call.path else None
        mode, force = call.text("mode"), call.flag("force")
        return self._store.write(lambda state: admin.set_mode(state, subject, mode, force=force))

    def delete_mode(self, call: Call) -> dict[str, str]:
        subject = call.subject
        return self._store.write(lambda state: admin.delete_mode(state, subject))


def _entity(version: SchemaVersion) -> dict[str, Any]:
    return _without_nones(
        {
            "subject": version.subject,
            "version": version.version,
            "id": version.id,
            "guid": version.guid,
            "schemaType": version.schema_type,
            "references": [reference._asdict() for reference in version.references] or None,
            "metadata": None if version.metadata is None else json.loads(version.metadata),
            "ruleSet": None if version.rule_set is None else json.loads(version.rule_set),
            "schema": version.schema,
        }
    )


def _without_nones(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _has_prefix(subject: str, prefix: str) -> bool:
    """``:*:`` stands for any context; without a context, the default one is meant."""
    if prefix.startswith(":*:"):
        name = subject.split(":", 2)[2] if subject.startswith(":.") else subject
        return name.startswith(prefix[3:])
    return subject.startswith(prefix) and subject.startswith(":.") == prefix.startswith(":.")
