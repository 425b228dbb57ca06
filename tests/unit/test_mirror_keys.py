"""Key templates: different rows have different keys, keys read back, key spaces do not share keys (H22, A13)."""

from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cdc.errors import DataError
from cdc.mirror.keys import KeyColumn, KeySpace, Template, reserved_overlap, table_of
from cdc.mirror.languages import Hole, Language, overlap

TOPIC = "shop.public.orders"
TRICKY = st.text("ab:\\*?[]{}-0 \n\0é😀", max_size=6) | st.text(max_size=8)
TEXTS = TRICKY.map(lambda text: text.encode("utf-8", "surrogatepass"))
DIGITS = st.integers(-(2**63), 2**63 - 1).map(lambda number: b"%d" % number)


def space(template: str, *columns: str, topic: str = TOPIC, kind: str = "text") -> KeySpace:
    return Template(template).bind(topic, [KeyColumn(name, kind) for name in columns])


def test_the_default_is_table_and_primary_key() -> None:
    assert space("{table}:{pk}", "id", kind="int8").render([b"42"]) == b"orders:42"


def test_a_lone_key_column_is_written_as_it_is() -> None:
    assert space("user:{id}:prefs", "id").render([b"a:b\\c"]) == b"user:a:b\\c:prefs"


def test_a13_composite_keys_with_colons_are_distinct() -> None:
    both = space("{table}:{pk}", "a", "b")
    assert both.render([b"a:b", b"c"]) == b"orders:a\\:b:c"
    assert both.render([b"a", b"b:c"]) == b"orders:a:b\\:c"


def test_columns_may_be_named_in_another_order_than_the_key_s() -> None:
    keys = space("o:{customer}:{id}", "id", "customer")
    assert keys.render([b"7", b"ann"]) == b"o:ann:7"
    assert keys.parse(b"o:ann:7") == {"id": b"7", "customer": b"ann"}


def test_schema_topic_and_braces_are_literals() -> None:
    keys = space("{topic}/{schema}.{table}:{{{pk}}}", "id")
    assert keys.render([b"1"]) == b"shop.public.orders/public.orders:{1}"


@pytest.mark.parametrize(
    ("topic", "names"), [("a.b.c", ("b", "c")), ("p.x.b.c", ("b", "c")), ("c", ("", "c")), ("b.c", ("b", "c"))]
)
def test_a_topic_tells_schema_and_table(topic: str, names: tuple[str, str]) -> None:
    assert table_of(topic) == names


@given(st.lists(st.tuples(TEXTS, TEXTS, DIGITS), min_size=2, max_size=2))
@example([(b"a:b", b"c", b"1"), (b"a", b"b:c", b"1")])
@example([(b"", b"", b"1"), (b"", b":", b"1")])
@example([(b"a\\", b":b", b"1"), (b"a", b"\\:b", b"1")])
def test_composite_keys_read_back_and_so_are_distinct(rows: list[tuple[bytes, bytes, bytes]]) -> None:
    columns = [KeyColumn("a"), KeyColumn("b"), KeyColumn("n", "int8")]
    for template in ("{table}:{pk}", "t:{b}x:{n}::{a}!", "{{*?[]}}:{n}:{a}:{b}"):
        keys = Template(template).bind(TOPIC, columns)
        for row in rows:
            assert keys.parse(keys.render(row)) == dict(zip("abn", row, strict=True))
        assert (keys.render(rows[0]) == keys.render(rows[1])) == (rows[0] == rows[1])


@given(TEXTS, st.sampled_from(["t:{id}", "t:{id}:x", "[*]?{id}", "{table}{id}{table}"]))
def test_lone_keys_read_back(value: bytes, template: str) -> None:
    keys = space(template, "id")
    assert keys.parse(keys.render([value])) == {"id": value}


@given(TEXTS, TEXTS)
def test_match_finds_every_key_of_the_space(one: bytes, other: bytes) -> None:
    """Redis's globs are fnmatch's but for the backslash, which fnmatch spells with brackets."""
    keys = space("a*[b]?\\".replace("\\", "") + "^-:{pk}", "x", "y")
    pattern = re.sub(rb"\\(.)", lambda match: b"[" + match[1] + b"]" if match[1] != b"^" else b"^", keys.match)
    assert fnmatch.fnmatchcase(keys.render([one, other]).decode("latin-1"), pattern.decode("latin-1"))
    assert keys.match.startswith(rb"a\*\[b\]\?\^\-:")


def test_keys_of_others_are_not_parsed() -> None:
    assert space("user:{id}", "id", kind="int4").parse(b"user:5:prefs") is None
    assert space("user:{id}", "id", kind="int4").parse(b"user:") is None
    assert space("o:{pk}", "a", "b").parse(b"o:1") is None
    assert space("o:{pk}", "a", "b").parse(b"o:1:2:3") is None
    assert space("o:{pk}", "a", "b").parse(b"o:1:\\2") is None


