"""Where the boxes of a topology stand."""

from __future__ import annotations

from typing import Any

from kubetape.analyze.durations import duration
from kubetape.reports import svg
from kubetape.reports.html import share, size
from kubetape.reports.layout import topology


def edge(client: str, server: str, p95_ns: int | None = 5_000_000) -> dict[str, Any]:
    return {
        "client": client,
        "server": server,
        "protocol": "http1",
        "rps": 1.0,
        "p95_ns": p95_ns,
        "error_count": 0,
        "error_ratio": 0.0,
        "total_ns": 1,
    }


def columns(*edges: tuple[str, str]) -> dict[str, int]:
    return {n.name: n.column for n in topology([edge(*e) for e in edges], []).nodes if not n.is_waypoint}


def test_callers_stand_left_of_what_they_call() -> None:
    found = columns(("load", "gateway"), ("gateway", "product"), ("product", "mysql"), ("load", "mysql"))
    assert found == {"load": 0, "gateway": 1, "product": 2, "mysql": 3}


def test_an_arrow_that_passes_a_column_has_a_place_there() -> None:
    plan = topology([edge(*e) for e in (("load", "gateway"), ("gateway", "mysql"), ("load", "mysql"))], [])
    places = {n.name: (n.column, n.row) for n in plan.nodes}
    (far,) = (e for e in plan.edges if e.client == "load" and e.server == "mysql")
    assert [places[name][0] for name in far.via] == [1]
    assert places[far.via[0]] != places["gateway"]
    assert svg.draw(plan).count('class="box') == 3


def test_a_cycle_ends() -> None:
    found = columns(("a", "b"), ("b", "c"), ("c", "a"))
    assert sorted(found.values()) == [0, 1, 2]


def test_who_calls_itself() -> None:
    assert columns(("a", "a")) == {"a": 0}


def test_no_two_boxes_in_one_place() -> None:
    plan = topology([edge("a", f"s{i}") for i in range(6)], [])
    places = [(n.column, n.row) for n in plan.nodes]
    assert len(places) == len(set(places))


def test_findings_colour_edges_and_boxes() -> None:
    finding = {"severity": "critical", "scope": "a -> b", "entities": ["b"]}
    plan = topology([edge("a", "b")], [finding])
    assert (plan.edges[0].level, {n.name: n.level for n in plan.nodes}) == ("critical", {"a": "ok", "b": "critical"})


def test_names_are_text_not_markup() -> None:
    assert "<b>" not in svg.draw(topology([edge("<b>", "x", None)], []))


def test_numbers_for_people() -> None:
    assert [duration(n) for n in (None, 1_500, 2_345_000, 12_000_000_000)] == ["–", "1.5 µs", "2.35 ms", "12 s"]
    assert [size(0), size(1_500), size(2_000_000_000)] == ["0 B", "1.5 KB", "2 GB"]
    assert [share(0, 5), share(1, 1_000_000), share(1, 50), share(1, 2), share(1, 0)] == [
        "0 %",
        "< 0.01 %",
        "2 %",
        "50 %",
        "–",
    ]
