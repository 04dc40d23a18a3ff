"""One network namespace: interface_sample, protocol_counter, conntrack_sample, listener, and at the start and
end neighbour, route, conntrack.

Counters come from the files of one process in the namespace; names, addresses and queues from netlink
sockets made inside it. Where the namespace may not be entered, only what netlink tells is missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from kubetape.capture.samplers import conntrack, netlink
from kubetape.capture.samplers.files import read

Row = dict[str, Any]
Emit = Callable[[str, Row], None]
Note = Callable[[str, str], None]

DETAILS_EVERY_NS = 10_000_000_000
ROUTES_MAX = 5_000  # a node with full BGP tables has a million


class Namespace:
    """emit(table, row without node and ts_ns); note(key, text) for what could not be read."""

    def __init__(self, netns_id: int, is_host: bool, emit: Emit, note: Note, proc: str = "/proc") -> None:
        self.netns_id, self.is_host, self.proc = netns_id, is_host, proc
        self._emit, self._note = emit, note
        self._sockets: netlink.NamespaceSockets | None = None
        self._no_netlink = False
        self._links: dict[str, netlink.Link] = {}
        self._next_details_ns = 0
        self._raw: dict[str, list[bytes]] = {}
        self._listeners: dict[tuple[str, str, int, int], int | None] = {}
        self._begun = False

    def close(self) -> None:
        if self._sockets is not None:
            self._sockets.close()
            self._sockets = None

    def sample(self, pid: int, now_ns: int, final: bool = False) -> bool:
        """One second's rows; `pid` is any process in the namespace. False where it is gone."""
        net = f"{self.proc}/{pid}/net"
        data = read(f"{net}/dev")
        if data is None:
            return False
        edge = final or not self._begun
        self._interfaces(data, pid, now_ns, edge)
        self._counters(net, final)
        row = conntrack.sample_row(net, self.is_host, self.proc)
        # Namespaces that track nothing would only repeat a zero.
        if row is not None and (self.is_host or row["entry_count"]):
            self._emit("conntrack_sample", {"netns_id": self.netns_id, **row})
        self._listening(edge)
        if edge:
            self._tables(net, row)
        self._begun = True
        return True

    def _netlink(self, pid: int) -> netlink.NamespaceSockets | None:
        if self._sockets is None and not self._no_netlink:
            try:
                self._sockets = netlink.NamespaceSockets(f"{self.proc}/{pid}/ns/net")
            except OSError as error:
                self._no_netlink = True
                self._note("netlink", f"network namespaces could not be entered ({error}): no addresses, routes")
        return self._sockets

    def _interfaces(self, data: bytes, pid: int, now_ns: int, edge: bool) -> None:
        rows = []
        for line in data.decode(errors="replace").splitlines()[2:]:
            name, colon, rest = line.rpartition(":")
            fields = rest.split()
            if colon and len(fields) >= 16:
                rows.append((name.strip(), fields))
        details = edge or now_ns >= self._next_details_ns or any(name not in self._links for name, _ in rows)
        if details and (sockets := self._netlink(pid)) is not None:
            self._next_details_ns = now_ns + DETAILS_EVERY_NS
            try:
                self._links = netlink.links(sockets)
            except OSError as error:
                self._note("links", f"interfaces could not be listed: {error}")
                details = False
        for name, f in rows:
            link = self._links.get(name)
            row: Row = {
                "netns_id": self.netns_id,
                "interface": name,
                "received_bytes": int(f[0]),
                "received_packets": int(f[1]),
                "received_errors": int(f[2]),
                "received_drops": int(f[3]),
                "sent_bytes": int(f[8]),
                "sent_packets": int(f[9]),
                "sent_errors": int(f[10]),
                "sent_drops": int(f[11]),
            }
            if link is not None:
                row["interface_index"], row["mac"], row["mtu_bytes"] = link.index, link.mac, link.mtu_bytes
                if details:
                    row["is_up"], row["queue_drops"] = link.is_up, link.queue_drops
                    row["addresses"] = " ".join(link.addresses)
            self._emit("interface_sample", row)

    def _counters(self, net: str, final: bool) -> None:
        """Only what changed since the reading before; zeros of the first reading are left out, so a counter
        whose first row is not at the start was 0 there."""
        for file, split in (
            ("snmp", _pairs_of_lines),
            ("netstat", _pairs_of_lines),
            ("snmp6", _names_and_values),
        ):
            data = read(f"{net}/{file}")
            if data is None:
                continue
            lines = data.splitlines()
            before = self._raw.get(file)
            if final or (before is not None and len(before) != len(lines)):
                before = None
            for counter, value in split(before, lines):
                self._emit("protocol_counter", {"netns_id": self.netns_id, "counter": counter, "value": int(value)})
            self._raw[file] = lines

    def _listening(self, edge: bool) -> None:
        """All at the start and end; in between new ones and those whose queue is not empty or changed."""
        if self._sockets is None:
            return
        try:
            found = netlink.listening(self._sockets, "tcp")
            if edge:
                found += netlink.listening(self._sockets, "udp")
        except OSError as error:
            self._note("listeners", f"listening sockets could not be listed: {error}")
            return
        now = {}
        for one in found:
            key = (one.transport, one.ip, one.port, one.inode)
            now[key] = one.backlog
            if edge or one.backlog or self._listeners.get(key, -1) != one.backlog:
                self._emit(
                    "listener",
                    {
                        "netns_id": self.netns_id,
                        "transport": one.transport,
                        "local_ip": one.ip,
                        "local_port": one.port,
                        "backlog_count": one.backlog,
                        "backlog_max": one.backlog_max,
                        "inode": one.inode,
                    },
                )
        self._listeners = now

    def _tables(self, net: str, tracked: Row | None) -> None:
        if tracked is not None and tracked["entry_count"]:
            rows, left_out = conntrack.entry_rows(net)
            for row in rows:
                self._emit("conntrack", {"netns_id": self.netns_id, **row})
            if left_out:
                self._note("conntrack", f"{left_out} tracked connections left out, most without translation")
            if not rows and not os.path.exists(f"{net}/nf_conntrack"):
                self._note("conntrack", "the kernel has no /proc/net/nf_conntrack: translations are not listed")
        if self._sockets is None:
            return
        names = {link.index: name for name, link in self._links.items()}
        try:
            for ip, mac, index, state in netlink.neighbours(self._sockets):
                self._emit(
                    "neighbour",
                    {
                        "netns_id": self.netns_id,
                        "ip": ip,
                        "mac": mac,
                        "interface": names.get(index, f"#{index}"),
                        "state": state,
                    },
                )
            routes = netlink.routes(self._sockets)
        except OSError as error:
            self._note("routes", f"neighbours and routes could not be listed: {error}")
            return
        if len(routes) > ROUTES_MAX:
            self._note("routes", f"{len(routes) - ROUTES_MAX} routes left out")
        for destination, gateway, out, metric in routes[:ROUTES_MAX]:
            self._emit(
                "route",
                {
                    "netns_id": self.netns_id,
                    "destination": destination,
                    "gateway": gateway,
                    "interface": names.get(out, f"#{out}") if out is not None else "",
                    "metric": metric,
                },
            )


