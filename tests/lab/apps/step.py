"""A small HTTP service that does one kind of work for each request: a step of a longer way, or the end of one.

    python step.py --port 80 --do spin --with '{"ms": 130}' [--alone] [--certificate FILE]

do: one of WORK; with: its arguments; alone: one request at a time, a connection each; certificate: HTTPS, with the
key in the same file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import psycopg
import pymysql
import redis

if TYPE_CHECKING:
    from collections.abc import Callable

    # What was asked (the path) -> (status, JSON value).
    Work = Callable[[str], tuple[int, Any]]

DOWNSTREAM_TIMEOUT_S = 5.0
# Time of the client's own in the middle of a transaction, so that two of a kind overlap.
BETWEEN_STATEMENTS_S = 0.015
EXPORT_SQL = "SELECT r.id, r.product_code, r.stars, r.body, c.name FROM review r CROSS JOIN category c"
TAKE_SQL = "UPDATE stock SET quantity = quantity - 1 WHERE product_id = %s AND warehouse = 1"
ORDER_SQL = "SELECT customer, total FROM orders WHERE id = %s"
ADD_ORDER_SQL = "INSERT INTO orders (customer, total, note) VALUES (%s, 1, 'new')"
REPORT_SQL = (
    "SELECT customer, sum(total) AS total FROM orders WHERE md5(note) LIKE %s "
    "GROUP BY customer ORDER BY total DESC LIMIT 10"
)
DISCOUNT_LUA = (
    "local best = 0 for i = 1, tonumber(ARGV[1]) do "
    "best = math.max(best, (redis.call('STRLEN', KEYS[1]) * i) % 97) end return best"
)

kept = threading.local()


def _mine(connect: Callable[[], Any]) -> Any:
    """This thread's connection: each of the service's clients has a thread."""
    if getattr(kept, "connection", None) is None:
        kept.connection = connect()
    return kept.connection


# ---- no server below ----------------------------------------------------------------------------------------


def spin(ms: float) -> Work:
    """Compute for a while."""

    def tax_of(steps: int) -> int:
        total = 0
        for step in range(steps):
            total = (total * 31 + step) % 1_000_003
        return total

    def work(_path: str) -> tuple[int, Any]:
        until = time.thread_time() + ms / 1000
        while time.thread_time() < until:
            tax_of(20_000)
        return 200, {}

    return work


def sleep(ms: float) -> Work:
    """Take `ms`, a third more or less."""

    def work(_path: str) -> tuple[int, Any]:
        time.sleep(ms / 1000 * random.uniform(0.67, 1.33))
        return 200, {}

    return work


def blob(size: int) -> Work:
    """Answer with `size` bytes."""
    return lambda _path: (200, "x" * size)


def fail(ratio: float) -> Work:
    """500 for a share of what is asked."""
    return lambda _path: (500, {"error": "broken"}) if random.random() < ratio else (200, {})


def limited(per_second: float) -> Work:
    """429 for what is asked more often."""
    lock = threading.Lock()
    spent = [0.0]

    def work(_path: str) -> tuple[int, Any]:
        with lock:
            now = time.monotonic()
            spent[0] = max(spent[0], now - 1)
            if spent[0] > now:
                return 429, {"error": "too many requests"}
            spent[0] += 1 / per_second
            return 200, {"rate": 4.9}

    return work


# ---- another service below ----------------------------------------------------------------------------------


def get(url: str, authority: str | None = None) -> Work:
    """Ask another service, on a connection of its own; any failure of it is a 503."""
    context = ssl.create_default_context(cafile=authority) if authority else None
    handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)]
    opener = urllib.request.build_opener(*handlers)

    def work(_path: str) -> tuple[int, Any]:
        try:
            with opener.open(url, timeout=DOWNSTREAM_TIMEOUT_S) as answer:
                return 200, {"below": len(answer.read())}
        except urllib.error.HTTPError as error:
            error.close()
            return 503, {"error": f"{url} said {error.code}"}

    return work


def nats(subject: str, timeout_s: float) -> Work:
    """Ask whoever listens to a subject."""
    import nats as library

    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    client = asyncio.run_coroutine_threadsafe(library.connect("nats://nats:4222"), loop).result()

    def work(_path: str) -> tuple[int, Any]:
        request = client.request(subject, b"EUR", timeout=timeout_s)
        try:
            return 200, {"bytes": len(asyncio.run_coroutine_threadsafe(request, loop).result().data)}
        except TimeoutError:
            return 503, {"error": f"nobody answers {subject}"}

    return work


# ---- a database below ---------------------------------------------------------------------------------------


def orders(password: str, is_kept: bool = True) -> Work:
    """PostgreSQL, on connections that are kept or not.

    `/report` goes through all orders, `/new` makes one, anything else reads one.
    """

    def connect() -> Any:
        return psycopg.connect(
            host="postgres", user="orders", password=password, dbname="orders", autocommit=True, connect_timeout=5
        )

    def work(path: str) -> tuple[int, Any]:
        if is_kept:
            return ask(path, _mine(connect).cursor())
        with connect() as connection:
            return ask(path, connection.cursor())

    def ask(path: str, cursor: Any) -> tuple[int, Any]:
        if path.startswith("/report"):
            return 200, cursor.execute(REPORT_SQL, (f"%{random.randint(10, 99)}%",)).fetchall()
        if path.startswith("/new"):
            cursor.execute(ADD_ORDER_SQL, (random.randint(1, 500),))
            return 201, {}
        return 200, cursor.execute(ORDER_SQL, (random.randint(1, 1000),)).fetchone()

    return work


def book(password: str, url: str) -> Work:
    """PostgreSQL: lock a row, ask another service, and only then commit."""
    ask = get(url)

    def connect() -> Any:
        return psycopg.connect(host="postgres", user="orders", password=password, dbname="orders", connect_timeout=5)

    def work(path: str) -> tuple[int, Any]:
        connection = _mine(connect)
        connection.execute("SELECT total FROM orders WHERE id = 1 FOR UPDATE")
        ask(path)
        connection.execute("UPDATE orders SET total = total + 1 WHERE id = 1")
        connection.commit()
        return 200, {}

    return work


def _mysql(port: int = 3306) -> Any:
    return pymysql.connect(host="mysql", port=port, user="shop", password="shop", database="shop", autocommit=True)


def ping(port: int) -> Work:
    """MySQL, wherever it is said to be."""

    def work(_path: str) -> tuple[int, Any]:
        _mine(lambda: _mysql(port)).ping(reconnect=False)
        return 200, {}

    return work


def export() -> Work:
    """MySQL: all there is, in one answer."""

    def work(_path: str) -> tuple[int, Any]:
        cursor = _mine(_mysql).cursor()
        cursor.execute(EXPORT_SQL)
        return 200, {"rows": len(cursor.fetchall())}

    return work


def take_two(products: int) -> Work:
    """MySQL: two products out of stock in one transaction, in the order they were asked for."""

    def work(_path: str) -> tuple[int, Any]:
        connection = _mine(_mysql)
        connection.begin()
        try:
            cursor = connection.cursor()
            for product in random.sample(range(1, products + 1), 2):
                cursor.execute(TAKE_SQL, (product,))
                time.sleep(BETWEEN_STATEMENTS_S)
            connection.commit()
        except pymysql.MySQLError:
            connection.rollback()
            raise
        return 200, {}

    return work


def _redis() -> Any:
    return redis.Redis(host="redis", single_connection_client=True)


def whole_hash(key: str) -> Work:
    """Redis: all fields of one hash."""
    return lambda _path: (200, {"fields": len(_mine(_redis).hgetall(key))})


def script(steps: int) -> Work:
    """Redis: a script of so many steps."""

    def work(_path: str) -> tuple[int, Any]:
        return 200, {"best": _mine(lambda: _redis().register_script(DISCOUNT_LUA))(keys=["product:1"], args=[steps])}

    return work


WORK: dict[str, Callable[..., Work]] = {
    work.__name__: work
    for work in (spin, sleep, blob, fail, limited, get, nats, orders, book, ping, export, take_two, whole_hash, script)
}


# ---- the server ---------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    work: Callable[[str], tuple[int, Any]]

    def do_GET(self) -> None:
        try:
            status, value = type(self).work(self.path)
        except (pymysql.MySQLError, redis.RedisError, psycopg.Error, OSError) as error:
            print(f"{self.path}: {error!r}", file=sys.stderr, flush=True)
            kept.connection = None
            status, value = 503, {"error": type(error).__name__}
        data = json.dumps(value, default=str).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def get_request(self) -> tuple[Any, Any]:
        try:
            return super().get_request()
        except OSError:
            # As servers do that cannot accept: try again a little later.
            time.sleep(0.05)
            raise

    def handle_error(self, request: Any, client_address: Any) -> None:
        print(f"{client_address}: {sys.exc_info()[1]!r}", file=sys.stderr, flush=True)


class ServerAlone(HTTPServer):
    request_queue_size = 128


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--do", choices=sorted(WORK), required=True)
    parser.add_argument("--with", dest="arguments", type=json.loads, default={})
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--certificate")
    options = parser.parse_args()
    work = WORK[options.do](**options.arguments)
    Handler.work = staticmethod(work)
    if options.alone:
        Handler.protocol_version = "HTTP/1.0"
    threading.stack_size(512 * 1024)
    server = (ServerAlone if options.alone else Server)(("", options.port), Handler)
    if options.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate)
        # The handshake belongs to the client's thread, not to the one that accepts.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    with suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == "__main__":
    main()
