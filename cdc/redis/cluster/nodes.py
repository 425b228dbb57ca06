"""Connections to all primaries of a cluster, and calls that find their way when slots move.

Calls go out to all nodes before the first reply is read, so that the nodes work side by side. A connection never comes
back by itself (`cdc.redis.connection.Wire`), and a primary that is no longer one ends everything too: what it
acknowledged last may be lost, and only what the cluster holds now tells. Slots that move between primaries that stay
are followed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self

import hiredis

from cdc.errors import CdcError, FatalError, RetriableError
from cdc.mirror.store import GuardLost
from cdc.redis.access import Access
from cdc.redis.cluster.library import LIBRARY
from cdc.redis.cluster.slots import Address, Topology, slot_of
from cdc.redis.connection import Argument, Wire, pack
from cdc.redis.server import refuse_unfit

__all__ = ["Call", "Nodes", "survey"]

_ASKING: Final = pack((b"ASKING",))
_PAUSE_S: Final = 0.02
"""Between two tries at a slot that is being moved."""
_LOST_LIBRARY: Final = "Function not found"


Call = tuple[int, bytes]
"""The slot of a command's keys, and the command, packed. A plain tuple, for there is one for each row."""


class Nodes:
    """All primaries. For one thread. Methods raise `RetriableError`, `FatalError`, and `GuardLost` when a primary is
    another one than before."""

    def __init__(self, connect: Callable[[Address], Wire], seeds: Sequence[Address], patience: float) -> None:
        """``patience`` in seconds is how long calls may wait for a slot that is being moved."""
        self._connect = connect
        self._seeds = tuple(seeds)
        self._patience = patience
        self._wires: dict[Address, Wire] = {}
        self._sent: tuple[Sequence[Call], list[tuple[Address, list[int]]]] | None = None
        self.topology = Topology(())

    @classmethod
    def reach(cls, access: Access, name: str, patience: float) -> Self:
        """The nodes of the cluster that settings name, over connections called ``name``."""
        seeds = [Address(*seed) for seed in access.seeds]
        return cls(lambda address: access.at(*address).wire(name), seeds, patience)

    @property
    def is_open(self) -> bool:
        """There are connections."""
        return bool(self._wires)

    @property
    def pending(self) -> bool:
        """Replies are still to be read."""
        return self._sent is not None

    # --- topology ----------------------------------------------------------------------------------------

    def open(self) -> None:
        """Find out who has which slots now, connect to every primary, and see that each has the functions."""
        self.topology = self._look()
        for address in self.topology.primaries:
            self._ready(address)
        for address in self._wires.keys() - set(self.topology.primaries):
            self._wires.pop(address).close()

    def follow(self) -> bool:
        """Whether slots have moved since the last look. `GuardLost` if somebody is no longer a primary."""
        found = self._look()
        if found == self.topology:
            return False
        gone = [str(address) for address in self.topology.primaries if address not in found.primaries]
        if gone:
            raise GuardLost(f"no longer a primary with slots: {', '.join(gone)}")
        for address in found.primaries:
            if address not in self.topology.primaries:
                self._ready(address)
        self.topology = found
        return True

    def _look(self) -> Topology:
        known = (*self._seeds, *(address for address in self.topology.primaries if address not in self._seeds))
        return survey(self._connect, known, self._wires)

    def _ready(self, address: Address) -> None:
        """Connect to a primary, if not done, and load the functions, if they are not there."""
        wire = self._wires.get(address)
        if wire is None:
            wire = self._connect(address)
            refuse_unfit(wire, cluster=True)
            self._wires[address] = wire
        answer = wire.ask("FUNCTION", "LOAD", LIBRARY)
        if isinstance(answer, hiredis.ReplyError) and "already exists" not in str(answer):
            raise self._failed(answer, address, "loading the functions")

    # --- calls -------------------------------------------------------------------------------------------

    def send(self, calls: Sequence[Call]) -> None:
        """Send calls, each to who has its slot. `receive` comes before the next `send`."""
        owners = self.topology.owners
        numbers: dict[Address, list[int]] = {}
        for number, (slot, _) in enumerate(calls):
            owner = owners[slot]
            if owner in numbers:
                numbers[owner].append(number)
            else:
                numbers[owner] = [number]
        for address, mine in numbers.items():
            self._wires[address].send(b"".join([calls[number][1] for number in mine]))
        self._sent = calls, list(numbers.items())

    def receive(self) -> list[Any]:
        """The replies, in the order of the calls. Error replies are in it, but for those of calls that are waited with
        or that concern all: these are errors."""
        if self._sent is None:
            raise RuntimeError("nothing was sent")
        calls, sent = self._sent
        answers: list[Any] = [None] * len(calls)
        redirected: list[tuple[int, Address, str]] = []
        for address, mine in sent:
            reply = self._wires[address].reply
            for number in mine:
                answer = answers[number] = reply()
                if type(answer) is hiredis.ReplyError:
                    code = str(answer).partition(" ")[0]
                    if code in _REDIRECTIONS:
                        redirected.append((number, address, code))
                    elif _LOST_LIBRARY in str(answer):
                        raise self._lost_library(address)
        self._sent = None
        if redirected:
            self._again(calls, answers, redirected)
        return answers

    def run(self, calls: Sequence[Call]) -> list[Any]:
        """Send calls and return the replies."""
        if not calls:
            return []
        self.send(calls)
        return self.receive()

    def one(self, key: bytes, *command: Argument) -> Any:
        """The reply to one command about ``key``. An error reply is raised."""
        slot = slot_of(key)
        [answer] = self.run([(slot, pack(command))])
        if isinstance(answer, hiredis.ReplyError):
            raise self._failed(answer, self.topology.owners[slot], str(command[0]))
        return answer

    def each(self, *command: Argument) -> dict[Address, Any]:
        """The replies of all primaries to one command. An error reply is raised."""
        data = pack(command)
        for address in self.topology.primaries:
            self._wires[address].send(data)
        answers = {address: self._wires[address].reply() for address in self.topology.primaries}
        for address, answer in answers.items():
            if isinstance(answer, hiredis.ReplyError):
                raise self._failed(answer, address, str(command[0]))
        return answers

    def ask(self, address: Address, *command: Argument) -> Any:
        """The reply of one node. An error reply is raised."""
        if address not in self._wires:  # a node that is to get its first slot
            self._ready(address)
        return self.of({address: command})[address]

    def of(self, commands: dict[Address, tuple[Argument, ...]]) -> dict[Address, Any]:
        """The replies of some primaries, each to a command of its own. An error reply is raised."""
        for address, command in commands.items():
            self._wires[address].send(pack(command))
        answers = {address: self._wires[address].reply() for address in commands}
        for address, answer in answers.items():
            if isinstance(answer, hiredis.ReplyError):
                raise self._failed(answer, address, str(commands[address][0]))
        return answers

    def _again(self, calls: Sequence[Call], answers: list[Any], redirected: list[tuple[int, Address, str]]) -> None:
        """Make calls again that a node would not take, until each has an answer.

        ``MOVED``: the slot is another's now. ``ASK``: the key is already there where the slot is being moved to.
        ``TRYAGAIN``: of a row and its fence only one has been moved yet. Each call can be made twice: its guard sees
        that.
        """
        deadline = time.monotonic() + self._patience
        owners = self.topology.owners
        while True:
            if any(code == "MOVED" for _, _, code in redirected):
                self.follow()
                owners = self.topology.owners
            left: list[tuple[int, Address, str]] = []
            for number, asked, code in redirected:
                ask = code == "ASK"
                target = _target(answers[number], asked) if ask else owners[calls[number][0]]
                if target not in self._wires:  # a node that is to get its first slot
                    self._ready(target)
                wire = self._wires[target]
                wire.send((_ASKING if ask else b"") + calls[number][1])
                if ask:
                    wire.reply()
                answer = answers[number] = wire.reply()
                if isinstance(answer, hiredis.ReplyError) and (found := str(answer).partition(" ")[0]) in _REDIRECTIONS:
                    left.append((number, target, found))
            if not left:
                return
            if time.monotonic() > deadline:
                number, asked, _ = left[0]
                said = str(answers[number])
                self.close()
                raise RetriableError(
                    f"{len(left)} keys could not be reached in {self._patience:.0f} s, because their slots are being "
                    f"moved ({asked}: {said}). If nobody moves them any more, redis-cli --cluster fix ends it"
                )
            time.sleep(_PAUSE_S)
            redirected = left

    # --- errors ------------------------------------------------------------------------------------------

    def failed(self, answer: Exception, slot: int, doing: str) -> CdcError:
        """The error to raise for an error reply. Closes all connections."""
        return self._failed(answer, self.topology.owners[slot], doing)

    def _failed(self, answer: Exception, address: Address, doing: str) -> CdcError:
        error = self._wires[address].refused(answer, doing)
        self.close()
        return error

    def _lost_library(self, address: Address) -> RetriableError:
        self.close()
        return RetriableError(f"the functions of the guard are gone from Redis at {address}; they are loaded again")

    def close(self) -> None:
        """Close all connections; `open` makes new ones, to who is known by now too. Never raises."""
        for wire in self._wires.values():
            wire.close()
        self._wires.clear()
        self._sent = None


