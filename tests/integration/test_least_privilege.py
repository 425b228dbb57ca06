"""A whole bridge over TLS with no more rights than docs/security.md grants, on Postgres, Kafka and Redis at once."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from fix_secure import SecureKafka, demand_tls, grant, grants
from fix_servers import fresh_database
from passwords import MARK, password
from test_redis_secure import LEAST, tls_server

from cdc.config import Config, loads
from cdc.local.postgres import SystemPostgres
from cdc.local.redis import RedisServer
from cdc.operate.check import check, render
from cdc.operate.verify import wait_until_equal
from cdc.runtime.worker import Worker

pytestmark = pytest.mark.integration

DOCUMENT = Path(__file__).parents[2] / "docs" / "security.md"
TABLES = """
create table customers (id int primary key, name text, notes text);
alter table customers alter notes set storage external;
create table orders (customer_id int, number int, total numeric(10,2), primary key (customer_id, number));
insert into customers select i, 'customer ' || i, repeat('x', 3000) from generate_series(1, 50) i;
insert into orders select i, 1, i from generate_series(1, 50) i;
"""
CHANGES = """
update customers set name = 'new' where id % 2 = 0;
update customers set id = id + 1000 where id % 5 = 0;
delete from customers where id % 7 = 0;
truncate orders;
insert into orders values (1, 2, 3.50);
"""


def documented(kind: str, **names: str) -> list[str]:
    """The statements of one of the page's blocks, with names of the test's own."""
    text = DOCUMENT.read_text(encoding="utf-8")
    found = re.search(rf"^```{kind}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert found, kind
    block = found[1]
    for old, new in names.items():
        block = re.sub(rf"\b{old}\b", new, block)
    return [line for line in block.splitlines() if line.strip()]


def test_the_page_grants_what_the_tests_grant() -> None:
    assert any(LEAST in line.replace(" +select", "") for line in DOCUMENT.read_text(encoding="utf-8").splitlines())
    written = set()
    for line in documented("sh"):
        options = re.findall(r"--(\w[\w-]*)(?: ([^-\s]\S*))?", line)
        operations = " ".join(sorted(value for name, value in options if name == "operation"))
        named = dict(options)
        for kind in ("topic", "transactional-id", "group"):
            if kind in named:
                written.add((kind, named[kind], "resource-pattern-type" in named, operations))
    granted: dict[tuple[str, str, bool], set[str]] = {}
    for binding in grants("shop", "cdc", "shop-cache"):
        kind = binding.restype.name.lower().replace("_", "-")
        place = (kind, binding.name, binding.resource_pattern_type.name == "PREFIXED")
        granted.setdefault(place, set()).add("".join(part.title() for part in binding.operation.name.split("_")))
    assert written == {(*place, " ".join(sorted(operations))) for place, operations in granted.items()}


def config(name: str, kafka: SecureKafka, postgres: SystemPostgres, dbname: str, redis_port: int) -> Config:
    text = f"""\
worker:
  group.id: {name}
  listeners: http://127.0.0.1:0
  topic.creation.default.partitions: 2
"""
    text += "".join(f"  {key}: '{value}'\n" for key, value in kafka.scram().items())
    text += f"""\
connectors:
  {name}:
    connector.class: postgres
    database.hostname: localhost
    database.port: {postgres.port}
    database.user: cdc
    database.password: {password("postgres cdc")}
    database.dbname: {dbname}
    database.sslmode: verify-full
    database.sslrootcert: {kafka.authority.certificate}
    topic.prefix: {name}
    table.include.list: [public.customers, public.orders]
    slot.name: {name}
    publication.name: cdc_shop
    publication.autocreate.mode: disabled
  {name}-cache:
    connector.class: redis
    topics.regex: {name}\\.public\\..*
    redis.uri: rediss://localhost:{redis_port}/0
    redis.cacert: {kafka.authority.certificate}
    redis.username: cdc
    redis.password: {password("redis cdc")}
    redis.key: "{name}:{{table}}:{{pk}}"
"""
    return loads({"bridge.yaml": text}, {})


def test_a_bridge_needs_no_more_than_the_documented_rights(
    secure_kafka: SecureKafka, authority: Authority, launch: Callable[[Any], Any]
) -> None:
    postgres: SystemPostgres = launch(SystemPostgres(15))  # Postgres 18 from the wheel is built without TLS
    demand_tls(postgres, authority)
    name = f"t{uuid.uuid4().hex[:8]}"
    grant(secure_kafka, grants(name, name, f"{name}-cache"))
    with fresh_database(postgres) as database, tls_server(authority, "no") as (server, redis_port):
        database.execute(TABLES)
        for statement in documented("sql"):
            database.execute(statement.replace("…", password("postgres cdc")))
        allow(server, name)
        made = config(name, secure_kafka, postgres, database.name, redis_port)
        findings = check(made)
        assert findings == [], render(made, findings, "text")
        with Worker(made, log_level="WARNING") as worker:
            report = wait_until_equal(made, 90)
            assert report.equal, report.as_text()
            database.execute(CHANGES)
            report = wait_until_equal(made, 90)
            assert report.equal, report.as_text()
            restarts = [task["restarts"] for one in worker.status()["connectors"].values() for task in one["tasks"]]
        assert restarts == [0, 0]
        denied = [line for line in secure_kafka.server.log.read_text().splitlines() if "Denied" in line]
        assert [line for line in denied if f"{name}" in line] == []
        with server.client() as client:
            refused = {entry["object"] for entry in client.acl_log() if entry["client-info"]["name"] != "cdc/check"}
        assert refused <= {"client|setinfo"}  # asked by redis-py, which does without; `cdc check` tries what is allowed
        assert "permission denied" not in postgres.log.read_text()
        assert MARK not in render(made, findings, "json")


def allow(server: RedisServer, name: str) -> None:
    with server.client() as client:
        keys = ["~__cdc:*", f"~{name}:*"]
        client.execute_command("ACL", "SETUSER", "cdc", "on", ">" + password("redis cdc"), *keys, *LEAST.split())
