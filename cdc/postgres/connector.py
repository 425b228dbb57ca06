"""The plugin: a Postgres source connector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

from cdc.errors import CdcError, FatalError, Finding, RetriableError
from cdc.plugin import Connector, SignalTopic, SourceConnector, Stream, Survey, TaskContext
from cdc.postgres import preparation
from cdc.postgres.captured import table_findings
from cdc.postgres.catalog import TableInfo
from cdc.postgres.choice import chosen_tables
from cdc.postgres.config import PostgresConfig
from cdc.postgres.connection import Connection
from cdc.postgres.foreign import FOREIGN, FOREIGN_PREFIXES
from cdc.postgres.names import field_names
from cdc.postgres.privileges import privilege_findings
from cdc.postgres.selection import split_list
from cdc.postgres.server import Server
from cdc.postgres.signal_table import find_signal_table
from cdc.postgres.signals import read
from cdc.postgres.standby_checks import failover_findings, feedback_findings
from cdc.postgres.task import PostgresSourceTask

__all__ = ["PostgresSourceConnector"]


class PostgresSourceConnector(SourceConnector):
    """Tails one logical replication slot of one database; takes Debezium's settings."""

    aliases: ClassVar[tuple[str, ...]] = ("io.debezium.connector.postgresql.PostgresConnector", "PostgresConnector")
    config_model = PostgresConfig
    foreign = FOREIGN
    foreign_prefixes = FOREIGN_PREFIXES

    @property
    def settings(self) -> PostgresConfig:
        return cast(PostgresConfig, self.config)

    def validate(self, siblings: Mapping[str, Connector]) -> Sequence[Finding]:
        findings = []
        mine = self.settings
        for name, other in siblings.items():
            if name == mine.name or not isinstance(other, PostgresSourceConnector):
                continue
            theirs = other.settings
            if set(theirs.hosts) & set(mine.hosts) and theirs.slot == mine.slot:
                findings.append(
                    Finding(f"uses the replication slot {mine.slot} of connector {name} too", key="slot.name")
                )
            if theirs.topic_prefix == mine.topic_prefix:
                findings.append(
                    Finding(f"uses the topic prefix {mine.topic_prefix} of connector {name} too", key="topic.prefix")
                )
        hosts, ports = len(split_list(mine.database_hostname)), len(split_list(mine.database_port))
        if ports not in (1, hosts):
            findings.append(
                Finding(
                    f"has {ports} ports for {hosts} hosts",
                    key="database.port",
                    remedy="Give one for all, or one for each of database.hostname",
                )
            )
        queue = mine.errors_tolerance == "all" and mine.errors_deadletterqueue_topic_name
        if mine.schema_incompatible_handling_mode == "dlq" and not queue:
            findings.append(
                Finding(
                    "dlq needs a dead letter queue",
                    key="schema.incompatible.handling.mode",
                    remedy="Set errors.tolerance=all and errors.deadletterqueue.topic.name; or set it to evolve (a new "
                    "version, compatibility NONE) or fail (the table stops)",
                )
            )
        if mine.tasks_max != 1:
            findings.append(Finding("a replication slot is read by one task", key="tasks.max", remedy="Set it to 1"))
        return findings

    def check(self) -> Sequence[Finding]:
        """What would keep the task from starting, or harm the application, with the statement that mends it."""
        config = self.settings
        server = Server(config, "cdc/check")
        try:
            connection = server.connection()
        except RetriableError as error:
            remedy = "Start Postgres, or correct database.hostname and database.port"
            return [Finding(str(error), key="database.hostname", remedy=remedy)]
        except CdcError as error:
            return [Finding(str(error), key="database.hostname")]
        with connection:
            settings = preparation.settings_of(connection)
            findings = preparation.server_findings(settings, config, standby=server.standby)
            findings += feedback_findings(settings, standby=server.standby)
            findings += failover_findings(connection, config, settings, standby=server.standby)
            chosen = chosen_tables(connection, config)
            findings += chosen.findings + table_findings(chosen.tables, config, connection.info.server_version)
            findings += find_signal_table(connection, config)[1]
            findings += _capacity(connection, config, settings)
            try:
                preparation.verify_slot(preparation.slot_of(connection, config), config, None)
            except CdcError as error:
                findings.append(Finding(str(error), key="slot.name"))
            findings += privilege_findings(connection, config, chosen.tables)
        try:
            stream = server.stream()
        except CdcError as error:
            findings.append(
                Finding(
                    str(error),
                    key="database.user",
                    remedy=f'ALTER ROLE "{config.database_user}" REPLICATION; and allow it in pg_hba.conf',
                )
            )
        else:
            stream.close()
        return findings

    def survey(self) -> Survey:
        """The tables that the lists choose, and everything that forbids to stream them."""
        config = self.settings
        try:
            server = Server(config, "cdc/survey")
            connection = server.connection()
        except FatalError as error:
            return Survey((), [Finding(str(error), key="database.user")])
        with connection:
            settings = preparation.settings_of(connection)
            findings = preparation.server_findings(settings, config, standby=server.standby)
            chosen = chosen_tables(connection, config)
            found = table_findings(chosen.tables, config, connection.info.server_version)
        streams = [
            Stream(config.topic(table.schema, table.name), table.schema, table.name, _key_fields(config, table))
            for table in chosen.tables
        ]
        return Survey(streams, findings + chosen.findings + found)

    @property
    def refuses_incompatible_schemas(self) -> bool:
        return self.settings.schema_incompatible_handling_mode != "evolve"

    @property
    def queues_incompatible_schemas(self) -> bool:
        return self.settings.schema_incompatible_handling_mode == "dlq"

    @property
    def signals(self) -> SignalTopic | None:
        mine = self.settings
        return SignalTopic(mine.signal_topic, mine.topic_prefix.encode()) if mine.takes_signals_from_kafka else None

    def check_signal(self, kind: str, data: Any) -> None:
        read(kind, data)

    def task(self, context: TaskContext) -> PostgresSourceTask:
        return PostgresSourceTask(self.settings, context)


def _key_fields(config: PostgresConfig, table: TableInfo) -> tuple[str, ...]:
    """The fields of the table's record keys, if they tell rows apart."""
    if not table.distinct:
        return ()
    return tuple(field_names(config.field_name_adjustment_mode, table.key, table.full_name))


def _capacity(connection: Connection, config: PostgresConfig, settings: Mapping[str, str]) -> list[Finding]:
    """Slots and walsenders left."""
    findings = []
    row = connection.execute(
        "select (select count(*) from pg_replication_slots), (select count(*) from pg_stat_replication)"
    ).fetchone()
    slots, senders = row if row else (0, 0)
    most_slots = int(settings.get("max_replication_slots", "0"))
    most_senders = int(settings.get("max_wal_senders", "0"))
    if slots >= most_slots and preparation.slot_of(connection, config) is None:
        findings.append(
            Finding(
                f"all {most_slots} replication slots are taken",
                key="max_replication_slots",
                remedy=f"ALTER SYSTEM SET max_replication_slots = {most_slots + 10}; then restart the server",
            )
        )
    if senders >= most_senders:
        findings.append(
            Finding(
                f"all {most_senders} walsenders are busy",
                key="max_wal_senders",
                remedy=f"ALTER SYSTEM SET max_wal_senders = {most_senders + 10}; then restart the server",
            )
        )
    return findings
