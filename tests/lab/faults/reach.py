"""Faults on the way to a service: a wrong port, no endpoint, no local port, a certificate, one lossy pair, a window."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.lab import metadata
from tests.lab.faults.extra import HTTP, app, end, serve, step, visit, without
from tests.lab.faults.fault import Answer, Fault
from tests.lab.shell import run

if TYPE_CHECKING:
    from tests.lab.pods import Pod
    from tests.lab.shop import Shop

WRONG_PORT = 3307
HTTPS = 8443
EMPTY_NAME, EMPTY_IP = "recommend.shop.svc.cluster.local", "172.30.17.80"
LOCAL_PORTS = 40
PAIR_LOSS_PERCENT = 8
ODD_REPLICA = 1
WINDOW_BYTES, FAR_MS, FILE_BYTES = 2_048, 8, 120_000


def _wrong_port(shop: Shop) -> None:
    serve(shop, "coupon", step("ping", port=WRONG_PORT))
    visit(shop, "http://coupon/", rate=8)


# ---- no-endpoints: as kube-proxy does, connections to the address of a service without endpoints are refused ---


def _no_endpoints(shop: Shop) -> None:
    shop.names[EMPTY_NAME] = EMPTY_IP
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    shop.objects += metadata.empty_service_objects(shop.plan("recommend", HTTP)[0], shop.node, created, EMPTY_IP)
    for pod in serve(shop, "home", step("get", url="http://recommend/")):
        pod.nft(
            "table inet lab_proxy {\n chain out {\n type filter hook output priority 0;\n"
            f" ip daddr {EMPTY_IP} tcp dport {HTTP} reject\n }}\n}}\n"
        )
    visit(shop, "http://home/", rate=8)


def _endpoints(shop: Shop) -> None:
    del shop.names[EMPTY_NAME]
    shop.objects.clear()
    without("home")(shop)


# ---- expired-certificate ----------------------------------------------------------------------------------------


def _expired(shop: Shop) -> None:
    key, request, certificate, both = (shop.folder / f"vault.{end_}" for end_ in ("key", "csr", "crt", "pem"))
    name = ("-subj", "/CN=vault", "-addext", "subjectAltName=DNS:vault")
    run("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(request), *name)
    run(
        "openssl", "x509", "-req", "-in", str(request), "-signkey", str(key), "-days", "-1",
        "-copy_extensions", "copy", "-out", str(certificate),
    )  # fmt: skip
    both.write_text(key.read_text() + certificate.read_text())
    serve(shop, "vault", step("sleep", "--certificate", both, ms=2), replicas=1, port=HTTPS)
    serve(shop, "pay", step("get", url=f"https://vault:{HTTPS}/", authority=str(certificate)))
    visit(shop, "http://pay/", rate=8)


# ---- no-local-ports: a new connection for each request, and few ports to make them from -------------------------


def _few_ports(shop: Shop) -> None:
    crawl = app("ask", "http://gateway/products/1", "--rate", 15, "--uses", 1)
    ports = f"40000 {40000 + LOCAL_PORTS - 1}"
    limited = f'echo {ports} >/proc/sys/net/ipv4/ip_local_port_range && exec "$0" "$@"'
    serve(shop, "crawler", lambda pod: ["sh", "-c", limited, *crawl(pod)], replicas=1, port=None)


# ---- lossy-pair -------------------------------------------------------------------------------------------------


def _lossy(pod: Pod, source: Pod) -> None:
    pod.nft(
        "table inet lab_pair {\n chain arrive {\n type filter hook input priority -10;\n"
        f" ip saddr {source.ip} numgen random mod 100 < {PAIR_LOSS_PERCENT} drop\n }}\n}}\n"
    )


def _lossy_pair(shop: Shop) -> None:
    gateway, replica = shop.one("gateway"), shop.of("product")[ODD_REPLICA]
    _lossy(gateway, replica)
    _lossy(replica, gateway)


def _whole_pair(shop: Shop) -> None:
    for pod in (shop.one("gateway"), shop.of("product")[ODD_REPLICA]):
        pod.nft("delete table inet lab_pair")


# ---- small-window -----------------------------------------------------------------------------------------------


def _small_window(shop: Shop) -> None:
    archive = serve(shop, "archive", step("blob", size=FILE_BYTES), replicas=1)[0]
    client = app("ask", "http://archive/", "--rate", 2, "--workers", 4, "--receive-bytes", WINDOW_BYTES)
    mirror = serve(shop, "mirror", client, replicas=1, port=None)[0]
    delay = app("delay", "--ms", FAR_MS, "--source", archive.ip, mirror.ip)
    log = shop.folder / "far.log"
    shop.helpers["far"] = archive.spawn(shop.tree, delay(archive), log)


def _wide_window(shop: Shop) -> None:
    end(shop, "far")
    without("mirror", "archive")(shop)


# ---- stale-address: a name that still has the address of a pod that is gone -------------------------------------


def _stale(shop: Shop) -> None:
    gone = shop.plan("catalog", HTTP)[0]
    shop.names["catalog.shop.svc.cluster.local"] = gone.ip
    serve(shop, "catalog", step("sleep", ms=2), replicas=1)
    serve(shop, "front", step("get", url="http://catalog/"))
    visit(shop, "http://front/", rate=6, workers=16)


def _not_stale(shop: Shop) -> None:
    del shop.names["catalog.shop.svc.cluster.local"]
    without("front", "catalog")(shop)


# ---- policy: packets of one client are dropped at the server's door ---------------------------------------------


def _policy(shop: Shop) -> None:
    audit = serve(shop, "audit", step("ping", port=3306))
    mysql = shop.one("mysql")
    sources = ", ".join(pod.ip for pod in audit)
    mysql.nft(
        "table inet lab_policy {\n chain in {\n type filter hook input priority 0;\n"
        f" ip saddr {{ {sources} }} drop\n }}\n}}\n"
    )
    visit(shop, "http://audit/", rate=6)


def _no_policy(shop: Shop) -> None:
    shop.one("mysql").nft("delete table inet lab_policy")
    without("audit")(shop)


FAULTS = (
    Fault(
        "stale-address",
        "a name has the address of a pod that is gone beside that of the one there is",
        _stale,
        _not_stale,
        lambda _shop: Answer(("connect-failures",), ("shop/front", "catalog|unreachable|timeout")),
    ),
    Fault(
        "policy",
        "a network policy drops the packets of audit to MySQL; all others reach it",
        _policy,
        _no_policy,
        lambda _shop: Answer(("connect-failures", "unanswered-requests"), ("shop/audit", "shop/mysql")),
    ),
    Fault(
        "wrong-port",
        f"coupon asks for MySQL at port {WRONG_PORT}, where nobody listens",
        _wrong_port,
        without("coupon"),
        lambda _shop: Answer(("connect-failures",), ("shop/coupon", "shop/mysql", "refused", str(WRONG_PORT))),
    ),
    Fault(
        "no-endpoints",
        "home asks a service that has no endpoints",
        _no_endpoints,
        _endpoints,
        lambda _shop: Answer(("connect-failures",), ("shop/home", "shop/recommend", "endpoint")),
    ),
    Fault(
        "expired-certificate",
        "vault's certificate has expired: pay ends each handshake",
        _expired,
        without("pay", "vault"),
        lambda _shop: Answer(
            ("client-errors", "server-errors", "connect-failures", "connection-resets"),
            ("shop/pay", "shop/vault", "TLS|tls"),
        ),
    ),
    Fault(
        "no-local-ports",
        f"crawler has {LOCAL_PORTS} local ports, and makes a new connection for each request",
        _few_ports,
        without("crawler"),
        lambda _shop: Answer(
            ("connect-failures",), ("shop/crawler", "shop/gateway", "local port|EADDRNOTAVAIL|no free port")
        ),
    ),
    Fault(
        "lossy-pair",
        f"of the packets between gateway and one product replica {PAIR_LOSS_PERCENT} % are lost",
        _lossy_pair,
        _whole_pair,
        lambda shop: Answer(("lossy-link",), ("shop/gateway", shop.of("product")[ODD_REPLICA].name)),
    ),
    Fault(
        "small-window",
        f"mirror's receive buffer holds {WINDOW_BYTES} bytes, and archive is {FAR_MS} ms away",
        _small_window,
        _wide_window,
        lambda _shop: Answer(
            ("slow-reader", "slow-network", "slow-calls"), ("shop/mirror", "shop/archive", "window|receive buffer")
        ),
    ),
)
