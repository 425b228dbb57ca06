"""Values of every type that a server has, with its extremes; and the types of our own that are made of them."""

from __future__ import annotations

from dataclasses import dataclass

from fix_servers import Database

__all__ = ["INTERNAL", "MADE", "SAMPLES", "TypeOf", "install_extensions", "make_types", "types_of"]

SAMPLES: dict[str, list[str]] = {
    "int2": ["-32768", "32767"],
    "int4": ["-2147483648", "2147483647"],
    "int8": ["-9223372036854775808", "9223372036854775807"],
    "float4": ["1.5", "-0", "NaN", "Infinity", "1e-45", "3.4028235e38", "1000000", "0.1"],
    "float8": ["0.1", "-0", "NaN", "-Infinity", "5e-324", "1e15", "123456789012345680", "1.7976931348623157e308"],
    "numeric": ["1.500", "NaN", "Infinity", "-Infinity", "1e500", "-1e-400", "0", "9" * 1000 + "." + "9" * 1000],
    "money": ["-92233720368547758.08", "92233720368547758.07", "0"],
    "oid": ["0", "4294967295"],
    "xid": ["4294967295"],
    "xid8": ["18446744073709551615"],
    "cid": ["4294967295"],
    "tid": ["(4294967295,65535)"],
    "pg_lsn": ["FFFFFFFF/FFFFFFFF", "0/0"],
    "regclass": ["pg_class", "4294967295", "-"],
    "regtype": ["integer", "timestamp with time zone"],
    "regproc": ["now"],
    "regprocedure": ["sum(integer)"],
    "regoper": ["pg_catalog.||/"],
    "regoperator": ["+(integer,integer)"],
    "regrole": ["pg_monitor"],
    "regnamespace": ["pg_catalog"],
    "regconfig": ["english"],
    "regdictionary": ["simple"],
    "regcollation": ['"C"'],
    "regdatabase": ["template1"],
    "text": ["", " ", "é日本☕𝕊", "__debezium_unavailable_value", "NULL", "\\N", 'tab\tnew\nline \\ "back"', "{a,b}"],
    "varchar": ["x", ""],
    "bpchar": ["ab ", ""],
    "name": ["a_name", "n" * 63],
    "char": ["c", "", "\\"],
    "cstring": [],
    "bool": ["t", "f"],
    "bytea": ["", "\\x00ff", "\\x5c"],
    "bit": ["", "000000001", "1" * 70],
    "varbit": ["", "0001", "1"],
    "date": ["2026-01-31", "infinity", "-infinity", "4713-01-01 BC", "5874897-12-31", "0001-01-01", "10000-01-01"],
    "time": ["00:00", "12:34:56.789", "24:00", "23:59:59.999999"],
    "timetz": ["12:34:56.5+02", "00:30+14:30:15", "24:00+02", "24:00+00", "00:00-15:59:59"],
    "timestamp": [
        "2026-01-31 12:00",
        "infinity",
        "-infinity",
        "4713-01-01 01:02:03 BC",
        "294276-12-31 23:59:59.999999",
    ],
    "timestamptz": ["2026-01-31 12:00+05:30", "infinity", "-infinity", "0044-03-15 12:00 BC", "12345-06-07 00:00"],
    "interval": ["0", "1 year 2 mons -3 days 04:05:06.7", "-00:00:00.5", "1 mon -1 day", "178000000 years", "1 us ago"],
    "uuid": ["123E4567-e89b-12d3-a456-426614174000"],
    "json": ['{"a":  1,\n "a": 2}', "null", '"é"', "[1e400, 1.50]"],
    "jsonb": ['{"b":1, "a":  [1.50, null, 12345678901234567890.123456789]}', "null", '"x"', "1e300"],
    "jsonpath": ["$.a[*] ? (@ > 1)"],
    "xml": ['<a b="1">t</a>', "text"],
    "inet": ["10.0.0.1", "::1/64", "192.168.1.5/24"],
    "cidr": ["10.0.0.0/8", "::/0"],
    "macaddr": ["08:00:2b:01:02:03"],
    "macaddr8": ["08:00:2b:01:02:03:04:05"],
    "point": ["(1.5,-0)", "(NaN,Infinity)", "(1e300,0.1)"],
    "box": ["(1,1),(0,0)", "(Infinity,2),(1,1)"],
    "lseg": ["[(0,0),(1,1)]"],
    "line": ["{1,-1,0}"],
    "path": ["[(0,0),(1,1)]", "((0,0),(1,1))"],
    "polygon": ["((0,0),(1,1),(2,0))"],
    "circle": ["<(1,2),3>"],
    "tsvector": ["'a':1 'b''c':2A"],
    "tsquery": ["'a' & !'b' <2> 'c''d'", ""],
    "refcursor": ["cursor"],
    "int2vector": ["1 2", ""],
    "oidvector": ["1 4294967295"],
    "pg_snapshot": ["10:20:10,14"],
    "txid_snapshot": ["10:20:10,14"],
    "aclitem": ["pg_monitor=r*w/pg_monitor"],
    "int4range": ["[1,5)", "empty", "(,)"],
    "int8range": ["(,9223372036854775807)"],
    "numrange": ["[1.50,NaN]", "(-Infinity,1e30)"],
    "tsrange": ["[2026-01-01 00:00,2026-01-02 12:00:00.5]", "[-infinity,)", "[0044-03-15 BC,)"],
    "tstzrange": ["[2026-01-01 00:00+02,)"],
    "daterange": ["[2026-01-01,infinity]", "[0044-03-15 BC,)"],
    "int4multirange": ["{[1,3),[5,7)}", "{}"],
    "int8multirange": ["{(,)}"],
    "nummultirange": ["{[1.50,2)}"],
    "tsmultirange": ['{["2026-01-01 00:00","2026-01-02 00:00"),["2026-02-01 00:00",)}'],
    "tstzmultirange": ["{[2026-01-01 00:00+02,)}"],
    "datemultirange": ["{[2026-01-01,2026-01-05),[2027-01-01,)}"],
    # contrib
    "citext": ["MiXed", ""],
    "hstore": ['a=>1, b=>NULL, "q\\"\\\\"=>"v, => x"', "", "é=>NULL"],
    "ltree": ["a.b.c", ""],
    "lquery": ["*.a|b.*{1,2}"],
    "ltxtquery": ["a & !b"],
    "query_int": ["1&(2|!3)"],
    "cube": ["(1,2),(3,4)", "(0)"],
    "seg": ["1.5 .. 2", "~7"],
    "isbn": ["0901690546"],
    "isbn13": ["978-0-393-04002-9"],
    "ismn": ["9790260000438"],
    "ismn13": ["9790260000438"],
    "issn": ["1436-4522"],
    "issn13": ["1436-4522"],
    "upc": ["220356483481"],
    "ean13": ["0220356483481"],
    "lo": ["123"],
    "dblink_pkey_results": ["(1,id)"],
    "tablefunc_crosstab_2": ["(a,,c)"],
    "tablefunc_crosstab_3": ["(a,,c,d)"],
    "tablefunc_crosstab_4": ["(a,,c,d,)"],
    "earth": ["(6378168)"],
    "vector": ["[1,2.5,-0.1]", "[1000000,1e-40,3.4028235e38]", "[123456790]"],
    "halfvec": ["[1,0.1,65504]", "[6e-8,-0]"],
    "sparsevec": ["{1:1.5,3:0.1}/5", "{}/3", "{1:1,100000:2}/100000"],
    # PostGIS and what comes with it
    "geometry": ["SRID=4326;POINT Z(1 2 3)", "POINT EMPTY", "POLYGON((0 0,1 0,1 1,0 0))", "POINT M(1e300 -0.1 5)"],
    "geography": ["POINT(1 2)", "LINESTRING(0 0,-179.5 89)"],
    "box2d": ["BOX(1 2,3 4)"],
    "box3d": ["BOX3D(1 2 3,4 5 6)"],
    "spheroid": ['SPHEROID["GRS_1980",6378137,298.257222101]'],
    "raster": [
        "0100000100000000000000F03F000000000000F03F000000000000E03F00"
        "0000000000E03F000000000000000000000000000000000000000001000100440001"
    ],
    "geometry_dump": ['("{1,2}","POINT(1 2)")'],
    "geomval": ['("POINT(1 2)",1.5)'],
    "valid_detail": ['(f,"Ring ""1""","POINT(1 2)")'],
    "summarystats": ["(1,2,3,4,5,6)"],
    "addbandarg": ["(1,8BUI,0,)"],
    "agg_count": ["(1,2,t,0.5)"],
    "agg_samealignment": ["(,t)"],
    "rastbandarg": ["(,1)"],
    "reclassarg": ["(1,0-1:2,8BUI,0)"],
    "unionarg": ["(1,MEAN)"],
    "stdaddr": [f"({',' * 15})", "(,,,,MAIN,ST" + "," * 10 + ")"],
    "norm_addy": ["(1,,Main,St,,,,,,t,,)"],
    "topogeometry": ["(1,2,3,1)"],
    "topoelement": ["{1,2}"],
    "topoelementarray": ["{{1,2},{3,4}}"],
    "getfaceedges_returntype": ["(1,2)"],
    "validatetopology_returntype": ["(error,1,2)"],
    # information_schema's domains
    "cardinal_number": ["0"],
    "character_data": ["x"],
    "sql_identifier": ["x"],
    "time_stamp": ["2026-01-31 12:00:00.12+00"],
    "yes_or_no": ["YES"],
}
"""Name in ``pg_type`` → values, as anybody may write them."""