def _pairs_of_lines(before: list[bytes] | None, lines: list[bytes]) -> list[tuple[str, bytes]]:
    """(counter, value) of what changed in /proc/net/snmp or netstat: a line of names, then one of values.

    Without `before` everything that is not zero.
    """
    found = []
    for i in range(0, len(lines) - 1, 2):
        if before is not None and before[i + 1] == lines[i + 1]:
            continue
        names, values = lines[i].split(), lines[i + 1].split()
        same_names = before is not None and before[i] == lines[i]
        old = before[i + 1].split() if same_names and before is not None else [b"0"] * len(values)
        group = names[0].decode(errors="replace").rstrip(":")
        for name, was, value in zip(names[1:], old[1:], values[1:], strict=False):
            if value != was:
                found.append((f"{group}.{name.decode(errors='replace')}", value))
    return found


# Longest first: a name begins with its group (net/ipv6/proc.c).
_GROUPS6 = ("UdpLite6", "Icmp6", "Udp6", "Ip6")


def _names_and_values(before: list[bytes] | None, lines: list[bytes]) -> list[tuple[str, bytes]]:
    """(counter, value) of what changed in /proc/net/snmp6: `Ip6InReceives 12` becomes Ip6.InReceives."""
    found = []
    for i, line in enumerate(lines):
        if before is not None and before[i] == line:
            continue
        fields = line.split()
        if len(fields) != 2 or (before is None and fields[1] == b"0"):
            continue
        name = fields[0].decode(errors="replace")
        group = next((g for g in _GROUPS6 if name.startswith(g)), "Ip6")
        found.append((f"{group}.{name.removeprefix(group)}", fields[1]))
    return found