def survey(
    connect: Callable[[Address], Wire], seeds: Sequence[Address], wires: Mapping[Address, Wire] | None = None
) -> Topology:
    """Who has which slots: what that node says that knows of the highest epoch, of all that see the cluster whole.

    Asks those that ``wires`` go to, or the seeds if there are none. `RetriableError` when nobody sees it whole.
    """
    best: tuple[int, Topology] | None = None
    said: list[str] = []
    for address in tuple(wires or ()) or seeds:
        wire = (wires or {}).get(address)
        try:
            asked = wire or connect(address)
            epoch, topology = _view(asked, address)
            if asked is not wire:
                asked.close()
        except RetriableError as error:
            if wire is not None:
                raise
            said.append(str(error))
            continue
        if topology is None or not topology.whole:
            said.append(f"{address} says that the cluster does not serve all slots")
        elif best is None or epoch > best[0]:
            best = epoch, topology
    if best is None:
        raise RetriableError(f"no node of the Redis Cluster can say who has which slots: {'; '.join(said)}")
    return best[1]


_REDIRECTIONS: Final = frozenset(("MOVED", "ASK", "TRYAGAIN"))


def _target(answer: Exception, asked: Address) -> Address:
    """The node that an ASK names: ``ASK <slot> <host>:<port>``, without host for that of the node asked."""
    host, _, port = str(answer).split(" ")[2].rpartition(":")
    return Address(host.strip("[]") or asked.host, int(port))


def _view(wire: Wire, address: Address) -> tuple[int, Topology | None]:
    """The epoch that a node knows of, and who has which slots; ``None`` if it says that the cluster is down."""
    info = wire.ask("CLUSTER", "INFO")
    if isinstance(info, hiredis.ReplyError):
        if "cluster support disabled" in str(info):
            wire.close()
            raise FatalError(
                f"Redis at {address} is no node of a cluster. Remedy: set redis.cluster.enabled=false, or name a node "
                "of the cluster in redis.uri"
            )
        raise wire.refused(info, "CLUSTER INFO")
    told = dict(line.split(":", 1) for line in bytes(info).decode().split("\r\n") if ":" in line)
    if told.get("cluster_state") != "ok":
        return 0, None
    return int(told["cluster_current_epoch"]), Topology.parse(wire.one("CLUSTER", "SLOTS"), address)
