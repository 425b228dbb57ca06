"""Names that Avro can have: as Debezium makes them, and never two of one."""

from __future__ import annotations

import pytest

from cdc.errors import FatalError
from cdc.postgres.names import field_names, schema_name


@pytest.mark.parametrize(
    ("mode", "name", "found"),
    [
        ("none", "Order Id", "Order Id"),
        ("avro", "Order Id", "Order_Id"),
        ("avro", "9lives", "_9lives"),
        ("avro", "with.dot", "with_dot"),
        ("avro", "żółw", "____"[:3] + "w"),
        ("avro_unicode", "with.dot", "with_u002edot"),
        ("avro_unicode", "9lives", "_u0039lives"),
        ("avro_unicode", "__x", "_u005f_u005fx"),
        ("avro_unicode", "😀", "_ud83d_ude00"),
    ],
)
def test_names_of_fields(mode: str, name: str, found: str) -> None:
    assert field_names(mode, [name], "t") == [found]


@pytest.mark.parametrize(
    ("mode", "found"),
    [("none", "my-shop.public.a_b"), ("avro", "my_shop.public.a_b"), ("avro_unicode", "my_u002dshop.public.a_u005fb")],
)
def test_names_of_schemas_keep_their_dots(mode: str, found: str) -> None:
    assert schema_name(mode, "my-shop.public.a_b") == found


def test_two_columns_are_never_one_field() -> None:
    with pytest.raises(FatalError, match=r"'a b' and 'a-b' of public.t are both named a_b"):
        field_names("avro", ["a b", "a-b"], "public.t")
    assert field_names("avro_unicode", ["a b", "a-b"], "public.t") == ["a_u0020b", "a_u002db"]
