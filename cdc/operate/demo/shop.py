"""The shop's database: made, filled, and opened to the bridge's own role."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Final

import psycopg
from psycopg import sql

from cdc.local.postgres import Postgres

__all__ = ["DATABASE", "SCHEMA_FILE", "Shop", "create_shop"]

DATABASE: Final = "shop"
SCHEMA_FILE: Final = files("cdc.operate.demo") / "shop.sql"
_OWNER: Final = "shop"
_BRIDGE: Final = "cdc"


@dataclass(frozen=True)
class Shop:
    """Where the shop is. The application's role owns the tables, the bridge's role may read and publish them."""

    host: str
    port: int
    owner_password: str = field(repr=False)
    bridge_password: str = field(repr=False)
    bridge_user: str = _BRIDGE

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection as the application has it, in autocommit mode."""
        return psycopg.connect(
            host=self.host,
            port=self.port,
            user=_OWNER,
            password=self.owner_password,
            dbname=DATABASE,
            autocommit=True,
            application_name="shop",
        )


def create_shop(server: Postgres) -> Shop:
    """Create roles, database, tables and rows on a server that has none of them yet."""
    shop = Shop(server.host, server.port, secrets.token_urlsafe(18), secrets.token_urlsafe(18))
    with psycopg.connect(**server.conninfo(), autocommit=True) as admin:
        for name, password, rights in (
            (_OWNER, shop.owner_password, ""),
            (_BRIDGE, shop.bridge_password, "replication"),
        ):
            admin.execute(
                sql.SQL("create role {} login {} password {}").format(
                    sql.Identifier(name), sql.SQL(rights), sql.Literal(password)
                )
            )
        # Adding a table to a publication takes the rights of its owner.
        admin.execute(sql.SQL("grant {} to {}").format(sql.Identifier(_OWNER), sql.Identifier(_BRIDGE)))
        admin.execute(sql.SQL("create database {} owner {}").format(sql.Identifier(DATABASE), sql.Identifier(_OWNER)))
    with shop.connect() as connection:
        connection.execute(SCHEMA_FILE.read_text(encoding="utf-8").encode())
        connection.execute("analyze")
    return shop
