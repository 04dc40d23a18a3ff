"""Real containers, started by runc in pods: who did what is right down to the container, on both ends."""

from __future__ import annotations

import platform
import secrets
import socket
import subprocess
import sys
import time
from typing import Any

import pytest

from kubetape.analyze.analysis import Analysis
from tests.lab.containers import CREATED, Object, RealContainer, RealNode, RealPod
from tests.lab.network import Bridge, free_subnet
from tests.live.recording import SLOWER

pytestmark = [pytest.mark.live, pytest.mark.lab]

RECORD_S = 12 * SLOWER
HTTP_PORT, REDIS_PORT, AGENT_PORT, METRICS_PORT, ETCD_PORT = 8080, 6379, 9100, 29101, 22379

# The clients open a connection per request, of every kind in turn, until they are killed.
CLIENT = """
import socket, sys, time, urllib.request
while True:
    for url in sys.argv[1:]:
        try:
            if url.startswith("http"):
                urllib.request.urlopen(url, timeout=5).read()
            else:
                host, port = url.split(":")
                with socket.create_connection((host, int(port)), timeout=5) as s:
                    s.sendall(b"*1\\r\\n$4\\r\\nPING\\r\\n")
                    s.recv(100)
        except OSError as error:
            print(url, error, flush=True)
    time.sleep(0.1)
"""


def client(*urls: str) -> list[str]:
    return ["/usr/bin/python3", "-c", CLIENT, *urls]


def once(path: str) -> list[str]:
    return ["/usr/bin/python3", "-c", f"import urllib.request; urllib.request.urlopen({path!r}, timeout=5).read()"]


def server(port: int) -> list[str]:
    return ["/usr/bin/python3", "-m", "http.server", str(port), "--directory", "/tmp"]


def owner(kind: str, namespace: str, name: str, above: str | None = None) -> Object:
    meta: Object = {"namespace": namespace, "name": name, "uid": name, "creationTimestamp": CREATED}
    if above:
        deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "name": above, "uid": above, "controller": True}
        meta["ownerReferences"] = [deployment]
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": meta, "spec": {}, "status": {}}


