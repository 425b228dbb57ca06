"""Going over all keys of a table on all primaries, while slots may move."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cdc.mirror.keys import KeySpace
from cdc.redis.cluster.nodes import Nodes
from cdc.redis.cluster.slots import SLOTS, Address, Topology
from cdc.redis.sweep import Sweep

__all__ = ["ClusterSweep", "open_slots"]

_ALL: Final = 1 << 24
"""More keys than a slot has."""


@dataclass(frozen=True)
class _Look:
    """Who has which slots, and which are on their way to whom."""

    topology: Topology
    moving: Mapping[int, Address]


class ClusterSweep:
    """Where the scans of all primaries stand.

    A key that moves from a node that is yet to be scanned to one that has been would be missed. So in the end the keys
    of all slots that may have moved meanwhile are listed, at their source first and then where they go, until nothing
    moved during that.
    """

    def __init__(self, nodes: Nodes, spaces: Sequence[KeySpace]) -> None:
        self._nodes = nodes
        self._spaces = spaces
        self._seen = self._look()
        self._scans = {address: Sweep(spaces) for address in self._seen.topology.primaries}
        self.done = False
        """Every key that was there all the while has been in a page."""

    def page(self) -> list[bytes]:
        """Some keys of the table, from each primary; a key may come twice. Not when `done`."""
        scans: dict[Address, Sweep] = {address: scan for address, scan in self._scans.items() if not scan.done}
        if scans:
            replies = self._nodes.of({address: scan.command() for address, scan in scans.items()})
            return [key for address, scan in scans.items() for key in scan.keys(replies[address])]
        before, now = self._seen, self._look()
        keys = list(self._of_slots(before, now))
        self._seen = now
        self.done = before == now == self._look()
        return [key for key in keys if any(space.parse(key) is not None for space in self._spaces)]

    def _of_slots(self, before: _Look, now: _Look) -> Iterator[bytes]:
        """The keys of slots that may have moved between two looks."""
        owners, old = now.topology.owners, before.topology.owners
        changed = {slot for slot in range(SLOTS) if owners[slot] != old[slot]} if owners is not old else set()
        for slot in sorted(changed | before.moving.keys() | now.moving.keys()):
            for address in dict.fromkeys((owners[slot], now.moving.get(slot, owners[slot]))):
                yield from self._nodes.ask(address, "CLUSTER", "GETKEYSINSLOT", slot, _ALL)

    def _look(self) -> _Look:
        moving: dict[int, Address] = {}
        self._nodes.follow()
        for reply in self._nodes.each("CLUSTER", "NODES").values():
            moving.update(open_slots(bytes(reply).decode()))
        return _Look(self._nodes.topology, moving)


def open_slots(nodes: str) -> dict[int, Address]:
    """The slots that a node is handing over, and to whom, by its answer to CLUSTER NODES."""
    lines = [line.split(" ") for line in nodes.splitlines()]
    addresses = {name: _address(place) for name, place, *_ in lines}
    opened: dict[int, Address] = {}
    for line in lines:
        for part in line[8:] if "myself" in line[2] else ():
            slot, arrow, target = part.strip("[]").partition("->-")
            if arrow and target in addresses:
                opened[int(slot)] = addresses[target]
    return opened


def _address(place: str) -> Address:
    """``<host>:<port>@<port of the bus>[,<hostname>]``."""
    host, _, port = place.partition("@")[0].rpartition(":")
    return Address(host.strip("[]"), int(port))
