"""Random tables and random histories on them, drawn from a seed: the same seed makes the same statements.

Values are texts that Postgres casts. Rows are chosen by their place in the order of the key, so that nothing but the
seed and the statements before decides what a statement does.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import psycopg
from psycopg import sql

__all__ = ["TYPES", "History", "Table", "play"]

Draw = Callable[[random.Random], str]
_SCRIPTS: Final = string.printable[:95] + "\t\n\\\"'{},éßΩЖ漢字ع😀\u200d\u0301"


def _text(most: int) -> Draw:
    return lambda rng: "".join(rng.choice(_SCRIPTS) for _ in range(rng.randrange(most)))


def _one_of(*texts: str) -> Draw:
    return lambda rng: rng.choice(texts)


def _integer(bits: int) -> Draw:
    def draw(rng: random.Random) -> str:
        edge = rng.choice([0, 1, -1, 2 ** (bits - 1) - 1, -(2 ** (bits - 1))])
        return str(rng.choice([edge, rng.randrange(-100, 100), rng.randrange(-(2 ** (bits - 1)), 2 ** (bits - 1))]))

    return draw


def _digits(most: int, scale: int) -> Draw:
    def draw(rng: random.Random) -> str:
        whole = rng.randrange(10 ** rng.randint(1, most - scale))
        fraction = f".{rng.randrange(10**scale):0{scale}}" if scale else ""
        return f"{rng.choice(['', '-'])}{whole}{fraction}"

    return draw


def _numeric(rng: random.Random) -> str:
    special = rng.choice(["NaN", "0", "0.000", "1e40", "-1e-30", "99999999999999999999999999999999.5"])
    return rng.choice([special, f"{rng.uniform(-1e6, 1e6):.{rng.randrange(9)}f}"])


def _float(rng: random.Random) -> str:
    return rng.choice(["NaN", "Infinity", "-Infinity", "-0", "1e-40", "3.4e38", repr(rng.uniform(-1e9, 1e9)), "0.1"])


def _date(rng: random.Random) -> str:
    special = rng.choice(["infinity", "-infinity", "0044-03-15 BC", "12345-06-07", "0001-01-01", "1970-01-01"])
    return rng.choice([special, f"{rng.randint(1, 9999):04}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"])


def _clock(rng: random.Random) -> str:
    fraction = rng.choice(["", ".5", ".123", f".{rng.randrange(10**6):06}"])
    day = f"{rng.randrange(24):02}:{rng.randrange(60):02}:{rng.randrange(60):02}{fraction}"
    return rng.choice([day, day, "24:00:00", "00:00:00"])


def _timestamp(rng: random.Random) -> str:
    day = _date(rng)
    if "inf" in day:
        return day
    head, space, era = day.partition(" ")
    return f"{head} {_clock(rng).replace('24:', '23:')}{space}{era}"


def _zoned(rng: random.Random) -> str:
    stamp = _timestamp(rng)
    if "inf" in stamp:
        return stamp
    head, bc, _ = stamp.partition(" BC")
    return head + rng.choice(["+00", "+05:30", "-12"]) + bc


def _interval(rng: random.Random) -> str:
    parts = [f"{rng.randint(-99, 99)} {unit}" for unit in ("years", "months", "days", "hours", "minutes")]
    return " ".join([*rng.sample(parts, rng.randint(1, 5)), f"{rng.uniform(-60, 60):.6f} seconds"])


def _json(rng: random.Random) -> str:
    leaf = rng.choice(['"é"', "null", "true", "1.10", "1e400", "-0", "123456789012345678901234567890", '"\\u00e9\\n"'])
    return rng.choice([leaf, f'{{"b": {leaf}, "a": [1, {leaf}]}}', "[]", "{}"])


def _bytes(rng: random.Random) -> str:
    return "\\x" + rng.randbytes(rng.randrange(40)).hex()


def _array(item: Draw) -> Draw:
    def quoted(rng: random.Random) -> str:
        if rng.random() < 0.2:
            return "NULL"
        return '"' + item(rng).replace("\\", "\\\\").replace('"', '\\"') + '"'

    def draw(rng: random.Random) -> str:
        shape = rng.random()
        if shape < 0.15:
            return f"{{{{{quoted(rng)},{quoted(rng)}}},{{{quoted(rng)},{quoted(rng)}}}}}"
        if shape < 0.25:
            return f"[-1:0]={{{quoted(rng)},{quoted(rng)}}}"
        return f"{{{','.join(quoted(rng) for _ in range(rng.randrange(4)))}}}"

    return draw


def _range(rng: random.Random) -> str:
    low = rng.randrange(-50, 50)
    return rng.choice(["empty", "(,)", f"[{low},{low + rng.randrange(20) + 1})", f"[{low},)"])


_UUID: Draw = lambda rng: str(__import__("uuid").UUID(int=rng.getrandbits(128)))  # noqa: E731
_LONG: Draw = lambda rng: "".join(rng.choices(_SCRIPTS, k=20)) * rng.randint(200, 500)  # noqa: E731

TYPES: Final[dict[str, Draw]] = {
    "smallint": _integer(16),
    "integer": _integer(32),
    "bigint": _integer(64),
    "real": _float,
    "double precision": _float,
    "numeric": _numeric,
    "numeric(12,3)": _digits(12, 3),
    "money": _digits(9, 2),
    "text": _text(30),
    "varchar(12)": _text(12),
    "char(6)": _text(6),
    "boolean": _one_of("t", "f"),
    "bytea": _bytes,
    "bit(5)": _one_of("00000", "10110"),
    "varbit": _one_of("", "1", "0101010101"),
    "date": _date,
    "time": _clock,
    "timetz": lambda rng: _clock(rng).replace("24:", "23:") + rng.choice(["+00", "-03:30"]),
    "timestamp": _timestamp,
    "timestamptz": _zoned,
    "interval": _interval,
    "uuid": _UUID,
    "json": _json,
    "jsonb": lambda rng: _json(rng).replace("1e400", "1e40"),
    "inet": _one_of("10.1.2.3", "::1/64", "192.168.0.0/24"),
    "macaddr": _one_of("08:00:2b:01:02:03"),
    "int4range": _range,
    "point": _one_of("(1.5,-2)", "(0,0)"),
    "tsvector": _one_of("'a':1 'b':2", ""),
    "integer[]": _array(_integer(32)),
    "text[]": _array(_text(6)),
    "numeric(6,2)[]": _array(_digits(6, 2)),
    "timestamptz[]": _array(_one_of("2026-01-31 12:00+02", "infinity")),
    "mood": _one_of("sad", "it's ok", "very happy"),
    "mood[]": _array(_one_of("sad", "it's ok")),
    "amount": _digits(8, 2),
    "pair": _one_of('(1,"a ""b""")', "(,)"),
    "big": _LONG,
}
"""Type → how to draw a value. ``big`` is a domain over text whose values are TOASTed."""
_KEYS: Final = ("smallint", "integer", "bigint", "text", "varchar(12)", "uuid", "date", "mood", "amount")
_PRELUDE: Final = """
create type mood as enum ('sad', 'it''s ok', 'very happy');
create domain amount as numeric(8, 2);
create domain big as text;
create sequence versions;
create type pair as (a int, b text);
"""
_NAMES: Final = ("plain", "Upper Case", 'quo"te', "dot.ted", "ünïcode_😀", "order", "x" * 63)


