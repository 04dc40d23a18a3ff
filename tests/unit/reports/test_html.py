"""The page, from data made by hand: what stands where."""

from __future__ import annotations

from typing import Any

from kubetape.reports.data import ReportData
from kubetape.reports.html import render


def finding(title: str, **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(("caused_by", "statement"))
    row |= {"rule": "lossy-link", "severity": "critical", "scope": "a -> b", "entities": [], "consequences": []}
    row |= {"title": title, "summary": f"summary of {title}", "evidence": "select 1", "about": "# x\n\n**Why.** `ss`"}
    row |= {"confidence": 0.9, "loss_could_change_it": False, "window": ""}
    return row | more


def page(findings: list[dict[str, Any]]) -> str:
    counts = "connections requests total_bytes seen_bytes lost_bytes truncated_bytes encrypted_bytes undecoded_bytes"
    lists = "nodes protocols probes notes services edges statements network dns pods"
    coverage = dict.fromkeys(counts.split(), 0)
    empty: dict[str, Any] = {name: [] for name in lists.split()}
    data = ReportData(
        bundle="x.ktape", seconds=20.0, started="2026-01-01", findings=findings, coverage=coverage, **empty
    )
    return render(data, {})


def test_a_consequence_stands_below_its_cause_and_nowhere_else() -> None:
    effect = finding("gateway is slow", severity="notice", caused_by="link is lossy")
    text = page([finding("link is lossy", consequences=[effect]), effect])
    assert text.count("summary of gateway is slow") == 1
    assert text.count('class="finding ') == 1
    assert text.index("link is lossy") < text.index("gateway is slow") < text.index("What was seen")


def test_the_statement_of_a_finding_is_shown_as_a_person_would_write_it() -> None:
    text = page([finding("Slow SQL", statement="SELECT 1\nFROM a < b")])
    assert "<pre>SELECT 1\nFROM a &lt; b</pre>" in text


def test_nothing_found_is_said() -> None:
    assert "Nothing found" in page([])
    assert "No rule found anything wrong" in page([finding("It takes time", severity="notice")])
    assert "found anything" not in page([finding("It is broken")])
