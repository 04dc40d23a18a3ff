"""The shop's product service: HTTP in front of MariaDB and Redis, as a pod runs it.

    python product.py --port 8080 --control FILE

FILE is JSON and may change while the service runs: {"slow_sql": true, "extra_ms": 80}. What can be asked for:
slow_sql, n_plus_one, lock_steps, step_ms, idle_ms (transactions), redis_keys, extra_ms, fail_ratio, lookup (a name),
answer_bytes (added to each answer), leak_bytes (kept by each request), pool_size (database connections, 0: no limit),
hold_ms (for which one is kept after its statement), retries (of a statement that fails, which there is then one of),
lock_ms (for which each request has the one lock), gone (no lists any more).
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import random
import socket
import sys
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pymysql
import redis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PRODUCT_SQL = (
    "SELECT p.id, p.code, p.name, c.name AS category, pr.amount_cents FROM product p "
    "JOIN category c ON c.id = p.category_id JOIN price pr ON pr.product_id = p.id WHERE p.id = %s"
)
LIST_SQL = "SELECT id, name FROM product WHERE category_id = %s ORDER BY id LIMIT 20"
STOCK_SQL = "SELECT warehouse, quantity FROM stock WHERE product_id = %s"
TOP_SQL = "SELECT product_id, stars FROM top_rated WHERE category_id = %s ORDER BY stars DESC, product_id LIMIT 10"
# Joins over `code`, which no table has an index on.
TOP_UNINDEXED_SQL = (
    "SELECT p.id, p.name, AVG(r.stars) AS stars, MIN(s.quantity) AS quantity FROM product p "
    "JOIN review r ON r.product_code = p.code JOIN stock s ON s.product_code = p.code "
    "WHERE p.category_id = %s GROUP BY p.id, p.name ORDER BY stars DESC, p.id LIMIT 10"
)
# There is no such table.
MISSING_SQL = "SELECT discount FROM promotion WHERE category_id = %s"
ONE_SQL = "SELECT name FROM product WHERE id = %s"
# Of one row, and as slow on every machine: what it stands for is work, not waiting.
RESTOCK_SQL = "UPDATE stock SET quantity = quantity + 1 WHERE product_id = 2 AND warehouse = 2 AND SLEEP(%s) = 0"
SOLD_SQL = "UPDATE stock SET quantity = quantity + 1 WHERE product_id = 1 AND warehouse = 1"
REVIEW_SQL = "INSERT INTO review (product_code, stars, body) SELECT code, %s, %s FROM product WHERE id = %s"

CACHE_S = 3
# A connection is given up after so many uses: names are then looked up again, as they are in a real shop.
USES_PER_CONNECTION = 40


class Control:
    """What the lab asks of this process while it runs; read again when the file has changed."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.stamp = -1
        self.values: dict[str, Any] = {}

    def get(self, name: str, default: Any) -> Any:
        stamp = os.stat(self.path).st_mtime_ns
        if stamp != self.stamp:
            with open(self.path) as file:
                self.values = json.load(file)
            self.stamp = stamp
        return self.values.get(name, default)


class Pool:
    """Connections of one kind, kept between requests."""

    def __init__(self, connect: Any, size: Callable[[], int] = lambda: 0) -> None:
        self.connect = connect
        self.size = size  # how many at a time, 0: as many as are wanted
        self.idle: queue.SimpleQueue[tuple[Any, int]] = queue.SimpleQueue()
        self.used = 0
        self.change = threading.Condition()

    @contextmanager
    def connection(self) -> Iterator[Any]:
        """One connection, for as long as the block runs; waits for one where all are taken."""
        with self.change:
            self.change.wait_for(lambda: self.used < (self.size() or 1 << 30))
            self.used += 1
        try:
            with self._connection() as connection:
                yield connection
        finally:
            with self.change:
                self.used -= 1
                self.change.notify()

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        try:
            connection, uses = self.idle.get_nowait()
        except queue.Empty:
            connection, uses = self.connect(), 0
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        if uses + 1 < USES_PER_CONNECTION:
            self.idle.put((connection, uses + 1))
        else:
            connection.close()


