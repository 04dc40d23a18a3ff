"""Faults of the network: loss, delay, bandwidth, refusal, silence, resets, a second owner of an address."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from tests.lab import APPS
from tests.lab.faults.fault import Answer, Fault
from tests.lab.network import CONNTRACK_MAX

if TYPE_CHECKING:
    from tests.lab.pods import Pod
    from tests.lab.shop import Shop

LOSS_PERCENT = 5
DELAY_MS = 40
RESET_PERCENT = 2
RATE = "256kbit"
CONNTRACK_ENTRIES = 4096
MTU = 1400


# ---- lossy-link: on arrival, not on sending: a local drop on the way out is told to the sender's TCP at once ----


def _lose_packets(shop: Shop) -> None:
    gateway = shop.one("gateway")
    replicas = shop.of("product")
    for pod in replicas:
        pod.nft(_loss_rules(gateway.ip))
    gateway.nft(_loss_rules(", ".join(pod.ip for pod in replicas)))


def _loss_rules(sources: str) -> str:
    drop = f"ip saddr {{ {sources} }} numgen random mod 100 < {LOSS_PERCENT} drop"
    hook = "type filter hook input priority -10"
    return f"table inet lab_loss {{\n chain arrive {{\n {hook};\n {drop}\n }}\n}}\n"


def _stop_losing_packets(shop: Shop) -> None:
    for pod in [shop.one("gateway"), *shop.of("product")]:
        pod.nft("delete table inet lab_loss")


# ---- slow-link ----------------------------------------------------------------------------------------


def _delay(shop: Shop, pod: Pod, addresses: list[str]) -> None:
    process = pod.spawn(
        shop.tree,
        [sys.executable, str(APPS / "delay.py"), "--ms", str(DELAY_MS), "--source", pod.ip, *addresses],
        shop.folder / f"{pod.name}.delay.log",
    )
    shop.helpers[f"delay {pod.name}"] = process
    time.sleep(0.5)  # the detour is set up


def _stop(shop: Shop, name: str) -> None:
    process = shop.helpers.pop(name)
    process.terminate()
    process.wait()


def _slow_link(shop: Shop) -> None:
    _delay(shop, shop.one("gateway"), [pod.ip for pod in shop.of("product")])


def _fast_link(shop: Shop) -> None:
    _stop(shop, f"delay {shop.one('gateway').name}")


# ---- low-bandwidth ------------------------------------------------------------------------------------


def _narrow_link(shop: Shop) -> None:
    for pod in shop.of("product"):
        pod.run("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", RATE, "burst", "2kb", "latency", "3s")
        shop.control(pod, answer_bytes=12_000)


def _wide_link(shop: Shop) -> None:
    for pod in shop.of("product"):
        pod.run("tc", "qdisc", "del", "dev", "eth0", "root")
        shop.control(pod, answer_bytes=None)


# ---- refused, black-holed, reset ------------------------------------------------------------------------


def _kill_redis(shop: Shop) -> None:
    container = shop.one("redis").container
    assert container is not None
    container.send_signal(signal.SIGKILL)
    container.wait()


def _start_redis(shop: Shop) -> None:
    pod = shop.one("redis")
    pod.start(shop.tree, shop.command(pod), shop.folder)
    pod.wait_for_port()


def _filter(pod: Pod, verdict: str) -> None:
    pod.nft(
        f"table inet lab_filter {{\n chain arrive {{\n type filter hook input priority -10;\n"
        f" tcp dport {pod.port} {verdict}\n }}\n}}\n"
    )


def _swallow(shop: Shop) -> None:
    _filter(shop.one("redis"), "drop")


def _reset(shop: Shop) -> None:
    for pod in shop.of("product"):
        verdict = f"ct state established numgen random mod 100 < {RESET_PERCENT} reject with tcp reset"
        _filter(pod, verdict)


def _pass_redis(shop: Shop) -> None:
    shop.one("redis").nft("delete table inet lab_filter")


def _pass_product(shop: Shop) -> None:
    for pod in shop.of("product"):
        pod.nft("delete table inet lab_filter")


# ---- listen-overflow: a replica that hangs --------------------------------------------------------------


def _hang(shop: Shop) -> None:
    container = shop.of("product")[1].container
    assert container is not None
    os.killpg(container.pid, signal.SIGSTOP)


def _go_on(shop: Shop) -> None:
    container = shop.of("product")[1].container
    assert container is not None
    os.killpg(container.pid, signal.SIGCONT)


# ---- duplicate-ip -----------------------------------------------------------------------------------------


def _duplicate(shop: Shop) -> None:
    """The load pod claims redis's address too, and says so again and again."""
    redis, load = shop.one("redis"), shop.one("load")
    program = (
        "import socket, struct, sys, time\n"
        "s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('eth0', 0x0806))\n"
        "mac = s.getsockname()[4]; ip = socket.inet_aton(sys.argv[1])\n"
        "arp = b'\\xff' * 6 + mac + struct.pack('>HHHBBH', 0x806, 1, 0x800, 6, 4, 2) + mac + ip + b'\\xff' * 6 + ip\n"
        "while True: s.send(arp); time.sleep(0.7)\n"
    )
    shop.helpers["duplicate"] = load.spawn(
        shop.tree, [sys.executable, "-c", program, redis.ip], shop.folder / "duplicate.log"
    )


