"""Lossy links between workloads: of which node, pair of nodes or zones, if any, are they the links?"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from kubetape.analyze.analysis import Analysis
from kubetape.analyze.findings.levels import Link, find_levels
from tests.shop import MS, NODE, BundleMaker, Pod

ZONE = {"a": "east", "b": "east", "c": "west", "d": "west"}
# Two pods on each node, each of which talks to each other one.
PODS = [f"{node}{number}" for node in ZONE for number in (1, 2)]
ALL = [Link((p, q), (p[0], q[0]), (ZONE[p[0]], ZONE[q[0]])) for p, q in product(PODS, PODS) if p < q]


def links(*ways: str) -> set[tuple[str, str]]:
    """Those between nodes, each way as 'ab'."""
    return {link.pods for link in ALL if "".join(link.nodes) in ways}


@pytest.mark.parametrize(
    ("hit", "expected"),
    [
        (links("ab", "bc", "bd"), [("node", ["b"])]),
        (links("ab"), [("node pair", ["a", "b"])]),
        (links("ab", "cd"), [("node pair", ["a", "b"]), ("node pair", ["c", "d"])]),
        (links("ac", "ad", "bc", "bd"), [("zone pair", ["east", "west"])]),
        ({link.pods for link in ALL if "a1" in link.pods}, []),  # one pod's
        ({("a1", "b1")}, []),  # one of four links between the nodes
        (links("ab", "aa", "bb"), []),  # inside of the nodes, too: not what is between them
        (set(), []),
    ],
)
def test_the_level_that_explains(hit: set[tuple[str, str]], expected: list[tuple[str, list[str]]]) -> None:
    found = find_levels(ALL, hit)
    assert sorted((level.kind, level.names) for level in found) == expected


def cluster(lossy: str) -> BundleMaker:
    """Three nodes with two workloads on each, which talk across nodes; links of the node `lossy` lose packets."""
    maker = BundleMaker()
    for n, node in enumerate(("node-a", "node-b", "node-c")):
        maker.pods += [
            Pod(f"{w}-{node}", f"{w}-of-{node[-1]}", f"10.0.{n}.{k}", node=node) for k, w in enumerate("xy", 1)
        ]
    port = 40000
    for client, server in product(maker.pods, maker.pods):
        if client.node >= server.node:
            continue
        port += 1
        connection = maker.connect((client.ip, port), (server.ip, 80), "client")
        for turn in range(40):
            maker.say(connection, 10 + turn * 200, "send", b"x" * 100)
            maker.say(connection, 15 + turn * 200, "receive", b"y" * 100)
            if lossy in (client.node, server.node) and turn % 2:
                event = {"node": NODE, "ts_ns": (20 + turn * 200) * MS, "connection_id": connection}
                maker.tcp_events.append(event | {"kind": "retransmit", "detail": "timeout"})
    return maker


def test_a_lossy_node_is_one_finding(tmp_path: Path) -> None:
    analysis = Analysis(cluster("node-b").write(tmp_path / "x.ktape"))
    rows = analysis.query(
        "SELECT title, scope_kind, scope, entities FROM finding WHERE rule = 'lossy-link'"
    ).to_pylist()
    assert len(rows) == 1
    assert rows[0]["title"].startswith("Network of node node-b loses packets: ")
    assert (rows[0]["scope_kind"], rows[0]["scope"], rows[0]["entities"]) == ("node", "node-b", ["node-b"])


def test_the_network_by_pairs_of_nodes(tmp_path: Path) -> None:
    analysis = Analysis(cluster("node-c").write(tmp_path / "x.ktape"))
    query = "SELECT name, retransmit_count FROM network_summary WHERE dimension = 'node_pair' ORDER BY name"
    assert [tuple(row.values()) for row in analysis.query(query).to_pylist()] == [
        ("node-a <-> node-b", 0), ("node-a <-> node-c", 80), ("node-b <-> node-c", 80),
    ]  # fmt: skip
