"""From Avro bytes to the fields of a hash, by functions generated from the writer schema.

A record is walked once, nothing is built that nobody asked for: ``before`` is stepped over, reading stops behind
``after``, texts are slices of the buffer. The generated function has one stretch of code per column::

    b = buf[p]                      # union of null and string
    if b == 2:
        n = buf[p + 1]
        ...
        v3 = buf[p:q]
    elif b == 0:
        v3 = None
        nulls += (b'email',)

Truncated bytes and lengths that lie are a `DataError`: every length is compared with what is left, or the
place behind it is read or compared at the end.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from cdc.codec import canonical_values
from cdc.codec.avro_json import skipper, value_reader
from cdc.codec.avro_schema import Node, parse_schema
from cdc.codec.avro_varint import read_length, read_long
from cdc.codec.flattened import DELETES, METADATA
from cdc.errors import DataError

__all__ = ["FOREIGN", "Decode", "DecodeKey", "FieldsPlan", "KeyPlan", "Row", "compile_fields", "compile_key"]

Row = tuple[list[bytes], tuple[bytes, ...]]
"""Name and canonical text of the columns that are not NULL, in turn; names of those that are."""
Decode = Callable[[bytes, int], "tuple[list[bytes] | None, Any]"]
"""A `Row`, or ``None`` and the envelope's ``op``."""
DecodeKey = Callable[[bytes, int], "tuple[bytes | None, ...]"]


@dataclass(frozen=True, slots=True)
class FieldsPlan:
    """How the values of one writer schema become fields.

    ``decode(buf, p)`` reads the value that begins at ``p``: a `Row`, or ``None`` and the envelope's ``op`` when there
    is no row image (``d`` delete, ``t`` truncate, ``m`` message). `DataError` for bytes that the schema
    does not describe. ``mirrored`` is false for records that are not about rows (heartbeats,
    transaction metadata, messages, schema changes): they are not to be decoded.
    """

    decode: Decode
    columns: tuple[bytes, ...]
    kinds: Mapping[bytes, str]
    """Column → type name for `cdc.codec.canonical.from_postgres`."""
    mirrored: bool = True


@dataclass(frozen=True, slots=True)
class KeyPlan:
    """How the keys of one writer schema become the canonical texts of the key columns, in the key's order.

    ``columns`` is empty for a key that is not a record: it has one value without a name.
    """

    decode: DecodeKey
    columns: tuple[str, ...]
    kinds: tuple[str, ...]


FOREIGN: Final = (
    "io.debezium.connector.common.",
    "io.debezium.connector.postgresql.MessageValue",
    "io.debezium.connector.schema.",
    "io.debezium.connector.postgresql.Schema",
)
"""What the names of Debezium's schemas begin with that are not about rows."""


def compile_fields(schema: str, metadata: re.Pattern[str] = METADATA) -> FieldsPlan:
    """Compile the writer schema of a value: an envelope of Debezium's, or a record of columns, in which fields whose
    names match ``metadata`` are none (`cdc.codec.flattened`).

    `DataError` for a schema that is neither.
    """
    root = parse_schema(schema)
    root = _present(root) or root
    if root.type != "record":
        raise DataError(f"a value of type {root.type} has no columns; only records can become hashes: {schema[:120]}")
    if root.connect_name.startswith(FOREIGN):
        return FieldsPlan(_no_rows, (), {}, mirrored=False)
    after = _image(root, "after")
    row = after if after is not None and _image(root, "before") is not None else root
    hidden = {name for name, _ in root.fields if row is root and metadata.fullmatch(name)}
    with _compiling(schema):
        code = _Code()
        if row is root:
            code.row(row, hidden)
        else:
            code.envelope(root, row)
    names = tuple(name.encode() for name, _ in row.fields if name not in hidden)
    kinds = {name.encode(): (_present(node) or node).kind for name, node in row.fields if name not in hidden}
    return FieldsPlan(code.function("decode"), names, kinds)


