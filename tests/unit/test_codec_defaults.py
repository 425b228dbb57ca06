"""Column defaults: constants are read whole, whatever computes is none."""

from __future__ import annotations

from typing import Any

import pytest

from cdc.postgres.types import PgType, TypeModes, default_value, resolve
from cdc.record import NO_DEFAULT

CATALOG = {
    16500: PgType(16500, "Odd Enum", "public", "e", labels=("A,B", "c'd")),
    16501: PgType(16501, "price", "public", "d", base=1700, base_typmod=655366),
}
NUMERIC_10_2 = 655366
NUMERIC_6_0 = (6 << 16) + 4


@pytest.mark.parametrize(
    ("oid", "typmod", "expression", "want"),
    [
        (23, -1, "5", 5),
        (23, -1, "'-5'::integer", -5),
        (23, -1, "(5)", 5),
        (21, -1, "'5'::smallint", 5),
        (20, -1, "'9223372036854775807'::bigint", 9223372036854775807),
        (20, -1, "(5)::bigint", 5),
        (23, -1, "nextval('sq'::regclass)", 0),
        (20, -1, """nextval('"Odd ''seq"'::regclass)""", 0),
        (23, -1, "nextval('a.b'::regclass)::integer", 0),
        (25, -1, "'it''s'::text", "it's"),
        (1043, -1, "'it''s'::character varying", "it's"),
        (1043, 14, "'back\\slash'::character varying", "back\\slash"),
        (1043, 14, "'abc'::character varying(3)", "abc"),
        (25, -1, "('a'::character varying)::text", "a"),
        (25, -1, "''::text", ""),
        (25, -1, "'looks like nextval(''x''::regclass)'::text", "looks like nextval('x'::regclass)"),
        (1042, 9, "'ab'::bpchar", "ab"),
        (16, -1, "true", True),
        (16, -1, "false", False),
        (701, -1, "2.5", 2.5),
        (701, -1, "5", 5.0),
        (700, -1, "'0.1'::real", 0.1),
        (700, -1, "0.1", 0.1),
        (1700, NUMERIC_10_2, "1.5", "AJY="),
        (1700, NUMERIC_10_2, "(7)::numeric", "Arw="),
        (1700, NUMERIC_10_2, "1.5::numeric(10,2)", "AJY="),
        (1700, NUMERIC_6_0, "7", "Bw=="),
        (1082, -1, "'2021-03-04'::date", 18690),
        (1083, -1, "'01:02:03'::time without time zone", 3723000000),
        (1114, -1, "'2020-02-29 12:34:56.789'::timestamp without time zone", 1582979696789000),
        (1184, -1, "'2020-02-29 10:34:56+00'::timestamp with time zone", "2020-02-29T10:34:56.000000Z"),
        (1186, -1, "'01:00:00'::interval", 3600000000),
        (1186, -1, "'1 day'::interval", 86400000000),
        (1560, 7, """B'0000101'::"bit\"""", "BQ=="),
        (1560, 1, """B'1'::"bit\"""", True),
        (2950, -1, "'123e4567-e89b-12d3-a456-426614174000'::uuid", "123e4567-e89b-12d3-a456-426614174000"),
        (3802, -1, """'{"a": "it''s"}'::jsonb""", """{"a": "it's"}"""),
        (16500, -1, """'c''d'::"Odd Enum\"""", "c'd"),
        (16500, -1, """'A,B'::public."Odd Enum\"""", "A,B"),
        # nothing to say, or computed
        (25, -1, "NULL::text", NO_DEFAULT),
        (1043, -1, "NULL::character varying", NO_DEFAULT),
        (23, -1, "(2 + 3)", NO_DEFAULT),
        (25, -1, "upper('abc'::text)", NO_DEFAULT),
        (25, -1, "('a'::text || 'b'::text)", NO_DEFAULT),
        (19, -1, "CURRENT_USER", NO_DEFAULT),
        (25, -1, "CURRENT_USER", NO_DEFAULT),
        (1184, -1, "now()", NO_DEFAULT),
        (1184, -1, "CURRENT_TIMESTAMP", NO_DEFAULT),
        (1184, -1, "('2000-01-01 00:00:00+00'::timestamp with time zone + '1 day'::interval)", NO_DEFAULT),
        (1082, -1, "('now'::text)::date", NO_DEFAULT),
        (2950, -1, "gen_random_uuid()", NO_DEFAULT),
        (23, -1, "(nextval('sq'::regclass) + 1)", NO_DEFAULT),
        (1082, -1, "('2020-01-01 12:00:00'::timestamp without time zone)::date", NO_DEFAULT),
        (25, -1, "('x  '::bpchar)::text", NO_DEFAULT),
        (1043, -1, "('abcdef'::text)::character varying(3)", NO_DEFAULT),
        (23, -1, "(1.9)::integer", NO_DEFAULT),
        (1700, NUMERIC_10_2, "1.505", NO_DEFAULT),
        (1700, NUMERIC_10_2, "'NaN'::numeric", NO_DEFAULT),
        (701, -1, "'NaN'::double precision", NO_DEFAULT),
        (701, -1, "'-Infinity'::double precision", NO_DEFAULT),
        (25, -1, "'unfinished", NO_DEFAULT),
        (23, -1, "(5", NO_DEFAULT),
        (23, -1, "5)", NO_DEFAULT),
        (23, -1, "", NO_DEFAULT),
        # types whose defaults Debezium does not write
        (16501, -1, "1.5", NO_DEFAULT),
        (1700, -1, "1.50", NO_DEFAULT),
        (790, -1, "'$3.50'::money", NO_DEFAULT),
        (17, -1, "'\\x0001fe'::bytea", NO_DEFAULT),
        (869, -1, "'10.0.0.1'::inet", NO_DEFAULT),
        (1266, -1, "'01:02:03+01'::time with time zone", NO_DEFAULT),
        (1007, -1, "'{1,2}'::integer[]", NO_DEFAULT),
    ],
)
def test_default_in_the_schema(oid: int, typmod: int, expression: str, want: Any) -> None:
    got = default_value(expression, resolve(oid, typmod, CATALOG, TypeModes()))
    assert got is want if want in (NO_DEFAULT, True, False) else got == want


def test_a_numeric_as_double_or_text() -> None:
    double = resolve(1700, NUMERIC_10_2, {}, TypeModes(decimal="double"))
    assert default_value("9.90", double) == 9.9
    text = resolve(1700, NUMERIC_10_2, {}, TypeModes(decimal="string"))
    assert default_value("9.90", text) == "9.90"
    assert default_value("'NaN'::numeric", text) is NO_DEFAULT
