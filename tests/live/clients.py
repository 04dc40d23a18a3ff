"""Known requests by real clients, with the clients' own measurements. Runs inside a pod of the lab.

    python clients.py OUT.json

A Python client spends more time in its own code than the network takes, so it reads the clock where its socket
does: before the write of a statement, and after the read that brought the end of the answer.

OUT.json holds, for http (curl), mysql_text (pymysql), mysql_prepared (MySQL Connector) and dns (dig), one object
for each request in the order it was made: what was asked, what came back, the client's port, latency_ns.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from typing import Any

import mysql.connector
import pymysql

HTTP_CLIENTS, HTTP_REQUESTS = 4, 250  # each
MYSQL_STATEMENTS = 500  # of each kind
DNS_LOOKUPS = 200

Row = dict[str, Any]


class TimedSocket(socket.socket):
    """The socket of every client below; monotonic times of the last write's start and the last read's end, over all."""

    wrote_ns = 0
    read_ns = 0

    def sendall(self, *arguments: Any) -> None:
        TimedSocket.wrote_ns = time.monotonic_ns()
        super().sendall(*arguments)

    def recv(self, *arguments: Any) -> bytes:
        data = super().recv(*arguments)
        TimedSocket.read_ns = time.monotonic_ns()
        return data

    def recv_into(self, *arguments: Any) -> int:
        size = super().recv_into(*arguments)
        TimedSocket.read_ns = time.monotonic_ns()
        return size

    @classmethod
    def latency_ns(cls) -> int:
        return cls.read_ns - cls.wrote_ns


socket.socket = TimedSocket  # type: ignore[misc]


def http_target(number: int) -> tuple[str, str]:
    """(method, path) of the number-th request: three routes, one of them an error."""
    match number % 5:
        case 0:
            return "GET", f"/products/{999000 + number}"
        case 1:
            return "POST", f"/products/{number + 1}/reviews"
        case 2:
            return "GET", f"/products?category={number % 20 + 1}"
    return "GET", f"/products/{number + 1}"


def http() -> list[Row]:
    """Four curl processes, one after another, each with one connection; curl's times have a resolution of 1 us."""
    rows = []
    for client in range(HTTP_CLIENTS):
        targets = [http_target(client * HTTP_REQUESTS + i) for i in range(HTTP_REQUESTS)]
        config = ""
        for method, path in targets:
            config += f'next\nsilent\nurl = "http://gateway{path}"\noutput = "/dev/null"\n'
            config += 'write-out = "%{http_code} %{local_port} %{time_connect} %{time_total}\\n"\n'
            if method == "POST":
                config += 'data = "{\\"stars\\": 5, \\"text\\": \\"ok\\"}"\n'
        argv = ["curl", "--disable", "--noproxy", "*", "--config", "-"]
        done = subprocess.run(argv, input=config.removeprefix("next\n"), capture_output=True, text=True, check=True)
        for (method, path), line in zip(targets, done.stdout.splitlines(), strict=True):
            status, port, before, total = line.split()
            latency_ns = round((float(total) - float(before)) * 1e9)
            rows.append({"method": method, "path": path, "status": status, "port": int(port), "latency_ns": latency_ns})
    return rows


def mysql_text() -> list[Row]:
    """Plain statements; every tenth asks for a table that does not exist (error 1146)."""
    rows = []
    connection = pymysql.connect(host="mysql", user="shop", password="shop", database="shop")
    cursor = connection.cursor()
    for number in range(MYSQL_STATEMENTS):
        table = "no_such_table" if number % 10 == 9 else "product"
        statement = f"SELECT name FROM {table} WHERE id = {number + 1}"
        status = "OK"
        try:
            connection.query(statement)
        except pymysql.MySQLError as error:
            status = str(error.args[0])
        rows.append({"statement": statement, "status": status, "latency_ns": TimedSocket.latency_ns()})
    cursor.close()
    connection.close()
    return rows


def mysql_prepared() -> list[Row]:
    """Statements prepared on the server and executed through the binary protocol."""
    statement = "SELECT p.name, pr.amount_cents FROM product p JOIN price pr ON pr.product_id = p.id WHERE p.id = %s"
    rows = []
    connection = mysql.connector.connect(
        host="mysql", user="shop", password="shop", database="shop", use_pure=True, ssl_disabled=True
    )
    cursor = connection.cursor(prepared=True)
    for number in range(MYSQL_STATEMENTS):
        cursor.execute(statement, (number + 1,))
        answer = cursor.fetchall()
        rows.append(
            {"statement": statement, "status": "OK", "rows": len(answer), "latency_ns": TimedSocket.latency_ns()}
        )
    cursor.close()
    connection.close()
    return rows


def dns() -> list[Row]:
    """dig, one process for all; every fourth name does not exist. `dig -u` gives microseconds."""
    asked = []
    for number in range(DNS_LOOKUPS):
        name = f"missing{number}" if number % 4 == 3 else ("mysql", "redis", "product", "gateway")[number // 4 % 4]
        asked.append((f"{name}.shop.svc.cluster.local", "AAAA" if number % 2 else "A"))
    questions = "".join(f"{name} {kind}\n" for name, kind in asked)
    argv = ["dig", "-u", "+nosearch", "-f", "-"]
    done = subprocess.run(argv, input=questions, capture_output=True, text=True, check=True)
    words = [line.split() for line in done.stdout.splitlines()]
    statuses = [w[5].rstrip(",") for w in words if w[1:3] == ["->>HEADER<<-", "opcode:"]]
    times_ns = [int(w[3]) * 1000 for w in words if w[1:3] == ["Query", "time:"]]
    return [
        {"name": name, "type": kind, "status": status, "latency_ns": latency_ns}
        for (name, kind), status, latency_ns in zip(asked, statuses, times_ns, strict=True)
    ]


def main() -> None:
    made = {work.__name__: work() for work in (http, mysql_text, mysql_prepared, dns)}
    with open(sys.argv[1], "w") as file:
        json.dump(made, file)


if __name__ == "__main__":
    main()