def compile_key(schema: str) -> KeyPlan:
    """Compile the writer schema of a key: a record of key columns, or a single value."""
    root = parse_schema(schema)
    code = _Code()
    fields = root.fields if root.type == "record" else [("", root)]
    with _compiling(schema):
        code.line("nulls = ()")
        for number, (name, node) in enumerate(fields):
            code.column(f"v{number}", name.encode(), node)
    code.end()
    code.line(f"return ({''.join(f'v{number}, ' for number in range(len(fields)))})")
    kinds = tuple((_present(node) or node).kind for _, node in fields)
    columns = tuple(name for name, _ in fields) if root.type == "record" else ()
    return KeyPlan(code.function("decode"), columns, kinds)


@contextmanager
def _compiling(schema: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError) as error:
        raise DataError(f"cannot mirror values of the Avro schema {schema[:120]!r}: {error}") from error


def _no_rows(buf: bytes, p: int) -> tuple[None, bytes]:  # noqa: ARG001 - the shape of all plans
    return None, b"m"


def _present(node: Node) -> Node | None:
    """What a union of null and one other type is when it is not null."""
    if node.type == "union" and len(node.branches) == 2 and any(branch.type == "null" for branch in node.branches):
        return next((branch for branch in node.branches if branch.type != "null"), None)
    return None


def _image(envelope: Node, name: str) -> Node | None:
    """The record of a row image of an envelope."""
    node = next((node for field, node in envelope.fields if field == name), None)
    if node is None:
        return None
    node = _present(node) or node
    return node if node.type == "record" else None


_SMALL: Final = tuple(b"%d" % ((n >> 1) ^ -(n & 1)) for n in range(128))
_HELPERS: Final[Mapping[str, Any]] = {
    "DataError": DataError,
    "read_long": read_long,
    "read_length": read_length,
    "small": _SMALL,
    "bools": (b"false", b"true"),
    "faults": (IndexError, ValueError, struct.error, OverflowError, ArithmeticError),
}


