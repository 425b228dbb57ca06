"""From files to a `Config`, or to all that is wrong with them at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from cdc.config import plugins
from cdc.config.documents import Documents, Section, read_documents, read_texts
from cdc.config.interpolate import PROVIDERS, REFERENCE, interpolate
from cdc.config.kafka_security import security_findings
from cdc.config.model import OVERRIDES, Config, ConnectorSpec, converter_properties
from cdc.config.models import Property, faults, nearest, properties_of
from cdc.config.secrets import MASK, Secrets, is_address_key, is_secret_key
from cdc.config.transforms import is_transform_key, load_transforms, unlisted_transforms
from cdc.config.tree import Entry, Findings, Place
from cdc.config.worker import EMBEDDED, FOREIGN, PASSED_ON, REGISTRY_CLIENT, WorkerConfig
from cdc.errors import ConfigError, Finding
from cdc.plugin import Connector, SourceConnector
from cdc.registry.client_config import client_config

__all__ = ["load", "loads"]

_CONVERTERS = ("key.converter", "value.converter")
_TOPICS = "topic.creation.default."
"""Connect's settings of new topics: of the worker, or of a connector."""
_Model = TypeVar("_Model", bound=BaseModel)


def load(
    paths: Sequence[str | os.PathLike[str]],
    environment: Mapping[str, str] | None = None,
    secrets: Secrets | None = None,
) -> Config:
    """Read and validate the files of one worker.

    `ConfigError` has one finding for each fault in any of them, in file order, no secret in it.
    ``environment`` stands in for the process's own; ``secrets`` is filled with what was found to be one, for a
    caller that must redact whatever else goes wrong.
    """
    findings = Findings()
    documents = read_documents([Path(path) for path in paths], findings)
    return _Validation(documents, findings, environment, secrets).config()


def loads(texts: Mapping[str, str], environment: Mapping[str, str] | None = None) -> Config:
    """Like `load`, for the contents of files by their names (whose suffix is their format)."""
    findings = Findings()
    return _Validation(read_texts(texts, findings), findings, environment, None).config()


@dataclass(slots=True)
class _Resolved:
    """A section's properties with references resolved, and what may be shown of them."""

    scope: str
    place: Place
    entries: Mapping[str, Entry]
    values: dict[str, str] = field(default_factory=dict, repr=False)
    hidden: set[str] = field(default_factory=set)
    unresolved: set[str] = field(default_factory=set)

    def place_of(self, key: str) -> Place:
        return self.entries[key].place if key in self.entries else self.place

    def show(self, key: str, value: str) -> str:
        """A value as an error may repeat it: as it is in the file, unless it is secret."""
        text = self.entries[key].text if key in self.entries else value
        if key in self.hidden and not REFERENCE.search(text):
            return MASK
        return repr(text if len(text) <= 60 else text[:57] + "...")


