"""The shop's database: a MariaDB data folder with the schema in it, made once and kept in the checkout's cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.lab.errors import LabError
from tests.lab.shell import run

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "lab"
CATEGORIES, PRODUCTS, REVIEWS, WAREHOUSES = 20, 3000, 4000, 2
START_TIMEOUT_S = 60.0

# Small files: the folder is copied for each lab.
SERVER_OPTIONS = (
    "--no-defaults",
    "--user=root",
    "--innodb-log-file-size=8M",
    "--innodb-data-file-path=ibdata1:12M:autoextend",
    "--innodb-buffer-pool-size=64M",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-use-native-aio=0",
    "--performance-schema=OFF",
    "--skip-log-bin",
    "--skip-name-resolve",
    "--max-connections=200",
)

_TABLES = """
CREATE DATABASE shop CHARACTER SET utf8mb4;
USE shop;
CREATE TABLE category (id INT PRIMARY KEY, name VARCHAR(40) NOT NULL);
CREATE TABLE product (id INT PRIMARY KEY, code VARCHAR(24) NOT NULL, name VARCHAR(80) NOT NULL,
                      category_id INT NOT NULL, KEY (category_id));
CREATE TABLE price (product_id INT PRIMARY KEY, amount_cents INT NOT NULL);
CREATE TABLE stock (product_id INT NOT NULL, product_code VARCHAR(24) NOT NULL, warehouse INT NOT NULL,
                    quantity INT NOT NULL, PRIMARY KEY (product_id, warehouse));
CREATE TABLE review (id INT AUTO_INCREMENT PRIMARY KEY, product_code VARCHAR(24) NOT NULL, stars INT NOT NULL,
                     body VARCHAR(200) NOT NULL);
CREATE TABLE top_rated (category_id INT NOT NULL, product_id INT NOT NULL, stars DECIMAL(6, 4) NOT NULL,
                        PRIMARY KEY (category_id, product_id));
"""
_USERS = """
CREATE USER shop@'%' IDENTIFIED BY 'shop';
GRANT ALL ON shop.* TO shop@'%';
ANALYZE TABLE category, product, price, stock, review, top_rated;
"""


def schema_sql() -> str:
    """The statements that make the shop's tables and fill them; the same on each call."""
    chance = random.Random(1)

    def code(product: int) -> str:
        return f"SKU-{product * 7919 % 1000003:07d}-{product % 97:02d}"

    def rows() -> Iterator[tuple[str, list[str]]]:
        products = range(1, PRODUCTS + 1)
        yield "category", [f"({i}, 'category {i}')" for i in range(1, CATEGORIES + 1)]
        yield "product", [f"({i}, '{code(i)}', 'product {i}', {i % CATEGORIES + 1})" for i in products]
        yield "price", [f"({i}, {chance.randint(100, 99999)})" for i in products]
        warehouses = range(1, WAREHOUSES + 1)
        yield "stock", [f"({i}, '{code(i)}', {w}, {chance.randint(0, 99)})" for i in products for w in warehouses]
        reviewed = [(chance.randint(1, PRODUCTS), chance.randint(1, 5)) for _ in range(REVIEWS)]
        yield "review", [f"(NULL, '{code(p)}', {s}, 'good value, came quickly')" for p, s in reviewed]
        yield "top_rated", [f"({i % CATEGORIES + 1}, {i}, {chance.randint(100, 500) / 100})" for i in products]

    inserts = [f"INSERT INTO {table} VALUES {', '.join(values)};" for table, values in rows()]
    return "\n".join([_TABLES, *inserts, _USERS])


def data_folder() -> Path:
    """The prepared data folder; made on the first call (about 5 s), from then on taken from the cache."""
    schema = schema_sql()
    version = run("mariadbd", "--version")
    key = hashlib.sha256("\0".join((schema, version, *SERVER_OPTIONS)).encode()).hexdigest()[:16]
    folder = CACHE / f"mariadb-{key}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "mariadb.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            making = CACHE / f"making-{key}"
            shutil.rmtree(making, ignore_errors=True)
            _make(making, schema)
            making.rename(folder)
    return folder


def _make(folder: Path, schema: str) -> None:
    run(
        "mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={folder}", "--skip-test-db",
        "--auth-root-authentication-method=normal", *SERVER_OPTIONS[2:4],
    )  # fmt: skip
    socket = f"/tmp/kt-lab-{os.getpid()}.sock"
    log = folder.with_suffix(".log")
    with log.open("wb") as out:
        server = subprocess.Popen(
            ["mariadbd", *SERVER_OPTIONS, f"--datadir={folder}", f"--socket={socket}", "--skip-networking"],
            stdout=out,
            stderr=out,
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not Path(socket).exists():
            if server.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"mariadbd did not start: see {log}")
            time.sleep(0.05)
        run("mariadb", "--no-defaults", "-uroot", f"--socket={socket}", stdin=schema)
    finally:
        server.terminate()
        server.wait(timeout=START_TIMEOUT_S)
