"""Faults of services that ask services: deep chains, peers outside of the cluster, servers short of something."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.lab import APPS
from tests.lab.faults.extra import HTTP, app, end, serve, step, visit, without
from tests.lab.faults.fault import Answer, Fault
from tests.lab.network import OUTSIDE
from tests.lab.shell import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.shop import Shop

SPIN_MS = 130
FAIL_RATIO = 0.25
EVERY, COMPUTE_MS = 6, 150
LIMIT_PER_S = 5
FAR_MS = 500
ALONE_MS = 40
FILES = 24
GRPC_PORT = 50051
DEADLINE_S, SLOW_MS, SLOW_RATIO = 0.25, 600, 0.3
SUBJECT, NATS_PORT = "rates.get", 4222
OUTSIDE_PORT = 8080


def _deep_chain(shop: Shop) -> None:
    serve(shop, "tax", step("spin", ms=SPIN_MS))
    serve(shop, "pricing", step("get", url="http://tax/"))
    serve(shop, "storefront", step("get", url="http://pricing/"))
    visit(shop, "http://storefront/", rate=3)


def _outside(do: str, rate: float, **arguments: object) -> Callable[[Shop], None]:
    """A server that is in no pod and no object of the cluster, at an address that only a name is known of."""

    def apply(shop: Shop) -> None:
        ip, name = OUTSIDE
        run("ip", "addr", "add", f"{ip}/32", "dev", shop.bridge.name)
        words = [sys.executable, str(APPS / "step.py"), "--port", str(OUTSIDE_PORT), "--do", do]
        words += step(do, **arguments)(shop.one("load"))[-2:]
        with (shop.folder / "outside.log").open("wb") as log:
            shop.helpers["outside"] = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        serve(shop, "shipping", step("get", url=f"http://{name}:{OUTSIDE_PORT}/rates"))
        visit(shop, "http://shipping/", rate=rate)

    return apply


def _no_outside(shop: Shop) -> None:
    without("shipping")(shop)
    end(shop, "outside")
    run("ip", "addr", "del", f"{OUTSIDE[0]}/32", "dev", shop.bridge.name)


def _one_worker(shop: Shop) -> None:
    serve(shop, "render", step("sleep", "--alone", ms=ALONE_MS), replicas=1)
    visit(shop, "http://render/", rate=40, uses=1)


def _few_files(shop: Shop) -> None:
    thumbs = step("sleep", ms=5)
    serve(shop, "thumbs", lambda pod: ["sh", "-c", f'ulimit -n {FILES}; exec "$0" "$@"', *thumbs(pod)], replicas=1)
    visit(shop, "http://thumbs/", rate=40, workers=40, uses=10_000, timeout=4)


def _deadline(shop: Shop) -> None:
    server = app("grpc_stock", "serve", "--port", GRPC_PORT, "--slow-ratio", SLOW_RATIO, "--slow-ms", SLOW_MS)
    serve(shop, "quote", server, replicas=1, port=GRPC_PORT)
    client = app("grpc_stock", "ask", "--target", f"quote:{GRPC_PORT}", "--rate", 15, "--deadline", DEADLINE_S)
    serve(shop, "bidder", client, replicas=1, port=None)


def _stuck_listener(shop: Shop) -> None:
    serve(shop, "nats", lambda pod: ["nats-server", "-a", pod.ip, "-p", str(NATS_PORT)], 1, NATS_PORT)
    serve(shop, "rates", app("nats_stuck", SUBJECT, "--answers", 5), replicas=1, port=None)
    serve(shop, "converter", step("nats", subject=SUBJECT, timeout_s=1.0), replicas=1)
    visit(shop, "http://converter/", rate=5)


def _failing_leaf(shop: Shop) -> None:
    serve(shop, "voucher", step("fail", ratio=FAIL_RATIO))
    serve(shop, "offer", step("get", url="http://voucher/"))
    serve(shop, "cart", step("get", url="http://offer/"))
    visit(shop, "http://cart/", rate=8)


def _blocked_loop(shop: Shop) -> None:
    feed = app("loop", "--port", HTTP, "--every", EVERY, "--ms", COMPUTE_MS)
    serve(shop, "feed", feed, replicas=1)
    visit(shop, "http://feed/", rate=30, workers=16, uses=10_000)


FAULTS = (
    Fault(
        "failing-leaf",
        f"cart asks offer, which asks voucher, which fails {FAIL_RATIO:.0%} of its requests",
        _failing_leaf,
        without("cart", "offer", "voucher"),
        lambda _shop: Answer(("server-errors",), ("shop/voucher", "500")),
    ),
    Fault(
        "blocked-loop",
        f"each {EVERY}th request computes for {COMPUTE_MS} ms in feed's event loop; all others wait in its sockets",
        _blocked_loop,
        without("feed"),
        lambda _shop: Answer(("unread-requests", "process-lock", "slow-calls"), ("shop/feed", "wait")),
    ),
    Fault(
        "deep-chain",
        f"storefront asks pricing, which asks tax, which computes for {SPIN_MS} ms",
        _deep_chain,
        without("storefront", "pricing", "tax"),
        # No rule knows that 130 ms are too long: that the time is spent there is a notice, and has to be the first one.
        lambda _shop: Answer(("slow-calls", "time-share"), ("shop/storefront", "shop/tax")),
    ),
    Fault(
        "rate-limited",
        f"a service outside of the cluster takes {LIMIT_PER_S} requests a second and answers the rest with 429",
        _outside("limited", rate=15, per_second=LIMIT_PER_S),
        _no_outside,
        lambda _shop: Answer(("client-errors",), ("shop/shipping", OUTSIDE[1], "429")),
    ),
    Fault(
        "far-outside",
        f"a service outside of the cluster takes {FAR_MS} ms",
        _outside("sleep", rate=6, ms=FAR_MS),
        _no_outside,
        lambda _shop: Answer(("slow-calls",), ("shop/shipping", OUTSIDE[1])),
    ),
    Fault(
        "one-worker",
        f"render serves one request at a time, each in {ALONE_MS} ms; the others wait to be accepted",
        _one_worker,
        without("render"),
        lambda _shop: Answer(
            ("unread-requests", "slow-calls", "process-lock", "listen-overflow", "pool-exhausted"),
            ("shop/render", "wait|queue|busy|one thread|at a time"),
        ),
    ),
    Fault(
        "out-of-files",
        f"thumbs may have {FILES} files open, and cannot accept any more connections",
        _few_files,
        without("thumbs"),
        lambda _shop: Answer(("unanswered-requests", "listen-overflow"), ("shop/thumbs",)),
    ),
    Fault(
        "grpc-deadline",
        f"{SLOW_RATIO:.0%} of quote's gRPC calls take {SLOW_MS} ms, its client gives each {DEADLINE_S * 1000:.0f} ms",
        _deadline,
        without("bidder", "quote"),
        lambda _shop: Answer(("slow-calls", "unanswered-requests", "server-errors"), ("shop/quote", "grpc")),
    ),
    Fault(
        "stuck-listener",
        "the only listener of a NATS subject is stuck: who asks it gets no answer",
        _stuck_listener,
        without("converter", "rates", "nats"),
        lambda _shop: Answer(
            ("unanswered-messages", "unanswered-requests", "slow-calls", "server-errors"),
            ("nats", f"shop/rates|{SUBJECT}"),
        ),
    ),
)
