"""The settings of the Postgres source connector. Names and values are Debezium's where it has them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from cdc.postgres.selection import Names, Selection, identity_rules, key_rules, mask_rules, split_list
from cdc.postgres.snapshot_settings import SnapshotSettings

__all__ = ["PostgresConfig"]

_NOT_IN_TOPICS = re.compile(r"[^A-Za-z0-9._\-]")
_SLOT_CHARACTERS = re.compile(r"[^a-z0-9_]")
_IN_NAMES: Final = {
    "column.mask.with.<length>.chars": re.compile(r"column\.mask\.with\.(.+)\.chars"),
    "column.truncate.to.<length>.chars": re.compile(r"column\.truncate\.to\.(.+)\.chars"),
    "snapshot.select.statement.overrides.<schema>.<table>": re.compile(r"snapshot\.select\.statement\.overrides\.(.+)"),
    "column.mask.hash.<algorithm>.with.salt.<salt>": re.compile(r"column\.mask\.hash\.(.+\.with\.salt\..+)"),
}
"""Properties that carry a part of their value in their names, as Debezium's do."""


class PostgresConfig(SnapshotSettings):
    """Settings of a Postgres source. Times are in milliseconds, as in Debezium."""

    database_hostname: str = Field(
        default="localhost",
        description="Host of the Postgres server; or several, comma-separated: the first that answers and is what "
        "database.target.session.attrs wants.",
    )
    database_port: str = Field(
        default="5432", description="Port of the Postgres server; or one for each host, comma-separated."
    )
    database_target_session_attrs: Literal["any", "read-write", "read-only", "primary", "standby"] | None = Field(
        default=None,
        description="libpq's target_session_attrs: what a host must be. Default: primary with several hosts, else any.",
    )
    database_user: str = Field(description="Role to connect as; needs REPLICATION and SELECT on the tables.")
    database_password: SecretStr = Field(default=SecretStr(""), description="Password of the role.")
    database_dbname: str = Field(description="Database to read.")
    database_sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = Field(
        default="prefer",
        description="libpq's sslmode. Only verify-full proves who the server is; prefer falls back to no encryption.",
    )
    database_sslrootcert: str = Field(
        default="", description="File with the certificate authorities to trust (PEM); system: the system's."
    )
    database_sslcert: str = Field(default="", description="File with the client certificate.")
    database_sslkey: str = Field(default="", description="File with the client's private key.")
    database_sslpassword: SecretStr = Field(
        default=SecretStr(""), description="Password of the client's private key, if it has one."
    )

    topic_prefix: str = Field(
        pattern=r"^[A-Za-z0-9._\-]+$", description="First part of every topic: <topic.prefix>.<schema>.<table>."
    )
    table_include_list: str = Field(
        default="", description="Regular expressions, comma-separated, matched against all of <schema>.<table>."
    )
    table_exclude_list: str = Field(default="", description="Like table.include.list, for tables to leave out.")
    schema_include_list: str = Field(default="", description="Regular expressions for schemas to capture.")
    schema_exclude_list: str = Field(default="", description="Regular expressions for schemas to leave out.")

    column_include_list: str = Field(
        default="",
        description="Regular expressions, comma-separated, matched against all of <schema>.<table>.<column>. "
        "Columns of the record key are always in.",
    )
    column_exclude_list: str = Field(default="", description="Like column.include.list, for columns to leave out.")
    column_mask_stars: Mapping[str, str] = Field(
        default_factory=dict,
        alias="column.mask.with.<length>.chars",
        description="Columns, as in column.include.list, whose values are written as so many asterisks; any type "
        "becomes a string, NULL stays NULL.",
    )
    column_truncations: Mapping[str, str] = Field(
        default_factory=dict,
        alias="column.truncate.to.<length>.chars",
        description="Columns of text whose values are cut to so many characters.",
    )
    column_hashes: Mapping[str, str] = Field(
        default_factory=dict,
        alias="column.mask.hash.<algorithm>.with.salt.<salt>",
        description="Columns whose values are written as a salted hash, of Java's serialized form or, with "
        "column.mask.hash.v2, of the text; any type becomes a string, NULL stays NULL.",
    )
    column_propagate_source_type: str = Field(
        default="",
        description="Columns whose type in Postgres is told by parameters of their schema, as in column.include.list.",
    )
    datatype_propagate_source_type: str = Field(
        default="",
        description="Like column.propagate.source.type, by type: expressions for <schema>.<table>.<type>.",
    )
    message_key_columns: str = Field(
        default="",
        description="Record keys in place of the primary key: <schema>.<table>:<column>,<column>;… "
        "(regular expressions).",
    )

    topic_cleanup_policy: str = Field(
        default="compact",
        pattern="^(compact|delete|compact,delete|delete,compact)$",
        alias="topic.creation.default.cleanup.policy",
        description="compact: topics of tables with a record key keep the last record of each key; delete: they are "
        "logs of changes.",
    )

    plugin_name: Literal["pgoutput"] = Field(default="pgoutput", description="Output plugin; only pgoutput.")
    slot_failover: bool = Field(
        default=False,
        description="Have the standbys keep the slot in step, so that the stream goes on when one of them is promoted "
        "(Postgres 17).",
    )
    read_only: bool = Field(
        default=False,
        description="Write nothing to the database, no logical messages either: snapshots are placed in the stream by "
        "its LSN. Always so on a standby.",
    )
    slot_name: str = Field(
        default="", max_length=63, pattern=r"^[a-z0-9_]*$", description="Replication slot; default cdc_<name>."
    )
    publication_name: str = Field(default="", max_length=63, description="Publication; default cdc_<name>.")
    publication_autocreate_mode: Literal["filtered", "all_tables", "disabled", "no_tables"] = Field(
        default="filtered",
        description="filtered: create the publication and keep it to the chosen tables; all_tables: create it for "
        "every table of the database; no_tables: create it empty, tables are added by hand; disabled: it must exist.",
    )
    publish_via_partition_root: bool | None = Field(
        default=None,
        description="true: changes of partitions are told as their table's; false: under their own names. "
        "Default: true when a partitioned table is chosen.",
    )
    publish_origin: Literal["any", "none"] = Field(
        default="any",
        description="none: changes that replication brought from another server are not told (Postgres 16).",
    )

    toast_handling_mode: Literal["reselect", "mark", "placeholder"] = Field(
        default="reselect",
        description="Unchanged TOAST: read it again, leave it out and name it in a header, or Debezium's filler.",
    )
    unavailable_value_placeholder: str = Field(
        default="__debezium_unavailable_value",
        min_length=1,
        description="What toast.handling.mode=placeholder writes; hex: before it gives bytes in hexadecimal digits.",
    )
    replica_identity_autoset_values: str = Field(
        default="",
        description="Replica identities to set at start: <schema>.<table>:FULL|DEFAULT|NOTHING|INDEX <name>, "
        "comma-separated, tables as in table.include.list.",
    )
    tombstones_on_delete: bool = Field(default=True, description="Follow a delete with a tombstone.")
    skipped_operations: str = Field(
        default="",
        description="Operations to leave out: c, u, d, t, comma-separated, or none. Default none; t, which is "
        "Debezium's, under Debezium's class name.",
    )
    skip_messages_without_change: bool = Field(
        default=False,
        description="Leave out updates that changed no captured column; needs REPLICA IDENTITY FULL.",
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
    schema_refresh_ms: int = Field(
        default=5000,
        ge=100,
        description="How often to look at the catalog for changes that the stream does not tell.",
    )
    schema_resnapshot_enabled: bool = Field(
        default=True,
        description="Read a table again after DDL that changed its rows without writing them to the WAL.",
    )
    schema_resnapshot_max_rows_per_second: int = Field(
        default=20_000, ge=1, description="How fast a table is read again after DDL."
    )
    schema_incompatible_handling_mode: Literal["evolve", "fail", "dlq"] = Field(
        default="evolve",
        description="A value schema that the registry refuses: evolve sets the subject's compatibility to NONE, fail "
        "stops the table, dlq writes its changes to errors.deadletterqueue.topic.name. It is read again when mended.",
    )
    schema_key_change_handling_mode: Literal["fail", "renew"] = Field(
        default="fail",
        description="A changed key type or column: fail stops the table, renew deletes its keys and reads it again.",
    )
    status_update_interval_ms: int = Field(
        default=10000, ge=100, description="Longest time between two status updates to the server."
    )
    wal_receiver_timeout_ms: int = Field(
        default=60000,
        ge=0,
        description="How long the server may be silent before the connection counts as lost; asked after half of it. "
        "As Postgres's wal_receiver_timeout; 0 is never.",
    )

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, values: Any) -> Any:
        """Properties with a part of their value in their names become one mapping each."""
        if not isinstance(values, Mapping):
            return values
        rest: dict[str, Any] = {}
        gathered: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            found = ((alias, pattern.fullmatch(name)) for alias, pattern in _IN_NAMES.items() if alias != name)
            alias, match = next(((alias, match) for alias, match in found if match), ("", None))
            if match is None:
                rest[name] = value
            else:
                gathered.setdefault(alias, {})[match[1]] = value
        return {**rest, **gathered}

    @field_validator(
        "table_include_list",
        "table_exclude_list",
        "schema_include_list",
        "schema_exclude_list",
        "column_include_list",
        "column_exclude_list",
        "column_propagate_source_type",
        "datatype_propagate_source_type",
        "snapshot_include_collection_list",
    )
    @classmethod
    def _expressions(cls, value: str) -> str:
        Names(value)
        return value

    @field_validator("database_port")
    @classmethod
    def _ports(cls, value: str) -> str:
        for port in split_list(value) or [value]:
            if not port.isdecimal() or not 1 <= int(port) <= 65535:
                raise ValueError(f"expected a port from 1 to 65535, or one for each host, got {port!r}")
        return value

    @field_validator("message_key_columns")
    @classmethod
    def _keys(cls, value: str) -> str:
        key_rules(value)
        return value

    @field_validator("column_mask_stars", "column_truncations", "column_hashes")
    @classmethod
    def _masks(cls, value: Mapping[str, str], info: Any) -> Mapping[str, str]:
        place = ("column_mask_stars", "column_truncations", "column_hashes").index(info.field_name)
        rules: list[Mapping[str, str]] = [{}, {}, {}]
        rules[place] = value
        mask_rules(*rules)
        return value

    @field_validator("unavailable_value_placeholder")
    @classmethod
    def _placeholder(cls, value: str) -> str:
        if value.startswith("hex:"):
            try:
                bytes.fromhex(value.removeprefix("hex:"))
            except ValueError:
                raise ValueError("expected hexadecimal digits after hex:") from None
        return value

    @field_validator("replica_identity_autoset_values")
    @classmethod
    def _identities(cls, value: str) -> str:
        identity_rules(value)
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
    def signal_topic(self) -> str:
        """The topic of signals."""
        return self.signal_kafka_topic or f"{self.topic_prefix}-signal"

    @property
    def compacted(self) -> bool:
        """Whether topics of tables with a record key forget all but the last record of each key."""
        return "compact" in self.topic_cleanup_policy

    @property
    def skipped(self) -> frozenset[str]:
        """Operations that are not captured."""
        default = "t" if self.connector_class.startswith("io.debezium.") else "none"
        return frozenset(split_list(self.skipped_operations or default)) - {"none"}

    @cached_property
    def selection(self) -> Selection:
        """The lists, compiled."""
        return Selection(
            schemas=Names(self.schema_include_list),
            no_schemas=Names(self.schema_exclude_list),
            tables=Names(self.table_include_list),
            no_tables=Names(self.table_exclude_list),
            columns=Names(self.column_include_list),
            no_columns=Names(self.column_exclude_list),
            keys=key_rules(self.message_key_columns),
            masks=mask_rules(self.column_mask_stars, self.column_truncations, self.column_hashes),
        )

    def captures(self, schema: str, table: str) -> bool:
        """Whether the include and exclude lists choose the table."""
        return self.selection.table(schema, table)

    def reads_rows(self, schema: str, table: str) -> bool:
        """Whether a snapshot reads the rows of a captured table."""
        names = Names(self.snapshot_include_collection_list)
        return not names or names.match(f"{schema}.{table}")

    def reads_again(self, schema: str, table: str) -> bool:
        """Whether a captured table is read again after its rows changed without being in the WAL."""
        return self.schema_resnapshot_enabled and self.snapshot_mode != "no_data" and self.reads_rows(schema, table)

    def topic(self, schema: str, table: str) -> str:
        """The topic of a table. Characters that Kafka does not allow become ``_``, as in Debezium."""
        return self.topic_named(schema, table)

    def topic_named(self, *parts: str) -> str:
        """``topic.prefix`` and ``parts``, with the delimiter between."""
        return _NOT_IN_TOPICS.sub("_", self.topic_delimiter.join((self.topic_prefix, *parts)))

    @property
    def placeholder(self) -> bytes:
        """What stands for a value that the WAL does not carry, where a filler is wanted."""
        text = self.unavailable_value_placeholder
        return bytes.fromhex(text.removeprefix("hex:")) if text.startswith("hex:") else text.encode("utf-8")

    @property
    def hosts(self) -> list[tuple[str, str]]:
        """The servers to try, as host and port."""
        hosts, ports = split_list(self.database_hostname), split_list(self.database_port)
        return list(zip(hosts, ports if len(ports) == len(hosts) else ports * len(hosts), strict=False))

    def conninfo(self) -> dict[str, str]:
        """libpq's connection parameters, secrets included."""
        several = len(self.hosts) > 1
        parameters = {
            "host": ",".join(host for host, _ in self.hosts),
            "port": ",".join(port for _, port in self.hosts),
            "target_session_attrs": self.database_target_session_attrs or ("primary" if several else ""),
            "user": self.database_user,
            "password": self.database_password.get_secret_value(),
            "dbname": self.database_dbname,
            "sslmode": self.database_sslmode,
            "sslrootcert": self.database_sslrootcert,
            "sslcert": self.database_sslcert,
            "sslkey": self.database_sslkey,
            "sslpassword": self.database_sslpassword.get_secret_value(),
        }
        return {name: value for name, value in parameters.items() if value}
