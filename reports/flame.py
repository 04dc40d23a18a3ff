"""Flame graphs: how the CPU time of a program spreads over its functions, as SVG that needs no script."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from typing import Any
from zlib import crc32

GRAPHS = 6  # programs shown
FUNCTIONS = 8  # of each, the ones that used most themselves
LEAST_SAMPLES = 20  # below this a picture would show chance
WIDTH, ROW_HEIGHT, FONT_WIDTH = 1200, 17, 6.4
SMALLEST = 2.4  # width in px of a box that is drawn
MAX_ROWS = 48  # the outermost frames; deeper ones are left out and counted

Row = dict[str, Any]


@dataclass
class Box:
    """One frame with all stacks that go through it. cpu_ns: of them all; self_ns: of those that end here."""

    name: str
    cpu_ns: int = 0
    self_ns: int = 0
    children: dict[str, Box] = field(default_factory=dict)


@dataclass
class Flame:
    """One program: name as reports call it, its CPU time, the boxes, and its hottest functions (`hot_function`)."""

    name: str
    cpu_ns: int
    sample_count: int
    cores: float
    root: Box
    functions: list[Row]
    svg: str = ""


def flames(rows: Callable[[str], list[Row]]) -> list[Flame]:
    """The programs that used most CPU."""
    if not rows("SELECT 1 FROM stack_sample LIMIT 1"):
        return []
    tops = rows(
        "SELECT s.name, sum(s.cpu_ns)::BIGINT AS cpu_ns, sum(s.sample_count)::BIGINT AS sample_count, "
        "sum(s.cpu_ns) / (SELECT max(duration_ns) FROM manifest_node) AS cores "
        f"FROM sampled_stack AS s GROUP BY s.name HAVING sum(s.sample_count) >= {LEAST_SAMPLES} "
        f"ORDER BY 2 DESC, 1 LIMIT {GRAPHS}"
    )
    found = []
    for top in tops:
        name = top["name"].replace("'", "''")
        stacks = rows(
            f"SELECT folded, sum(cpu_ns)::BIGINT AS cpu_ns FROM sampled_stack WHERE name = '{name}' "
            "GROUP BY folded ORDER BY folded"
        )
        functions = rows(
            "SELECT function, module, kind, sum(self_count)::BIGINT AS self_count, sum(self_ns)::BIGINT AS self_ns, "
            "sum(total_ns)::BIGINT AS total_ns, sum(request_ns)::BIGINT AS request_ns, "
            f"sum(slow_request_ns)::BIGINT AS slow_request_ns FROM hot_function WHERE name = '{name}' "
            f"GROUP BY ALL HAVING sum(self_ns) > 0 ORDER BY self_ns DESC, function LIMIT {FUNCTIONS}"
        )
        flame = Flame(top["name"], top["cpu_ns"], top["sample_count"], top["cores"], tree(stacks), functions)
        flame.svg = draw(flame)
        found.append(flame)
    return found


def tree(stacks: list[Row]) -> Box:
    """Boxes from folded stacks; a frame that calls itself in a row is one box."""
    root = Box("all")
    for row in stacks:
        box = root
        root.cpu_ns += row["cpu_ns"]
        for name in row["folded"].split(";"):
            if name == box.name:
                continue
            box = box.children.setdefault(name, Box(name))
            box.cpu_ns += row["cpu_ns"]
        box.self_ns += row["cpu_ns"]
    return root


def draw(flame: Flame) -> str:
    """SVG, the outermost frame on top; boxes too narrow to be seen are left out."""
    parts: list[str] = []
    depth = _boxes(flame.root, 0.0, 0, WIDTH / max(1, flame.cpu_ns), flame.cpu_ns, parts)
    height = (depth + 1) * ROW_HEIGHT + 2
    return (
        f'<svg class="flame" viewBox="0 0 {WIDTH} {height}" style="min-width:860px" role="img" '
        f'aria-label="flame graph of {escape(flame.name)}">{"".join(parts)}</svg>'
    )


def _boxes(box: Box, left: float, depth: int, scale: float, whole_ns: int, parts: list[str]) -> int:
    """Append a box and those below it; returns the depth of the deepest one."""
    width = box.cpu_ns * scale
    parts.append(_box(box, left, depth, width, whole_ns))
    deepest = depth
    if depth + 1 >= MAX_ROWS:
        return deepest
    for _, child in sorted(box.children.items()):
        if child.cpu_ns * scale >= SMALLEST:
            deepest = max(deepest, _boxes(child, left, depth + 1, scale, whole_ns, parts))
        left += child.cpu_ns * scale
    return deepest


def _box(box: Box, left: float, depth: int, width: float, whole_ns: int) -> str:
    name = box.name.removesuffix("_[k]")
    own = f", {100 * box.self_ns / whole_ns:.1f} % itself" if box.self_ns else ""
    title = f"{name}{' (kernel)' if name != box.name else ''}: {100 * box.cpu_ns / whole_ns:.1f} % of the CPU time{own}"
    letters = int((width - 6) / FONT_WIDTH)
    text = name if len(name) <= letters else name[: max(0, letters - 1)] + "…"
    top = depth * ROW_HEIGHT
    label = f'<text x="{left + 4:.1f}" y="{top + 12}">{escape(text)}</text>' if letters >= 3 else ""
    return (
        f'<g><title>{escape(title)}</title><rect x="{left:.1f}" y="{top}" width="{max(0.5, width - 0.6):.1f}" '
        f'height="{ROW_HEIGHT - 1}" rx="2" class="{_kind(box.name)}"/>{label}</g>'
    )


def _kind(name: str) -> str:
    """The class of a box: its colour. Neighbours differ, and a function has one shade everywhere."""
    if name == "all":
        return "all"
    if name.startswith(("[unknown]", "[anonymous")):
        return "lost"
    return f"{'k' if name.endswith('_[k]') else 'u'}{crc32(name.encode()) % 4}"
