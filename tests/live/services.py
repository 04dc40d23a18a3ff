"""Real servers on the standard ports of a network namespace of one's own, started together, gone at the end."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_TIMEOUT_S = 90.0
PORTS = {
    "mysql": 3306, "postgresql": 5432, "redis": 6379, "nginx": 80, "memcached": 11211, "rabbitmq": 5672,
    "mosquitto": 1883, "nats": 4222, "dnsmasq": 53, "grpc": 50051,
}  # fmt: skip

NGINX = """
daemon off; error_log stderr; pid {folder}/nginx.pid; worker_processes 1;
events {{}}
http {{
  access_log off; gzip on; gzip_min_length 1; gzip_types text/plain; client_body_temp_path {folder};
  server {{
    listen 127.0.0.1:80;
    location /item/ {{ default_type text/plain; return 200 "an item that is long enough to be compressed\\n"; }}
    location /missing {{ return 404; }}
    location /broken {{ return 503 "try later"; }}
    location /moved {{ return 301 /item/1; }}
    location / {{ root {folder}/www; }}
  }}
}}
"""
MOSQUITTO = "listener 1883 127.0.0.1\nallow_anonymous true\npersistence false\nuser root\n"
RABBITMQ = {
    "RABBITMQ_NODENAME": "kubetape@localhost",
    "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
    "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 1",
    "RABBITMQ_ENABLED_PLUGINS_FILE": "/dev/null",
    "ERL_EPMD_ADDRESS": "127.0.0.1",
    "ERL_CRASH_DUMP": "/dev/null",
}


def _mariadb(folder: Path) -> list[str]:
    small = [
        "--no-defaults",
        "--user=root",
        "--innodb-log-file-size=8M",
        "--innodb-use-native-aio=0",
        "--skip-name-resolve",
    ]
    data = f"--datadir={folder}/mysql"
    subprocess.run(
        ["mariadb-install-db", *small, data, "--auth-root-authentication-method=normal"],
        check=True,
        capture_output=True,
    )
    first = folder / "first.sql"
    first.write_text("CREATE DATABASE shop;\nGRANT ALL ON *.* TO app@'%' IDENTIFIED BY 'secret';\n")
    more = [data, "--bind-address=127.0.0.1", f"--socket={folder}/mysql.sock", f"--init-file={first}"]
    return [
        "mariadbd",
        *small,
        *more,
        "--local-infile=1",
        "--innodb-buffer-pool-size=32M",
        f"--pid-file={folder}/m.pid",
    ]


def _postgresql(folder: Path) -> list[str]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    assert found, "no PostgreSQL in /usr/lib/postgresql"
    data = folder / "postgresql"
    data.mkdir()
    shutil.chown(data, "postgres")
    become = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    subprocess.run(
        [*become, str(found[-1] / "initdb"), "-D", str(data), "-A", "trust", "-U", "app", "--no-sync"],
        check=True, capture_output=True, cwd="/",
    )  # fmt: skip
    listen = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={data}", "-c", "fsync=off"]
    return [*become, str(found[-1] / "postgres"), "-D", str(data), *listen]


def _nginx(folder: Path) -> list[str]:
    (folder / "www").mkdir()
    (folder / "www" / "big").write_bytes(os.urandom(200_000))
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
    return ["nginx", "-e", "stderr", "-c", str(folder / "nginx.conf")]


def _mosquitto(folder: Path) -> list[str]:
    (folder / "mosquitto.conf").write_text(MOSQUITTO)
    return ["mosquitto", "-c", str(folder / "mosquitto.conf")]


def _grpc(_: Path) -> list[str]:
    import sys

    return [sys.executable, "-m", "tests.live.grpc_service"]


COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "mysql": _mariadb,
    "postgresql": _postgresql,
    "redis": lambda _: ["redis-server", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
    "nginx": _nginx,
    "memcached": lambda _: ["memcached", "-u", "root", "-l", "127.0.0.1", "-U", "0"],
    "rabbitmq": lambda _: ["/usr/lib/rabbitmq/bin/rabbitmq-server"],
    "mosquitto": _mosquitto,
    "nats": lambda _: ["nats-server", "-a", "127.0.0.1"],
    "dnsmasq": lambda _: [
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root",
        "--listen-address=127.0.0.1", "--bind-interfaces", "--pid-file=", "--local=/test/",
        "--host-record=db.shop.test,10.0.0.7,fd00::7", "--srv-host=_sql._tcp.shop.test,db.shop.test,3306",
        "--txt-record=long.shop.test," + "x" * 250, "--cname=alias.shop.test,db.shop.test",
    ],
    "grpc": _grpc,
}  # fmt: skip


@contextmanager
def services(folder: Path) -> Iterator[None]:
    """All servers, listening. Raises where one does not come up, with the end of what it said."""
    with ThreadPoolExecutor(len(COMMANDS)) as pool:
        commands = dict(zip(COMMANDS, pool.map(lambda make: make(folder), COMMANDS.values()), strict=True))
    here = {"RABBITMQ_MNESIA_BASE": f"{folder}/mnesia", "RABBITMQ_LOG_BASE": f"{folder}/rabbitmq", "HOME": str(folder)}
    running: dict[str, subprocess.Popen[Any]] = {}
    logs = {name: folder / f"{name}.log" for name in commands}
    try:
        # RabbitMQ would start this one for itself, and leave it behind.
        running["epmd"] = subprocess.Popen(["epmd", "-address", "127.0.0.1"], start_new_session=True)
        for name, command in commands.items():
            extra = RABBITMQ | here if name == "rabbitmq" else {}
            with logs[name].open("w") as log:
                running[name] = subprocess.Popen(
                    command, stdout=log, stderr=log, env=os.environ | extra, start_new_session=True
                )
        for name in commands:
            _await_port(name, running[name], logs[name])
        yield
    finally:
        for process in running.values():
            _end_group(process)


def _await_port(name: str, process: subprocess.Popen[Any], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            with socket.create_connection(("127.0.0.1", PORTS[name]), 1):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} did not start: {log.read_text()[-800:]}") from None
            time.sleep(0.1)


def _end_group(process: subprocess.Popen[Any]) -> None:
    """The process and what it started; servers that do not go in time are killed."""
    import signal

    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(8)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
