"""Every type of a server at once: snapshot and stream write the same, and what comes back is what Postgres has.

Among the values are those of the traps of docs/traps.md T19 (temporal extremes), T20 (numeric and float specials), T22
(OIDs that differ from database to database) and T23 (what COPY's text has of its own).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from all_types import install_extensions, make_types, types_of
from fix_bridge import bridged
from fix_servers import Database, missing

from cdc import reader
from cdc.codec.canonical import CanonicalType
from cdc.local import MissingPart
from cdc.local.kafka import EmbeddedKafka
from cdc.local.redis import Valkey
from cdc.operate.type_table import documented
from cdc.operate.verify import wait_until_equal
from cdc.postgres.catalog import read_table, read_types
from cdc.postgres.connection import connect
from cdc.postgres.pg_type import canonical_type
from tests.reader_proof import NOT_KEPT, literal, made_of

pytestmark = pytest.mark.integration


def _table(database: Database) -> tuple[Callable[[int], None], int]:
    """A table of all types: a function that inserts its rows, numbered from an offset, and how many they are."""
    install_extensions(database)
    make_types(database)
    types = types_of(database)
    columns = [(f"c{number}", type_.definition, type_.samples) for number, type_ in enumerate(types)]
    arrays = [
        (f"a{number}", f"{type_.definition}[]", type_.samples) for number, type_ in enumerate(types) if type_.has_array
    ]
    definitions = ", ".join(f"{name} {definition}" for name, definition, _ in columns + arrays)
    database.execute(f"CREATE TABLE every (id int PRIMARY KEY, {definitions})")
    rows = max(len(samples) for _, _, samples in columns)

    def insert(offset: int) -> None:
        # Whatever the database's settings are: its own texts are cast back here.
        with database.connect(options="-c DateStyle=ISO -c IntervalStyle=postgres -c TimeZone=UTC") as connection:
            for row in range(rows):
                values: dict[str, tuple[str, list[str]]] = {}
                for name, definition, samples in columns:
                    # A domain may have a default.
                    values[name] = (f"%s::{definition}", [samples[row]]) if row < len(samples) else ("NULL", [])
                for name, definition, samples in arrays:
                    expression = _array(definition, samples, row)
                    if expression is not None:
                        values[name] = expression
                names = ", ".join(values)
                expressions = ", ".join(expression for expression, _ in values.values())
                parameters = [parameter for _, given in values.values() for parameter in given]
                connection.execute(
                    f"INSERT INTO every (id, {names}) SELECT {offset + row}, {expressions}".encode(), parameters
                )

    return insert, rows


def test_every_type_comes_back_from_redis_as_postgres_has_it(
    database: Database, embedded_kafka: EmbeddedKafka, valkey9: Valkey
) -> None:
    insert, rows = _table(database)
    insert(0)
    with bridged(database, embedded_kafka, valkey9, "public.every") as bridge:
        insert(1000)
        report = wait_until_equal(bridge.config, 60)
        assert report.equal, report.as_text()
        assert report.rows == 2 * rows
        kinds = _kinds(database)
        for row in range(rows):
            fields = bridge.hash(f"{bridge.name}:every:{row}")
            streamed = bridge.hash(f"{bridge.name}:every:{row + 1000}")
            assert streamed == fields | {"id": str(row + 1000)}
            absent = kinds.keys() - fields.keys()
            _compare(database, row, kinds, reader.read(fields, kinds) or {}, absent)


def test_the_types_of_postgis_are_among_them(database15: Database) -> None:
    """Those of the server's extensions are tested, if it has them: the system's is to have PostGIS."""
    query = "SELECT count(*) FROM pg_available_extensions WHERE name = 'postgis'"
    if database15.execute(query) == [(0,)]:
        missing(MissingPart("PostGIS", "apt-get install postgresql-postgis"))
    database15.execute("CREATE EXTENSION postgis")
    assert {"geometry", "geography", "box3d"} <= {type_.name for type_ in types_of(database15) if type_.samples}


MODES = {
    "texts": "decimal: string, time.precision: isostring, binary: hex, hstore: map, interval: string",
    "numbers": "decimal: double, time.precision: nanoseconds, binary: base64-url-safe",
    "connect": "time.precision: connect, binary: base64",
}


HOSTILE = {
    "DateStyle": "German",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kolkata",
    "extra_float_digits": "-3",
    "bytea_output": "escape",
    "quote_all_identifiers": "on",
}
"""What a database may ask of its sessions: it changes the text of values (docs/traps.md, T21)."""


@pytest.mark.parametrize("name", MODES)
def test_every_type_is_exact_under_other_modes(
    name: str, database15: Database, embedded_kafka: EmbeddedKafka, valkey9: Valkey
) -> None:
    for setting, value in HOSTILE.items():
        database15.execute(f"ALTER DATABASE \"{database15.name}\" SET {setting} = '{value}'")
    insert, rows = _table(database15)
    insert(0)
    settings = {"    topic.prefix:": "    topic.prefix:"}
    for setting in MODES[name].split(", "):
        mode, value = setting.split(": ")
        key = f"{mode}.mode" if "." in mode else f"{mode}.handling.mode"
        settings["    topic.prefix:"] = f"    {key}: {value}\n" + settings["    topic.prefix:"]
    with bridged(database15, embedded_kafka, valkey9, "public.every", settings) as bridge:
        insert(1000)
        report = wait_until_equal(bridge.config, 60)
        assert report.equal, report.as_text()
        assert report.rows == 2 * rows


CONVERTERS = {
    "json": "{side}.converter: json",
    "json without schemas": "{side}.converter: json\n  {side}.converter.schemas.enable: false",
    "json without schemas, numbers": (
        "{side}.converter: json\n  {side}.converter.schemas.enable: false\n  {side}.converter.decimal.format: NUMERIC"
    ),
    "jsonschema": "{side}.converter: jsonschema",
    "protobuf": "{side}.converter: protobuf",
}


@pytest.mark.parametrize("name", CONVERTERS)
def test_every_type_is_exact_with_other_converters(
    name: str, database15: Database, embedded_kafka: EmbeddedKafka, valkey9: Valkey
) -> None:
    insert, rows = _table(database15)
    insert(0)
    converters = "\n  ".join(CONVERTERS[name].format(side=side) for side in ("key", "value"))
    with bridged(
        database15, embedded_kafka, valkey9, "public.every", {"worker:": f"worker:\n  {converters}"}
    ) as bridge:
        insert(1000)
        report = wait_until_equal(bridge.config, 60)
        assert report.equal, report.as_text()
        assert report.rows == 2 * rows


def test_every_type_has_a_row_in_the_documentation(database: Database) -> None:
    install_extensions(database)
    names = {
        row[0]
        for row in database.execute(
            "SELECT t.typname FROM pg_type t LEFT JOIN pg_type e ON e.typarray = t.oid"
            " WHERE t.typtype IN ('b', 'r', 'm') AND e.oid IS NULL"  # the others by their kind: enums, domains, arrays
        )
    }
    assert len(names) > 100
    assert names - documented() == set()


CHANGES = """
ALTER TYPE mood ADD VALUE 'angry' BEFORE 'sad'
INSERT INTO moods VALUES (2, 'angry', '{angry,NULL}')
CREATE TYPE mood_again AS ENUM ('sad', 'angry', 'calm, "very"')
ALTER TABLE moods ALTER m TYPE mood_again USING m::text::mood_again
ALTER TABLE moods ALTER ms TYPE mood_again[] USING ms::text[]::mood_again[]
DROP TYPE mood
ALTER TYPE mood_again RENAME TO mood
INSERT INTO moods VALUES (3, 'calm, "very"', '{"calm, \\"very\\"",sad}')
UPDATE moods SET m = 'angry' WHERE id = 1
"""


def test_an_enum_gets_labels_and_is_made_again_while_streaming(
    database15: Database, embedded_kafka: EmbeddedKafka, valkey9: Valkey
) -> None:
    database15.execute(
        "CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE moods (id int PRIMARY KEY, m mood NOT NULL, ms mood[]);"
        "INSERT INTO moods VALUES (1, 'sad', '{sad}')"
    )
    with bridged(database15, embedded_kafka, valkey9, "public.moods") as bridge:
        for statement in CHANGES.strip().splitlines():
            database15.execute(statement)
        report = wait_until_equal(bridge.config, 60)
        assert report.equal, report.as_text()
        assert bridge.hash(f"{bridge.name}:moods:1") == {"id": "1", "m": "angry", "ms": '["sad"]'}
        assert bridge.hash(f"{bridge.name}:moods:2") == {"id": "2", "m": "angry", "ms": '["angry",null]'}
        assert bridge.hash(f"{bridge.name}:moods:3") == {
            "id": "3",
            "m": 'calm, "very"',
            "ms": '["calm, \\"very\\"","sad"]',
        }


def _array(definition: str, samples: list[str], row: int) -> tuple[str, list[str]] | None:
    """All samples and NULL; lower bounds of zero; two dimensions; no element."""
    element = f"%s::{definition.removesuffix('[]')}"
    elements = ", ".join([element] * len(samples))
    match row:
        case 0:
            return f"ARRAY[{elements}{', ' if samples else ''}NULL]::{definition}", samples
        case 1 if samples:
            return f"('[0:{len(samples) - 1}]=' || (ARRAY[{elements}]::{definition})::text)::{definition}", samples
        case 2 if samples:
            return f"ARRAY[ARRAY[{element}, NULL], ARRAY[NULL, {element}]]::{definition}", [samples[0], samples[-1]]
        case 3:
            return f"'{{}}'::{definition}", []
    return None


def _kinds(database: Database) -> dict[str, CanonicalType]:
    info = database.conninfo
    connection = connect({name: str(value) for name, value in info.items()}, "test")
    with connection:
        [(oid,)] = database.execute("SELECT 'every'::regclass::oid")
        table = read_table(connection, oid)
        assert table is not None
        types = read_types(connection, {column.type_oid for column in table.columns})
        return {column.name: canonical_type(column.type_oid, column.typmod, types) for column in table.columns}


def _compare(
    database: Database, row: int, kinds: dict[str, CanonicalType], values: dict[str, Any], absent: set[str]
) -> None:
    """What the reader gave, written as a literal of the column's type, is what the column has, by its text."""
    info = database.conninfo
    with connect({name: str(value) for name, value in info.items()}, "test") as connection:
        names = [name for name, kind in kinds.items() if name not in absent and not made_of(kind, *NOT_KEPT)]
        definitions = dict(
            connection.execute(
                "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
                " WHERE attrelid = 'every'::regclass AND attnum > 0"
            ).fetchall()
        )
        literals = [literal(kinds[name], values[name]) for name in names]
        casts = ", ".join(f"(%s::{definitions[name]})::text, {name}::text" for name in names)
        [answer] = connection.execute(f"SELECT {casts} FROM every WHERE id = {row}".encode(), literals).fetchall()
        differing = {
            name: (kinds[name], mine, its)
            for name, mine, its in zip(names, answer[::2], answer[1::2], strict=True)
            if mine != its
        }
        assert differing == {}
        nulls = " AND ".join(f"{name} IS NULL" for name in sorted(absent)) or "true"
        assert connection.execute(f"SELECT {nulls} FROM every WHERE id = {row}".encode()).fetchall() == [(True,)]
        for name in (name for name, kind in kinds.items() if kind in ("json", "jsonb") and name not in absent):
            [(text,)] = connection.execute(f"SELECT {name}::text FROM every WHERE id = {row}".encode()).fetchall()
            assert values[name] == json.loads(text, parse_float=Decimal)
