"""PNG pictures to paste into a ticket: golden signals, topology, slow SQL, network."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

from kubetape.analyze.durations import duration
from kubetape.reports.data import ReportData
from kubetape.reports.layout import topology

COLOURS = ["#2563a8", "#c2571a", "#3f8f4f", "#8a4fa3", "#b3303f", "#5b6770"]
LEVEL_COLOURS = {"ok": "#5b6770", "warning": "#c07a00", "critical": "#b3303f"}
DPI = 110
HALF_BOX = 0.72  # of the width of a box of the topology, in columns of 3.4

plt.rcParams.update(
    {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25}
)


def golden_signals(data: ReportData) -> Any | None:
    """Figure: requests per second, p95 latency and errors of the busiest servers over time; None without requests."""
    if not data.timeline:
        return None
    figure, axes = plt.subplots(3, 1, figsize=(9, 5.6), sharex=True, layout="constrained")
    servers = list(dict.fromkeys(r["server"] for r in data.timeline))
    for colour, server in zip(COLOURS, servers, strict=False):
        rows = [r for r in data.timeline if r["server"] == server]
        seconds = [r["second"] for r in rows]
        axes[0].plot(seconds, [r["requests"] for r in rows], color=colour, label=server)
        answered = [(s, r["p95_ns"] / 1e6) for s, r in zip(seconds, rows, strict=True) if r["p95_ns"] is not None]
        axes[1].plot([s for s, _ in answered], [v for _, v in answered], color=colour)
        axes[2].plot(seconds, [r["errors"] for r in rows], color=colour)
    axes[0].set_ylabel("requests/s")
    axes[1].set_ylabel("p95 latency, ms")
    axes[1].set_yscale("log")
    axes[1].yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes[1].yaxis.set_minor_formatter("")
    axes[2].set_ylabel("errors/s")
    axes[2].set_xlabel("seconds since the recording began")
    axes[0].set_ylim(bottom=0)
    axes[2].set_ylim(0, max(1.0, 1.1 * max(r["errors"] for r in data.timeline)))
    axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1.02), ncols=3, frameon=False)
    return figure


def topology_picture(data: ReportData) -> Any | None:
    """Figure of the service topology, arrows coloured by health; None without edges."""
    plan = topology(data.edges, data.findings)
    if not plan.nodes:
        return None
    figure, axes = plt.subplots(figsize=(3.4 * plan.columns + 1, 1.0 * plan.rows + 1), layout="constrained")
    axes.axis("off")
    counts = [sum(n.column == c for n in plan.nodes) for c in range(plan.columns)]
    places = {n.name: (3.4 * n.column, -(n.row + (plan.rows - counts[n.column]) / 2)) for n in plan.nodes}
    for edge in plan.edges:
        colour, width = LEVEL_COLOURS[edge.level], 1 + 2 * edge.weight
        (x1, y1), (x2, y2) = places[edge.client], places[edge.server]
        for name in edge.via:
            x, y = places[name]
            axes.plot(
                [x1 + HALF_BOX, x - HALF_BOX, x + HALF_BOX],
                [y1, y, y],
                color=colour,
                linewidth=width,
                solid_capstyle="butt",
            )
            x1, y1 = x, y
        arrow = {"arrowstyle": "->", "color": colour, "lw": width, "shrinkA": 0 if edge.via else 2}
        axes.annotate("", (x2 - HALF_BOX, y2), (x1 + HALF_BOX, y1), arrowprops=arrow)
        text = "\n".join(edge.labels[:2])
        axes.text(
            x1 + 0.48 * (x2 - x1), y1 + 0.48 * (y2 - y1), text, ha="center", va="center", fontsize=7, color=colour,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )  # fmt: skip
    for node in plan.nodes:
        if node.is_waypoint:
            continue
        x, y = places[node.name]
        box = FancyBboxPatch(
            (x - HALF_BOX, y - 0.25), 2 * HALF_BOX, 0.5, "round,pad=0,rounding_size=0.08",
            facecolor="white", edgecolor=LEVEL_COLOURS[node.level], linewidth=1.4,
        )  # fmt: skip
        axes.add_patch(box)
        axes.text(x, y, node.name.replace("/", "/\n"), ha="center", va="center", fontsize=8)
    axes.set_xlim(-1.2, 3.4 * (plan.columns - 1) + 1.2)
    axes.set_ylim(-plan.rows + 0.2, 0.8)
    return figure


def slow_sql(data: ReportData) -> Any | None:
    """Figure: total time of the costliest statements; None without statements."""
    rows = data.statements[:8][::-1]
    if not rows:
        return None
    figure, axes = plt.subplots(figsize=(9, 0.6 * len(rows) + 1), layout="constrained")
    names = [_short(r["statement_pattern"], 70) for r in rows]
    bars = axes.barh(range(len(rows)), [r["total_ns"] / 1e9 for r in rows], color=COLOURS[0])
    axes.set_yticks(range(len(rows)), names, fontsize=7, family="monospace")
    axes.bar_label(
        bars,
        [f"{r['call_count']} x p95 {duration(r['p95_ns'])}" for r in rows],
        padding=3,
        fontsize=7,
    )
    axes.margins(x=0.25)
    axes.set_xlabel("seconds in all calls")
    return figure


def network(data: ReportData) -> Any | None:
    """Figure: retransmissions and round-trip time by edge; None without TCP numbers."""
    rows = [r for r in data.network if r["sent_segments"]][:10][::-1]
    if not rows:
        return None
    figure, axes = plt.subplots(1, 2, figsize=(9, 0.4 * len(rows) + 1.2), sharey=True, layout="constrained")
    axes[0].barh(range(len(rows)), [100 * (r["retransmit_ratio"] or 0) for r in rows], color=COLOURS[4])
    axes[0].set_xlabel("data segments sent again, %")
    axes[1].barh(range(len(rows)), [(r["rtt_p95_ns"] or 0) / 1e6 for r in rows], color=COLOURS[0])
    axes[1].set_xlabel("round-trip time p95, ms")
    axes[0].set_yticks(range(len(rows)), [_short(r["name"], 48) for r in rows], fontsize=7)
    return figure


def _short(text: str, width: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"


CHARTS: dict[str, Callable[[ReportData], Any | None]] = {
    "golden_signals": golden_signals,
    "topology": topology_picture,
    "slow_sql": slow_sql,
    "network": network,
}


def write_charts(data: ReportData, folder: str) -> dict[str, str]:
    """Write each chart as NAME.png into `folder`; name -> path of those there was something to draw for."""
    written = {}
    for name, draw in CHARTS.items():
        figure = draw(data)
        if figure is None:
            continue
        path = os.path.join(folder, f"{name}.png")
        figure.savefig(path, dpi=DPI, metadata={"Software": None})
        plt.close(figure)
        written[name] = path
    return written
