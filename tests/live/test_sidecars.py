"""Sidecar proxies (haproxy) beside real containers, as a service mesh sets them up: the calls are the workloads'.

The client's pod redirects what goes to the service's address to its proxy (nftables in the pod's own namespace, the
proxy asks the kernel for the address meant), the proxy chooses a backend, and the backend's pod redirects what comes
in to its own proxy, which calls the program from 127.0.0.6. Another proxy stands before a database on loopback, and one
client has none.
"""

from __future__ import annotations

import platform
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kubetape.analyze.analysis import Analysis
from tests.lab.containers import CREATED, Object, RealContainer, RealNode, RealPod
from tests.lab.network import Bridge, free_subnet, in_network_of
from tests.lab.shell import run
from tests.live.recording import SLOWER

pytestmark = [pytest.mark.live, pytest.mark.lab]

RECORD_S = 8 * SLOWER
PORT, OUTBOUND, INBOUND, REDIS_PORT, LOCAL_REDIS = 8000, 15001, 15006, 6379, 6380
SERVICE_IP = "10.111.7.7"

# Every answer is longer than the one before, on each server by its own steps: the length tells which one it is.
SERVER = """
import itertools, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
sizes = itertools.count(1000 + int(sys.argv[2]), 2)
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        size = next(sizes)
        time.sleep(0.002 + size % 7 / 1000)
        self.send_response(200)
        self.send_header("Content-Length", str(1000000 + size)[1:])
        # At once with the headers: two small writes in a row wait for the client's late acknowledgement.
        self._headers_buffer.append(b"\\r\\n" + b"x" * size)
        self.flush_headers()
    def log_message(self, *_): pass
ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
"""

# Several threads ask the same over kept connections, so that equal requests are under way at once.
CLIENT = """
import http.client, socket, sys, threading, time
def ask(host, port):
    while True:
        try:
            c = http.client.HTTPConnection(host, int(port), timeout=5)
            for _ in range(20):
                c.request("GET", "/price")
                c.getresponse().read()
                time.sleep(0.005)
        except OSError as error:
            print(error, flush=True); time.sleep(0.1)
def ping(port):
    while True:
        try:
            with socket.create_connection(("127.0.0.1", int(port)), timeout=5) as s:
                for _ in range(20):
                    s.sendall(b"*2\\r\\n$3\\r\\nGET\\r\\n$5\\r\\nprice\\r\\n")
                    s.recv(100)
                    time.sleep(0.01)
        except OSError as error:
            print(error, flush=True); time.sleep(0.1)
host, port, threads = sys.argv[1:4]
for _ in range(int(threads)):
    threading.Thread(target=ask, args=(host, port)).start()
if sys.argv[4:]:
    threading.Thread(target=ping, args=(sys.argv[4],)).start()
"""

PROXY = """
global
    nbthread 2
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
"""


def listener(name: str, bind: str, servers: list[str], mode: str = "http") -> str:
    lines = [f"listen {name}", f"    bind {bind}", f"    mode {mode}", *(f"    {line}" for line in servers)]
    return "\n".join(lines) + "\n"


def proxy(*listeners: str, pem: str | None = None) -> RealContainer:
    """A container that writes its configuration (and certificate) and becomes haproxy."""
    script = f"cat > /tmp/proxy.cfg <<'END'\n{PROXY}{''.join(listeners)}END\n"
    if pem:
        script += f"cat > /tmp/proxy.pem <<'END'\n{pem}END\n"
    return RealContainer("proxy", ["sh", "-c", script + "exec haproxy -db -f /tmp/proxy.cfg"], kind="sidecar")


def python(code: str, *arguments: object) -> list[str]:
    return ["/usr/bin/python3", "-c", code, *map(str, arguments)]


def workload(namespace: str, name: str) -> Object:
    meta: Object = {"namespace": namespace, "name": name, "uid": name, "creationTimestamp": CREATED}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta, "spec": {}, "status": {}}


def service() -> Object:
    meta: Object = {"namespace": "shop", "name": "prices", "uid": "svc", "creationTimestamp": CREATED}
    spec = {"type": "ClusterIP", "clusterIP": SERVICE_IP, "clusterIPs": [SERVICE_IP]}
    return {
        "apiVersion": "v1", "kind": "Service", "metadata": meta,
        "spec": spec | {"ports": [{"name": "http", "port": PORT, "protocol": "TCP", "targetPort": PORT}]},
    }  # fmt: skip


