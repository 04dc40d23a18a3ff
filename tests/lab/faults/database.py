"""Faults of the database and the cache: what product asks of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.lab.faults.fault import Answer, Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.shop import Shop

HOLD_MS = 150
LOCK_STEPS = 6
KEYS = 300_000


def asked(**values: object) -> tuple[Callable[[Shop], None], Callable[[Shop], None]]:
    """Switch values of every product pod's control on and off."""

    def on(shop: Shop) -> None:
        for pod in shop.of("product"):
            shop.control(pod, **values)

    def off(shop: Shop) -> None:
        for pod in shop.of("product"):
            shop.control(pod, **dict.fromkeys(values))

    return on, off


def _fill_redis(shop: Shop) -> None:
    pod = shop.one("redis")
    fill = f"for i = 1, {KEYS} do redis.call('set', 'session:' .. i, 'x') end"
    pod.run("redis-cli", "-h", pod.ip, "eval", fill, "0")
    asked(redis_keys=True)[0](shop)


def _empty_redis(shop: Shop) -> None:
    asked(redis_keys=True)[1](shop)
    pod = shop.one("redis")
    pod.run("redis-cli", "-h", pod.ip, "flushall")


FAULTS = (
    Fault(
        "slow-sql",
        "product asks the database for a join of three tables without an index",
        *asked(slow_sql=True),
        lambda _shop: Answer(("slow-sql-statement",), ("join review", "shop/mysql", "shop/product")),
    ),
    Fault(
        "n-plus-one",
        "product asks the database for each product of a list by itself",
        *asked(n_plus_one=True),
        lambda _shop: Answer(("n-plus-one",), ("shop/product", "shop/mysql")),
    ),
    Fault(
        "lock-contention",
        f"reviews update one row and run {LOCK_STEPS} statements on many rows before they commit",
        *asked(lock_steps=LOCK_STEPS),
        lambda _shop: Answer(("lock-contention",), ("shop/mysql", "update stock")),
    ),
    Fault(
        "idle-in-transaction",
        f"reviews update one row and do something else for {HOLD_MS} ms before they commit",
        *asked(idle_ms=HOLD_MS),
        lambda _shop: Answer(("idle-in-transaction",), ("shop/mysql", "shop/product")),
    ),
    Fault(
        "redis-keys",
        f"product runs KEYS on {KEYS} keys",
        _fill_redis,
        _empty_redis,
        lambda _shop: Answer(("slow-cache-command",), ("KEYS", "shop/redis", "shop/product")),
    ),
)