class _Validation:
    def __init__(
        self,
        documents: Documents,
        findings: Findings,
        environment: Mapping[str, str] | None,
        secrets: Secrets | None,
    ) -> None:
        self._documents = documents
        self._findings = findings
        self._environment = os.environ if environment is None else environment
        self._secrets = Secrets() if secrets is None else secrets
        self._providers: dict[str, str] = {}
        self._warnings: list[Finding] = []

    def config(self) -> Config:
        worker, worker_section = self._worker()
        properties = self._worker_properties(worker, worker_section)
        specs: list[ConnectorSpec] = []
        sections: dict[str, _Resolved] = {}
        for name, section in self._documents.connectors.items():
            resolved = sections[name] = self._resolve(section, f"connectors.{name}")
            spec = self._connector(name, resolved, properties)
            if spec is not None:
                specs.append(spec)
        self._validate_together(specs, sections)
        if not self._findings and not specs:
            remedy = "Add connectors: with at least one"
            self._findings.add(self._documents.first, "no file has a connector", "connectors", remedy)
        self._raise_redacted()
        if worker is None or worker_section is None:
            raise AssertionError("a worker that is not valid is among the findings")
        return Config(
            worker=worker,
            connectors=tuple(specs),
            secrets=self._secrets,
            properties=properties,
            shown=self._shown(worker_section),
            warnings=tuple(self._warnings),
        )

    def _raise_redacted(self) -> None:
        findings = [
            Finding(
                self._secrets.redact(finding.message),
                self._secrets.redact(finding.key),
                finding.where,
                self._secrets.redact(finding.remedy),
            )
            for finding in self._findings.in_order()
        ]
        if findings:
            raise ConfigError(findings)

    def _resolve(self, section: Section, scope: str) -> _Resolved:
        resolved = _Resolved(scope, section.place, section.entries)
        for key, entry in section.entries.items():
            result = interpolate(entry.text, self._environment, self._providers)
            for message, remedy in result.problems:
                self._findings.add(entry.place, message, f"{scope}.{key}", remedy)
                resolved.unresolved.add(key)
            resolved.values[key] = result.value
            self._secrets.add(key.partition(".with.salt.")[2])  # column.mask.hash…: Debezium has the salt in the name
            if is_secret_key(key):
                resolved.hidden.add(key)
                self._secrets.add(result.value)
                for reference in REFERENCE.finditer(entry.text):  # a default that is not in use is secret as well
                    self._secrets.add(reference[2].partition(":-")[2])
            else:
                self._secrets.add_embedded(result.value)
            for part in result.secret_parts:
                resolved.hidden.add(key)
                if is_address_key(key):
                    continue
                if len(part) > 3 and not part.isdecimal() and part.lower() not in {"true", "false"}:
                    self._secrets.add(part)
        return resolved

    def _worker(self) -> tuple[WorkerConfig | None, _Resolved | None]:
        section = self._documents.worker
        if section is None:
            if not self._findings:
                self._findings.add(
                    self._documents.first, "no file has worker settings", "worker", "Add worker: with them"
                )
            return None, None
        self._providers = self._provider_names(section)
        resolved = self._resolve(section, "worker")
        declared = {known.key for known in properties_of(WorkerConfig)}
        own = {}
        for key, value in resolved.values.items():
            if key in FOREIGN:
                self._warnings.append(
                    Finding(
                        "a setting of Kafka Connect without a meaning here",
                        key=f"worker.{key}",
                        where=str(resolved.place_of(key)),
                        remedy="It is ignored",
                    )
                )
            elif key in declared or not key.startswith((*PASSED_ON, *REGISTRY_CLIENT, "config.providers.")):
                own[key] = value
        worker = self._model(WorkerConfig, own, resolved, suggestions=())
        self._registry_client(resolved)
        self._kafka_security(security_findings(resolved.values), resolved)
        for key in _CONVERTERS:
            if key in own:
                self._find_converter(own[key], key, resolved)
        return worker, resolved

    def _kafka_security(self, findings: Iterable[Finding], resolved: _Resolved) -> None:
        for finding in findings:
            self._findings.add(
                resolved.place_of(finding.key), finding.message, f"{resolved.scope}.{finding.key}", finding.remedy
            )

    def _registry_client(self, resolved: _Resolved) -> None:
        given = {key: value for key, value in resolved.values.items() if key.startswith(REGISTRY_CLIENT)}
        try:
            client_config("http://localhost", given)  # the address is the model's to validate
        except ConfigError as error:
            for finding in error.findings:
                key = "schema.registry." + finding.key.removeprefix("schema.registry.")
                self._findings.add(resolved.place_of(key), finding.message, f"worker.{key}", finding.remedy)

    def _worker_properties(self, worker: WorkerConfig | None, resolved: _Resolved | None) -> dict[str, str]:
        """What connectors are validated against; with a worker that is not valid, as near to it as can be."""
        values = {} if resolved is None else resolved.values
        if worker is None:
            return {known.key: known.default for known in properties_of(WorkerConfig)} | values
        passed = {key: value for key, value in values.items() if key.startswith((*PASSED_ON, *REGISTRY_CLIENT))}
        return passed | worker.properties()

    def _provider_names(self, section: Section) -> dict[str, str]:
        """Connect's `config.providers`: other names for the three that there are."""
        names: dict[str, str] = {}
        listed = section.entries.get("config.providers")
        listed_names = [name.strip() for name in listed.text.split(",") if name.strip()] if listed else []
        for key, entry in section.entries.items():
            if not key.startswith("config.providers."):
                continue
            name, _, rest = key.removeprefix("config.providers.").partition(".")
            if name not in listed_names or rest != "class":
                hint = f"Known is config.providers.{name}.class, for a {name} listed in config.providers"
                self._findings.add(entry.place, "unknown key", f"worker.{key}", hint)
            elif entry.text not in PROVIDERS:
                known = ", ".join(PROVIDERS)
                self._findings.add(entry.place, f"unknown config provider; known are {known}", f"worker.{key}")
            else:
                names[name] = PROVIDERS[entry.text]
        return names

    def _connector(self, name: str, resolved: _Resolved, worker: Mapping[str, str]) -> ConnectorSpec | None:
        own: dict[str, str] = {"name": name}
        task = dict(worker)
        for key in _CONVERTERS:
            if key in resolved.values:  # its own converter does not take the worker's settings for another one
                task = {k: v for k, v in task.items() if not k.startswith(key + ".")}
                task[key] = resolved.values[key]
        plugin = self._plugin(resolved)
        direct = (*(converter + "." for converter in _CONVERTERS), _TOPICS)
        transforms = plugin is not None and issubclass(plugin, SourceConnector)
        for key, value in resolved.values.items():
            override = next((prefix for prefix in OVERRIDES if key.startswith(prefix)), None)
            if override is not None:
                task[OVERRIDES[override] + key.removeprefix(override)] = value
            elif key.startswith(direct) or (transforms and is_transform_key(key)):
                task[key] = value
            else:
                own[key] = value
        self._kafka_security(security_findings(worker, resolved.values), resolved)
        if plugin is None:
            return None
        shared = {known.key for known in properties_of(plugin.config_model)}
        own |= {key: value for key, value in task.items() if key in shared and key.startswith(_TOPICS)}
        own = self._without_foreign(own, plugin, resolved)
        rows = "transforms" not in resolved.values
        self._transforms(task, resolved)
        for key in _CONVERTERS:
            if key in task:
                own[key] = task[key]
                self._configure_converter(key, task, resolved, rows=rows)
        config = self._model(plugin.config_model, own, resolved, suggestions=(*_CONVERTERS, *OVERRIDES))
        if config is None:
            return None
        try:
            connector = plugin(config)
        except ConfigError as error:
            self._add_foreign(error.findings, resolved)
            return None
        places = {key: str(entry.place) for key, entry in resolved.entries.items()} | {"": str(resolved.place)}
        return ConnectorSpec(name, connector, own, task, self._shown(resolved), places)

    def _transforms(self, task: Mapping[str, str], resolved: _Resolved) -> None:
        try:
            load_transforms(task)
        except ConfigError as error:
            self._add_foreign(error.findings, resolved)
        for key in unlisted_transforms(task):
            place = str(resolved.place_of(key))
            self._warnings.append(
                Finding("is of none of those listed", f"{resolved.scope}.{key}", place, "It is ignored")
            )

    def _without_foreign(self, own: Mapping[str, str], plugin: type[Connector], resolved: _Resolved) -> dict[str, str]:
        """What is the plugin's own. What is not, but known to it, is told of: ignored, or refused with the reason."""
        kept = {}
        for key, value in own.items():
            prefix = next((prefix for prefix in plugin.foreign_prefixes if key.startswith(prefix)), "")
            if key not in plugin.foreign and not prefix:
                kept[key] = value
                continue
            accepted, why = plugin.foreign[key] if key in plugin.foreign else ((), plugin.foreign_prefixes[prefix])
            full, place = f"{resolved.scope}.{key}", resolved.place_of(key)
            if not accepted or value in accepted:
                self._warnings.append(Finding(f"has no effect here: {why}", full, str(place), "It is ignored"))
            else:
                only = " or ".join(repr(choice) for choice in accepted)
                self._findings.add(place, f"only {only} is supported: {why}", full, "Remove the property")
        return kept

    def _plugin(self, resolved: _Resolved) -> type[Connector] | None:
        name = resolved.values.get("connector.class")
        if "connector.class" in resolved.unresolved:
            return None
        if not name:
            installed = ", ".join(plugins.connector_names())
            self._findings.add(
                resolved.place, "is required", f"{resolved.scope}.connector.class", f"Installed are {installed}"
            )
            return None
        try:
            return plugins.find_connector(name)
        except ConfigError as error:
            place = resolved.place_of("connector.class")
            self._findings.add(place, str(error), f"{resolved.scope}.connector.class")
            return None

    def _find_converter(self, name: str, key: str, resolved: _Resolved) -> None:
        try:
            plugins.find_converter(name)
        except ConfigError as error:
            self._findings.add(resolved.place_of(key), str(error), f"{resolved.scope}.{key}")

    def _configure_converter(self, key: str, task: Mapping[str, str], resolved: _Resolved, *, rows: bool) -> None:
        """Find what is wrong with a converter's properties. ``rows`` if nothing stands between it and whole rows."""
        is_key = key == "key.converter"
        try:
            converter = plugins.load_converter(task[key])
        except ConfigError as error:
            worker = self._documents.worker
            if key in resolved.values or worker is None or key not in worker.entries:  # else it was said there
                self._findings.add(resolved.place_of(key), str(error), f"{resolved.scope}.{key}")
            return
        if rows and not is_key and not converter.writes_rows:
            self._findings.add(
                resolved.place_of(key),
                f"{task[key]} cannot write rows so that they can be read back, and reads none",
                f"{resolved.scope}.{key}",
                "Use avro, json, jsonschema or protobuf, or transforms that make single values of the rows",
            )
        properties = converter_properties(task, is_key=is_key)
        if properties.get("schema.registry.url") == EMBEDDED:  # as it will be once the listener is there
            properties["schema.registry.url"] = task["listeners"]
        try:
            converter.configure(properties, is_key=is_key)
        except ConfigError as error:
            for finding in error.findings:
                full = f"{key}.{finding.key}" if finding.key else key
                self._findings.add(
                    resolved.place_of(full if full in resolved.entries else key),
                    finding.message,
                    f"{resolved.scope}.{full}",
                    finding.remedy,
                )

    def _model(
        self, model: type[_Model], values: Mapping[str, str], resolved: _Resolved, suggestions: Iterable[str]
    ) -> _Model | None:
        properties = properties_of(model)
        self._hide_secret_fields(properties, resolved)
        try:
            return model.model_validate(values)
        except ValidationError as error:
            known = {known.key for known in properties}
            for fault in faults(error, properties, resolved.show):
                if fault.key in resolved.unresolved:
                    continue  # said already, and the value is not what is meant
                remedy = fault.remedy or (nearest(fault.key, {*known, *suggestions}) if fault.key not in known else "")
                place = resolved.place if fault.missing else resolved.place_of(fault.key)
                self._findings.add(
                    place, fault.message, f"{resolved.scope}.{fault.key}" if fault.key else resolved.scope, remedy
                )
            return None

    def _hide_secret_fields(self, properties: Iterable[Property], resolved: _Resolved) -> None:
        for known in properties:
            for key in (known.key, *known.aliases):
                if known.secret and resolved.values.get(key):
                    resolved.hidden.add(key)
                    self._secrets.add(resolved.values[key])

    def _validate_together(self, specs: Sequence[ConnectorSpec], sections: Mapping[str, _Resolved]) -> None:
        for spec in specs:
            siblings = {other.name: other.connector for other in specs if other is not spec}
            self._add_foreign(spec.connector.validate(siblings), sections[spec.name])

    def _add_foreign(self, found: Iterable[Finding], resolved: _Resolved) -> None:
        """Findings of a plugin, whose keys are its own properties or full."""
        for finding in found:
            key = finding.key.removeprefix(resolved.scope + ".")
            full = f"{resolved.scope}.{key}" if key else resolved.scope
            self._findings.add(resolved.place_of(key), finding.message, full, finding.remedy)

    def _shown(self, resolved: _Resolved) -> dict[str, str]:
        return {
            self._secrets.redact(key): MASK
            if key in resolved.hidden and not REFERENCE.search(entry.text)
            else self._secrets.redact(entry.text)
            for key, entry in resolved.entries.items()
        }
