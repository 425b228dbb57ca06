"""JSON into a tree of strings with lines."""

from __future__ import annotations

import json
import re
from typing import Final

from cdc.config.tree import Findings, Items, Node, Place, Scalar, Table

__all__ = ["read_json"]

_TOKEN: Final = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+)')


def read_json(text: str, file: str, order: int, findings: Findings) -> Table | None:
    """The top-level object of a JSON text; ``None`` if there is none, with the reason among the findings."""
    top = Place(order, 0, file)
    try:
        json.loads(text, parse_int=str)  # Python refuses to make numbers of very many digits
        tree = _Parser(text, top).value()
    except json.JSONDecodeError as error:
        findings.add(top._replace(line=error.lineno), f"not valid JSON: {error.msg} (column {error.colno})")
        return None
    except RecursionError:
        findings.add(top, "not valid JSON: nested too deeply")
        return None
    if isinstance(tree, Table):
        return tree
    findings.add(tree.place, "expected an object with keys and values")
    return None


class _Parser:
    """Walks a text that `json` has found valid, for the lines that `json` does not tell."""

    def __init__(self, text: str, top: Place) -> None:
        self._tokens = [(match[1], match.start(1)) for match in _TOKEN.finditer(text)]
        self._next = 0
        self._text = text
        self._top = top

    def value(self) -> Node:
        lexeme, place = self._take()
        if lexeme == "{":
            pairs: list[tuple[str, Place, Node]] = []
            while self._peek() != "}":
                key, key_place = self._take()
                self._take()  # the colon
                pairs.append((json.loads(key), key_place, self.value()))
                self._skip_comma()
            self._take()
            return Table(tuple(pairs), place)
        if lexeme == "[":
            items: list[Node] = []
            while self._peek() != "]":
                items.append(self.value())
                self._skip_comma()
            self._take()
            return Items(tuple(items), place)
        if lexeme.startswith('"'):
            return Scalar(json.loads(lexeme), place)
        return Scalar(None if lexeme == "null" else lexeme, place)

    def _take(self) -> tuple[str, Place]:
        lexeme, offset = self._tokens[self._next]
        self._next += 1
        return lexeme, self._top._replace(line=self._text.count("\n", 0, offset) + 1)

    def _peek(self) -> str:
        return self._tokens[self._next][0]

    def _skip_comma(self) -> None:
        if self._peek() == ",":
            self._next += 1