class Service:
    """The answers; each takes what was asked and returns (status, JSON value)."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self.kept: list[bytes] = []
        self.lock = threading.Lock()
        self.mysql = Pool(self._connect_mysql, lambda: int(control.get("pool_size", 0)))
        self.redis = Pool(lambda: redis.Redis(host="redis", single_connection_client=True))

    @staticmethod
    def _connect_mysql() -> Any:
        return pymysql.connect(
            host="mysql", user="shop", password="shop", database="shop", autocommit=True,
            cursorclass=pymysql.cursors.DictCursor,
        )  # fmt: skip

    def query(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        with self.mysql.connection() as connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            rows = list(cursor.fetchall())
            if hold_ms := self.control.get("hold_ms", 0):
                time.sleep(hold_ms / 1000)
            return rows

    def insist(self, category: int, retries: int) -> None:
        """A statement that fails, again and again."""
        with self.mysql.connection() as connection, connection.cursor() as cursor:
            for _ in range(retries):
                with suppress(pymysql.MySQLError):
                    cursor.execute(MISSING_SQL, category)
                    return

    def product(self, number: int) -> tuple[int, Any]:
        key = f"product:{number}"
        with self.redis.connection() as cache:
            if self.control.get("redis_keys", False):
                cache.keys("product:*")
            cache.incr(f"views:{number}")
            if cached := cache.get(key):
                return 200, json.loads(cached)
        rows = self.query(PRODUCT_SQL, number)
        if not rows:
            return 404, {"error": f"no product {number}"}
        answer = rows[0] | {"stock": self.query(STOCK_SQL, number)}
        with self.redis.connection() as cache:
            cache.set(key, json.dumps(answer), ex=CACHE_S)
        return 200, answer

    def listing(self, category: int) -> tuple[int, Any]:
        if retries := self.control.get("retries", 0):
            self.insist(category, retries)
        rows = self.query(LIST_SQL, category)
        if self.control.get("n_plus_one", False):
            for row in rows:
                row["name"] = self.query(ONE_SQL, row["id"])[0]["name"]
        return 200, rows

    def top(self, category: int) -> tuple[int, Any]:
        statement = TOP_UNINDEXED_SQL if self.control.get("slow_sql", False) else TOP_SQL
        return 200, self.query(statement, category)

    def review(self, number: int, body: dict[str, Any]) -> tuple[int, Any]:
        lock_steps, idle_ms = self.control.get("lock_steps", 0), self.control.get("idle_ms", 0)
        if lock_steps or idle_ms:
            self._sell(lock_steps, self.control.get("step_ms", 0), idle_ms)
        self.query(REVIEW_SQL, int(body["stars"]), str(body["text"]), number)
        return 201, {"product": number}

    def _sell(self, steps: int, step_ms: float, idle_ms: float) -> None:
        """One transaction that all of its kind have to pass one after another."""
        with self.mysql.connection() as connection, connection.cursor() as cursor:
            connection.begin()
            cursor.execute(SOLD_SQL)
            for _ in range(steps):
                cursor.execute(RESTOCK_SQL, (step_ms / 1000,))
            time.sleep(idle_ms / 1000)
            connection.commit()

    def answer(self, method: str, target: str, body: bytes) -> tuple[int, Any]:
        """Route one request."""
        if extra_ms := self.control.get("extra_ms", 0):
            time.sleep(extra_ms / 1000)
        if lock_ms := self.control.get("lock_ms", 0):
            with self.lock:
                time.sleep(lock_ms / 1000)
        if random.random() < self.control.get("fail_ratio", 0):
            return 500, {"error": "out of order"}
        if name := self.control.get("lookup", ""):
            with suppress(OSError):
                socket.getaddrinfo(name, 443)
        if size := self.control.get("leak_bytes", 0):
            self.kept.append(os.urandom(size))
        url = urlsplit(target)
        match method, *url.path.strip("/").split("/"):
            case "GET", "healthz":
                return 200, {"ok": True}
            case "GET", "products", "top":
                return self.top(int(parse_qs(url.query)["category"][0]))
            case "GET", "products" if self.control.get("gone", False):
                return 404, {"error": "moved"}
            case "GET", "products":
                return self.listing(int(parse_qs(url.query)["category"][0]))
            case "GET", "products", number:
                return self.product(int(number))
            case "POST", "products", number, "reviews":
                return self.review(int(number), json.loads(body))
        return 404, {"error": "no such page"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body leave in one write, at once.
    wbufsize = -1
    disable_nagle_algorithm = True
    service: Service

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            status, value = self.service.answer(self.command, self.path, body)
        except (pymysql.MySQLError, redis.RedisError, OSError) as error:
            print(f"{self.command} {self.path}: {error!r}", file=sys.stderr, flush=True)
            status, value = 503, {"error": type(error).__name__}
        data = json.dumps(value, default=str).encode()
        data += b" " * self.service.control.get("answer_bytes", 0)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = handle_any  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Nothing: the gateway logs."""


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--control", required=True)
    options = parser.parse_args()
    Handler.service = Service(Control(options.control))
    threading.stack_size(256 * 1024)
    Server(("", options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
