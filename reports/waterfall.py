"""The slowest requests as trees: who called whom, when, and for how long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TRACES = 3
MAX_SPANS = 40  # lines of one tree; the longest calls are kept
# Below this the parent is a guess: the line is drawn as one.
SURE = 0.7

Row = dict[str, Any]


@dataclass
class Line:
    """One bar: its place in the tree, when it began and how long it took, both in ns; offset, width: percent."""

    depth: int
    name: str
    what: str
    start_ns: int
    latency_ns: int | None
    offset: float
    width: float
    is_error: bool
    is_sure: bool
    own_ns: int | None
    network_ns: int | None


@dataclass
class Waterfall:
    """title: of the request; lines: itself first, then what it caused; left_out: calls not shown."""

    title: str
    latency_ns: int
    lines: list[Line]
    left_out: int


def slowest(rows: Callable[[str], list[Row]]) -> list[Waterfall]:
    """Trees of the slowest requests that nothing recorded caused."""
    tops = rows(
        "SELECT l.request_id FROM logical_request AS l JOIN span AS s USING (request_id) "
        "WHERE s.basis = 'root' AND l.latency_ns IS NOT NULL AND l.protocol NOT IN ('dns', 'tls', 'websocket') "
        f"ORDER BY l.latency_ns DESC, l.request_id LIMIT {TRACES}"
    )
    return [tree for top in tops if (tree := _tree(rows, top["request_id"])) is not None]


def _tree(rows: Callable[[str], list[Row]], request_id: int) -> Waterfall | None:
    spans = rows(
        f"WITH RECURSIVE _tree AS (SELECT request_id, span_id, 0 AS depth, NULL::BIGINT AS parent, 1.0 AS confidence "
        f"FROM span WHERE request_id = {request_id} UNION ALL "
        "SELECT s.request_id, s.span_id, t.depth + 1, t.request_id, s.confidence FROM _tree AS t "
        "JOIN span AS s ON s.parent_span_id = t.span_id AND s.request_id <> t.request_id WHERE t.depth < 8) "
        "SELECT t.*, l.start_ns, l.latency_ns, l.client_name, l.server_name, l.protocol, l.operation, l.is_error, "
        "coalesce(l.resource, l.statement, '') AS what, p.own_ns, p.network_ns "
        "FROM _tree AS t JOIN logical_request AS l USING (request_id) "
        "LEFT JOIN request_time_split AS p USING (request_id) ORDER BY l.start_ns"
    )
    if len(spans) < 2:
        return None
    kept = sorted(spans, key=lambda s: (s["depth"] > 0, -(s["latency_ns"] or 0)))[:MAX_SPANS]
    children: dict[int | None, list[Row]] = {}
    for span in sorted(kept, key=lambda s: s["start_ns"]):
        children.setdefault(span["parent"], []).append(span)
    top = next(s for s in spans if s["depth"] == 0)
    whole = max(1, top["latency_ns"])
    lines: list[Line] = []

    def add(span: Row) -> None:
        begin = span["start_ns"] - top["start_ns"]
        offset = min(99.0, max(0.0, 100 * begin / whole))
        lines.append(
            Line(
                span["depth"],
                span["server_name"],
                " ".join(f"{span['operation'] or ''} {span['what']}".split()),
                begin,
                span["latency_ns"],
                offset,
                min(100 - offset, max(0.4, 100 * (span["latency_ns"] or 0) / whole)),
                bool(span["is_error"]),
                span["confidence"] >= SURE,
                span["own_ns"],
                span["network_ns"],
            )
        )
        for child in children.get(span["request_id"], []):
            add(child)

    add(top)
    title = f"{top['client_name']} -> {top['server_name']} {top['operation'] or ''} {top['what']}"
    return Waterfall(" ".join(title.split()), top["latency_ns"], lines, len(spans) - len(lines))