def _single(shop: Shop) -> None:
    _stop(shop, "duplicate")


# ---- conntrack-full ---------------------------------------------------------------------------------------

_FILL = (
    "import socket, sys, time\n"
    "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
    "while True:\n"
    "    for port in range(10000, 10000 + int(sys.argv[2])):\n"
    "        try: s.sendto(b'x', (sys.argv[1], port))\n"
    "        except OSError: pass\n"
    "    time.sleep(1)\n"
)


def _fill_conntrack(shop: Shop) -> None:
    """The gateway's namespace tracks its connections; one of its programs makes more than there is room for.

    The limit is the machine's, but each namespace has its own table: the others hold far fewer.
    """
    gateway = shop.one("gateway")
    shop.conntrack_max = CONNTRACK_MAX.read_text()
    CONNTRACK_MAX.write_text(str(CONNTRACK_ENTRIES))
    gateway.nft(
        "table inet lab_track {\n chain in {\n type filter hook input priority 0;\n ct state invalid counter\n }\n"
        " chain out {\n type filter hook output priority 0;\n ct state new counter\n }\n}\n"
    )
    # An address that nobody has would fill the neighbour table as well; the name server answers "unreachable".
    argv = [*gateway.enter(), sys.executable, "-c", _FILL, shop.one("dns").ip, str(2 * CONNTRACK_ENTRIES)]
    shop.helpers["fill conntrack"] = subprocess.Popen(argv, stdin=subprocess.DEVNULL)


def _drain_conntrack(shop: Shop) -> None:
    _stop(shop, "fill conntrack")
    shop.one("gateway").nft("delete table inet lab_track")
    shop.restore_conntrack()


# ---- mtu: large packets vanish, small ones pass -----------------------------------------------------------


def _small_packets_only(shop: Shop) -> None:
    sources = ", ".join(pod.ip for pod in shop.of("product"))
    shop.one("gateway").nft(
        "table inet lab_mtu {\n chain in {\n type filter hook input priority -10;\n"
        f" ip saddr {{ {sources} }} ip length > {MTU} drop\n }}\n}}\n"
    )
    for pod in shop.of("product"):
        shop.control(pod, answer_bytes=3000)


def _all_packets(shop: Shop) -> None:
    shop.one("gateway").nft("delete table inet lab_mtu")
    for pod in shop.of("product"):
        shop.control(pod, answer_bytes=None)


FAULTS = (
    Fault(
        "lossy-link",
        f"the network between gateway and product loses {LOSS_PERCENT} % of the packets",
        _lose_packets,
        _stop_losing_packets,
        lambda _shop: Answer(("lossy-link",), ("shop/gateway", "shop/product")),
    ),
    Fault(
        "slow-link",
        f"packets from gateway to product take {DELAY_MS} ms longer",
        _slow_link,
        _fast_link,
        lambda _shop: Answer(("slow-network",), ("shop/gateway", "shop/product")),
    ),
    Fault(
        "low-bandwidth",
        f"the product pods may send no more than {RATE}/s, and their answers are larger",
        _narrow_link,
        _wide_link,
        lambda _shop: Answer(("slow-network", "lossy-link"), ("shop/gateway", "shop/product")),
    ),
    Fault(
        "refused",
        "redis is dead: its pod refuses connections",
        _kill_redis,
        _start_redis,
        lambda _shop: Answer(("connect-failures",), ("shop/redis", "refused")),
    ),
    Fault(
        "black-hole",
        "packets to redis are dropped without a word",
        _swallow,
        _pass_redis,
        lambda _shop: Answer(("connect-failures", "unanswered-requests", "lossy-link"), ("shop/redis",)),
    ),
    Fault(
        "resets",
        f"of the packets from gateway to product {RESET_PERCENT} % are answered by a reset",
        _reset,
        _pass_product,
        lambda _shop: Answer(("connection-resets",), ("shop/gateway", "shop/product")),
    ),
    Fault(
        "hanging-replica",
        "one of the product replicas is stopped and neither accepts nor answers",
        _hang,
        _go_on,
        lambda shop: Answer(("unanswered-requests", "listen-overflow", "slow-replica"), (shop.of("product")[1].name,)),
    ),
    Fault(
        "duplicate-ip",
        "another pod claims the address of redis",
        _duplicate,
        _single,
        lambda shop: Answer(("duplicate-ip",), (shop.one("redis").ip,)),
    ),
    Fault(
        "conntrack-full",
        f"the gateway's connection tracking table is full ({CONNTRACK_ENTRIES} entries)",
        _fill_conntrack,
        _drain_conntrack,
        lambda _shop: Answer(("conntrack-full",), ("shop/gateway",)),
    ),
    Fault(
        "mtu",
        f"packets from product to gateway of more than {MTU} bytes vanish",
        _small_packets_only,
        _all_packets,
        lambda _shop: Answer(("lossy-link",), ("shop/gateway", "shop/product")),
    ),
)
