"""The level that explains troubles of links: one node, one pair of nodes, one pair of zones, else the workloads.

A node whose network card is broken makes every link over it lossy: forty edges between workloads, one cause. Where
most links between two nodes are hit, and not those of one pod only, the way between these nodes is what is wrong; where
all ways of one node are, the node; where all ways between two zones are, the zones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import duckdb

Finding = dict[str, Any]
Pods = tuple[str, str]

MOST = 0.7  # of the links of a way have to be hit
_LEAST_SEGMENTS = 20  # a link with less says nothing

# Ends of both sides of a connection give the same row.
_LINKS = f"""
WITH _end AS (
    SELECT i.local_namespace || '/' || i.local_pod AS pod, i.remote_namespace || '/' || i.remote_pod AS other,
        i.local_node AS node, i.remote_node AS other_node, h.sent_segments
    FROM connection_health AS h JOIN connection_identity AS i USING (connection_id)
    WHERE h.transport = 'tcp' AND i.local_pod IS NOT NULL AND i.remote_pod IS NOT NULL AND i.local_node IS NOT NULL
        AND i.remote_node IS NOT NULL
),
_link AS (
    SELECT least(pod, other) AS pod_a, greatest(pod, other) AS pod_b,
        any_value(if(pod <= other, node, other_node)) AS node_a, any_value(if(pod <= other, other_node, node)) AS node_b
    FROM _end GROUP BY pod_a, pod_b HAVING sum(sent_segments) >= {_LEAST_SEGMENTS}
)
SELECT l.pod_a, l.pod_b, l.node_a, l.node_b, a.zone, b.zone
FROM _link AS l LEFT JOIN k8s_node AS a ON a.name = l.node_a LEFT JOIN k8s_node AS b ON b.name = l.node_b
"""


@dataclass(frozen=True)
class Link:
    """Two pods (by name, sorted) that talked, their nodes and zones in the same order; zones are '' where not known."""

    pods: Pods
    nodes: tuple[str, str]
    zones: tuple[str, str]


@dataclass
class Level:
    """kind: node, node pair or zone pair. place: as it stands in a title; names: of its nodes or zones."""

    kind: str
    place: str
    names: list[str]
    links: set[Pods] = field(default_factory=set)


def read_links(database: duckdb.DuckDBPyConnection) -> list[Link]:
    """Of the tables connection_health, connection_identity and k8s_node."""
    rows = database.execute(_LINKS).fetchall()
    return [
        Link((a, b), (node_a, node_b), (zone_a or "", zone_b or "")) for a, b, node_a, node_b, zone_a, zone_b in rows
    ]


def roll_up(found: list[Finding], links: Iterable[Link]) -> list[Finding]:
    """Findings on edges of the same trouble; those that a level explains become one about it.

    A finding's `links` are pairs of pods between which it saw the trouble; `what` is the trouble, as a title ends.
    """
    hit = {_pods(pair) for finding in found for pair in finding.get("links") or []}
    rest, result = found, []
    for level in find_levels(list(links), hit):
        mine = [f for f in rest if _share(f, level) >= MOST]
        if len(mine) > 1:
            rest = [f for f in rest if not any(f is one for one in mine)]
            result.append(_one_of(mine, level))
    return [*result, *rest]


def find_levels(links: list[Link], hit: set[Pods]) -> list[Level]:
    """The fewest levels whose links are those that are hit."""
    ways: dict[tuple[str, str], list[Link]] = {}
    for link in links:
        ways.setdefault(_sorted(link.nodes), []).append(link)
    broken = [
        way for way, members in ways.items()
        if way[0] != way[1] and _is_hit(members, hit) and not any(_are_most(ways.get((n, n), []), hit) for n in way)
    ]  # fmt: skip
    if not broken:
        return []
    between = [way for way in ways if way[0] != way[1]]
    for node in sorted(set(broken[0])):
        own = [way for way in between if node in way]
        if len(own) > 1 and set(own) == set(broken):
            return [Level("node", f"Network of node {node}", [node], _links_of(own, ways))]
    zones = {_sorted(link.zones) for way in broken for link in ways[way]}
    if len(broken) > 1 and len(zones) == 1:
        (pair,) = zones
        own = [way for way in between if any(_sorted(link.zones) == pair for link in ways[way])]
        if all(pair) and pair[0] != pair[1] and set(own) == set(broken):
            return [
                Level("zone pair", f"Network between zones {pair[0]} and {pair[1]}", list(pair), _links_of(own, ways))
            ]
    return [
        Level("node pair", f"Network between nodes {way[0]} and {way[1]}", list(way), _links_of([way], ways))
        for way in broken
    ]


def _is_hit(members: list[Link], hit: set[Pods]) -> bool:
    """Most of these links are, and no single pod is an end of all of them."""
    mine = [set(link.pods) for link in members if link.pods in hit]
    return _are_most(members, hit) and not set.intersection(*mine)


def _are_most(members: list[Link], hit: set[Pods]) -> bool:
    return bool(members) and sum(link.pods in hit for link in members) >= MOST * len(members)


def _links_of(ways: list[tuple[str, str]], all_ways: dict[tuple[str, str], list[Link]]) -> set[Pods]:
    return {link.pods for way in ways for link in all_ways[way]}


def _share(finding: Finding, level: Level) -> float:
    pairs = [_pods(pair) for pair in finding.get("links") or []]
    return sum(pair in level.links for pair in pairs) / len(pairs) if pairs else 0.0


def merged(mine: list[Finding]) -> Finding:
    """A copy of the first, with the cost, the times and what is explained of all."""
    first = dict(mine[0])
    first["explains"] = [name for f in mine for name in f.get("explains") or []]
    first["impact_ns"] = sum(f["impact_ns"] or 0 for f in mine)
    for key, choose in (("first_ns", min), ("last_ns", max)):
        first[key] = choose((f[key] for f in mine if f[key] is not None), default=None)
    return first


def _one_of(mine: list[Finding], level: Level) -> Finding:
    """The worst of them, with the level as its scope and the others in its summary."""
    worst, *others = sorted(mine, key=lambda f: (f["severity"] != "critical", -(f["impact_ns"] or 0)))
    first = merged([worst, *others])
    first["title"] = f"{level.place} {worst['what']} ({len(mine)} links of workloads are hit)"
    first["summary"] = f"Worst: {worst['title']}. {worst['summary']}" + "".join(f" {f['title']}." for f in others[:5])
    first["scope_kind"], first["scope"], first["entities"] = level.kind, " <-> ".join(level.names), level.names
    return first


def _sorted(names: tuple[str, str]) -> tuple[str, str]:
    return (names[0], names[1]) if names[0] <= names[1] else (names[1], names[0])


def _pods(pair: list[str]) -> Pods:
    return _sorted((pair[0], pair[1]))