def test_a_null_in_the_key_is_an_error_of_the_record() -> None:
    with pytest.raises(DataError, match="column id is NULL"):
        space("t:{id}", "id").render([None])
    with pytest.raises(DataError, match="column b is NULL"):
        space("t:{pk}", "a", "b").render([b"1", None])


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("", "empty"),
        ("user", "no key column"),
        ("{table}", "no key column"),
        ("{id}:user", "begin with a literal"),
        ("{pk}", "begin with a literal"),
        ("user:{id}{name}", "no ':' between"),
        ("user:{id}-{name}", "no ':' between"),
        ("user:{id}{table}{name}", "no ':' between"),
        ("user:{id}:{id}", "twice"),
        ("user:{pk}:{id}", "one or the other"),
        ("user:{id", "single '{'"),
        ("user:id}", "single '}'"),
        ("user:{}", "without a name"),
        ("user\\:{id}", "backslash"),
    ],
)
def test_templates_that_are_not_keys_are_refused(template: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        Template(template)


@pytest.mark.parametrize(
    ("template", "columns", "says"),
    [
        ("user:{email}", ["id"], "has email, not in the record key"),
        ("order:{id}", ["id", "line"], "lacks line"),
        ("order:{pk}", ["id", "line"], None),
    ],
)
def test_a_template_has_exactly_the_columns_of_the_record_key(
    template: str, columns: list[str], says: str | None
) -> None:
    if says is None:
        assert space(template, *columns).columns
        return
    with pytest.raises(ValueError, match=says + r".*Use {pk} or exactly these columns"):
        space(template, *columns)


def test_a_table_without_name_leaves_nothing_to_begin_with() -> None:
    with pytest.raises(ValueError, match="begins with nothing"):
        space("{schema}{pk}", "id", topic="orders")


# --- overlap ---------------------------------------------------------------------------------------------


def test_a_prefix_of_text_overlaps_what_continues_it_and_one_of_digits_does_not() -> None:
    user, prefs = space("user:{id}", "id"), space("user:{id}:prefs", "id")
    assert overlap(user.language, prefs.language) == b"user::prefs"
    user, prefs = space("user:{id}", "id", kind="int4"), space("user:{id}:prefs", "id", kind="int4")
    assert overlap(user.language, prefs.language) is None


def test_two_schemas_with_one_table_name_share_keys_unless_the_template_has_the_schema() -> None:
    one, other = ("shop.public.users", "shop.crm.users")
    assert overlap(space("{table}:{pk}", "id", topic=one).language, space("{table}:{pk}", "id", topic=other).language)
    assert (
        overlap(
            space("{schema}.{table}:{pk}", "id", topic=one).language,
            space("{schema}.{table}:{pk}", "id", topic=other).language,
        )
        is None
    )


def test_before_the_key_columns_are_known_only_certain_overlaps_count() -> None:
    users, prefs = Template("user:{id}"), Template("user:{id}:prefs")
    assert overlap(users.least("a.b.users"), prefs.least("a.b.prefs")) is None
    assert overlap(users.least("a.b.users"), Template("user:{pk}").least("a.b.prefs")) == b"user:0"


def test_our_own_keys_are_reserved() -> None:
    assert reserved_overlap(space("_{pk}", "id").language) == b"__cdc:"
    assert reserved_overlap(space("__cdc:{pk}", "id").language)
    assert reserved_overlap(space("{table}:{pk}", "id").language) is None
    assert reserved_overlap(space("_{pk}", "id", kind="int4").language) is None


PARTS = st.sampled_from([b"a", b"a:", b":b", b"1", b"-", b"\\"]) | st.sampled_from(list(Hole))


def regex(language: Language) -> re.Pattern[bytes]:
    holes = {Hole.ANY: rb".*", Hole.ESCAPED: rb"(?:[^:\\]|\\[:\\])*", Hole.DIGITS: rb"-?[0-9]+"}
    return re.compile(b"".join(re.escape(p) if isinstance(p, bytes) else holes[p] for p in language), re.DOTALL)


@given(st.lists(PARTS, max_size=4).map(tuple), st.lists(PARTS, max_size=4).map(tuple), st.data())
def test_overlap_is_exact(one: Language, other: Language, data: st.DataObject) -> None:
    """A witness is in both languages; where there is none, no key of one is in the other."""
    witness = overlap(one, other)
    if witness is not None:
        assert regex(one).fullmatch(witness)
        assert regex(other).fullmatch(witness)
        return
    key = b"".join(
        part
        if isinstance(part, bytes)
        else data.draw(st.sampled_from({Hole.DIGITS: [b"-1", b"11"]}.get(part, [b"", b"a", b"1", b"\\:", b"-", b"ab"])))
        for part in one
    )
    assert not (regex(one).fullmatch(key) and regex(other).fullmatch(key))
