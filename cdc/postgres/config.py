"""The settings of the Postgres source connector. Names and values are Debezium's where it has them."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from cdc.postgres.record_settings import RecordSettings

__all__ = ["PostgresConfig"]

_NOT_IN_TOPICS = re.compile(r"[^A-Za-z0-9._\-]")
_SLOT_CHARACTERS = re.compile(r"[^a-z0-9_]")


class PostgresConfig(RecordSettings):
    """Settings of a Postgres source. Times are in milliseconds, as in Debezium."""

    database_hostname: str = Field(default="localhost", description="Host of the Postgres server.")
    database_port: int = Field(default=5432, ge=1, le=65535, description="Port of the Postgres server.")
    database_user: str = Field(description="Role to connect as; needs REPLICATION and SELECT on the tables.")
    database_password: SecretStr = Field(default=SecretStr(""), description="Password of the role.")
    database_dbname: str = Field(description="Database to read.")
    database_sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = Field(
        default="prefer", description="libpq's sslmode."
    )
    database_sslrootcert: str = Field(default="", description="File with the certificate authorities to trust.")
    database_sslcert: str = Field(default="", description="File with the client certificate.")
    database_sslkey: str = Field(default="", description="File with the client's private key.")

    topic_prefix: str = Field(
        pattern=r"^[A-Za-z0-9._\-]+$", description="First part of every topic: <topic.prefix>.<schema>.<table>."
    )
    table_include_list: str = Field(
        default="", description="Regular expressions, comma-separated, matched against all of <schema>.<table>."
    )
    table_exclude_list: str = Field(default="", description="Like table.include.list, for tables to leave out.")
    schema_include_list: str = Field(default="", description="Regular expressions for schemas to capture.")
    schema_exclude_list: str = Field(default="", description="Regular expressions for schemas to leave out.")

    plugin_name: Literal["pgoutput"] = Field(default="pgoutput", description="Output plugin; only pgoutput.")
    slot_name: str = Field(
        default="", max_length=63, pattern=r"^[a-z0-9_]*$", description="Replication slot; default cdc_<name>."
    )
    publication_name: str = Field(default="", max_length=63, description="Publication; default cdc_<name>.")
    publication_autocreate_mode: Literal["filtered", "all_tables", "disabled"] = Field(
        default="filtered",
        description="filtered: create the publication and keep it to the chosen tables; disabled: it must exist.",
    )

    snapshot_mode: Literal["initial", "initial_only", "no_data", "always", "when_needed"] = Field(
        default="initial", description="Whether to read the rows that are there before streaming."
    )
    snapshot_fetch_size: int = Field(
        default=10240, ge=1, le=1_000_000, description="Rows to read in one chunk of a snapshot."
    )
    toast_handling_mode: Literal["reselect", "mark", "placeholder"] = Field(
        default="reselect",
        description="Unchanged TOAST: read it again, leave it out and name it in a header, or Debezium's filler.",
    )
    tombstones_on_delete: bool = Field(default=True, description="Follow a delete with a tombstone.")
    skipped_operations: str = Field(
        default="none", description="Operations to leave out: c, u, d, t, comma-separated, or none."
    )
    decimal_handling_mode: Literal["precise", "string", "double"] = Field(
        default="precise", description="How numeric values are written."
    )
    time_precision_mode: Literal[
        "adaptive", "adaptive_time_microseconds", "connect", "isostring", "microseconds", "nanoseconds"
    ] = Field(default="adaptive", description="How dates and times are written.")
    binary_handling_mode: Literal["bytes", "base64", "base64-url-safe", "hex"] = Field(
        default="bytes", description="How bytea values are written."
    )
    hstore_handling_mode: Literal["json", "map"] = Field(default="json", description="How hstore values are written.")
    interval_handling_mode: Literal["numeric", "string"] = Field(
        default="numeric", description="How interval values are written."
    )
    money_fraction_digits: int = Field(default=2, ge=0, le=10, description="Digits after the point of money.")
    status_update_interval_ms: int = Field(
        default=10000, ge=100, description="Longest time between two status updates to the server."
    )

    @field_validator("table_include_list", "table_exclude_list", "schema_include_list", "schema_exclude_list")
    @classmethod
    def _expressions(cls, value: str) -> str:
        for expression in split_list(value):
            try:
                re.compile(expression)
            except re.error as error:
                raise ValueError(f"{expression!r} is not a regular expression: {error}") from None
        return value

    @field_validator("skipped_operations")
    @classmethod
    def _operations(cls, value: str) -> str:
        unknown = [name for name in split_list(value) if name not in {"c", "u", "d", "t", "none"}]
        if unknown:
            raise ValueError(f"{', '.join(unknown)} is not an operation; use c, u, d, t or none")
        return value

    @property
    def slot(self) -> str:
        """The replication slot's name."""
        return self.slot_name or ("cdc_" + _SLOT_CHARACTERS.sub("_", self.name.lower()))[:63]

    @property
    def publication(self) -> str:
        """The publication's name."""
        return self.publication_name or ("cdc_" + _SLOT_CHARACTERS.sub("_", self.name.lower()))[:63]

    @property
    def skipped(self) -> frozenset[str]:
        """Operations that are not captured."""
        return frozenset(split_list(self.skipped_operations)) - {"none"}

    def captures(self, schema: str, table: str) -> bool:
        """Whether the include and exclude lists choose the table. Expressions match whole names, as Debezium's."""
        if schema in {"pg_catalog", "information_schema"} or schema.startswith("pg_toast"):
            return False
        name = f"{schema}.{table}"
        return (
            (not self.schema_include_list or _matches(self.schema_include_list, schema))
            and not _matches(self.schema_exclude_list, schema)
            and (not self.table_include_list or _matches(self.table_include_list, name))
            and not _matches(self.table_exclude_list, name)
        )

    def topic(self, schema: str, table: str) -> str:
        """The topic of a table. Characters that Kafka does not allow become ``_``, as in Debezium."""
        return _NOT_IN_TOPICS.sub("_", f"{self.topic_prefix}.{schema}.{table}")

    def conninfo(self) -> dict[str, str]:
        """libpq's connection parameters, secrets included."""
        parameters = {
            "host": self.database_hostname,
            "port": str(self.database_port),
            "user": self.database_user,
            "password": self.database_password.get_secret_value(),
            "dbname": self.database_dbname,
            "sslmode": self.database_sslmode,
            "sslrootcert": self.database_sslrootcert,
            "sslcert": self.database_sslcert,
            "sslkey": self.database_sslkey,
        }
        return {name: value for name, value in parameters.items() if value}


def split_list(value: str) -> list[str]:
    """A comma-separated list as Connect reads it."""
    return [part.strip() for part in value.split(",") if part.strip()]


def _matches(expressions: str, name: str) -> bool:
    return any(re.fullmatch(expression, name) for expression in split_list(expressions))