@dataclass
class Table:
    """A drawn table: its columns (name, type, NOT NULL) and the names of its key."""

    name: str
    columns: list[tuple[str, str, bool]]
    key: list[str]
    identity: str
    versioned: bool = False
    """Whether every write gives its row a higher ``version``, a bigint from a sequence of all tables."""

    def __post_init__(self) -> None:
        self.identifier = sql.Identifier("public", self.name)

    def create(self) -> sql.Composed:
        definitions = [
            sql.SQL("{} {}{}").format(sql.Identifier(name), sql.SQL(type_), sql.SQL(" not null" if required else ""))
            for name, type_, required in self.columns
        ]
        if self.versioned:
            definitions.append(sql.SQL("version bigint not null default nextval('versions')"))
        key = sql.SQL(", ").join(map(sql.Identifier, self.key))
        statements = [
            sql.SQL("create table {} ({}, primary key ({}))").format(
                self.identifier, sql.SQL(", ").join(definitions), key
            )
        ]
        statements += [
            sql.SQL("alter table {} alter {} set storage external").format(self.identifier, sql.Identifier(name))
            for name, type_, _ in self.columns
            if type_ == "big"
        ]
        statements.append(sql.SQL("alter table {} replica identity {}").format(self.identifier, sql.SQL(self.identity)))
        return sql.SQL("; ").join(statements)


@dataclass
class History:
    """Tables and the transactions on them; ``phases`` are lists of transactions, each a list of statements."""

    seed: int
    tables: list[Table] = field(default_factory=list)
    phases: list[list[list[sql.Composed]]] = field(default_factory=list)

    @classmethod
    def draw(
        cls, seed: int, phases: int = 3, transactions: int = 25, *, versioned: bool = False, tag: str = ""
    ) -> History:
        """``phases`` times ``transactions`` transactions on one to three tables, whose names end with ``tag``."""
        rng = random.Random(seed)
        made = cls(seed)
        for name in rng.sample(_NAMES, rng.randint(1, 3)):
            made.tables.append(_table(rng, _tagged(name, tag), versioned=versioned))
        for _ in range(phases):
            made.phases.append([_transaction(rng, made.tables) for _ in range(transactions)])
        return made

    def create(self, *, types: bool = True) -> Iterator[sql.Composed]:
        """The statements that make types (which histories of one database share) and tables."""
        if types:
            yield sql.Composed([sql.SQL(_PRELUDE)])
        for table in self.tables:
            yield table.create()


