"""Faults of what a further service asks of the shop's MySQL and Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.lab.faults.extra import serve, step, visit, without
from tests.lab.faults.fault import Answer, Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.shop import Shop

FIELDS = 60_000
SCRIPT_STEPS = 250_000
MEMORY = "1mb"


def _deadlocks(shop: Shop) -> None:
    serve(shop, "checkout", step("take_two", products=2))
    visit(shop, "http://checkout/", rate=40, workers=16)


def _export(shop: Shop) -> None:
    serve(shop, "export", step("export"))
    visit(shop, "http://export/", rate=0.7, workers=2)


def _big_key(shop: Shop) -> None:
    redis = shop.one("redis")
    fill = f"for i = 1, {FIELDS} do redis.call('hset', 'basket:all', 'customer:' .. i, string.rep('x', 50)) end"
    redis.run("redis-cli", "-h", redis.ip, "eval", fill, "0")
    serve(shop, "basket", step("whole_hash", key="basket:all"))
    visit(shop, "http://basket/", rate=3)


def _no_big_key(shop: Shop) -> None:
    without("basket")(shop)
    redis = shop.one("redis")
    redis.run("redis-cli", "-h", redis.ip, "del", "basket:all")


def _script(shop: Shop) -> None:
    serve(shop, "discount", step("script", steps=SCRIPT_STEPS))
    visit(shop, "http://discount/", rate=4)


def _memory(size: str) -> Callable[[Shop], None]:
    def set_(shop: Shop) -> None:
        redis = shop.one("redis")
        redis.run("redis-cli", "-h", redis.ip, "config", "set", "maxmemory", size)

    return set_


def _no_writes(shop: Shop) -> None:
    """As a master that was made a replica in a failover, and whose clients do not know."""
    redis = shop.one("redis")
    redis.run("redis-cli", "-h", redis.ip, "replicaof", "127.0.0.1", "1")


def _writes(shop: Shop) -> None:
    redis = shop.one("redis")
    redis.run("redis-cli", "-h", redis.ip, "replicaof", "no", "one")


FAULTS = (
    Fault(
        "read-only-cache",
        "Redis has become a replica: it may only be read",
        _no_writes,
        _writes,
        lambda _shop: Answer(("server-errors",), ("shop/redis", "READONLY")),
    ),
    Fault(
        "mysql-deadlocks",
        "transactions of checkout update the same two rows in any order, and deadlock",
        _deadlocks,
        without("checkout"),
        lambda _shop: Answer(("server-errors", "lock-contention"), ("shop/mysql", "shop/checkout", "1213")),
    ),
    Fault(
        "large-result",
        "export asks MySQL for 80,000 rows at once: hardly any time to execute, much to transfer and read",
        _export,
        without("export"),
        lambda _shop: Answer(("slow-sql-statement",), ("shop/mysql", "shop/export", "cross join", "rows|MiB|MB|bytes")),
    ),
    Fault(
        "big-key",
        f"basket reads a Redis hash of {FIELDS} fields whole",
        _big_key,
        _no_big_key,
        lambda _shop: Answer(("slow-cache-command",), ("shop/redis", "shop/basket", "HGETALL")),
    ),
    Fault(
        "slow-script",
        f"discount runs a Redis script of {SCRIPT_STEPS} steps",
        _script,
        without("discount"),
        lambda _shop: Answer(("slow-cache-command",), ("shop/redis", "shop/discount", "EVAL")),
    ),
    Fault(
        "cache-full",
        "Redis has no memory left to write with, and may throw nothing away",
        _memory(MEMORY),
        _memory("0"),
        lambda _shop: Answer(("server-errors",), ("shop/redis", "OOM")),
    ),
)
