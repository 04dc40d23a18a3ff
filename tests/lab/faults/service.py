"""Faults of a service or one of its replicas, of names, and of its callers."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

from tests.lab import APPS
from tests.lab.faults.database import asked
from tests.lab.faults.fault import Answer, Fault

if TYPE_CHECKING:
    from tests.lab.pods import Pod
    from tests.lab.shop import Shop

EXTRA_MS = 80
ODD_REPLICA = 2
FAIL_RATIO = 0.3
DNS_STOPPED_S, DNS_RUNNING_S = 0.25, 0.05
SURGE_RPS = 600
PAUSE_S, BETWEEN_PAUSES_S = 0.4, 1.6
PARTS_PORT = 9090
SIP_PORT = 9091
LOCK_MS = 110
GRPC_PORT, GRPC_RPS = 50051, 20


def _slow(shop: Shop) -> None:
    shop.control(shop.of("product")[ODD_REPLICA], extra_ms=EXTRA_MS)


def _not_slow(shop: Shop) -> None:
    shop.control(shop.of("product")[ODD_REPLICA], extra_ms=None)


def _fail(shop: Shop) -> None:
    shop.control(shop.of("product")[ODD_REPLICA], fail_ratio=FAIL_RATIO)


def _not_fail(shop: Shop) -> None:
    shop.control(shop.of("product")[ODD_REPLICA], fail_ratio=None)


def _stutter(shop: Shop, name: str, pod: Pod, stopped_s: float, running_s: float) -> None:
    """The pod's program runs for a while and is stopped for a while."""
    container = pod.container
    assert container is not None
    ended = threading.Event()

    def stutter() -> None:
        while not ended.is_set():
            os.killpg(container.pid, signal.SIGSTOP)
            time.sleep(stopped_s)
            os.killpg(container.pid, signal.SIGCONT)
            time.sleep(running_s)

    thread = threading.Thread(target=stutter, daemon=True)
    thread.start()
    shop.threads[name] = (thread, ended)


def _no_stutter(shop: Shop, name: str) -> None:
    thread, ended = shop.threads.pop(name)
    ended.set()
    thread.join()


def _slow_dns(shop: Shop) -> None:
    """The resolver runs a sixth of the time."""
    _stutter(shop, "slow dns", shop.one("dns"), DNS_STOPPED_S, DNS_RUNNING_S)


def _fast_dns(shop: Shop) -> None:
    _no_stutter(shop, "slow dns")


def _pause(shop: Shop) -> None:
    _stutter(shop, "pauses", shop.of("product")[ODD_REPLICA], PAUSE_S, BETWEEN_PAUSES_S)


def _no_pause(shop: Shop) -> None:
    _no_stutter(shop, "pauses")


def _dead_resolver(shop: Shop) -> None:
    """The first name server of every pod is one that does not answer: another pod, which drops the questions."""
    redis = shop.one("redis")
    redis.nft("table inet lab_dns {\n chain in {\n type filter hook input priority 0;\n udp dport 53 drop\n }\n}\n")
    file = shop.folder / "resolv.conf"
    file.write_text(f"nameserver {redis.ip}\n" + file.read_text())


def _no_dead_resolver(shop: Shop) -> None:
    shop.one("redis").nft("delete table inet lab_dns")
    file = shop.folder / "resolv.conf"
    file.write_text(file.read_text().partition("\n")[2])


_PARTS = """
import socket, sys, time
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if len(sys.argv) > 2:
    time.sleep(1); s.connect((sys.argv[1], int(sys.argv[2])))
    while True:
        s.sendall(b"GET /parts HTTP/1.1\\r\\nHost: parts\\r\\n\\r\\n")
        got = b""
        while not got.endswith(b"end"): got += s.recv(65536)
        time.sleep(0.005)
s.bind(("", int(sys.argv[1]))); s.listen()
c = s.accept()[0]
while c.recv(65536):
    c.send(b"HTTP/1.1 200 OK\\r\\nContent-Length: 303\\r\\n\\r\\n"); c.send(b"x" * 300); c.send(b"end")
"""


