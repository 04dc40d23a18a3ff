"""Flame graphs: boxes as wide as their CPU time, from folded stacks."""

from __future__ import annotations

import re
from typing import Any

from kubetape.reports.flame import WIDTH, Flame, draw, tree

STACKS: list[dict[str, Any]] = [
    {"folded": "main;serve;parse", "cpu_ns": 600},
    {"folded": "main;serve;parse;parse;copy_[k]", "cpu_ns": 100},
    {"folded": "main;serve", "cpu_ns": 50},
    {"folded": "idle<loop>", "cpu_ns": 250},
]


def boxes(stacks: list[dict[str, Any]]) -> dict[str, tuple[float, float, float]]:
    """Title -> (left, top, width) of every box drawn."""
    flame = Flame("x", sum(s["cpu_ns"] for s in stacks), len(stacks), 1.0, tree(stacks), [])
    found = re.findall(r'<title>(.*?)</title><rect x="([\d.]+)" y="(\d+)" width="([\d.]+)"', draw(flame))
    return {title.partition(":")[0]: (float(x), float(y), float(w)) for title, x, y, w in found}


def test_width_is_cpu_time_and_children_stand_below_their_caller() -> None:
    found = boxes(STACKS)
    assert set(found) == {"all", "main", "serve", "parse", "copy (kernel)", "idle&lt;loop&gt;"}
    assert abs(found["parse"][2] - 0.7 * WIDTH) < 1
    assert abs(found["copy (kernel)"][2] - 0.1 * WIDTH) < 1
    left, top, width = found["serve"]
    assert left <= found["parse"][0]
    assert found["parse"][0] + found["parse"][2] <= left + width + 1
    assert found["parse"][1] > top
    # Side by side without overlap.
    assert found["main"][0] >= found["idle&lt;loop&gt;"][0] + found["idle&lt;loop&gt;"][2]


def test_time_of_a_function_itself_is_told_from_what_it_calls() -> None:
    root = tree(STACKS)
    serve = root.children["main"].children["serve"]
    assert (serve.cpu_ns, serve.self_ns) == (750, 50)
    assert serve.children["parse"].self_ns == 600


def test_what_is_too_narrow_to_be_seen_is_left_out() -> None:
    assert "rare" not in boxes([*STACKS, {"folded": "rare", "cpu_ns": 1}])
