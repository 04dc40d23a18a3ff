"""The pods' network: one bridge, one veth pair for each pod, addresses of one private /24."""

from __future__ import annotations

import contextlib
import ipaddress
from pathlib import Path

from tests.lab.errors import LabError
from tests.lab.shell import run

# Labs take the first free /24 of this range, counting from their own number.
POD_RANGE = ipaddress.ip_network("10.96.0.0/12")
GATEWAY_HOST = 1
# A name outside of the cluster, with an address kept for documentation (RFC 5737).
OUTSIDE = ("198.51.100.7", "api.partner.example")
# Of the whole machine, and only its first network namespace may write it.
CONNTRACK_MAX = Path("/proc/sys/net/netfilter/nf_conntrack_max")


def free_subnet(number: int) -> ipaddress.IPv4Network:
    """A /24 of POD_RANGE that no route of this machine touches."""
    assert isinstance(POD_RANGE, ipaddress.IPv4Network)
    words = run("ip", "-4", "route", "show", "table", "all").split()
    taken = [ipaddress.ip_network(w, strict=False) for w in words if w.count(".") == 3 and w[0].isdigit()]
    candidates = list(POD_RANGE.subnets(new_prefix=24))
    for step in range(len(candidates)):
        subnet = candidates[(number + step) % len(candidates)]
        if not any(subnet.overlaps(t) for t in taken if isinstance(t, ipaddress.IPv4Network)):
            return subnet
    raise LabError(f"no free /24 in {POD_RANGE}")


class Bridge:
    """A Linux bridge with the node's own address on it, so that the node reaches every pod."""

    def __init__(self, name: str, subnet: ipaddress.IPv4Network) -> None:
        self.name = name
        self.subnet = subnet
        self.node_ip = str(subnet[GATEWAY_HOST])

    def up(self) -> None:
        run(
            "ip", "-batch", "-",
            stdin=f"link add {self.name} type bridge\n"
            f"addr add {self.node_ip}/24 dev {self.name}\n"
            f"link set {self.name} up\n",
        )  # fmt: skip

    def attach(self, pid: int, ip: str, port: str) -> None:
        """Give the network namespace of process `pid` an eth0 with address `ip`; `port` is its end on the bridge."""
        run(
            "ip", "-batch", "-",
            stdin=f"link add {port} type veth peer name eth0 netns {pid}\n"
            f"link set {port} master {self.name} up\n",
        )  # fmt: skip
        run(
            *in_network_of(pid), "ip", "-batch", "-",
            stdin="link set lo up\n"
            f"addr add {ip}/24 dev eth0\n"
            "link set eth0 up\n"
            f"route add default via {self.node_ip}\n",
        )  # fmt: skip

    def down(self) -> None:
        """Remove the bridge and what is attached to it."""
        if not self.exists():
            return
        # A namespace outlives its processes while the kernel still retries on their sockets: do not wait for it.
        for line in run("ip", "-o", "link", "show", "master", self.name).splitlines():
            # It may go by itself meanwhile, with its other end's namespace.
            with contextlib.suppress(LabError):
                run("ip", "link", "del", line.split(": ")[1].partition("@")[0])
        run("ip", "link", "del", self.name)

    def exists(self) -> bool:
        return f"{self.name}:" in run("ip", "-o", "link", "show", "type", "bridge")


def in_network_of(pid: int) -> tuple[str, ...]:
    """The beginning of a command line that runs in the network namespace of `pid`."""
    return ("nsenter", "--target", str(pid), "--net", "--")
