"""Where the boxes of the topology stand: callers left, what they call to the right of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from kubetape.analyze.durations import duration

MAX_NODES = 40  # a picture with more is a hairball; the busiest edges are kept


@dataclass
class Node:
    """A box at column and row, both counted from 0. level: 'ok', 'warning' or 'critical'.

    is_waypoint: no box, but room for an arrow that passes the column.
    """

    name: str
    column: int = 0
    row: float = 0.0
    level: str = "ok"
    is_waypoint: bool = False


@dataclass
class Edge:
    """An arrow with what is written on it. weight: 0 to 1, for its width. via: waypoints it passes, by name."""

    client: str
    server: str
    labels: list[str] = field(default_factory=list)
    weight: float = 0.0
    level: str = "ok"
    via: list[str] = field(default_factory=list)


@dataclass
class Topology:
    nodes: list[Node]
    edges: list[Edge]
    columns: int
    rows: int


def topology(edges: Iterable[dict[str, Any]], findings: Iterable[dict[str, Any]]) -> Topology:
    """Lay out the edges of the table `edge` (dicts), coloured by the findings about them."""
    merged: dict[tuple[str, str], Edge] = {}
    most = 1.0
    for row in sorted(edges, key=lambda r: -(r["total_ns"] or 0)):
        names = {n for key in merged for n in key} | {row["client"], row["server"]}
        if len(names) > MAX_NODES:
            continue
        edge = merged.setdefault((row["client"], row["server"]), Edge(row["client"], row["server"]))
        p95 = duration(row["p95_ns"])
        errors = f", {row['error_ratio']:.1%} errors" if row["error_count"] else ""
        edge.labels.append(f"{row['protocol']} {row['rps']:.3g}/s, p95 {p95}{errors}")
        edge.weight += row["rps"]
        most = max(most, edge.weight)
    levels = _levels(findings)
    for edge in merged.values():
        edge.weight /= most
        edge.level = levels.get(f"{edge.client} -> {edge.server}", "ok")
    column = _columns(list(merged))
    nodes = {name: Node(name, column[name], level=levels.get(name, "ok")) for key in merged for name in key}
    for edge in merged.values():
        # An arrow that passes a column has a place of its own there, or it would run behind the boxes.
        for passed in range(column[edge.client] + 1, column[edge.server]):
            waypoint = Node(f"{edge.client} -> {edge.server} at {passed}", passed, is_waypoint=True)
            nodes[waypoint.name] = waypoint
            edge.via.append(waypoint.name)
    stops = [[edge.client, *edge.via, edge.server] for edge in merged.values()]
    _order_rows(nodes, [pair for names in stops for pair in pairwise(names)])
    columns = max((n.column for n in nodes.values()), default=0) + 1
    rows = max((sum(n.column == c for n in nodes.values()) for c in range(columns)), default=0)
    return Topology(list(nodes.values()), list(merged.values()), columns, rows)


def _levels(findings: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Scope of a finding -> the worst level of the findings about it."""
    levels: dict[str, str] = {}
    for finding in findings:
        level = finding["severity"]
        if level not in ("critical", "warning"):
            continue
        for name in [finding["scope"], *(finding.get("entities") or [])]:
            if levels.get(name) != "critical":
                levels[name] = level
    return levels


def _columns(edges: list[tuple[str, str]]) -> dict[str, int]:
    """Longest path from a caller nobody calls; an edge that closes a cycle counts for nothing."""
    callees: dict[str, list[str]] = {}
    calls: dict[str, int] = {}
    for client, server in edges:
        callees.setdefault(client, []).append(server)
        callees.setdefault(server, [])
        calls[client] = calls.get(client, 0) + 1
        calls[server] = calls.get(server, 0) - 1
    order: list[str] = []  # callees before callers
    state: dict[str, int] = {}
    forward: dict[str, list[str]] = {name: [] for name in callees}

    def visit(name: str) -> None:
        state[name] = 1
        for server in callees[name]:
            if server not in state:
                visit(server)
            if state[server] == 2:
                forward[name].append(server)
        state[name] = 2
        order.append(name)

    # Who calls more than is called comes first: it is a cycle's most likely entrance.
    for name in sorted(callees, key=lambda n: (-calls[n], n)):
        if name not in state:
            visit(name)
    column = dict.fromkeys(callees, 0)
    for name in reversed(order):
        for server in forward[name]:
            column[server] = max(column[server], column[name] + 1)
    return column


def _order_rows(nodes: dict[str, Node], edges: list[tuple[str, str]]) -> None:
    """Rows of a column by the mean row of their callers: fewer crossings."""
    columns = max((n.column for n in nodes.values()), default=0) + 1
    for index in range(columns):
        members = [n for n in nodes.values() if n.column == index]
        callers = {
            n.name: [nodes[c].row for c, s in edges if s == n.name and nodes[c].column < index] or [0.0]
            for n in members
        }
        members.sort(key=lambda n: (sum(callers[n.name]) / len(callers[n.name]), n.name))
        for row, node in enumerate(members):
            node.row = float(row)
