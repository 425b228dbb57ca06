"""What `cdc check` says of a role that lacks a privilege, and that its own statements mend it."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from cdc.postgres.choice import chosen_tables
from cdc.postgres.config import PostgresConfig
from cdc.postgres.connection import connect
from cdc.postgres.privileges import privilege_findings
from tests.fix_servers import Database

pytestmark = pytest.mark.integration


def test_what_a_role_lacks_is_named_and_its_remedies_mend_it(database: Database) -> None:
    role = f"poor_{database.name}"
    database.execute(
        "create schema inner_s; create table t (id int primary key); create table inner_s.u (id int primary key)"
    )
    database.execute(f"create role {role} login replication password 'poor'")
    try:
        with psycopg.connect(database.dsn) as session:
            place = conninfo_to_dict(session.info.dsn)
        config = PostgresConfig.model_validate(
            {
                "name": "shop",
                "connector.class": "postgres",
                "topic.prefix": "shop",
                "database.hostname": place["host"],
                "database.port": str(place["port"]),
                "database.dbname": database.name,
                "database.user": role,
                "database.password": "poor",
            }
        )
        with connect(config.conninfo(), "test") as connection:
            tables = chosen_tables(connection, config).tables
            findings = privilege_findings(connection, config, tables)
            assert [finding.key for finding in findings] == ["database.user", "database.user", "publication.name"]
            for finding in findings:
                database.execute(finding.remedy)
            assert privilege_findings(connection, config, tables) == []
    finally:
        database.execute(f"drop owned by {role}; drop role {role}")
