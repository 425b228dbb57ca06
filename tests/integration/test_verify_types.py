"""Values of every common type, mirrored by snapshot and by stream, as the comparison makes them from Postgres's text.

Sink and comparison make canonical text on two ways of their own, so that what one of them gets wrong shows here.
"""

from __future__ import annotations

import pytest
from fix_bridge import bridged
from fix_servers import Database

from cdc.local.kafka import EmbeddedKafka
from cdc.local.redis import Valkey
from cdc.operate.verify import compare, wait_until_equal

pytestmark = pytest.mark.integration

VALUES: dict[str, list[str]] = {
    "smallint": ["-32768", "32767"],
    "integer": ["-2147483648", "0"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "real": ["1.5", "-0", "NaN", "Infinity", "1e-40", "3.4028235e38"],
    "double precision": ["0.1", "-0", "NaN", "-Infinity", "5e-324", "1e15", "123456789012345680"],
    "numeric": ["0", "1.500", "NaN", "Infinity", "-Infinity", "1e40", "0.000000000000000000001", "1e-20"],
    "numeric(10,2)": ["1", "-99999999.99", "NaN"],
    "numeric(5,-2)": ["1200", "-500"],
    "money": ["1.50", "-1234567.89", "0"],
    "text": ["", " ", "é日本☕", "__debezium_unavailable_value", "NULL", "\\N", "tab\tnew\nline \\ back"],
    "varchar(20)": ["x"],
    "char(5)": ["ab"],
    "name": ["a_name"],
    '"char"': ["c"],
    "boolean": ["t", "f"],
    "bytea": ["", "\\x00ff"],
    "bit": ["1"],
    "bit(9)": ["000000001", "111111111"],
    "varbit": ["", "0001", "1"],
    "date": ["2026-01-31", "infinity", "-infinity", "0044-03-15 BC", "12345-01-01", "0001-01-01"],
    "time": ["00:00", "12:34:56.789", "24:00"],
    "time(3)": ["12:34:56.789"],
    "timetz": ["12:34:56.5+02", "00:30+14", "24:00+02", "24:00+00"],
    "timestamp": ["2026-01-31 12:00", "infinity", "-infinity", "0044-03-15 01:02:03 BC", "9999-12-31 23:59:59.999999"],
    "timestamp(0)": ["2026-01-31 12:00:01"],
    "timestamp(3)": ["2026-01-31 12:00:00.123", "infinity"],
    "timestamptz": ["2026-01-31 12:00+05:30", "infinity", "0044-03-15 12:00 BC", "12345-06-07 00:00", "1883-01-01"],
    "interval": ["0", "1 year 2 mons -3 days 04:05:06.7", "-00:00:00.5", "1 mon -1 day", "300 hours"],
    "uuid": ["123E4567-e89b-12d3-a456-426614174000"],
    "json": ['{"a":  1,\n "a": 2}', "null", '"é"'],
    "jsonb": ['{"b":1, "a":  [1.50, null]}', "null"],
    "inet": ["10.0.0.1", "::1/64"],
    "cidr": ["10.0.0.0/8"],
    "macaddr": ["08:00:2b:01:02:03"],
    "int4range": ["[1,5)", "empty", "(,)"],
    "tstzrange": ["[2026-01-01 00:00+00,)"],
    "point": ["(1.5,2)"],
    "tsvector": ["'a':1 'b':2"],
    "pg_lsn": ["0/16B3748"],
    "integer[]": ["{}", "{1,NULL,3}", "{{1,2},{3,4}}", "[0:1]={1,2}"],
    "bigint[]": ["{9223372036854775807}"],
    "text[]": ['{a,"b c","d\\"e","",NULL,"NULL","x,y"}'],
    "numeric[]": ["{1.50,NaN,1e30}"],
    "numeric(5,1)[]": ["{1.5,NULL}"],
    "boolean[]": ["{t,f,NULL}"],
    "real[]": ["{1.5,NaN,-0}"],
    "double precision[]": ["{0.1,Infinity}"],
    "bytea[]": ['{"\\\\x00ff",NULL}'],
    "date[]": ["{2026-01-31,infinity,0044-03-15 BC}"],
    "timestamp[]": ['{"2026-01-31 12:00:00.5",infinity}'],
    "timestamptz[]": ['{"2026-01-31 12:00+02"}'],
    "time[]": ["{24:00,01:02:03.5}"],
    "interval[]": ['{"1 mon","-00:00:01.5"}'],
    "uuid[]": ["{123e4567-e89b-12d3-a456-426614174000}"],
    "json[]": ['{"{\\"a\\": 1}"}'],
    "jsonb[]": ['{"[1, 2]",NULL}'],
    "money[]": ["{1.50,-2}"],
    "bit(3)[]": ["{101,NULL}"],
    "varchar(3)[]": ["{abc}"],
    "mood": ["sad", "very happy"],
    "mood[]": ["{sad,NULL,very happy}", "{}"],
    "positive": ["1.50"],
    "positive[]": ["{1.50}"],
    "pair": ['(1,"a b")'],
    "pair[]": ['{"(1,\\"a b\\")"}'],
    "bounds": ["{1,2}"],
}

TYPES = """
CREATE TYPE mood AS ENUM ('sad', 'very happy');
CREATE DOMAIN positive AS numeric(8, 2) CHECK (VALUE > 0);
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN bounds AS int[];
"""


def test_every_value_is_mirrored_as_the_comparison_expects_it(
    database: Database, embedded_kafka: EmbeddedKafka, valkey9: Valkey
) -> None:
    columns = {f"c{number}": name for number, name in enumerate(VALUES)}
    definition = ", ".join(f'"{column}" {name}' for column, name in columns.items())
    database.execute(TYPES + f"CREATE TABLE values_ (id int PRIMARY KEY, how text, {definition})")
    rows = max(len(values) for values in VALUES.values())

    def insert(how: str, offset: int) -> None:
        names = ", ".join(f'"{column}"' for column in columns)
        casts = ", ".join(f"%s::text::{name}" for name in columns.values())
        with database.connect() as connection:
            for row in range(rows):
                texts = [values[row] if row < len(values) else None for values in VALUES.values()]
                connection.execute(
                    f"INSERT INTO values_ (id, how, {names}) VALUES (%s, %s, {casts})".encode(),
                    [offset + row, how, *texts],
                )

    insert("snapshot", 0)
    with bridged(database, embedded_kafka, valkey9, "public.values_") as bridge:
        insert("stream", 1000)
        report = wait_until_equal(bridge.config, 30)
        assert report.equal, report.as_text()
        assert report.rows == 2 * rows
        assert bridge.hash(f"{bridge.name}:values_:0")["how"] == "snapshot"


KEYS = r"""
CREATE TABLE keys_ (
    at timestamptz, raw bytea, name text, amount numeric(8,3), fine boolean, day date, id uuid, size "char", of int[],
    code char(4), PRIMARY KEY (at, raw, name, amount, fine, day, id, size, of, code)
);
INSERT INTO keys_ VALUES
    ('2026-01-31 12:00:00.5+01', '\x00ff3a', 'a:b\c', 1.500, true, '2026-01-31', '123E4567-e89b-12d3-a456-426614174000',
     'x', '{1,2}', 'ab'),
    ('infinity', '', '', 0, false, '0044-03-15 BC', '00000000-0000-0000-0000-000000000000', '', '{}', ''),
    ('12345-01-01', '\x20', ' *?[', -1, false, '-infinity', '00000000-0000-0000-0000-000000000001', ':', '{7}',
     'é');
CREATE TABLE lone (id text PRIMARY KEY, v float8);
INSERT INTO lone VALUES ('a:b', 1), ('a\', 2), ('', 3), ('*', 4), (E'new\nline', 5), ('日本', 6);
CREATE TABLE stamps (at timestamp PRIMARY KEY);
INSERT INTO stamps VALUES ('2026-01-31 12:00'), ('0044-03-15 01:02:03 BC'), ('infinity');
"""


def test_keys_of_every_type_are_found_again_from_redis(
    database: Database, embedded_kafka: EmbeddedKafka, valkey9: Valkey
) -> None:
    database.execute(KEYS)
    with bridged(database, embedded_kafka, valkey9, "public.keys_,public.lone,public.stamps") as bridge:
        bridge.redis.hset(f"{bridge.name}:lone:ghost", "id", "ghost")
        report = compare(bridge.config)
        assert {table.table: (table.rows, table.keys, table.foreign) for table in report.tables} == {
            "public.keys_": (3, 3, 0),
            "public.lone": (6, 7, 0),
            "public.stamps": (3, 3, 0),
        }
        assert [(drift.kind, drift.key) for table in report.tables for drift in table.drifts] == [
            ("ghost", f"{bridge.name}:lone:ghost")
        ]
        assert report.undecided == 0