def wait_for(ip: str, port: int) -> None:
    deadline = time.monotonic() + 20 * SLOWER
    while True:
        try:
            socket.create_connection((ip, port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, f"nothing listens on {ip}:{port}"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """Pods: web (cgroupfs names, two servers, an init container), client (systemd names, a sidecar), proxy (host
    network), etcd (static, on the host network; one container newer than the pod's status)."""
    folder = tmp_path_factory.mktemp("containers")
    subnet = free_subnet(77)
    bridge = Bridge(f"krc{secrets.token_hex(2)}", subnet)
    web_ip, client_ip, node_ip = str(subnet[11]), str(subnet[12]), bridge.node_ip
    web = RealPod("shop", "web-abc-1", ("ReplicaSet", "web-abc"), web_ip, [
        RealContainer("setup", once(f"http://{node_ip}:{METRICS_PORT}/?from=setup"), kind="init"),
        RealContainer("api", server(HTTP_PORT), port=HTTP_PORT),
        RealContainer("cache", ["redis-server", "--save", "", "--port", str(REDIS_PORT), "--protected-mode", "no"],
            port=REDIS_PORT),
    ])  # fmt: skip
    driver = client(
        f"http://{web_ip}:{HTTP_PORT}/?from=driver",
        f"{web_ip}:{REDIS_PORT}",
        f"http://127.0.0.1:{AGENT_PORT}/?from=driver",
        f"http://{node_ip}:{METRICS_PORT}/?from=driver",
    )
    caller = RealPod("front", "client-0", ("StatefulSet", "client"), client_ip, [
        RealContainer("agent", server(AGENT_PORT), kind="sidecar", port=AGENT_PORT),
        RealContainer("driver", driver),
    ], systemd_names=True)  # fmt: skip
    proxy = RealPod("kube-system", "proxy-x1", ("DaemonSet", "proxy"), node_ip, [
        RealContainer("metrics", server(METRICS_PORT), port=METRICS_PORT),
        RealContainer("probe", client(
            f"http://{web_ip}:{HTTP_PORT}/?from=probe", f"http://127.0.0.1:{ETCD_PORT}/?from=probe")),
    ], host_network=True)  # fmt: skip
    etcd = RealPod("kube-system", f"etcd-{platform.node()}", ("Node", platform.node()), node_ip, [
        RealContainer("etcd", server(ETCD_PORT), port=ETCD_PORT),
        RealContainer("backup", client(f"http://{web_ip}:{HTTP_PORT}/?from=backup"), reported=False),
    ], host_network=True, systemd_names=True, config_hash=secrets.token_hex(16))  # fmt: skip
    with RealNode(folder, platform.node(), bridge) as node:
        for pod in (web, proxy, etcd, caller):
            node.add(pod)
        for ip, port in ((web_ip, HTTP_PORT), (web_ip, REDIS_PORT), (node_ip, METRICS_PORT), (node_ip, ETCD_PORT)):
            wait_for(ip, port)
        node.write_objects(
            folder / "k8s",
            owner("Deployment", "shop", "web"),
            owner("ReplicaSet", "shop", "web-abc", "web"),
            owner("StatefulSet", "front", "client"),
            owner("DaemonSet", "kube-system", "proxy"),
        )
        output = folder / "x.ktape"
        command = [sys.executable, "-m", "kubetape", "record", "-o", str(output), "--duration", f"{RECORD_S:g}s"]
        with subprocess.Popen(
            [*command, "--from-dir", str(folder / "k8s")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as recorder:
            time.sleep(RECORD_S / 2)
            node.run_init(web, "setup")
            node.exec(web.containers[1], *once(f"http://{client_ip}:{AGENT_PORT}/?from=exec"))
            said, _ = recorder.communicate(timeout=60 * SLOWER)
        assert recorder.returncode == 0, said
    return Analysis(output)


# client (namespace, pod, container, workload), path, server (the same)
WEB, CLIENT_POD = ("shop", "web-abc-1", "web"), ("front", "client-0", "client")
PROXY, ETCD = ("kube-system", "proxy-x1", "proxy"), ("kube-system", f"etcd-{platform.node()}", "etcd")
CALLS: list[tuple[str, tuple[str, str, str], str | None, tuple[str, str, str], str, int]] = [
    ("driver", CLIENT_POD, "driver", WEB, "api", HTTP_PORT),
    ("driver", CLIENT_POD, "driver", CLIENT_POD, "agent", AGENT_PORT),
    ("driver", CLIENT_POD, "driver", PROXY, "metrics", METRICS_PORT),
    ("probe", PROXY, "probe", WEB, "api", HTTP_PORT),
    ("probe", PROXY, "probe", ETCD, "etcd", ETCD_PORT),
    ("setup", WEB, "setup", PROXY, "metrics", METRICS_PORT),
    ("exec", WEB, "api", CLIENT_POD, "agent", AGENT_PORT),
    # Started after the pod's status was read: the static pod's own hash still names the pod.
    ("backup", ETCD, None, WEB, "api", HTTP_PORT),
]


def asked(bundle: Analysis, query: str) -> list[dict[str, Any]]:
    return list(bundle.query(query).to_pylist())


ENDS = ", ".join(f"{s}_{w}" for s in ("client", "server") for w in ("namespace", "pod", "workload", "container"))


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("call", CALLS, ids=lambda c: f"{c[0]}-{c[4]}")
def test_every_request_names_both_ends_down_to_the_container(
    bundle: Analysis, side: str, call: tuple[str, tuple[str, str, str], str | None, tuple[str, str, str], str, int]
) -> None:
    name, caller, container, callee, serving, port = call
    found = asked(
        bundle,
        f"SELECT DISTINCT {ENDS} FROM request WHERE side = '{side}' AND protocol = 'http1' AND server_port = {port} "
        f"AND statement LIKE '%from={name}%'",
    )
    assert [tuple(r.values()) for r in found] == [(*caller, container, *callee, serving)]


def test_redis_in_the_second_container_of_the_pod(bundle: Analysis) -> None:
    found = asked(bundle, f"SELECT DISTINCT side, {ENDS} FROM request WHERE protocol = 'redis' ORDER BY side")
    ends = (*CLIENT_POD, "driver", *WEB, "cache")
    assert [tuple(r.values()) for r in found] == [("client", *ends), ("server", *ends)]


def test_edges_name_the_containers(bundle: Analysis) -> None:
    found = asked(
        bundle,
        "SELECT client, client_container, server, server_container, protocol FROM edge "
        "WHERE client = 'front/client' ORDER BY ALL",
    )
    assert [tuple(r.values()) for r in found] == [
        ("front/client", "driver", "front/client", "agent", "http1"),
        ("front/client", "driver", "kube-system/proxy", "metrics", "http1"),
        ("front/client", "driver", "shop/web", "api", "http1"),
        ("front/client", "driver", "shop/web", "cache", "redis"),
    ]


def test_every_socket_event_belongs_to_a_connection_of_the_container_that_made_it(bundle: Analysis) -> None:
    found = asked(
        bundle,
        "SELECT i.local_container AS connection, k.name AS process, count(*) AS events FROM socket_data AS d "
        "JOIN connection_identity AS i USING (connection_id) JOIN process AS p ON p.node = d.node AND p.pid = d.pid "
        "JOIN cgroup AS g ON g.node = p.node AND g.cgroup_id = p.cgroup_id "
        "JOIN k8s_container AS k ON k.container_id = g.container_id GROUP BY ALL",
    )
    assert {r["process"] for r in found} == {"driver", "agent", "api", "cache", "probe", "metrics", "etcd", "setup"}
    assert [r for r in found if r["connection"] != r["process"]] == []


def test_a_process_started_in_a_container_is_that_containers(bundle: Analysis) -> None:
    found = asked(
        bundle,
        "SELECT DISTINCT k.name FROM process_event AS e JOIN cgroup AS g USING (node, cgroup_id) "
        "JOIN k8s_container AS k USING (container_id) WHERE e.kind = 'exec' AND e.arguments LIKE '%from=exec%'",
    )
    assert found == [{"name": "api"}]


def test_the_network_down_to_the_container(bundle: Analysis) -> None:
    found = asked(bundle, "SELECT name FROM network_summary WHERE dimension = 'container' ORDER BY name")
    names = [r["name"] for r in found]
    assert {"front/client-0/driver", "front/client-0/agent", "shop/web-abc-1/api", "shop/web-abc-1/cache"} <= set(names)
    assert {"kube-system/proxy-x1/probe", "shop/web-abc-1/setup"} <= set(names)
    assert f"kube-system/etcd-{platform.node()}/etcd" in names