INTERNAL = {
    *("pg_node_tree", "pg_ndistinct", "pg_dependencies", "pg_mcv_list"),
    *("pg_brin_bloom_summary", "pg_brin_minmax_multi_summary"),
    *("gtsvector", "ghstore", "gtrgm", "ltree_gist", "intbig_gkey"),
    *("box2df", "gidx"),
    *("gbtreekey2", "gbtreekey4", "gbtreekey8", "gbtreekey16", "gbtreekey32", "gbtreekey_var"),
}
"""Types whose values no one can write."""

MADE: dict[str, tuple[str, list[str]]] = {
    "mood": ("TYPE mood AS ENUM ('sad', 'very, happy', 'it''s \\ \"q\"')", ["sad", "very, happy", 'it\'s \\ "q"']),
    "price": ("DOMAIN price AS numeric(12, 3)", ["1.5", "NaN", "-999999999.999"]),
    "dear": ("DOMAIN dear AS price CHECK (VALUE <> 13)", ["1.5", "0"]),
    "moody": ("DOMAIN moody AS mood", ["sad"]),
    "bounds": ("DOMAIN bounds AS int4[]", ["{1,NULL}", "[0:1]={1,2}", "{{1,2},{3,4}}", "{}"]),
    "pair": (
        'TYPE pair AS (x int4, "y z" text, at timestamptz, ok bool, of numeric[])',
        ['(1,"a ""b"" \\\\ , (é)",2026-01-31 12:00+01,t,"{1.50,NaN}")', "(,,,,)", '(,"",infinity,f,"[0:1]={1,2}")'],
    ),
    "nested": (
        "TYPE nested AS (inner_ pair, pairs pair[], h json, b bytea, m mood)",
        [
            '("(1,a,,t,)","{""(1,\\\\""b c\\\\"",,,)"",NULL}","{""k"": [1]}","\\\\x00ff","very, happy")',
            "(,,,,)",
        ],
    ),
    "boxed": ("DOMAIN boxed AS pair", ["(7,,,,)"]),
    "lone": ("TYPE lone AS (a text)", ["()", '("")', '("a)b")']),
    "span": ("TYPE span AS RANGE (subtype = float8)", ["[1.5,Infinity)", "empty"]),
}
"""Types of our own: how each is created, and values of it."""

