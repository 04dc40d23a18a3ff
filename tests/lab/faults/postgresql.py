"""Faults of a PostgreSQL server with a service of its own: load -> orders (two replicas) -> postgres."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from tests.lab.errors import LabError
from tests.lab.faults.extra import end, serve, step, visit
from tests.lab.faults.fault import Answer, Fault
from tests.lab.pods import START_TIMEOUT_S
from tests.lab.shell import run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.lab.pods import Pod
    from tests.lab.shop import Shop

PORT = 5432
PASSWORD, OLD_PASSWORD = "second", "first"
ORDERS = 200_000
LOCKED_S, UNLOCKED_S = 0.7, 1.3
ASK_MS = 130
CONNECTIONS = 12
_TABLE = (
    "CREATE ROLE orders LOGIN PASSWORD '{password}'",
    "CREATE TABLE orders (id serial PRIMARY KEY, customer int NOT NULL, total int NOT NULL, note text NOT NULL)",
    "INSERT INTO orders (customer, total, note) SELECT n % 500, n % 97, 'note ' || n FROM generate_series(1, {rows}) n",
    "ALTER TABLE orders OWNER TO orders",
    "ANALYZE orders",
)
# A migration that has other things to do before it commits.
_MIGRATE = (
    "import psycopg, sys, time\n"
    "with psycopg.connect(host='postgres', user='orders', dbname='orders', password=sys.argv[1]) as db:\n"
    "    while True:\n"
    "        db.execute(\"ALTER TABLE orders ALTER COLUMN note SET DEFAULT 'none'\")\n"
    "        time.sleep(float(sys.argv[2]))\n"
    "        db.commit()\n"
    "        time.sleep(float(sys.argv[3]))\n"
)


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        raise LabError("PostgreSQL is not installed: run tools/setup.sh test")
    return found[-1]


def _start(shop: Shop, rows: int, *more: str) -> None:
    """The server, with the table in it."""
    data = shop.folder / "postgresql"
    become = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")
    data.mkdir()
    shutil.chown(data, "postgres")
    secret = shop.folder / "postgresql.secret"
    secret.write_text("admin")
    run(
        *become, str(_programs() / "initdb"), "-D", str(data), "-U", "admin", "-A", "scram-sha-256", "--no-sync",
        f"--pwfile={secret}",
    )  # fmt: skip
    with (data / "pg_hba.conf").open("a") as file:
        file.write("host all all all scram-sha-256\n")

    def command(pod: Pod) -> Sequence[str]:
        settings = (f"listen_addresses={pod.ip}", f"unix_socket_directories={data}", "fsync=off", *more)
        return [*become, str(_programs() / "postgres"), "-D", str(data), *(w for s in settings for w in ("-c", s))]

    pods = serve(shop, "postgres", command, replicas=1, port=PORT)
    _await(pods[0])
    _administer(pods[0], "CREATE DATABASE orders", database="admin")
    _administer(pods[0], *(s.format(password=PASSWORD, rows=rows) for s in _TABLE))


def _await(pod: Pod) -> None:
    """It accepts connections before it is ready for them."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            return _administer(pod, database="admin")
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                raise LabError(f"PostgreSQL does not start: {error}") from error
            time.sleep(0.05)


def _administer(pod: Pod, *statements: str, database: str = "orders") -> None:
    # A database of the superuser's own name is not made by initdb; template1 always is.
    name = "template1" if database == "admin" else database
    with psycopg.connect(
        host=pod.ip, port=PORT, user="admin", password="admin", dbname=name, autocommit=True, connect_timeout=10
    ) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def _with_orders(shop: Shop, rows: int = 2_000, password: str = PASSWORD) -> None:
    _start(shop, rows)
    serve(shop, "orders", step("orders", password=password))


def _stop(shop: Shop) -> None:
    end(shop)
    shop.take_away("orders", "postgres", "migrate", "booking", "seats", "leak")
    shutil.rmtree(shop.folder / "postgresql")


