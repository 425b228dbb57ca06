"""The settings of a worker. Names and meanings are Kafka Connect's where it has them."""

from __future__ import annotations

import ipaddress
from typing import Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

__all__ = ["EMBEDDED", "FOREIGN", "PASSED_ON", "REGISTRY_CLIENT", "WorkerConfig"]

EMBEDDED: Final = "embedded"
"""The value of ``schema.registry.url`` with which the worker serves the registry itself."""

PASSED_ON: Final = (
    "producer.",
    "consumer.",
    "admin.",
    "security.",
    "sasl.",
    "ssl.",
    "enable.sasl.",
    "enable.ssl.",
    "https.ca.",
    "client.",
    "key.converter.",
    "value.converter.",
)
"""Prefixes of properties that go to Kafka's clients and to converters as they are."""

REGISTRY_CLIENT: Final = tuple(
    f"schema.registry.{family}" for family in ("basic.auth.", "bearer.auth.", "ssl.", "proxy.", "http.read.timeout.ms")
)
"""Prefixes of the registry client's properties: those not declared here are known to `cdc.registry.client_config`."""

FOREIGN: Final = frozenset(
    {
        "access.control.allow.methods",
        "access.control.allow.origin",
        "admin.listeners",
        "config.storage.replication.factor",
        "config.storage.topic",
        "connector.client.config.override.policy",
        "header.converter",
        "heartbeat.interval.ms",
        "offset.flush.interval.ms",  # offsets are committed with their records, four times a second or when idle
        "offset.flush.timeout.ms",
        "offset.storage.file.filename",
        "plugin.discovery",
        "plugin.path",
        "rebalance.timeout.ms",
        "response.http.headers.config",
        "rest.advertised.host.name",
        "rest.advertised.listener",
        "rest.advertised.port",
        "scheduled.rebalance.max.delay.ms",
        "session.timeout.ms",
        "status.storage.partitions",
        "status.storage.replication.factor",
        "status.storage.topic",
        "topic.creation.enable",
        "topic.tracking.allow.reset",
        "topic.tracking.enable",
    }
)
"""Worker settings of Kafka Connect without a meaning here: accepted from a copied file, with a warning."""


def _dotted(name: str) -> str:
    return name.replace("_", ".")