MODIFIED = {
    "numeric(10,2)": ["1", "-99999999.99", "NaN"],
    "numeric(1000,500)": ["9" * 500 + "." + "9" * 500, "-0.5"],
    "numeric(5,-2)": ["1200", "-500"],
    "numeric(3,5)": ["0.00123"],
    "bit(1)": ["1", "0"],
    "bit(9)": ["000000001", "111111111"],
    "varbit(5)": ["", "00011"],
    "char(5)": ["ab", "żółw"],
    "varchar(3)": ["abc"],
    "time(0)": ["12:34:56", "24:00"],
    "time(3)": ["12:34:56.789"],
    "timetz(2)": ["12:34:56.78+00"],
    "timestamp(0)": ["2026-01-31 12:00:01", "infinity"],
    "timestamp(3)": ["2026-01-31 12:00:00.123", "0044-03-15 01:02:03 BC"],
    "timestamptz(2)": ["2026-01-31 12:00:00.12+00"],
    "interval second(2)": ["1.25"],
}
"""Types with modifiers."""


@dataclass(frozen=True)
class TypeOf:
    """A type as a column's definition names it, and values of it."""

    name: str
    definition: str
    samples: list[str]
    has_array: bool = True


def install_extensions(database: Database) -> None:
    """Create every extension that the server has."""
    names = [row[0] for row in database.execute("SELECT name FROM pg_available_extensions ORDER BY name")]
    assert {"hstore", "citext", "ltree", "isn"} <= set(names)
    for name in names:
        if name.startswith(("postgis", "address_standardizer")) and name[-1].isdigit():
            continue  # the same under another name, which it conflicts with
        database.execute(f'CREATE EXTENSION IF NOT EXISTS "{name}" CASCADE')


def make_types(database: Database) -> None:
    """Create the types of our own."""
    for statement, _ in MADE.values():
        database.execute(f"CREATE {statement}")


def types_of(database: Database) -> list[TypeOf]:
    """All types of a database that columns can have, but arrays. Fails for one that has no samples."""
    rows = database.execute(
        "SELECT t.typname, format('%I.%I', n.nspname, t.typname), t.typarray <> 0 FROM pg_type t"
        " JOIN pg_namespace n ON n.oid = t.typnamespace"
        " WHERE t.typtype IN ('b', 'e', 'd', 'r', 'm', 'c') AND t.typisdefined AND t.typname !~ '^_'"
        " AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind <> 'c') ORDER BY 2"
    )
    made = {name: samples for name, (_, samples) in MADE.items()}
    known = {**SAMPLES, **made, **{name: [] for name in (*INTERNAL, "span_multirange")}}
    unknown = [name for name, _, _ in rows if name not in known]
    assert not unknown, f"types without samples: {unknown}"
    has_xml = database.execute("SELECT count(*) FROM pg_config WHERE name = 'CONFIGURE' AND setting ~ 'libxml'")[0][0]
    infinite = database.execute("SELECT current_setting('server_version_num')::int >= 170000")[0][0]
    found = []
    for name, definition, has_array in rows:
        samples = known[name]
        if name == "xml" and not has_xml:
            samples = []
        if name == "interval" and infinite:
            samples = [*samples, "infinity", "-infinity"]
        found.append(TypeOf(name, definition, samples, has_array))
    return found + [TypeOf(name, name, samples) for name, samples in MODIFIED.items()]
