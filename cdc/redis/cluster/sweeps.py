"""Going over all keys of a table on all primaries, while slots may move."""

from __future__ import annotations

from collections.abc import Sequence

from cdc.mirror.keys import KeySpace
from cdc.redis.cluster.nodes import Nodes
from cdc.redis.cluster.slots import Address
from cdc.redis.sweep import Sweep

__all__ = ["ClusterSweep"]


class ClusterSweep:
    """Where the scans of all primaries stand.

    A key that moves from a node that is yet to be scanned to one that has been would be missed. So the scans begin anew
    until the slots were the same, and none was open for moving, from the beginning of a round to its end.
    """

    def __init__(self, nodes: Nodes, spaces: Sequence[KeySpace]) -> None:
        self._nodes = nodes
        self._spaces = spaces
        self._begin()

    def _begin(self) -> None:
        self._nodes.follow()
        self._topology = self._nodes.topology
        self._open = self._moving()
        self._scans = {address: Sweep(self._spaces) for address in self._topology.primaries}

    @property
    def done(self) -> bool:
        """Every key that was there all the while has been seen."""
        return all(scan.done for scan in self._scans.values())

    def page(self) -> list[bytes]:
        """Some keys of the table, from each primary; a key may come twice. Not when `done`."""
        scans: dict[Address, Sweep] = {address: scan for address, scan in self._scans.items() if not scan.done}
        replies = self._nodes.of({address: scan.command() for address, scan in scans.items()})
        keys = [key for address, scan in scans.items() for key in scan.keys(replies[address])]
        if self.done and (self._open or self._moved()):
            self._begin()
        return keys

    def _moved(self) -> bool:
        """Whether slots are others' than when the scans began, or are on their way."""
        self._nodes.follow()
        return self._nodes.topology != self._topology or self._moving()

    def _moving(self) -> bool:
        """Whether a slot is open for moving somewhere."""
        lines = [line for reply in self._nodes.each("CLUSTER", "NODES").values() for line in bytes(reply).splitlines()]
        return any(b"myself" in line and b" [" in line for line in lines)
