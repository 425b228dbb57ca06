"""The shop's application: a thread that keeps writing as many small transactions as a busy shop does.

Inserts, updates, changes of primary keys, updates that leave TOASTed columns alone, deletes with cascades, rollbacks,
and at set moments one big transaction and a TRUNCATE. The customer whose row the demo shows is kept busy.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import psycopg

from cdc.operate.demo.shop import Shop
from cdc.postgres.connection import translate

__all__ = ["SHOWN_CUSTOMER", "Traffic"]

SHOWN_CUSTOMER: Final = 42
"""The customer whose hash the demo looks up."""
TRANSACTIONS_PER_S: Final = 150
SHOWN_EVERY_S: Final = 0.7

_Connection = psycopg.Connection[tuple[Any, ...]]
_Action = Callable[[_Connection], int]


class Traffic:
    """Writes from `start` to `stop`. ``rows`` and ``transactions`` count what was committed.

    The same ``seed`` makes the same decisions.
    """

    def __init__(self, shop: Shop, seed: int = 1) -> None:
        self._shop = shop
        self._random = random.Random(seed)  # noqa: S311 - traffic, not secrets
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self._error: psycopg.Error | None = None
        self._specials: list[tuple[float, _Action]] = []
        self.rows = 0
        self.transactions = 0
        self.largest = 0
        """Rows of the largest transaction."""
        self.truncates = 0
        actions: list[tuple[_Action, int]] = [
            (self._order, 24),
            (self._visit, 24),
            (self._prefer, 14),
            (self._reprice, 12),
            (self._progress, 10),
            (self._cancel, 5),
            (self._renumber, 3),
            (self._join, 4),
            (self._leave, 2),
            (self._merge, 1),
            (self._change_mind, 1),
        ]
        self._actions = [action for action, _ in actions]
        self._weights = [weight for _, weight in actions]

    def start(self) -> None:
        self._thread.start()

    def schedule(self, seconds: float) -> None:
        """Place the big transaction and the TRUNCATE in the next ``seconds``."""
        now = time.monotonic()
        self._specials = [(now + seconds * 0.3, self._campaign), (now + seconds * 0.6, self._new_banners)]

    def stop(self) -> None:
        """Finish the transaction under way and end. Raises as `raise_error`."""
        self._stopping.set()
        self._thread.join()
        self.raise_error()

    def raise_error(self) -> None:
        """Raise what ended the thread earlier, as an error of `cdc.errors`."""
        if self._error is not None:
            raise translate(self._error, "writing to the demo's shop")

    def _run(self) -> None:
        try:
            with self._shop.connect() as connection:
                self._write(connection)
        except psycopg.Error as error:
            self._error = error

    def _write(self, connection: _Connection) -> None:
        shown = due = time.monotonic()
        while not self._stopping.is_set():
            now = time.monotonic()
            action: _Action
            if self._specials and now >= self._specials[0][0]:
                action = self._specials.pop(0)[1]
            elif now - shown >= SHOWN_EVERY_S:
                shown = now
                action = self._personalize
            else:
                action = self._random.choices(self._actions, self._weights)[0]
            rows = 0
            with connection.transaction():
                rows = action(connection)
            if rows:
                self.rows += rows
                self.transactions += 1
                self.largest = max(self.largest, rows)
            due = max(due + 1 / TRANSACTIONS_PER_S, now)
            self._stopping.wait(due - time.monotonic())

    # -- what customers do: each is one transaction and returns how many rows it changed -----------------

    def _customer(self) -> int:
        return self._random.randint(1, 2000)

    def _sku(self) -> str:
        return f"SKU-{self._random.randint(1, 500):05d}"

    def _order(self, on: _Connection) -> int:
        lines = self._random.randint(1, 4)
        customer = self._customer()
        rows = on.execute(
            "with placed as (select nextval('order_ids') as id)"
            " insert into orders (order_id, line_no, customer_id, sku, quantity, price, gift_note)"
            " select placed.id, n, %s, p.sku, 1 + n %% 3, p.price, case when n = 3 then '☕ für später' end"
            " from placed, generate_series(1, %s) n join products p on p.sku = format('SKU-%%s',"
            " to_char(1 + (n * 31 + %s) %% 500, 'FM00000'))",
            (customer, lines, customer),
        ).rowcount
        rows += on.execute(
            "insert into events (customer_id, kind, payload)"
            " values (%s, 'order', jsonb_build_object('lines', %s::int))",
            (customer, lines),
        ).rowcount
        return rows

    def _visit(self, on: _Connection) -> int:
        customer = self._customer()
        rows = on.execute(
            "update customers set last_seen = clock_timestamp(), points = points + 1 where id = %s", (customer,)
        ).rowcount
        rows += on.execute("insert into events (customer_id, kind) values (%s, 'visit')", (customer,)).rowcount
        return rows

    def _prefer(self, on: _Connection) -> int:
        return on.execute(
            "update preferences set settings = jsonb_set(settings, '{theme}', to_jsonb(%s::text)),"
            " favourites = (favourites || %s)[greatest(1, cardinality(favourites) - 8):],"
            " quiet_for = nullif(make_interval(mins => %s), '0') where customer_id = %s",
            (
                self._random.choice(["dark", "light", "système", "高コントラスト"]),
                self._random.randint(1, 500),
                self._random.choice([0, 30, 45, 600]),
                self._customer(),
            ),
        ).rowcount

    def _reprice(self, on: _Connection) -> int:
        """Leaves description and thumbnail alone: TOASTed values that the WAL does not carry."""
        return on.execute(
            "update products set price = round(price * %s, 2), stock = (stock + 7) %% 300, updated = clock_timestamp()"
            " where sku = %s",
            (self._random.choice(["1.05", "0.96", "1"]), self._sku()),
        ).rowcount

    def _progress(self, on: _Connection) -> int:
        return on.execute(
            "update orders set state = (enum_range(state))[2] where order_id = %s and state < 'returned'",
            (self._random.randint(1, 3000),),
        ).rowcount

    def _cancel(self, on: _Connection) -> int:
        return on.execute("delete from orders where order_id = %s", (self._random.randint(1, 3000),)).rowcount

    def _renumber(self, on: _Connection) -> int:
        """Changes primary keys."""
        return on.execute(
            "update orders set line_no = line_no + 10 where order_id = %s and line_no < 100",
            (self._random.randint(1, 3000),),
        ).rowcount

    def _join(self, on: _Connection) -> int:
        return (
            on.execute(
                "with c as (insert into customers (email, name, interests) select format('new.%%s@example.com',"
                " gen_random_uuid()), %s, case when random() < 0.5 then array['chess', null] end returning id)"
                " insert into preferences (customer_id, settings) select id, '{}' from c",
                (self._random.choice(["Chloë Nguyễn", "Bo", "Đặng Thị", "محمد"]),),
            ).rowcount
            + 1
        )

    def _leave(self, on: _Connection) -> int:
        return 2 * on.execute("delete from customers where id = %s and id <> 42", (self._customer(),)).rowcount

    def _merge(self, on: _Connection) -> int:
        """Changes the key of a customer, and with it that of the preferences."""
        return (
            2
            * on.execute(
                "update customers set id = nextval('customers_id_seq') where id = %s and id <> 42", (self._customer(),)
            ).rowcount
        )

    def _change_mind(self, on: _Connection) -> int:
        """Writes, and takes it back: nothing of it may ever be seen."""
        on.execute("update customers set points = -1 where id between 1 and 50")
        raise psycopg.Rollback

    def _personalize(self, on: _Connection) -> int:
        tier = self._random.choice(["basic", "silver", "gold"])
        return on.execute(
            "update customers set points = points + %s, balance = balance + %s, tier = %s, newsletter = %s,"
            " last_seen = clock_timestamp() where id = %s",
            (
                self._random.randint(1, 50),
                self._random.choice(["0.99", "-4.50", "12.00"]),
                tier,
                self._random.choice([True, False, None]),
                SHOWN_CUSTOMER,
            ),
        ).rowcount

    # -- what the shop does at set moments ---------------------------------------------------------------

    def _campaign(self, on: _Connection) -> int:
        """One big transaction: points for every customer, and a long list of orders."""
        rows = on.execute("update customers set points = points + 100").rowcount
        rows += on.execute(
            "insert into orders (order_id, line_no, customer_id, sku, quantity, price)"
            " select nextval('order_ids'), 1, 1 + n % 2000, format('SKU-%s', to_char(1 + n % 500, 'FM00000')), 1, 9.99"
            " from generate_series(1, 8000) n"
        ).rowcount
        return rows

    def _new_banners(self, on: _Connection) -> int:
        on.execute("truncate banners")
        self.truncates += 1
        return on.execute(
            "insert into banners select slot, language, 'Soldes! ' || language, now()"
            " from unnest(array['top', 'foot']) slot, unnest(array['de', 'fr', 'it']) language"
        ).rowcount
