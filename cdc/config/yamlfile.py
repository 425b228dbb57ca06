"""YAML into a tree of strings with lines. Errors never quote the file: what stands there may be a secret."""

from __future__ import annotations

import re
from typing import Final

import yaml
from yaml.reader import ReaderError

from cdc.config.tree import Findings, Items, Node, Place, Scalar, Table

__all__ = ["read_yaml"]

_MAX_NODES: Final = 100_000
"""Aliases of aliases can make a small file huge; no honest configuration has this many values."""
_QUOTED: Final = re.compile(r"'([^']*)'")
_STANDARD: Final = "tag:yaml.org,2002:"


def read_yaml(text: str, file: str, order: int, findings: Findings) -> Table | None:
    """The top-level table of a YAML document; ``None`` if there is none, with the reason among the findings."""
    top = Place(order, 0, file)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        findings.add(top._replace(line=mark.line + 1 if mark else 0), _syntax(error))
        return None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        findings.add(top._replace(line=line), "not valid YAML: a control character")
        return None
    except RecursionError:
        findings.add(top, "not valid YAML: nested too deeply")
        return None
    if node is None:
        findings.add(top, "is empty", remedy="A configuration has the keys worker and connectors")
        return None
    tree = _Converter(top, findings).convert(node)
    if isinstance(tree, Table):
        return tree
    if tree is not None:
        findings.add(tree.place, "expected keys and values, such as worker: and connectors:")
    return None


def _syntax(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or error.context or "syntax error"
    if "'\\t'" in problem:
        return "not valid YAML: a tab where only spaces may stand; indent with spaces"
    if "another document" in problem:
        return "not valid YAML: a second document (---) in the file; one file is one document"
    if "alias" in problem:
        return "not valid YAML: an alias without an anchor; quote a value that begins with *"
    return f"not valid YAML: {_QUOTED.sub(_unless_value, problem)}"


def _unless_value(match: re.Match[str]) -> str:
    """PyYAML quotes its own tokens, and (parts of) values, such as a password that begins with ``!``."""
    return match[0] if len(match[1]) == 1 or match[1].startswith("<") else "…"


class _Converter:
    """PyYAML's node graph to a tree, with merge keys applied, cycles and explosions refused."""

    def __init__(self, top: Place, findings: Findings) -> None:
        self._top = top
        self._findings = findings
        self._count = 0
        self._open: set[int] = set()

    def convert(self, node: yaml.Node) -> Node | None:
        place = self._place(node)
        self._count += 1
        if id(node) in self._open or self._count > _MAX_NODES:
            self._findings.add(place, "an alias that contains itself, or too many values")
            return None
        if not node.tag.startswith(_STANDARD):
            self._findings.add(place, "YAML tags are not used here", remedy="Quote a value that begins with !")
            return None
        if isinstance(node, yaml.ScalarNode):
            return Scalar(_scalar(node), place)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                items = [self.convert(item) for item in node.value]
                return Items(tuple(item for item in items if item is not None), place)
            return Table(tuple(self._pairs(node)), place)
        finally:
            self._open.discard(id(node))

    def _pairs(self, node: yaml.Node) -> list[tuple[str, Place, Node]]:
        own: list[tuple[str, Place, Node]] = []
        merged: list[tuple[str, Place, Node]] = []
        for key, value in node.value:
            if key.tag == _STANDARD + "merge":
                merged += self._merge(value)
            elif not isinstance(key, yaml.ScalarNode):
                self._findings.add(self._place(key), "a key must be plain text")
            elif (converted := self.convert(value)) is not None:
                own.append((key.value, self._place(key), converted))
        present = {name for name, _, _ in own}
        for name, place, converted in merged:  # the nearer wins, as YAML's merge keys have it
            if name not in present:
                present.add(name)
                own.append((name, place, converted))
        return own

    def _merge(self, node: yaml.Node) -> list[tuple[str, Place, Node]]:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        pairs: list[tuple[str, Place, Node]] = []
        for source in sources:
            table = self.convert(source)
            if isinstance(table, Table):
                pairs += table.pairs
            elif table is not None:
                self._findings.add(table.place, "only keys and values can be merged with <<")
        return pairs

    def _place(self, node: yaml.Node) -> Place:
        return self._top._replace(line=node.start_mark.line + 1)


def _scalar(node: yaml.ScalarNode) -> str | None:
    text: str = node.value
    if node.style is None and node.tag == _STANDARD + "null":
        return None
    # Of YAML 1.1's booleans only true and false are taken as such: `no` and `on` are also names.
    if node.style is None and node.tag == _STANDARD + "bool" and text.lower() in {"true", "false"}:
        return text.lower()
    return text