def play(connection: psycopg.Connection, transactions: list[list[sql.Composed]]) -> None:
    """Run transactions on a connection in autocommit. A statement that a constraint refuses is rolled back alone."""
    for statements in transactions:
        with connection.transaction():
            for statement in statements:
                try:
                    with connection.transaction():
                        connection.execute(statement)
                except psycopg.errors.IntegrityError:
                    continue  # a key that is there already: the rest of the transaction goes on


def _tagged(name: str, tag: str) -> str:
    """Names of Postgres have at most 63 bytes."""
    while len((name + tag).encode()) > 63:
        name = name[:-1]
    return name + tag


def _table(rng: random.Random, name: str, *, versioned: bool) -> Table:
    key_types = rng.choices(_KEYS, k=rng.choice([1, 1, 2, 3]))
    columns = [(f"k{number}", type_, True) for number, type_ in enumerate(key_types)]
    for number, type_ in enumerate(rng.sample(list(TYPES), rng.randint(1, 12))):
        columns.append((f"c{number}", type_, rng.random() < 0.3))
    key = [column[0] for column in columns[: len(key_types)]]
    rng.shuffle(key)
    rng.shuffle(columns)
    return Table(name, columns, key, rng.choice(["default", "default", "full"]), versioned)


def _value(rng: random.Random, type_: str, required: bool) -> sql.Composed:
    if not required and rng.random() < 0.25:
        return sql.Composed([sql.SQL("NULL")])
    return sql.SQL("{}::text::{}").format(sql.Literal(TYPES[type_](rng)), sql.SQL(type_))


def _key_value(rng: random.Random, type_: str) -> sql.Composed:
    """One of twelve, so that rows meet again."""
    few = random.Random(rng.randrange(12))
    while "inf" in (drawn := TYPES[type_](few)):
        continue  # an infinite date has no number of days, and a key must be exact
    return sql.SQL("{}::text::{}").format(sql.Literal(drawn), sql.SQL(type_))


def _transaction(rng: random.Random, tables: list[Table]) -> list[sql.Composed]:
    statements = []
    for _ in range(rng.choice([1, 1, 2, 5, 12])):
        table = rng.choice(tables)
        kind = rng.choices(
            ["insert", "update", "delete", "move", "thrice", "rolled back", "truncate"], [40, 30, 12, 8, 6, 4, 0.7]
        )[0]
        statements.append(_statement(rng, table, kind))
    return statements


def _statement(rng: random.Random, table: Table, kind: str) -> sql.Composed:
    if kind == "insert":
        return _insert(rng, table)
    if kind == "truncate":
        return sql.SQL("truncate {}").format(table.identifier)
    if kind == "thrice":  # the life of a row within one transaction
        return sql.SQL("{}; {}; {}").format(_insert(rng, table), _update(rng, table, moves=False), _delete(rng, table))
    if kind == "rolled back":
        doing = _insert(rng, table), _delete(rng, table)
        return sql.SQL("savepoint s; {}; {}; rollback to savepoint s; release savepoint s").format(*doing)
    if kind == "delete":
        return _delete(rng, table)
    return _update(rng, table, moves=kind == "move")


def _insert(rng: random.Random, table: Table) -> sql.Composed:
    values = [
        _key_value(rng, type_) if name in table.key else _value(rng, type_, required)
        for name, type_, required in table.columns
    ]
    names = [sql.Identifier(name) for name, _, _ in table.columns]
    return sql.SQL("insert into {} ({}) values ({}) on conflict do nothing").format(
        table.identifier, sql.SQL(", ").join(names), sql.SQL(", ").join(values)
    )


def _chosen(rng: random.Random, table: Table) -> sql.Composed:
    """The condition that chooses one row, or none of an empty table."""
    key = sql.SQL(", ").join(map(sql.Identifier, table.key))
    return sql.SQL(
        "({key}) = (select {key} from {table} order by {key} limit 1 offset"
        " (select {place} % greatest(count(*), 1) from {table}))"
    ).format(key=key, table=table.identifier, place=sql.Literal(rng.randrange(1000)))


def _delete(rng: random.Random, table: Table) -> sql.Composed:
    return sql.SQL("delete from {} where {}").format(table.identifier, _chosen(rng, table))


def _update(rng: random.Random, table: Table, *, moves: bool) -> sql.Composed:
    values = [column for column in table.columns if column[0] not in table.key]
    changed = rng.sample(values, rng.randint(1, max(1, len(values) // 2)))
    sets = [
        sql.SQL("{} = {}").format(sql.Identifier(name), _value(rng, type_, required))
        for name, type_, required in changed
    ]
    if table.versioned:
        sets.append(sql.SQL("version = default"))
    if moves:
        types = {name: type_ for name, type_, _ in table.columns}
        sets += [
            sql.SQL("{} = {}").format(sql.Identifier(name), _key_value(rng, types[name]))
            for name in rng.sample(table.key, rng.randint(1, len(table.key)))
        ]
    return sql.SQL("update {} set {} where {}").format(table.identifier, sql.SQL(", ").join(sets), _chosen(rng, table))
