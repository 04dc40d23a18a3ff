"""Two "nodes" on this machine: a bridge each, a service between them as kube-proxy makes it, and masquerade.

shop-front/client on node-a asks the service shop-back/web by its ClusterIP and by a NodePort; two pods of web stand on
node-b. Rules of nftables choose a backend at random (numgen) and replace the destination; what leaves node-a gets
node-a's own address, so that the server sees neither who asked nor what was asked for.
"""

from __future__ import annotations

import json
import secrets
import shutil
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.lab import metadata
from tests.lab.cgroups import CgroupTree
from tests.lab.network import Bridge, free_subnet
from tests.lab.pods import Pod
from tests.lab.shell import run

CLUSTER_IP, SERVICE_PORT, NODE_PORT = "198.18.0.10", 80, 30080
SERVER_PORT = 8080
_SERVER = (
    "import http.server, sys\n"
    "class H(http.server.BaseHTTPRequestHandler):\n"
    "    protocol_version = 'HTTP/1.1'; wbufsize = -1; disable_nagle_algorithm = True\n"
    "    def do_GET(self):\n"
    "        self.send_response(200); self.send_header('Content-Length', '2'); self.end_headers()\n"
    "        self.wfile.write(b'ok')\n"
    "    def log_message(self, *_): pass\n"
    f"http.server.ThreadingHTTPServer(('', {SERVER_PORT}), H).serve_forever()\n"
)


class TwoNodes:
    """A context manager. `k8s`: folder of objects for `--from-dir`; `client`, `servers`: the pods."""

    def __init__(self) -> None:
        self.lab_id = secrets.token_hex(3)
        self.folder = Path(tempfile.gettempdir()) / f"kt-nodes-{self.lab_id}"
        self.k8s = self.folder / "k8s"
        self.tree = CgroupTree(f"kt{self.lab_id}")
        self.table = f"kt_{self.lab_id}"
        self.bridges: list[Bridge] = []
        self.pods: list[Pod] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def client(self) -> Pod:
        return self.pods[0]

    @property
    def servers(self) -> list[Pod]:
        return self.pods[1:]

    def _start(self) -> None:
        self.folder.mkdir()
        for name in "ab":
            bridge = Bridge(f"kt{self.lab_id}{name}", free_subnet(int(self.lab_id, 16)))
            bridge.up()
            self.bridges.append(bridge)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        resolv = self.folder / "resolv.conf"
        resolv.write_text("")
        image = "lab/web:1.0"
        self.pods.append(Pod("client-1", "front", "client", "Deployment", self._address(0, 10), None, image, "aaaa"))
        for number in (1, 2):
            ip = self._address(1, 10 + number)
            self.pods.append(Pod(f"web-{number}", "back", "web", "Deployment", ip, SERVER_PORT, image, "bbbb"))
        for number, pod in enumerate(self.pods):
            pod.sandbox(self.tree, self.bridges[number > 0], f"kt{self.lab_id}p{number}", self.folder, resolv)
        for pod in self.servers:
            pod.start(self.tree, ["python3", "-c", _SERVER], self.folder)
            pod.wait_for_port()
        self._rules()
        self._objects()

    def _address(self, node: int, host: int) -> str:
        return str(self.bridges[node].subnet[host])

    def _rules(self) -> None:
        """What kube-proxy's nftables mode boils down to."""
        backends = ", ".join(f"{n} : {pod.ip} . {SERVER_PORT}" for n, pod in enumerate(self.servers))
        choose = f"dnat to numgen random mod {len(self.servers)} map {{ {backends} }}"
        away = f"ip saddr {self.bridges[0].subnet} oifname {self.bridges[1].name} masquerade"
        run(
            "nft", "-f", "-",
            stdin=f"table ip {self.table} {{\n"
            " chain in {\n  type nat hook prerouting priority dstnat;\n"
            f"  ip daddr {CLUSTER_IP} tcp dport {SERVICE_PORT} {choose}\n"
            f"  ip daddr {self.bridges[0].node_ip} tcp dport {NODE_PORT} {choose}\n }}\n"
            f" chain out {{\n  type nat hook postrouting priority srcnat;\n  {away}\n }}\n}}\n",
        )  # fmt: skip

    def _objects(self) -> None:
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        nodes = ["node-a", "node-b"]
        objects: list[dict[str, Any]] = []
        for name, bridge in zip(nodes, self.bridges, strict=True):
            objects.append(metadata.node_object(name, bridge.node_ip, str(bridge.subnet), created))
        for number, pod in enumerate(self.pods):
            place = int(number > 0)
            objects.append(metadata.pod_object(pod, nodes[place], self.bridges[place].node_ip, created))
        objects += metadata.workload_objects([self.client], created) + metadata.workload_objects(self.servers, created)
        service, slices = metadata.service_objects(self.servers, nodes[1], created, CLUSTER_IP)
        service["spec"] |= {"type": "NodePort"}
        service["spec"]["ports"][0] |= {"port": SERVICE_PORT, "nodePort": NODE_PORT}
        objects += [service, slices]
        self.k8s.mkdir()
        for kind in sorted({o["kind"] for o in objects}):
            items = [o for o in objects if o["kind"] == kind]
            listing = {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items}
            (self.k8s / f"{kind.lower()}s.json").write_text(json.dumps(listing))

    def ask(self, count: int) -> None:
        """`count` requests to the ClusterIP and as many to the NodePort, a new connection for every five."""
        for address in (f"{CLUSTER_IP}:{SERVICE_PORT}", f"{self.bridges[0].node_ip}:{NODE_PORT}"):
            for first in range(0, count, 5):
                urls = [f"http://{address}/item/{number}" for number in range(first, min(count, first + 5))]
                process = self.client.spawn(
                    self.tree, ["curl", "-s", "--noproxy", "*", *urls], self.folder / "curl.log"
                )
                if process.wait(30):
                    raise RuntimeError(f"curl {urls[0]}: {(self.folder / 'curl.log').read_text()[-300:]}")
        time.sleep(0.2)

    def stop(self) -> None:
        """Take everything away."""
        self.tree.kill()
        for bridge in self.bridges:
            bridge.down()
        self.tree.remove()
        if self.table in run("nft", "list", "tables"):
            run("nft", "delete", "table", "ip", self.table)
        for pod in self.pods:
            for process in (pod.pause, pod.container):
                if process is not None:
                    process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
