"""Several hosts in one setting, as libpq takes them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from cdc.postgres.config import PostgresConfig
from cdc.postgres.connector import PostgresSourceConnector


def config(**settings: str) -> PostgresConfig:
    return PostgresConfig.model_validate(
        {
            "name": settings.pop("name", "shop"),
            "connector.class": "postgres",
            "database.user": "cdc",
            "database.dbname": "shop",
            "topic.prefix": settings.pop("prefix", "shop"),
            **{key.replace("_", "."): value for key, value in settings.items()},
        }
    )


@pytest.mark.parametrize(
    ("settings", "host", "port", "wanted"),
    [
        ({}, "localhost", "5432", None),
        ({"database_hostname": "a, b", "database_port": "5433"}, "a,b", "5433,5433", "primary"),
        ({"database_hostname": "a,b", "database_port": "1,2"}, "a,b", "1,2", "primary"),
        ({"database_hostname": "a", "database_target_session_attrs": "standby"}, "a", "5432", "standby"),
        ({"database_hostname": "a,b", "database_target_session_attrs": "any"}, "a,b", "5432,5432", "any"),
    ],
)
def test_hosts_and_ports_go_together(settings: dict[str, str], host: str, port: str, wanted: str | None) -> None:
    found = config(**settings).conninfo()
    assert (found["host"], found["port"], found.get("target_session_attrs")) == (host, port, wanted)


@pytest.mark.parametrize("port", ["0", "65536", "5432,x", "", "5432,-1"])
def test_a_port_is_a_number_of_a_port(port: str) -> None:
    with pytest.raises(ValidationError, match="expected a port from 1 to 65535"):
        config(database_port=port)


def test_as_many_ports_as_hosts_or_one() -> None:
    connector = PostgresSourceConnector(config(database_hostname="a,b,c", database_port="1,2"))
    (finding,) = connector.validate({})
    assert (finding.key, finding.message) == ("database.port", "has 2 ports for 3 hosts")


def test_two_connectors_that_share_one_of_their_hosts_may_not_share_a_slot() -> None:
    one = PostgresSourceConnector(config(database_hostname="a,b", slot_name="s"))
    other = PostgresSourceConnector(config(name="other", prefix="other", database_hostname="b", slot_name="s"))
    (finding,) = other.validate({"shop": one})
    assert finding.key == "slot.name"
