"""Faults of the database and the cache: what product asks of them."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from tests.lab.faults.fault import Answer, Fault
from tests.lab.shell import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.shop import Shop

HOLD_MS = 150
LOCK_STEPS, STEP_MS = 6, 25
KEYS = 300_000
HELD_MS = 60
RETRIES = 12
DISK_IOPS = 6
MAX_CONNECTIONS = 10  # the least that the server takes


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


# ---- slow-disk: the kernel lets the pod's writes wait ------------------------------------------------------


def _administer(shop: Shop, statement: str) -> None:
    run("mariadb", "--no-defaults", "-uroot", f"--socket={shop.folder / 'mysql.sock'}", "-e", statement)


def _flush(shop: Shop, commits: int) -> None:
    _administer(shop, f"SET GLOBAL innodb_flush_log_at_trx_commit = {commits}")


def _limit_writes(shop: Shop, per_second: int) -> None:
    """0: no limit. The limit is the device's that holds the shop's folder."""
    pod = shop.one("mysql")
    number = os.stat(shop.folder).st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    file = shop.tree.file(pod.container_cgroup, "blkio", "blkio.throttle.write_iops_device")
    if file.exists():
        file.write_text(f"{device} {per_second}")
    else:
        shop.tree.file(pod.container_cgroup, "io", "io.max").write_text(f"{device} wiops={per_second or 'max'}")


def _slow_disk(shop: Shop) -> None:
    _flush(shop, 1)
    _limit_writes(shop, DISK_IOPS)


def _fast_disk(shop: Shop) -> None:
    _limit_writes(shop, 0)
    _flush(shop, 0)


# ---- too-many-connections ----------------------------------------------------------------------------------


def _take_connections(shop: Shop) -> None:
    """A program that does nothing with them takes all of the database's connections that it can get."""
    _administer(shop, f"SET GLOBAL max_connections = {MAX_CONNECTIONS}")
    program = (
        "import pymysql, time\nkept = []\nwhile True:\n"
        "    try: kept.append(pymysql.connect(host='mysql', user='shop', password='shop'))\n"
        "    except pymysql.MySQLError: pass\n"
        "    time.sleep(0.05 if len(kept) < 9 else 3)\n"
    )
    load = shop.one("load")
    shop.helpers["take"] = load.spawn(shop.tree, [sys.executable, "-c", program], shop.folder / "take.log")


def _give_connections(shop: Shop) -> None:
    process = shop.helpers.pop("take")
    process.terminate()
    process.wait()
    _administer(shop, "SET GLOBAL max_connections = 200")


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
        f"reviews update one row and run {LOCK_STEPS} statements of {STEP_MS} ms each before they commit",
        *asked(lock_steps=LOCK_STEPS, step_ms=STEP_MS),
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
    Fault(
        "pool-exhausted",
        f"each product pod has one database connection, and keeps it for {HELD_MS} ms after its statement",
        *asked(pool_size=1, hold_ms=HELD_MS),
        lambda _shop: Answer(("pool-exhausted",), ("shop/product", "shop/mysql")),
    ),
    Fault(
        "retry-storm",
        f"product tries a statement that fails {RETRIES} times, at once",
        *asked(retries=RETRIES),
        lambda _shop: Answer(("retry-storm",), ("shop/product", "shop/mysql", "promotion")),
    ),
    Fault(
        "slow-disk",
        f"the database may write no more than {DISK_IOPS} times a second, and flushes each of its commits to the disk",
        _slow_disk,
        _fast_disk,
        lambda _shop: Answer(("slow-disk",), ("shop/mysql",)),
    ),
    Fault(
        "too-many-connections",
        "somebody else has taken nearly all connections that the database allows",
        _take_connections,
        _give_connections,
        lambda _shop: Answer(("server-errors",), ("shop/mysql", "1040")),
    ),
)
