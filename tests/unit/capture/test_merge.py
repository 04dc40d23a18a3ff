"""Bundles of two nodes become one, with one clock."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kubetape.analyze.analysis import Analysis
from kubetape.bundle import ClockAnchor, Manifest, Node
from kubetape.bundle.reader import Bundle
from kubetape.bundle.writer import BundleWriter
from kubetape.capture.merge import merge
from kubetape.errors import BundleError

S, MS, US = 1_000_000_000, 1_000_000, 1000
BOOTS = {"node-a": 7 * S, "node-b": 900 * S}  # CLOCK_MONOTONIC when the recording began
REAL = 1_700_000_000 * S
SECONDS = 20


class Clock:
    """What a node's clocks show at true time `at_ns` after the beginning."""

    def __init__(self, node: str, offset_ns: int, drift_ppm: float) -> None:
        self.node, self.offset_ns, self.drift_ppm = node, offset_ns, drift_ppm

    def monotonic(self, at_ns: float) -> int:
        return BOOTS[self.node] + round(at_ns * (1 + self.drift_ppm / 1e6))

    def anchors(self) -> list[ClockAnchor]:
        first = BOOTS[self.node]
        shown = [first + i * 5 * S for i in range(5)]
        return [ClockAnchor(at, REAL + self.offset_ns + at - first, 1000) for at in shown]


def record(folder: Path, clock: Clock, side: str, calls: list[tuple[float, float, float, float]]) -> Path:
    """One end of a connection with `calls`: true times of request sent, received, response sent, received."""
    client, server = ("10.0.0.1", 40000), ("10.0.1.1", 8080)
    local, remote = (client, server) if side == "client" else (server, client)
    rows: list[dict[str, Any]] = []
    request, response = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    for number, times in enumerate(calls):
        at = times[0::3] if side == "client" else times[1:3]
        for direction, moved, when in (("c", request, at[0]), ("s", response, at[1])):
            is_sent = (direction == "c") == (side == "client")
            rows.append(
                {
                    "node": clock.node,
                    "ts_ns": clock.monotonic(when),
                    "connection_id": 1,
                    "direction": "send" if is_sent else "receive",
                    # Both ends count the same sequence numbers, each unwrapped in its own way.
                    "position": (1 << 32) * (1 if side == "client" else 3) + 4_294_967_000 + number * len(moved),
                    "size_bytes": len(moved),
                    "payload": moved,
                    "source": "socket",
                    "call": "write",
                }
            )
    node = Node(clock.node, boot_id=clock.node, clock=clock.anchors(), start_ns=clock.monotonic(0))
    node.end_ns = clock.monotonic(SECONDS * S)
    connection: dict[str, Any] = {
        "node": clock.node,
        "connection_id": 1,
        "transport": "tcp",
        "side": side,
        "side_basis": "state",
    }
    connection |= {"local_ip": local[0], "local_port": local[1], "remote_ip": remote[0], "remote_port": remote[1]}
    connection |= {"existed_before": False, "start_ns": clock.monotonic(0)}
    pod: dict[str, Any] = {
        "namespace": "shop",
        "name": "web-1",
        "uid": "u1",
        "phase": "Running",
        "ip": "10.0.1.1",
        "ips": "10.0.1.1",
        "reason": "Running",
    }
    pod |= {"host_network": False, "labels": "{}", "owner_name": "web" if side == "server" else None}
    path = folder / f"{clock.node}.ktape"
    with BundleWriter(path, Manifest(nodes=[node])) as writer:
        writer.write_rows("connection", [connection])
        writer.write_rows("socket_data", rows)
        writer.write_rows("k8s_pod", [pod])
    return path


def conversation() -> list[tuple[float, float, float, float]]:
    chance = random.Random(3)
    calls = []
    for turn in range(400):
        sent = turn * SECONDS * S / 400 + chance.random() * MS
        received = sent + 100 * US + chance.expovariate(1 / (300 * US))
        answered = received + 2 * MS
        calls.append((sent, received, answered, answered + 100 * US + chance.expovariate(1 / (300 * US))))
    return calls


