"""The shop: its pods, in the order they start, and how they are taken away again.

load -> gateway (nginx) -> product (three replicas) -> mysql (MariaDB), redis; names from kube-system/dns
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.lab import APPS, database, metadata
from tests.lab.cgroups import CgroupTree
from tests.lab.errors import LabError
from tests.lab.faults import Fault
from tests.lab.network import CONNTRACK_MAX, OUTSIDE, Bridge, free_subnet
from tests.lab.pods import Pod

FOLDER_PREFIX = "kt-lab-"
NAMESPACE = "shop"
REPLICAS = 3
FIRST_POD = 9  # the addresses before it are the node's
READY_TIMEOUT_S = 20.0

_RESOLV_CONF = """nameserver {dns}
search shop.svc.cluster.local svc.cluster.local cluster.local
options ndots:5
"""

_NGINX_CONF = """daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
  log_format timed '{{"path":"$request_uri","status":$status,"seconds":$request_time,"upstream":"$upstream_addr"}}';
  access_log {folder}/access.log timed;
  client_body_temp_path {folder}/nginx-body;
  proxy_temp_path {folder}/nginx-proxy;
  fastcgi_temp_path {folder}/nginx-fastcgi;
  uwsgi_temp_path {folder}/nginx-uwsgi;
  scgi_temp_path {folder}/nginx-scgi;
  upstream product {{
{servers}
    keepalive 16;
  }}
  server {{
    listen 80;
    location / {{
      proxy_pass http://product;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Request-ID $request_id;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class State:
    """What is needed to take a lab away that nobody holds any more."""

    lab_id: str
    bridge: str
    subnet: str
    owner_pid: int
    kept: bool  # `up` leaves it running on purpose
    faults: list[str]
    conntrack_max: str = ""  # the machine's own limit, where a fault has changed it


class Shop:
    """A running shop; a context manager.

    rate: the load in requests per second, 0 for none; workers: its clients; uses: requests on one connection.

    Public after the start: `pods` by name, `folder` (logs, control files), `k8s` (objects for `--from-dir`).
    """

    def __init__(
        self, *, rate: float = 30.0, workers: int = 8, uses: int = 25, node: str | None = None, kept: bool = False
    ) -> None:
        self.lab_id = secrets.token_hex(3)
        self.uses = uses
        self.rate = rate
        self.workers = workers
        self.node = node or socket.gethostname()
        self.kept = kept
        self.folder = Path(tempfile.gettempdir()) / f"{FOLDER_PREFIX}{self.lab_id}"
        self.k8s = self.folder / "k8s"
        self.tree = CgroupTree(f"kt{self.lab_id}")
        self.bridge = Bridge(f"kt{self.lab_id}-br", free_subnet(int(self.lab_id, 16)))
        self.faults: list[Fault] = []
        # What faults run beside the pods' own programs, by name.
        self.helpers: dict[str, subprocess.Popen[bytes]] = {}
        self.threads: dict[str, tuple[threading.Thread, threading.Event]] = {}
        self.conntrack_max = ""  # the machine's own limit, while a fault has another
        self._addresses = itertools.islice(self.bridge.subnet.hosts(), FIRST_POD, None)
        self._port_numbers = itertools.count()
        # What faults add: names beside the pods' with their addresses, and Kubernetes objects beside theirs.
        self.names: dict[str, str] = {}
        self.objects: list[dict[str, Any]] = []
        self.pods = {pod.name: pod for pod in self._plan()}

    # ---- the plan ---------------------------------------------------------------------------------

    def _plan(self) -> list[Pod]:

        def pod(app: str, kind: str, name: str, port: int | None, image: str, namespace: str = NAMESPACE) -> Pod:
            return Pod(name, namespace, app, kind, str(next(self._addresses)), port, image, hashes[app])

        hashes = {app: _word(10) for app in ("dns", "redis", "mysql", "product", "gateway", "load")}

        def deployed(app: str) -> str:
            return f"{app}-{hashes[app]}-{_word(5)}"

        return [
            pod("dns", "Deployment", deployed("dns"), 53, "lab/dnsmasq:2.90", "kube-system"),
            pod("redis", "StatefulSet", "redis-0", 6379, "lab/redis:7.0"),
            pod("mysql", "StatefulSet", "mysql-0", 3306, "lab/mariadb:10.11"),
            *(pod("product", "Deployment", deployed("product"), 8080, "lab/product:1.4.2") for _ in range(REPLICAS)),
            pod("gateway", "Deployment", deployed("gateway"), 80, "lab/nginx:1.22"),
            pod("load", "Deployment", deployed("load"), None, "lab/load:1.0"),
        ]

    def of(self, app: str) -> list[Pod]:
        """The pods of one app, in the order of their replicas."""
        return [pod for pod in self.pods.values() if pod.app == app]

    def one(self, app: str) -> Pod:
        return self.of(app)[0]

    @property
    def namespaces(self) -> list[str]:
        return sorted({pod.namespace for pod in self.pods.values()})

    @property
    def load_log(self) -> Path:
        """What the load generator measured: JSON lines, see apps/load.py."""
        return self.folder / "load.jsonl"

    # ---- start and stop ---------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything; returns when the shop has answered a request through the gateway."""
        data = database.data_folder()
        self.folder.mkdir(mode=0o755)
        self._write_state()
        self.bridge.up()
        (self.folder / "resolv.conf").write_text(_RESOLV_CONF.format(dns=self.one("dns").ip))
        for pod in self.pods.values():
            self._sandbox(pod)
        shutil.copytree(data, self.folder / "mysql")
        for app in ("dns", "redis", "mysql", "product", "gateway"):
            for pod in self.of(app):
                pod.start(self.tree, self.command(pod), self.folder)
        for pod in self.pods.values():
            if pod.port:
                pod.wait_for_port()
        self._wait_for_answer()
        self._write_metadata()
        if self.rate > 0:
            self.one("load").start(self.tree, self.command(self.one("load")), self.folder)

    def stop(self) -> None:
        """Take everything away again; safe to call at any time, and twice."""
        for _, ended in self.threads.values():
            ended.set()
        for process in self.helpers.values():
            process.kill()
            process.wait()
        self.restore_conntrack()
        remove(self.tree, self.bridge, self.folder)
        for pod in self.pods.values():
            for child in (pod.pause, pod.container):
                if child is not None:
                    child.wait()

    def restore_conntrack(self) -> None:
        """The machine's limit as it was before a fault changed it."""
        if self.conntrack_max:
            CONNTRACK_MAX.write_text(self.conntrack_max)
            self.conntrack_max = ""

    def release(self) -> None:
        """Leave the shop running when this process ends."""
        self.kept = True
        self._write_state()

    def _write_state(self) -> None:
        state = State(
            self.lab_id, self.bridge.name, str(self.bridge.subnet), os.getpid(), self.kept,
            [fault.name for fault in self.faults], self.conntrack_max,
        )  # fmt: skip
        _write_atomically(self.folder / "state.json", asdict(state))

    def _sandbox(self, pod: Pod) -> None:
        port = f"kt{self.lab_id}p{next(self._port_numbers)}"
        pod.sandbox(self.tree, self.bridge, port, self.folder, self.folder / "resolv.conf")

    def _write_metadata(self) -> None:
        pods = list(self.pods.values())
        metadata.write(self.k8s, pods, self.node, self.bridge.node_ip, str(self.bridge.subnet), self.objects)

    # ---- more pods, while the shop runs ------------------------------------------------------------

    def plan(self, app: str, port: int | None, replicas: int = 1) -> list[Pod]:
        """The pods of one more Deployment, not started and not among the shop's."""
        code = _word(10)
        return [
            Pod(f"{app}-{code}-{_word(5)}", NAMESPACE, app, "Deployment", str(next(self._addresses)), port,
                f"lab/{app}:1.0", code)
            for _ in range(replicas)
        ]  # fmt: skip

    def add(self, pods: Sequence[Pod], command: Callable[[Pod], Sequence[str]]) -> None:
        """Start more pods; they are in the name server and in the metadata when this returns."""
        for pod in pods:
            self._sandbox(pod)
            self.pods[pod.name] = pod
        self.tell()
        for pod in pods:
            pod.start(self.tree, command(pod), self.folder)
        for pod in pods:
            if pod.port:
                pod.wait_for_port()

    def take_away(self, *apps: str) -> None:
        """End the pods of these apps, and forget them."""
        for pod in [pod for app in apps for pod in self.of(app)]:
            self.tree.kill(pod.cgroup)
            for child in (pod.pause, pod.container):
                if child is not None:
                    child.wait()
            del self.pods[pod.name]
        self.tell()

    def tell(self) -> None:
        """Write down anew what pods and names there are."""
        self._write_hosts()
        container = self.one("dns").container
        assert container is not None
        container.send_signal(signal.SIGHUP)
        self._write_metadata()

    # ---- what each pod runs -----------------------------------------------------------------------

    def command(self, pod: Pod) -> Sequence[str]:
        """What the pod's container runs."""
        match pod.app:
            case "dns":
                return self._dns_command(pod)
            case "redis":
                return ["redis-server", "--bind", pod.ip, "--port", str(pod.port), "--protected-mode", "no",
                        "--save", "", "--appendonly", "no", "--dir", str(self.folder)]  # fmt: skip
            case "mysql":
                return ["mariadbd", *database.SERVER_OPTIONS, f"--datadir={self.folder / 'mysql'}",
                        f"--socket={self.folder / 'mysql.sock'}", f"--bind-address={pod.ip}",
                        f"--pid-file={self.folder / 'mysql.pid'}", f"--port={pod.port}"]  # fmt: skip
            case "product":
                self.control(pod)
                return [sys.executable, str(APPS / "product.py"), "--port", str(pod.port),
                        "--control", str(self._control_file(pod))]  # fmt: skip
            case "gateway":
                servers = "\n".join(f"    server {p.ip}:{p.port};" for p in self.of("product"))
                conf = self.folder / "nginx.conf"
                conf.write_text(_NGINX_CONF.format(folder=self.folder, servers=servers))
                return ["nginx", "-e", "stderr", "-p", str(self.folder), "-c", str(conf)]
            case "load":
                return [sys.executable, str(APPS / "load.py"), "--rate", str(self.rate),
                        "--workers", str(self.workers), "--uses", str(self.uses),
                        "--log", str(self.load_log)]  # fmt: skip
        raise LabError(f"no command for {pod.app}")

    def _dns_command(self, pod: Pod) -> Sequence[str]:
        hosts = self._write_hosts()
        return ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
                f"--addn-hosts={hosts}", "--local=/cluster.local/example/", "--local-ttl=5",
                f"--listen-address={pod.ip}", "--bind-interfaces", "--user=root", "--pid-file=",
                "--cache-size=0"]  # fmt: skip

    def _write_hosts(self) -> Path:
        hosts = self.folder / "hosts"
        names = [(p.ip, f"{p.app}.{p.namespace}.svc.cluster.local") for p in self.pods.values() if p.port]
        names += [OUTSIDE, *((ip, name) for name, ip in self.names.items())]
        hosts.write_text("".join(f"{ip} {name}\n" for ip, name in names))
        return hosts

    def _wait_for_answer(self) -> None:
        url = f"http://{self.one('gateway').ip}/products/1"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            try:
                with opener.open(url, timeout=5) as answer:
                    answer.read()
                    return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise LabError(f"the shop does not answer: {error} (logs: {self.folder})") from error
                time.sleep(0.05)

    # ---- faults -----------------------------------------------------------------------------------

    def apply(self, fault: Fault) -> None:
        """Switch a fault on."""
        fault.apply(self)
        self.faults.append(fault)
        self._write_state()

    def lift(self, fault: Fault) -> None:
        """Switch a fault off again."""
        fault.remove(self)
        self.faults.remove(fault)
        self._write_state()

    def control(self, pod: Pod, **values: Any) -> None:
        """Change what a product pod is asked to do (see apps/product.py); None takes a value back."""
        file = self._control_file(pod)
        old = json.loads(file.read_text()) if file.exists() else {}
        _write_atomically(file, {k: v for k, v in (old | values).items() if v is not None})

    def _control_file(self, pod: Pod) -> Path:
        return self.folder / f"{pod.name}.control.json"


def remove(tree: CgroupTree, bridge: Bridge, folder: Path) -> None:
    """Remove a lab: its network, its processes, its cgroups, its folder."""
    bridge.down()
    tree.kill()
    tree.remove()
    shutil.rmtree(folder, ignore_errors=True)


def states() -> list[State]:
    """Every lab on this machine, alive or left behind."""
    found = []
    for folder in sorted(Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*")):
        with contextlib.suppress(FileNotFoundError):
            found.append(State(**json.loads((folder / "state.json").read_text())))
    return found


def remove_by_state(state: State) -> None:
    """Take away a lab that another process started."""
    if state.conntrack_max:
        CONNTRACK_MAX.write_text(state.conntrack_max)
    bridge = Bridge(state.bridge, ipaddress.IPv4Network(state.subnet))
    remove(CgroupTree(f"kt{state.lab_id}"), bridge, Path(tempfile.gettempdir()) / f"{FOLDER_PREFIX}{state.lab_id}")


def is_abandoned(state: State) -> bool:
    """Nobody holds it and nobody meant it to stay."""
    return not state.kept and not Path(f"/proc/{state.owner_pid}").exists()


def _word(length: int) -> str:
    # Alphabet of Kubernetes' generated names: no vowels, nothing that looks alike.
    return "".join(secrets.choice("bcdfghjklmnpqrstvwxz2456789") for _ in range(length))


def _write_atomically(path: Path, value: object) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(value))
    temporary.rename(path)