class _Code:
    """Source of one generated function."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._names: dict[str, Any] = dict(_HELPERS)
        self._indent = 2

    def line(self, text: str) -> None:
        self._lines.append("    " * self._indent + text)

    def function(self, name: str) -> Any:
        source = "\n".join(
            [
                f"def {name}(buf, p):",
                "    try:",
                *self._lines,
                "    except faults as error:",
                "        raise DataError(f'cannot decode Avro of {len(buf)} bytes: {error}') from error",
            ]
        )
        exec(compile(source, "<avro fields>", "exec"), self._names)  # noqa: S102 - our own text; names are literals
        return self._names[name]

    def constant(self, value: Any) -> str:
        name = f"c{len(self._names)}"
        self._names[name] = value
        return name

    def envelope(self, root: Node, row: Node) -> None:
        self.line("op = b''")
        for name, node in root.fields:
            if name == "after":
                present = _present(node)
                if present is None:
                    self.row(row)
                    return
                null, value = _indexes(node)
                self.line("b = buf[p]")
                self.line("p += 1")
                self.line(f"if b == {value}:")
                self._indent += 1
                self.row(row)
                self._indent -= 1
                self.line(f"if b != {null}:")
                self.line("    raise ValueError(f'union index {b} of after')")
            elif name == "op" and (_present(node) or node).type == "string":
                self.column("op", None, node)
            else:
                self._skip(node)
        self.end()
        self.line("return None, op or b''")

    def row(self, row: Node, hidden: Collection[str] = ()) -> None:
        self.line("nulls = ()")
        deletes: list[str] = []
        pairs: list[tuple[bytes, str]] = []
        for number, (name, node) in enumerate(row.fields):
            if name not in hidden:
                pairs.append((name.encode(), f"v{number}"))
                self.column(f"v{number}", name.encode(), node)
            elif name in DELETES:
                self.column(f"d{number}", None, node)
                deletes.append(f"d{number} in {tuple(_marks(name))}")
            else:
                self._skip(node)
        self.end()
        if deletes:
            self.line(f"if {' or '.join(deletes)}:")
            self.line("    return None, b'd'")
        if any(node.type in ("union", "null") for _, node in row.fields):
            self.line("if nulls:")
            self.line("    row = []")
            for column, value in pairs:
                self.line(f"    if {value} is not None: row += ({column!r}, {value})")
            self.line("    return row, nulls")
        self.line(f"return [{', '.join(f'{column!r}, {value}' for column, value in pairs)}], nulls")

    def end(self) -> None:
        self.line("if p > len(buf):")
        self.line("    raise ValueError(f'{p - len(buf)} bytes are missing')")

    def column(self, target: str, name: bytes | None, node: Node) -> None:
        """Read a value into ``target``: its canonical text, or ``None`` and its name, if any, into ``nulls``."""
        present = _present(node)
        if present is not None:
            null, value = _indexes(node)
            self.line("b = buf[p]")
            self.line("p += 1")
            self.line(f"if b == {value}:")
            self._indent += 1
            self._value(target, present)
            self._indent -= 1
            self.line(f"elif b == {null}:")
            self.line(f"    {target} = None")
            self._null(name, 1)
            self.line("else:")
            self.line("    raise ValueError(f'union index {b}')")
        elif node.type == "null":
            self.line(f"{target} = None")
            self._null(name, 0)
        elif node.type == "union":
            self._union(target, name, node)
        else:
            self._value(target, node)

    def _null(self, name: bytes | None, indent: int) -> None:
        if name is not None:
            self.line("    " * indent + f"nulls += ({name!r},)")

    def _union(self, target: str, name: bytes | None, node: Node) -> None:
        """A union of several types, which no connector of Debezium's writes."""
        readers = [None if branch.type == "null" else value_reader(branch) for branch in node.branches]
        self.line("n, p = read_long(buf, p)")
        self.line(f"if not 0 <= n < {len(readers)}:")
        self.line("    raise ValueError(f'union index {n}')")
        self.line(f"reader = {self.constant(tuple(readers))}[n]")
        self.line("if reader is None:")
        self.line(f"    {target} = None")
        self._null(name, 1)
        self.line("else:")
        self.line(f"    {target}, p = reader(buf, p)")

    def _value(self, target: str, node: Node) -> None:
        plain = node.text is canonical_values.same_text
        if node.type in ("int", "long"):
            self._integer(target, node)
        elif node.type in ("bytes", "string"):
            self.line("n = buf[p]")
            self.line("if n & 129:")  # negative, or more than one byte
            self.line("    n, p = read_length(buf, p)")
            self.line("else:")
            self.line("    n >>= 1")
            self.line("    p += 1")
            self.line("q = p + n")
            if plain:
                self.line(f"{target} = buf[p:q]")
            else:
                self.line("if q > len(buf):")
                self.line("    raise ValueError(f'{q - len(buf)} bytes are missing')")
                self.line(f"{target} = {self.constant(node.text)}(buf[p:q])")
            self.line("p = q")
        elif node.type == "boolean":
            self.line(f"{target} = bools[buf[p]]")
            self.line("p += 1")
        elif node.type in ("float", "double"):
            reader = struct.Struct("<f" if node.type == "float" else "<d")
            self.line(f"{target} = {self.constant(node.text)}({self.constant(reader.unpack_from)}(buf, p)[0])")
            self.line(f"p += {reader.size}")
        else:
            self.line(f"{target}, p = {self.constant(value_reader(node))}(buf, p)")

    def _integer(self, target: str, node: Node) -> None:
        if node.text is canonical_values.int_text:
            self.line("b = buf[p]")
            self.line("if b < 128:")
            self.line(f"    {target} = small[b]")
            self.line("    p += 1")
            self.line("else:")
            self.line("    n, p = read_long(buf, p)")
            self.line(f"    {target} = b'%d' % n")
        else:
            self.line("n, p = read_long(buf, p)")
            self.line(f"{target} = {self.constant(node.text)}(n)")

    def _skip(self, node: Node) -> None:
        present = _present(node)
        if present is None:
            self.line(f"p = {self.constant(skipper(node))}(buf, p)")
            return
        null, value = _indexes(node)
        self.line("b = buf[p]")
        self.line("p += 1")
        self.line(f"if b == {value}:")
        self.line(f"    p = {self.constant(skipper(present))}(buf, p)")
        self.line(f"elif b != {null}:")
        self.line("    raise ValueError(f'union index {b}')")


def _marks(name: str) -> Iterator[bytes]:
    """The texts by which a flattened row's field says that the row was deleted."""
    yield from (b"true" if value is True else str(value).encode() for value in DELETES[name])


def _indexes(union: Node) -> tuple[int, int]:
    """The bytes that stand before null and before the value in a union of two."""
    return (0, 2) if union.branches[0].type == "null" else (2, 0)