@pytest.mark.parametrize(("offset_ns", "drift_ppm"), [(3 * S, 50.0), (-3 * S, -50.0), (0, 0.0), (20 * MS, 200.0)])
def test_clocks_are_aligned_within_the_error_stated(tmp_path: Path, offset_ns: int, drift_ppm: float) -> None:
    calls = conversation()
    one = record(tmp_path, Clock("node-a", 0, 0.0), "client", calls)
    two = record(tmp_path, Clock("node-b", offset_ns, drift_ppm), "server", calls)
    manifest = merge([str(one), str(two)], str(tmp_path / "m.ktape"))
    stated = next(n.facts["clock_alignment"]["error_ns"] for n in manifest.nodes if "clock_alignment" in n.facts)
    assert stated < 400 * US

    rows = Analysis(tmp_path / "m.ktape").query("SELECT * FROM request ORDER BY start_ns").to_pylist()
    clients, servers = ([r for r in rows if r["side"] == side] for side in ("client", "server"))
    assert len(clients) == len(servers) == len(calls)
    assert all(
        c["start_ns"] <= s["start_ns"] < s["end_ns"] <= c["end_ns"] for c, s in zip(clients, servers, strict=True)
    )
    way_ns = np.array([s["start_ns"] - c["start_ns"] for c, s in zip(clients, servers, strict=True)])
    true_ns = np.array([call[1] - call[0] for call in calls])
    assert np.abs(way_ns - true_ns).max() <= stated


def test_ids_stay_unique_and_metadata_is_there_once(tmp_path: Path) -> None:
    calls = conversation()[:20]
    one = record(tmp_path, Clock("node-a", 0, 0.0), "client", calls)
    two = record(tmp_path, Clock("node-b", 0, 0.0), "server", calls)
    merge([str(one), str(two)], str(tmp_path / "m.ktape"))
    bundle = Bundle(tmp_path / "m.ktape")
    assert bundle.verify() == []
    assert [n.name for n in bundle.manifest.nodes] == ["node-a", "node-b"]
    connections = bundle.table("connection").to_pylist()
    assert len({c["connection_id"] for c in connections}) == 2
    ids = {(r["node"], r["connection_id"]) for r in bundle.table("socket_data").to_pylist()}
    assert ids == {(c["node"], c["connection_id"]) for c in connections}
    (pod,) = bundle.table("k8s_pod").to_pylist()
    assert pod["owner_name"] == "web"
    joined = Analysis(tmp_path / "m.ktape").query("SELECT join_basis, count(*) AS n FROM call GROUP BY ALL").to_pylist()
    assert joined == [{"join_basis": "position", "n": 20}]


def test_without_traffic_between_them_clocks_stay_and_it_is_said(tmp_path: Path) -> None:
    one = record(tmp_path, Clock("node-a", 0, 0.0), "client", conversation()[:5])
    two = record(tmp_path, Clock("node-b", 3 * S, 0.0), "client", conversation()[:5])
    manifest = merge([str(one), str(two)], str(tmp_path / "m.ktape"))
    assert all(n.facts["clock_alignment"] == {"basis": "anchors"} for n in manifest.nodes)
    assert any("no traffic with other nodes" in note for n in manifest.nodes for note in n.notes)


def test_two_boots_of_one_node_are_two_nodes(tmp_path: Path) -> None:
    one = record(tmp_path, Clock("node-a", 0, 0.0), "client", conversation()[:5])
    other = tmp_path / "later"
    other.mkdir()
    two = record(other, Clock("node-a", 0, 0.0), "client", conversation()[:5])
    manifest = merge([str(one), str(two)], str(tmp_path / "same.ktape"))
    assert [n.name for n in manifest.nodes] == ["node-a"]
    bundle = Bundle(two)
    bundle.manifest.nodes[0].boot_id = "another"
    with BundleWriter(tmp_path / "reboot.ktape", Manifest(nodes=bundle.manifest.nodes)) as writer:
        for name in bundle.table_names:
            writer.write(name, bundle.table(name))
    manifest = merge([str(one), str(tmp_path / "reboot.ktape")], str(tmp_path / "m.ktape"))
    assert [n.name for n in manifest.nodes] == ["node-a", "node-a-2"]


def test_one_bundle_twice(tmp_path: Path) -> None:
    one = record(tmp_path, Clock("node-a", 0, 0.0), "client", conversation()[:5])
    with pytest.raises(BundleError, match="twice"):
        merge([str(one), str(one)], str(tmp_path / "m.ktape"))