def _parts(shop: Shop) -> None:
    """A server in a product pod that writes its answers in parts, and a client in the load pod."""
    pod, load = shop.of("product")[0], shop.one("load")
    serve = [sys.executable, "-c", _PARTS, str(PARTS_PORT)]
    ask = [sys.executable, "-c", _PARTS, pod.ip, str(PARTS_PORT)]
    shop.helpers["parts server"] = pod.spawn(shop.tree, serve, shop.folder / "parts-server.log")
    shop.helpers["parts client"] = load.spawn(shop.tree, ask, shop.folder / "parts-client.log")


def _no_parts(shop: Shop) -> None:
    for name in ("parts client", "parts server"):
        process = shop.helpers.pop(name)
        process.terminate()
        process.wait()


_SIP = """
import socket, sys, time
size = 3_000_000
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if len(sys.argv) > 2:
    time.sleep(1); s.connect((sys.argv[1], int(sys.argv[2])))
    while True:
        s.sendall(b"GET /export HTTP/1.1\\r\\nHost: export\\r\\n\\r\\n")
        got = 0
        while got < size: got += len(s.recv(65536)); time.sleep(0.03)
s.bind(("", int(sys.argv[1]))); s.listen()
c = s.accept()[0]
while c.recv(65536):
    head = b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n"
    c.sendall(head % (size - len(head % size)) + b"x" * (size - len(head % size)))
"""


def _sip(shop: Shop) -> None:
    """A client in the load pod that takes large answers a little at a time."""
    pod, load = shop.of("product")[0], shop.one("load")
    serve = [sys.executable, "-c", _SIP, str(SIP_PORT)]
    shop.helpers["sip server"] = pod.spawn(shop.tree, serve, shop.folder / "sip-server.log")
    ask = [sys.executable, "-c", _SIP, pod.ip, str(SIP_PORT)]
    shop.helpers["sip client"] = load.spawn(shop.tree, ask, shop.folder / "sip-client.log")


def _no_sip(shop: Shop) -> None:
    for name in ("sip client", "sip server"):
        process = shop.helpers.pop(name)
        process.terminate()
        process.wait()


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
        "refused-names",
        "product looks up a name for each request that its name server refuses to look up",
        *asked(lookup="ledger.corp.test"),
        lambda _shop: Answer(("dns-failures",), ("shop/product", "failed|failing|REFUSED")),
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
    Fault(
        "pauses",
        f"one of the product replicas stops for {PAUSE_S} s every {PAUSE_S + BETWEEN_PAUSES_S} s",
        _pause,
        _no_pause,
        lambda shop: Answer(("slow-replica",), (shop.of("product")[ODD_REPLICA].name,)),
    ),
    Fault(
        "process-lock",
        f"each request of a product pod holds one lock for {LOCK_MS} ms",
        *asked(lock_ms=LOCK_MS),
        lambda _shop: Answer(("process-lock",), ("shop/product",)),
    ),
    Fault(
        "dead-resolver",
        "the first name server in every pod's resolv.conf does not answer",
        _dead_resolver,
        _no_dead_resolver,
        lambda _shop: Answer(("dns-failures",), ("unanswered", "failing")),
    ),
    Fault(
        "gone",
        "product answers each request for a list with 404",
        *asked(gone=True),
        lambda _shop: Answer(("client-errors",), ("shop/product", "GET /products", "404")),
    ),
    Fault(
        "small-writes",
        "a server writes its small answers in parts, without TCP_NODELAY",
        _parts,
        _no_parts,
        lambda _shop: Answer(("small-writes",), ("shop/load", "shop/product")),
    ),
    Fault(
        "slow-reader",
        "a client takes large answers a little at a time",
        _sip,
        _no_sip,
        lambda _shop: Answer(("slow-reader",), ("shop/load", "shop/product")),
    ),
)
