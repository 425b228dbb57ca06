"""Redis behind sentinels: the master is found at each connect, and a failover loses nothing and heals (A20, A21)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
import redis
import redis.sentinel
from fix_bridge import bridged
from fix_servers import Database, started
from passwords import MARK, password
from sink_feed import eventually
from test_sink_redis_store import World

from cdc.errors import FatalError, RetriableError
from cdc.local.kafka import EmbeddedKafka
from cdc.local.redis import Redis, RedisServer, Sentinel, Valkey
from cdc.mirror.store import StoredOffset
from cdc.operate.check import check
from cdc.operate.verify import wait_until_equal

pytestmark = pytest.mark.integration

USER = "cdc"
TABLE = """
create table customers (id int primary key, name text, visits int not null default 0);
insert into customers select i, 'customer ' || i, 0 from generate_series(1, 300) i;
"""


@dataclass
class Group:
    """A master, a replica and three sentinels, all with passwords. Stands in for the server of a bridge."""

    master: RedisServer
    replica: RedisServer
    sentinels: list[Sentinel]

    @property
    def nodes(self) -> str:
        return ",".join(sentinel.endpoint for sentinel in self.sentinels)

    @property
    def url(self) -> str:
        return f"redis+sentinel://{USER}:{quote(password('redis cdc'))}@{self.nodes}/mymaster/0"

    def address(self) -> tuple[str, int]:
        """What the first sentinel calls the master."""
        with self.sentinels[0].client() as client:
            found: Any = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")
        return found[0].decode(), int(found[1])

    def ready(self) -> bool:
        """Whether every sentinel knows the replica and the other sentinels, and the replica has all."""
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                told: Any = client.execute_command("SENTINEL", "MASTER", "mymaster")
            known = told if isinstance(told, dict) else dict(zip(told[::2], told[1::2], strict=True))
            text = {str(name): str(value) for name, value in ((_text(k), _text(v)) for k, v in known.items())}
            if (text["num-slaves"], text["num-other-sentinels"]) != ("1", "2"):
                return False
        with self.replica.client() as client:
            return client.info("replication")["master_link_status"] == "up"

    def client(self) -> redis.Redis:
        """A client of whoever is the master when it connects."""
        nodes = [(sentinel.host, sentinel.port) for sentinel in self.sentinels]
        watchers = redis.sentinel.Sentinel(nodes, sentinel_kwargs={"password": password("sentinel")})
        found: redis.Redis = watchers.master_for("mymaster", password=self.master.password, socket_timeout=30)
        return found


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@contextlib.contextmanager
def group(kind: type[RedisServer]) -> Iterator[Group]:
    secret = password("redis group")
    settings: dict[str, str | int] = {"masterauth": secret, "repl-diskless-sync-delay": 0, "repl-backlog-size": "1mb"}
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(started(kind(password=secret, settings=settings))) for _ in range(2)]
        master, replica = made
        for server in made:
            with server.client() as client:
                rights = ["on", ">" + password("redis cdc"), "~*", "+@all"]
                client.execute_command("ACL", "SETUSER", USER, *rights)
        with replica.client() as client:
            client.replicaof(master.host, str(master.port))
        sentinels = [
            stack.enter_context(
                started(Sentinel(master, quorum=2, down_after_ms=500, password=password("sentinel"), settings=()))
            )
            for _ in range(3)
        ]
        found = Group(master, replica, sentinels)
        eventually(found.ready, "the sentinels know each other and the replica")
        yield found


@pytest.fixture
def redis_group() -> Iterator[Group]:
    with group(Redis) as made:
        yield made


@pytest.fixture
def valkey_group() -> Iterator[Group]:
    with group(Valkey) as made:
        yield made


class SentinelWorld(World):
    """A world whose server is found through sentinels."""

    def __init__(self, group: Group) -> None:
        super().__init__(group.master)
        self.group = group

    def settings(self, **more: str) -> dict[str, str]:
        login = {"redis_username": USER, "redis_password": password("redis cdc")}
        sentinels = {
            "redis_uri": "redis:///0",
            "redis_sentinel_nodes": self.group.nodes,
            "redis_sentinel_master_name": "mymaster",
            "redis_sentinel_password": password("sentinel"),
        }
        return {name: value for name, value in {**login, **sentinels, **more}.items() if value}


def test_a_master_is_found_and_mistakes_are_told(redis_group: Group) -> None:
    world = SentinelWorld(redis_group)
    given = world.settings()
    assert world.connector(**given).check() == []
    store = world.store(0, **given)
    assert world.write(store, world.batch(world.put("1", a="x"), 5)) == ()
    assert world.rows() == {"1": {"a": "x"}}
    dead = {"redis_sentinel_nodes": "127.0.0.1:1," + redis_group.nodes}  # the next one is asked
    assert world.connector(**world.settings(**dead)).check() == []
    for mistake, says in (
        ({"redis_sentinel_master_name": "other"}, r"know no master 'other'. Remedy: correct the name"),
        ({"redis_sentinel_password": ""}, r"the sentinel .*Remedy: set redis.sentinel.password"),
        ({"redis_sentinel_password": password("wrong")}, r"the sentinel .*Remedy: correct redis.sentinel.username"),
        ({"redis_password": password("wrong")}, r"Remedy: correct the user and password"),
    ):
        with pytest.raises(FatalError, match=says) as raised:
            world.store(0, **world.settings(**mistake))
        [finding] = world.connector(**world.settings(**mistake)).check()
        assert MARK not in f"{finding} {raised.value}"
    with pytest.raises(RetriableError, match="no sentinel answers"):
        world.store(0, **world.settings(redis_sentinel_nodes="127.0.0.1:1"))
    world.close()


def test_a21_a_demoted_master_takes_no_batch_and_the_next_connect_finds_the_new_one(
    redis_group: Group,
) -> None:
    world = SentinelWorld(redis_group)
    store = world.store(0, **world.settings())
    world.write(store, world.batch(world.put("1", a="old"), 5))
    with redis_group.sentinels[0].client() as client:
        client.execute_command("SENTINEL", "FAILOVER", "mymaster")

    def demoted() -> bool:
        with redis_group.master.client() as client:
            return bool(client.info("replication")["role"] == "slave")

    eventually(demoted, "the sentinels demote the master")
    with pytest.raises(RetriableError):  # READONLY, or the sentinels have cut the connection already
        world.write(store, world.batch(world.put("1", a="new"), 6))

    def again() -> bool:
        with contextlib.suppress(RetriableError):
            store.take([world.part(0)])
            return world.write(store, world.batch(world.put("1", a="new"), 6)) == ()
        return False

    eventually(again, "the batch is written to the new master")
    with redis_group.replica.client() as promoted:
        assert promoted.hget(world.key("1"), "a") == b"new"
    store.close()


def test_a20_a_bridge_rides_out_a_failover_that_lost_acknowledged_writes(
    database18: Database, embedded_kafka: EmbeddedKafka, valkey_group: Group
) -> None:
    """The replica is cut off while the master goes on acknowledging; then the master is killed, and the sink goes on
    from the older offsets of the replica."""
    database18.execute(TABLE)
    login = f"    redis.sentinel.password: {password('sentinel')}\n    redis.uri: "
    bridge_on = bridged(database18, embedded_kafka, valkey_group, "public.customers", {"    redis.uri: ": login})
    over = threading.Event()

    def write() -> None:
        while not over.wait(0.005):
            database18.execute("update customers set visits = visits + 1 where id % 7 = 0")

    with bridge_on as bridge:
        assert [finding for finding in check(bridge.config) if "redis" in finding.key] == []

        def held(server: RedisServer) -> int:
            with server.client() as client:
                text: Any = client.get(f"__cdc:offset:{{{bridge.sink}}}:{bridge.name}.public.customers:0")
            return StoredOffset.decode(text).next

        writer = threading.Thread(target=write)
        writer.start()
        try:
            with valkey_group.replica.client() as replica, valkey_group.master.client() as master:
                replica.config_set("masterauth", password("wrong"))
                master.execute_command("CLIENT", "KILL", "TYPE", "replica")
            start = held(valkey_group.replica)
            eventually(lambda: held(valkey_group.master) > start + 200, "rows that the replica does not have")
            before = valkey_group.address()
            valkey_group.master.kill()
            eventually(lambda: valkey_group.address() != before, "the sentinels promote the replica")
            assert held(valkey_group.replica) >= start
        finally:
            over.set()
            writer.join()
        report = wait_until_equal(bridge.config, 90)
        assert report.equal, report.as_text()
        assert bridge.worker is not None
        tasks = bridge.worker.status()["connectors"][bridge.sink]["tasks"]
        assert [task["restarts"] for task in tasks] == [0]
