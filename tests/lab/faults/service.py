"""Faults of a service or one of its replicas, of names, and of its callers."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.faults.database import asked
from tests.lab.faults.fault import Answer, Fault

if TYPE_CHECKING:
    from tests.lab.shop import Shop

EXTRA_MS = 80
ODD_REPLICA = 2
FAIL_RATIO = 0.3
DNS_STOPPED_S, DNS_RUNNING_S = 0.25, 0.05
SURGE_RPS = 600
GRPC_PORT, GRPC_RPS = 50051, 20
APPS = Path(__file__).resolve().parents[1] / "apps"


def _slow(shop: Shop) -> None:
    shop.control(shop.of("product")[ODD_REPLICA], extra_ms=EXTRA_MS)


def _not_slow(shop: Shop) -> None:
    shop.control(shop.of("product")[ODD_REPLICA], extra_ms=None)


def _fail(shop: Shop) -> None:
    shop.control(shop.of("product")[ODD_REPLICA], fail_ratio=FAIL_RATIO)


def _not_fail(shop: Shop) -> None:
    shop.control(shop.of("product")[ODD_REPLICA], fail_ratio=None)


def _slow_dns(shop: Shop) -> None:
    """The resolver runs a sixth of the time."""
    container = shop.one("dns").container
    assert container is not None
    ended = threading.Event()

    def stutter() -> None:
        while not ended.is_set():
            os.killpg(container.pid, signal.SIGSTOP)
            time.sleep(DNS_STOPPED_S)
            os.killpg(container.pid, signal.SIGCONT)
            time.sleep(DNS_RUNNING_S)

    thread = threading.Thread(target=stutter, daemon=True)
    thread.start()
    shop.threads["slow dns"] = (thread, ended)


def _fast_dns(shop: Shop) -> None:
    thread, ended = shop.threads.pop("slow dns")
    ended.set()
    thread.join()


def _surge(shop: Shop) -> None:
    """One product pod asks redis again and again."""
    pod = shop.of("product")[0]
    program = (
        "import redis, time\n"
        "r = redis.Redis(host='redis', single_connection_client=True)\n"
        f"while True: r.get('product:1'); time.sleep(1 / {SURGE_RPS})\n"
    )
    shop.helpers["surge"] = pod.spawn(shop.tree, [sys.executable, "-c", program], shop.folder / "surge.log")


def _no_surge(shop: Shop) -> None:
    process = shop.helpers.pop("surge")
    process.terminate()
    process.wait()


def _grpc(shop: Shop) -> None:
    """A gRPC service beside product's own in one of its pods, and the load pod as its client."""
    pod = shop.of("product")[0]
    program = str(APPS / "grpc_stock.py")
    serve = [sys.executable, program, "serve", "--port", str(GRPC_PORT), "--fail-ratio", str(FAIL_RATIO)]
    ask = [sys.executable, program, "ask", "--target", f"{pod.ip}:{GRPC_PORT}", "--rate", str(GRPC_RPS)]
    shop.helpers["grpc server"] = pod.spawn(shop.tree, serve, shop.folder / "grpc-server.log")
    shop.helpers["grpc client"] = shop.one("load").spawn(shop.tree, ask, shop.folder / "grpc-client.log")


def _no_grpc(shop: Shop) -> None:
    for name in ("grpc client", "grpc server"):
        process = shop.helpers.pop(name)
        process.terminate()
        process.wait()


FAULTS = (
    Fault(
        "slow-replica",
        f"one of the product replicas takes {EXTRA_MS} ms longer for everything",
        _slow,
        _not_slow,
        lambda shop: Answer(("slow-replica",), (shop.of("product")[ODD_REPLICA].name,)),
    ),
    Fault(
        "failing-replica",
        f"one of the product replicas answers {FAIL_RATIO:.0%} of its requests with 500",
        _fail,
        _not_fail,
        lambda shop: Answer(("server-errors",), (shop.of("product")[ODD_REPLICA].name, "500")),
    ),
    Fault(
        "slow-dns",
        "the resolver answers late",
        _slow_dns,
        _fast_dns,
        lambda _shop: Answer(("dns-failures",), ("kube-system/dns", "slow")),
    ),
    Fault(
        "dns-search",
        "product looks up an outside name for each request: the search path makes four questions of it",
        *asked(lookup="api.partner.example"),
        lambda _shop: Answer(("dns-failures",), ("shop/product", "do not exist")),
    ),
    Fault(
        "surge",
        f"one product pod sends redis {SURGE_RPS} requests a second more",
        _surge,
        _no_surge,
        lambda shop: Answer(("traffic-surge",), (shop.of("product")[0].name, "shop/redis")),
    ),
    Fault(
        "grpc-errors",
        f"a gRPC service in a product pod answers {FAIL_RATIO:.0%} of its calls with UNAVAILABLE",
        _grpc,
        _no_grpc,
        lambda _shop: Answer(("server-errors",), ("shop/product", "grpc", "14")),
    ),
)