def _reports(shop: Shop) -> None:
    _with_orders(shop, ORDERS)
    visit(shop, "http://orders/orders/1", rate=12)
    visit(shop, "http://orders/report", rate=1)


def _migration(shop: Shop) -> None:
    _with_orders(shop)
    migrate = [sys.executable, "-c", _MIGRATE, PASSWORD, str(LOCKED_S), str(UNLOCKED_S)]
    serve(shop, "migrate", lambda _pod: migrate, replicas=1, port=None)
    visit(shop, "http://orders/orders/1", "http://orders/orders/1", "http://orders/new", rate=25, workers=16)


def _rotation(shop: Shop) -> None:
    """Connections from before the rotation live on, as they do in the server."""
    _with_orders(shop, password=OLD_PASSWORD)
    visit(shop, "http://orders/orders/1", rate=12)


def _reconnecting(shop: Shop) -> None:
    _start(shop, 1_000)
    serve(shop, "orders", step("orders", password=PASSWORD, is_kept=False))
    visit(shop, "http://orders/orders/1", rate=12)


def _booking(shop: Shop) -> None:
    _start(shop, 1_000)
    serve(shop, "seats", step("sleep", ms=ASK_MS))
    serve(shop, "booking", step("book", password=PASSWORD, url="http://seats/"))
    visit(shop, "http://booking/", rate=6)


_LEAK = (
    "import psycopg, sys, time\n"
    "kept = []\n"
    "while True:\n"
    "    try: kept.append(psycopg.connect(host='postgres', user='orders', dbname='orders', password=sys.argv[1]))\n"
    "    except psycopg.Error: pass\n"
    "    time.sleep(0.05 if len(kept) < int(sys.argv[2]) else 3)\n"
)


def _leaked(shop: Shop) -> None:
    """Three of the connections are kept for administrators."""
    _start(shop, 1_000, f"max_connections={CONNECTIONS}")
    leak = [sys.executable, "-c", _LEAK, PASSWORD, str(CONNECTIONS - 4)]
    serve(shop, "leak", lambda _pod: leak, replicas=1, port=None)
    serve(shop, "orders", step("orders", password=PASSWORD))
    visit(shop, "http://orders/orders/1", rate=12)


FAULTS = (
    Fault(
        "pg-reconnect",
        "orders opens a connection to PostgreSQL for each request and closes it again",
        _reconnecting,
        _stop,
        lambda _shop: Answer(("connection-churn",), ("shop/orders", "shop/postgres")),
    ),
    Fault(
        "pg-lock-and-ask",
        f"booking locks a row in PostgreSQL and asks another service for {ASK_MS} ms before it commits",
        _booking,
        _stop,
        lambda _shop: Answer(("idle-in-transaction", "lock-contention"), ("shop/postgres", "shop/booking")),
    ),
    Fault(
        "pg-too-many-connections",
        f"another program has taken nearly all of PostgreSQL's {CONNECTIONS} connections",
        _leaked,
        _stop,
        lambda _shop: Answer(("server-errors", "client-errors", "connect-failures"), ("shop/postgres", "53300")),
    ),
    Fault(
        "pg-slow-statement",
        f"orders asks PostgreSQL for a report that computes a hash of each of {ORDERS} rows",
        _reports,
        _stop,
        lambda _shop: Answer(("slow-sql-statement",), ("shop/postgres", "shop/orders", "md5")),
    ),
    Fault(
        "pg-migration-lock",
        f"a migration keeps its lock on a PostgreSQL table for {LOCKED_S} s, again and again",
        _migration,
        _stop,
        lambda _shop: Answer(("lock-contention", "idle-in-transaction"), ("shop/postgres", "shop/migrate")),
    ),
    Fault(
        "pg-old-password",
        "orders has the password from before a rotation",
        _rotation,
        _stop,
        lambda _shop: Answer(
            ("server-errors", "client-errors", "connect-failures"), ("shop/postgres", "shop/orders", "28P01")
        ),
    ),
)