def redirect(node: RealNode, pod: RealPod, hook: str, match: str, port: int) -> None:
    pid = int((node.folder / "bundles" / pod.sandbox_id / "pid").read_text())
    rules = f"table ip mesh {{\nchain c {{\ntype nat hook {hook} priority -100\n{match} redirect to :{port}\n}}\n}}\n"
    run(*in_network_of(pid), "nft", "-f", "-", stdin=rules)


def certificate(folder: Path) -> str:
    run(
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=prices",
        "-keyout", str(folder / "key"), "-out", str(folder / "cert"),
    )  # fmt: skip
    return (folder / "cert").read_text() + (folder / "key").read_text()


@pytest.fixture(scope="module", params=["clear", "encrypted"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """Calls through sidecars, between which the bytes are in clear, or encrypted and not to be read."""
    folder = tmp_path_factory.mktemp("sidecars")
    encrypted = request.param == "encrypted"
    pem = certificate(folder) if encrypted else None
    subnet = free_subnet(91)
    bridge = Bridge(f"ksc{secrets.token_hex(2)}", subnet)
    prices_ip, (front_ip, store_ip, batch_ip) = (
        [str(subnet[21]), str(subnet[22])],
        [str(subnet[n]) for n in (23, 24, 25)],
    )
    tls_out, tls_in = (" ssl verify none", " ssl crt /tmp/proxy.pem") if encrypted else ("", "")
    prices = [
        RealPod("shop", f"prices-{n}", ("StatefulSet", "prices"), ip, [
            proxy(listener("in", f":{INBOUND}{tls_in}", [f"server app {ip}:{PORT} source 127.0.0.6"]), pem=pem),
            RealContainer("app", python(SERVER, PORT, n), port=PORT),
        ]) for n, ip in enumerate(prices_ip)
    ]  # fmt: skip
    backends = ["balance roundrobin", *(f"server p{n} {ip}:{PORT}{tls_out}" for n, ip in enumerate(prices_ip))]
    front = RealPod("front", "web-0", ("StatefulSet", "web"), front_ip, [
        proxy(listener("out", f":{OUTBOUND}", backends),
            listener("redis", f"127.0.0.1:{LOCAL_REDIS}", [f"server r {store_ip}:{REDIS_PORT}"], "tcp")),
        RealContainer("app", python(CLIENT, SERVICE_IP, PORT, 4, LOCAL_REDIS)),
    ])  # fmt: skip
    store = RealPod("data", "redis-0", ("StatefulSet", "redis"), store_ip, [
        RealContainer("redis", ["redis-server", "--save", "", "--protected-mode", "no"], port=REDIS_PORT),
    ])  # fmt: skip
    # Without a sidecar, and so in clear: a mesh takes that too, on another port of its proxy.
    batch = RealPod("back", "batch-0", ("StatefulSet", "batch"), batch_ip, [
        RealContainer("app", python(CLIENT, prices_ip[0], INBOUND + 1, 1)),
    ])  # fmt: skip
    prices[0].containers[0] = proxy(
        listener("in", f":{INBOUND}{tls_in}", [f"server app {prices_ip[0]}:{PORT} source 127.0.0.6"]),
        listener("clear", f":{INBOUND + 1}", [f"server app {prices_ip[0]}:{PORT} source 127.0.0.6"]),
        pem=pem,
    )
    with RealNode(folder, platform.node(), bridge) as node:
        for pod in (*prices, store, front, batch):
            node.add(pod)
        for pod in prices:
            redirect(node, pod, "prerouting", f"tcp dport {PORT}", INBOUND)
        redirect(node, front, "output", f"ip daddr {SERVICE_IP} tcp dport {PORT}", OUTBOUND)
        time.sleep(2 * SLOWER)
        node.write_objects(
            folder / "k8s", service(), workload("shop", "prices"), workload("front", "web"), workload("data", "redis"),
            workload("back", "batch"),
        )  # fmt: skip
        output = folder / "x.ktape"
        command = [sys.executable, "-m", "kubetape", "record", "-o", str(output), "--duration", f"{RECORD_S:g}s"]
        done = subprocess.run(
            [*command, "--no-tls", "--from-dir", str(folder / "k8s")],
            capture_output=True, text=True, timeout=120 * SLOWER, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    return Analysis(output)


def asked(bundle: Analysis, query: str) -> list[dict[str, Any]]:
    return list(bundle.query(query).to_pylist())


def is_encrypted(bundle: Analysis) -> bool:
    return bool(asked(bundle, "SELECT 1 FROM request WHERE protocol = 'tls' AND client_pod = 'web-0' LIMIT 1"))


def test_edges_are_between_the_workloads(bundle: Analysis) -> None:
    # Of what was under way as the recording began one hop only may be known.
    found = asked(
        bundle,
        "SELECT client, server, protocol FROM edge WHERE client_namespace IS NOT NULL AND protocol <> 'tls' "
        "AND request_count > 8 ORDER BY ALL",
    )
    assert [tuple(r.values()) for r in found] == [
        ("back/batch", "shop/prices", "http1"),
        ("front/web", "data/redis", "redis"),
        ("front/web", "shop/prices", "http1"),
    ]


def test_every_request_of_the_client_is_counted_once(bundle: Analysis) -> None:
    found = asked(
        bundle,
        "SELECT i.local_workload AS workload, protocol, count(*) AS n FROM _request AS r "
        "JOIN connection_identity AS i USING (connection_id) WHERE i.local_container = 'app' AND r.side = 'client' "
        "AND outcome = 'complete' GROUP BY ALL ORDER BY ALL",
    )
    edges = asked(
        bundle, "SELECT client_workload AS workload, protocol, count(*) AS n FROM logical_request "
        "WHERE protocol <> 'tls' AND outcome = 'complete' AND client_workload <> 'prices' GROUP BY ALL ORDER BY ALL",
    )  # fmt: skip
    assert len(found) == 3
    assert all(r["n"] > 50 for r in found)
    # A call under way as the recording begins or ends may be known at one of its hops only.
    assert [(r["workload"], r["protocol"]) for r in edges] == [(r["workload"], r["protocol"]) for r in found]
    assert all(abs(a["n"] - b["n"]) <= 8 for a, b in zip(edges, found, strict=True)), (edges, found)


def test_each_call_is_tied_to_the_answer_of_its_own_server(bundle: Analysis) -> None:
    found = asked(
        bundle,
        "SELECT l.server_pod, l.server_container, l.client_container, l.server_service, "
        "s.response_bytes - c.response_bytes AS more, count(*) AS n FROM call AS k "
        "JOIN logical_request AS l USING (request_id) JOIN request AS c ON c.request_id = k.client_request_id "
        "JOIN request AS s ON s.request_id = k.server_request_id WHERE k.join_basis = 'proxy' "
        "AND l.client_workload = 'web' AND l.protocol = 'http1' AND l.outcome = 'complete' "
        "GROUP BY ALL ORDER BY n DESC",
    )
    assert {r["server_pod"] for r in found} == {"prices-0", "prices-1"}
    assert {(r["client_container"], r["server_container"], r["server_service"]) for r in found} == {
        ("app", "app", "prices")
    }
    # What a proxy adds to an answer is always the same length.
    usual = found[0]["more"]
    right = sum(r["n"] for r in found if r["more"] == usual)
    assert right >= 0.99 * sum(r["n"] for r in found), found


def test_the_server_is_the_program_and_the_sidecars_have_their_own_part(bundle: Analysis) -> None:
    (edge,) = asked(
        bundle, "SELECT * FROM edge WHERE client = 'front/web' AND server = 'shop/prices' AND protocol = 'http1'"
    )
    assert edge["proxied_count"] >= 0.98 * edge["request_count"]
    assert edge["joined_count"] >= 0.98 * edge["request_count"]
    assert edge["p50_ns"] > edge["server_p50_ns"] > 2_000_000
    assert (edge["proxy_p50_ns"] is None) == is_encrypted(bundle)
    split = asked(
        bundle,
        "SELECT count(*) AS n, count(*) FILTER (t.network_ns < 0) AS negative, "
        "count(*) FILTER (t.network_ns + coalesce(t.proxy_ns, 0) + t.server_ns <> total_ns) AS wrong "
        "FROM request_time_split AS t JOIN logical_request USING (request_id) "
        "WHERE client_workload = 'web' AND protocol = 'http1' AND server_ns IS NOT NULL",
    )
    assert split[0]["n"] > 100
    assert (split[0]["wrong"], split[0]["negative"]) == (0, 0)


def test_a_proxy_on_loopback_before_a_database_is_none_of_the_callers_workload(bundle: Analysis) -> None:
    (edge,) = asked(bundle, "SELECT * FROM edge WHERE server = 'data/redis'")
    assert (edge["client_container"], edge["server_container"]) == ("app", "redis")
    assert edge["proxied_count"] >= 0.98 * edge["request_count"]
    assert edge["proxy_p50_ns"] is not None


def test_nothing_is_said_about_the_network_that_the_sidecars_caused(bundle: Analysis) -> None:
    loud = asked(
        bundle,
        "SELECT rule, title FROM finding WHERE severity IN ('critical', 'warning') "
        "AND array_to_string(entities, ' ') LIKE '%/%'",
    )
    assert loud == []
