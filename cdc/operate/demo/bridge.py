"""The demo's configuration: a file that ``cdc run`` takes as it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from cdc.local.stack import Stack
from cdc.operate.demo.shop import DATABASE, Shop

__all__ = ["write_bridge"]

_FILE: Final = """\
# The bridge of the demo. It is all that a bridge needs:  cdc run {path}
worker:
  bootstrap.servers: {kafka}
  schema.registry.url: embedded
  listeners: http://127.0.0.1:0
connectors:
  shop:
    connector.class: postgres
    database.hostname: {host}
    database.port: {port}
    database.user: {user}
    database.password: ${{directory:{secrets}:database}}
    database.dbname: {database}
    topic.prefix: shop
    schema.include.list: public
  shop-cache:
    connector.class: redis
    topics.regex: shop\\.public\\..*
    redis.uri: {redis}
"""
_FOR_EMBEDDED: Final = """\
    # The embedded broker lets a consumer group form after half of this time, 20 s by default.
    consumer.override.session.timeout.ms: 6000
"""


def write_bridge(path: Path, stack: Stack, shop: Shop) -> None:
    """Write the configuration, and beside it the password it refers to, in a folder that only its owner reads."""
    hidden = path.parent / "secrets"
    hidden.mkdir(mode=0o700)
    descriptor = os.open(hidden / "database", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(shop.bridge_password + "\n")
    text = (_FILE if stack.flavour == "apache" else _FILE + _FOR_EMBEDDED).format(
        path=path,
        kafka=stack.kafka.bootstrap_servers,
        host=shop.host,
        port=shop.port,
        user=shop.bridge_user,
        secrets=hidden,
        database=DATABASE,
        redis=stack.redis.url,
    )
    path.write_text(text, encoding="utf-8")
