"""Redis Cluster or Valkey Cluster on loopback: primaries that share the slots, and replicas that can take over."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

import redis
from redis.cluster import ClusterNode

from cdc.local._ports import free_port
from cdc.local.errors import LocalServerError
from cdc.local.redis import Redis, RedisServer

__all__ = ["RedisCluster"]

_SLOTS: Final = 16384
_POLL_S: Final = 0.02
_PATIENCE_S: Final = 60.0
_PAGE: Final = 100


class RedisCluster:
    """Nodes of one kind (`Redis`, `Valkey`), each a server of its own that a test may kill and start again.

    ``replicas`` is how many each primary has. Without ``appendonly`` a node that starts again is empty, and still the
    node that it was. ``settings`` are directives for all nodes; with ``tls`` (``tls-cert-file`` and the like) each has
    a port for TLS as well. Like every server in a temporary folder, the nodes end with the process that started
    them.
    """

    def __init__(
        self,
        kind: type[RedisServer] = Redis,
        *,
        primaries: int = 3,
        replicas: int = 0,
        password: str | None = None,
        appendonly: bool = False,
        settings: Mapping[str, str | int] | None = None,
        tls: Mapping[str, str | int] | None = None,
    ) -> None:
        self.password = password
        self._kind = kind
        self._appendonly = appendonly
        self._settings = dict(settings or {})
        self._tls = tls
        self._primaries = primaries
        self.nodes = [self._node() for _ in range(primaries * (1 + replicas))]
        """The first are the primaries, at the start."""

    def _node(self) -> RedisServer:
        settings: dict[str, str | int] = {
            "cluster-enabled": "yes",
            "cluster-config-file": "nodes.conf",
            "cluster-port": free_port(),
            "cluster-node-timeout": 2000,
            "repl-diskless-sync-delay": 0,
            **({"masterauth": self.password} if self.password else {}),
            **({"tls-port": free_port(), **self._tls} if self._tls is not None else {}),
            **self._settings,
        }
        return self._kind(password=self.password, appendonly=self._appendonly, settings=settings)

    # --- life --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start all nodes, join them, share the slots evenly; return when each says that the cluster is well."""
        for node in self.nodes:
            node.start()
        bounds = [_SLOTS * number // self._primaries for number in range(self._primaries + 1)]
        for number, node in enumerate(self.nodes[: self._primaries]):
            self.run(node, "CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        for number, node in enumerate(self.nodes):
            self.run(node, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            self._meet(node)
        self.wait_well()
        for number, node in enumerate(self.nodes[self._primaries :]):
            self.replicate(node, self.nodes[number % self._primaries])

    def stop(self) -> None:
        """Stop all nodes."""
        for node in self.nodes:
            node.stop()

    def close(self) -> None:
        """Stop all nodes and remove their folders."""
        for node in self.nodes:
            node.close()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- clients -----------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """``redis://`` with all nodes that are there from the start as seeds."""
        secret = f":{self.password}@" if self.password else ""
        seeds = ",".join(f"{node.host}:{node.port}" for node in self.nodes)
        return f"redis://{secret}{seeds}/0"

    @property
    def tls_url(self) -> str:
        """``rediss://`` with one node as the seed."""
        return f"rediss://{self.nodes[0].host}:{self.nodes[0]._settings['tls-port']}/0"

    def client(self) -> Any:
        """A new `redis.RedisCluster`. Close it."""
        seeds = [
            ClusterNode(node.host, node.port)  # type: ignore[no-untyped-call]
            for node in self.nodes
            if node.is_running()
        ]
        return redis.RedisCluster(startup_nodes=seeds, password=self.password, socket_timeout=30)

    def run(self, node: RedisServer, *command: str | int | bytes) -> Any:
        """One command on one node."""
        with node.client() as client:
            return client.execute_command(*command)

    # --- topology ----------------------------------------------------------------------------------------

    def id_of(self, node: RedisServer) -> str:
        """The node's name in the cluster."""
        return _text(self.run(node, "CLUSTER", "MYID"))

    def owner(self, slot: int) -> RedisServer:
        """The primary that has a slot, as the first running node knows it."""
        running = next(node for node in self.nodes if node.is_running())
        for first, last, primary, *_ in self.run(running, "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == primary[1])
        raise LocalServerError(f"nobody has slot {slot}")

    def wait_well(self) -> None:
        """Until every running node sees all running ones, and all slots served."""
        running = [node for node in self.nodes if node.is_running()]

        def well() -> bool:
            for node in running:
                told = _text(self.run(node, "CLUSTER", "INFO"))
                if "cluster_state:ok" not in told or f"cluster_known_nodes:{len(self.nodes)}" not in told:
                    return False
            return True

        _until(well, "the cluster is well")

    def replicate(self, node: RedisServer, primary: RedisServer) -> None:
        """Make a node the replica of a primary, with all its data, known to all as one."""
        name = self.id_of(primary)
        self.run(node, "CLUSTER", "REPLICATE", name)

        def following() -> bool:
            if self.run(node, "INFO", "replication").get("master_link_status") != "up":
                return False
            mine = self.id_of(node)
            return all(_follows(_text(self.run(other, "CLUSTER", "NODES")), mine, name) for other in self.nodes)

        _until(following, "the replica has its primary's data")

    def add_primary(self) -> RedisServer:
        """A new primary, of no slots yet."""
        node = self._node()
        node.start()
        self.nodes.append(node)
        self.run(node, "CLUSTER", "SET-CONFIG-EPOCH", 100 + len(self.nodes))
        self._meet(node)
        self.wait_well()
        return node

    def _meet(self, node: RedisServer) -> None:
        bus = node._settings["cluster-port"]
        self.run(self.nodes[0], "CLUSTER", "MEET", node.host, node.port, bus)

    def move_slot(self, slot: int, target: RedisServer, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Move a slot with its keys, as ``redis-cli --cluster reshard`` does. ``meanwhile`` is called while the slot
        is open at both ends, after each page of keys."""
        source = self.owner(slot)
        if source is target:
            return
        to, of = self.id_of(target), self.id_of(source)
        self.run(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", of)
        self.run(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", to)
        meanwhile()
        auth = ("AUTH", self.password) if self.password else ()
        while keys := self.run(source, "CLUSTER", "GETKEYSINSLOT", slot, _PAGE):
            self.run(source, "MIGRATE", target.host, target.port, "", 0, 10_000, *auth, "KEYS", *keys)
            meanwhile()
        for node in (target, source, *self.nodes):
            with contextlib.suppress(redis.ResponseError):  # replicas do not take it, they are told
                self.run(node, "CLUSTER", "SETSLOT", slot, "NODE", to)


def _follows(nodes: str, replica: str, primary: str) -> bool:
    """Whether CLUSTER NODES has one node as the replica of another."""
    return any(line.startswith(replica) and primary in line for line in nodes.splitlines())


def _text(answer: Any) -> str:
    return bytes(answer).decode()


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise LocalServerError(f"not so within {_PATIENCE_S:.0f} s: {what}")
        time.sleep(_POLL_S)