class WorkerConfig(BaseModel):
    """The settings of a worker. A field ``group_id`` is the property ``group.id``. Times are in milliseconds."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=_dotted, hide_input_in_errors=True)

    bootstrap_servers: str = Field(description="Kafka brokers to start from: host:port, comma-separated.")
    group_id: str = Field(
        default="cdc", pattern=r"^[A-Za-z0-9._\-]{1,200}$", description="Names the worker's internal topics and ids."
    )
    listeners: str = Field(
        default="http://127.0.0.1:8083",
        description="Where the worker answers: health and the embedded registry. Port 0 is any free one.",
    )

    schema_registry_url: str = Field(
        default=EMBEDDED, description="URL of a Confluent-compatible registry, or embedded: the worker serves one."
    )
    schema_registry_basic_auth_credentials_source: Literal["URL", "USER_INFO"] = Field(
        default="URL", description="Where user and password for the registry come from."
    )
    schema_registry_basic_auth_user_info: SecretStr = Field(
        default=SecretStr(""), description="user:password for the registry, with USER_INFO."
    )
    schema_registry_bearer_auth_token: SecretStr = Field(
        default=SecretStr(""), description="Bearer token for the registry."
    )
    schema_registry_ssl_ca_location: str = Field(
        default="", description="File with the certificate authorities to trust for the registry."
    )
    schema_registry_ssl_certificate_location: str = Field(
        default="", description="File with the client certificate for the registry."
    )
    schema_registry_ssl_key_location: str = Field(
        default="", description="File with the client's private key for the registry."
    )
    schema_registry_ssl_key_password: SecretStr = Field(
        default=SecretStr(""), description="Password of the client's private key for the registry."
    )

    key_converter: str = Field(default="avro", description="Converter for record keys, where a connector names none.")
    value_converter: str = Field(
        default="avro", description="Converter for record values, where a connector names none."
    )

    offset_storage_topic: str = Field(
        default="", description="Compacted topic of the source offsets; default <group.id>-offsets."
    )
    offset_storage_partitions: int = Field(default=25, ge=1, le=1000, description="Its partitions, when it is created.")
    offset_storage_replication_factor: int = Field(
        default=-1, ge=-1, description="Its replication factor, when it is created; -1 is the broker's default."
    )
    exactly_once_source_support: Literal["enabled", "disabled"] = Field(
        default="enabled", description="Whether records and source offsets are written in one Kafka transaction."
    )
    topic_creation_default_partitions: int = Field(
        default=-1, ge=-1, description="Partitions of topics that are created; -1 is the broker's default."
    )
    topic_creation_default_replication_factor: int = Field(
        default=-1, ge=-1, description="Replication factor of topics that are created; -1 is the broker's default."
    )

    task_restart_policy: Literal["backoff", "never"] = Field(
        default="backoff", description="What becomes of a task that dies: restarted with backoff, or left FAILED."
    )
    task_restart_backoff_initial_ms: int = Field(
        default=1000, ge=1, description="Wait before the first restart; doubles with each that follows, with jitter."
    )
    task_restart_backoff_max_ms: int = Field(default=60000, ge=1, description="Longest wait before a restart.")
    task_restart_backoff_fatal_ms: int = Field(
        default=30000, ge=1, description="First wait after an error that an operator must mend; doubles, to tenfold."
    )
    task_restart_reset_ms: int = Field(
        default=60000, ge=1, description="How long a task must run before its next failure counts as the first."
    )
    task_shutdown_graceful_timeout_ms: int = Field(
        default=20000,
        ge=0,
        le=25000,
        description="How long tasks may take to stop before they are killed. The worker ends within 30 s.",
    )

    config_providers: str = Field(
        default="", description="Names of config providers, comma-separated, beside env, file and directory."
    )

    @field_validator("listeners")
    @classmethod
    def _listener(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            port = parts.port
        except ValueError:
            raise ValueError(f"expected http://host:port, got {value!r}") from None
        if parts.scheme != "http" or not parts.hostname or port is None or parts.path not in {"", "/"}:
            raise ValueError(f"expected one http://host:port, got {value!r}")
        if not _is_loopback(parts.hostname):
            raise ValueError(
                f"{parts.hostname} is not a loopback address, and the listener has neither TLS nor authentication; "
                f"use http://127.0.0.1:{port} and put a proxy that has both in front of it"
            )
        return value.rstrip("/")

    @field_validator("schema_registry_url")
    @classmethod
    def _registry(cls, value: str) -> str:
        if value == EMBEDDED:
            return value
        for url in value.split(","):
            parts = urlsplit(url.strip())
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise ValueError("expected embedded, or URLs that begin with http:// or https://")
        return value

    @field_validator("bootstrap_servers")
    @classmethod
    def _brokers(cls, value: str) -> str:
        brokers = [part.strip() for part in value.split(",")]
        for broker in brokers:
            host, colon, port = broker.rpartition(":")
            if not (host and colon and port.isdecimal() and 0 < int(port) < 65536) or any(map(str.isspace, broker)):
                raise ValueError(f"expected host:port, comma-separated, got {broker!r}")
        return ",".join(brokers)

    @model_validator(mode="after")
    def _restarts(self) -> Self:
        if self.task_restart_backoff_initial_ms > self.task_restart_backoff_max_ms:
            raise ValueError("task.restart.backoff.initial.ms is greater than task.restart.backoff.max.ms")
        return self

    def properties(self) -> dict[str, str]:
        """All settings as flat properties, defaults included; secrets in clear."""
        dumped = {
            alias: value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            for alias, value in ((_dotted(name), getattr(self, name)) for name in type(self).model_fields)
        }
        dumped["offset.storage.topic"] = self.offset_storage_topic or f"{self.group_id}-offsets"
        return dumped


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
