"""The topology as SVG text, to stand inside the page."""

from __future__ import annotations

from html import escape

from kubetape.reports.layout import Edge, Node, Topology

BOX_WIDTH, BOX_HEIGHT = 190, 44
COLUMN_GAP, ROW_GAP, MARGIN = 190, 46, 12
LABEL_HEIGHT = 14
SMALLEST_SCALE = 0.72  # of the drawing: the 11 px labels stay 8 px


def draw(topology: Topology) -> str:
    """SVG of a topology; an empty string where there is nothing to draw."""
    if not topology.nodes:
        return ""
    width = topology.columns * BOX_WIDTH + (topology.columns - 1) * COLUMN_GAP + 2 * MARGIN
    height = topology.rows * BOX_HEIGHT + (topology.rows - 1) * ROW_GAP + 2 * MARGIN + 24
    counts = [sum(n.column == c for n in topology.nodes) for c in range(topology.columns)]
    places = {n.name: _place(n, counts[n.column], topology.rows) for n in topology.nodes}
    parts = [
        # Shrinks with the page down to where its text is still read; narrower pages scroll.
        f'<svg class="topology" viewBox="0 0 {width} {height}" '
        f'style="max-width:{width}px;min-width:{round(SMALLEST_SCALE * width)}px" '
        'role="img" aria-label="service topology">',
        "<defs>",
        *(
            f'<marker id="arrow-{level}" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
            f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0 8 4 0 8z" class="head {level}"/></marker>'
            for level in ("ok", "warning", "critical")
        ),
        "</defs>",
    ]
    parts += [_edge(e, places) for e in topology.edges]
    parts += [_node(n, places[n.name]) for n in topology.nodes if not n.is_waypoint]
    # Labels last: readable above everything.
    parts += [_label(e, places) for e in topology.edges]
    parts.append("</svg>")
    return "\n".join(parts)


def _place(node: Node, count: int, rows: int) -> tuple[float, float]:
    """Left upper corner; a short column stands in the middle of the picture's height."""
    offset = (rows - count) * (BOX_HEIGHT + ROW_GAP) / 2
    return MARGIN + node.column * (BOX_WIDTH + COLUMN_GAP), MARGIN + offset + node.row * (BOX_HEIGHT + ROW_GAP)


def _ends(edge: Edge, places: dict[str, tuple[float, float]]) -> tuple[float, float, float, float]:
    (x1, y1), (x2, y2) = places[edge.client], places[edge.server]
    return x1 + BOX_WIDTH, y1 + BOX_HEIGHT / 2, x2, y2 + BOX_HEIGHT / 2


def _path(edge: Edge, places: dict[str, tuple[float, float]]) -> str:
    """Curves between columns, and straight through those that it passes."""
    x, y = places[edge.client][0] + BOX_WIDTH, places[edge.client][1] + BOX_HEIGHT / 2
    bend = COLUMN_GAP / 2
    path = f"M{x} {y}"
    for name in [*edge.via, edge.server]:
        left, middle = places[name][0], places[name][1] + BOX_HEIGHT / 2
        end = left - 2 if name == edge.server else left
        path += f" C{x + bend} {y} {left - bend} {middle} {end} {middle}"
        x, y = left + BOX_WIDTH, middle
        if name != edge.server:
            path += f" H{x}"
    return path


def _edge(edge: Edge, places: dict[str, tuple[float, float]]) -> str:
    x1, y1, x2, y2 = _ends(edge, places)
    width = 1.2 + 3 * edge.weight
    if edge.client == edge.server:
        x, y = places[edge.client]
        path = f"M{x + 60} {y + BOX_HEIGHT} c0 26 70 26 70 0"
    elif x2 > x1:
        path = _path(edge, places)
    else:
        path = f"M{x1} {y1} C{x1 + 60} {y1 + 60} {x2 - 60} {y2 + 60} {x2 - 2} {y2}"
    return (
        f'<path d="{path}" class="edge {edge.level}" stroke-width="{width:.1f}" marker-end="url(#arrow-{edge.level})"/>'
    )


def _label(edge: Edge, places: dict[str, tuple[float, float]]) -> str:
    x1, y1, x2, y2 = _ends(edge, places)
    if edge.via:
        x1, y1 = places[edge.via[-1]][0] + BOX_WIDTH, places[edge.via[-1]][1] + BOX_HEIGHT / 2
    # Nearer to the server: arrows from one caller part there.
    x, y = x1 + 0.62 * (x2 - x1), y1 + 0.70 * (y2 - y1) - 6
    if edge.client == edge.server or x2 <= x1:
        x, y = places[edge.client][0] + BOX_WIDTH / 2, places[edge.client][1] + BOX_HEIGHT + 30
    lines = [f"{len(edge.labels)} protocols", *edge.labels[:1]] if len(edge.labels) > 2 else edge.labels
    top = y - LABEL_HEIGHT * (len(lines) - 1)
    texts = "".join(
        f'<text x="{x:.0f}" y="{top + i * LABEL_HEIGHT:.0f}" class="label {edge.level}">{escape(line)}</text>'
        for i, line in enumerate(lines)
    )
    return f"<g><title>{escape('; '.join(edge.labels))}</title>{texts}</g>"


def _node(node: Node, place: tuple[float, float]) -> str:
    x, y = place
    namespace, _, name = node.name.rpartition("/")
    shown = name if len(name) <= 26 else name[:25] + "…"
    title = f'<text x="{x + 10:.0f}" y="{y + (28 if not namespace else 20):.0f}" class="name">{escape(shown)}</text>'
    below = f'<text x="{x + 10:.0f}" y="{y + 35:.0f}" class="namespace">{escape(namespace)}</text>' if namespace else ""
    return (
        f'<g><title>{escape(node.name)}</title><rect x="{x:.0f}" y="{y:.0f}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" '
        f'rx="6" class="box {node.level}"/>{title}{below}</g>'
    )
