"""Rules on small shops: the fault is named, and without it nothing is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kubetape.analyze.analysis import Analysis
from kubetape.analyze.findings import RULES, user_rules
from kubetape.analyze.tables import read_parameters
from kubetape.errors import KubetapeError
from tests.shop import MS, NODE, BundleMaker, Pod, http


def shop(latency_ms: dict[str, float], requests: int = 40) -> tuple[BundleMaker, dict[str, tuple[int, int]]]:
    """A gateway that calls the pods of `product`; both ends recorded. Connection ids by pod."""
    maker = BundleMaker(pods=[Pod("gateway-1", "gateway", "10.0.0.1")])
    ids: dict[str, tuple[int, int]] = {}
    for n, (pod, latency) in enumerate(latency_ms.items()):
        ip = f"10.0.1.{n + 1}"
        maker.pods.append(Pod(pod, "product", ip))
        ends = [maker.connect(("10.0.0.1", 40000 + n), (ip, 8080), side) for side in ("client", "server")]
        ids[pod] = (ends[0], ends[1])
        for turn in range(requests):
            maker.ask(ends, 10 + turn * 200 + n, latency, *http(f"/product/{turn}"))
    return maker, ids


def findings(maker: BundleMaker, path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (
        Analysis(maker.write(path / "x.ktape")).query("SELECT * FROM finding ORDER BY rank").to_pylist()
    )
    return rows


def test_a_healthy_shop(tmp_path: Path) -> None:
    maker, _ = shop({"product-a": 5, "product-b": 6, "product-c": 5})
    assert findings(maker, tmp_path) == []


def test_both_views_of_a_request_are_one_call(tmp_path: Path) -> None:
    maker, _ = shop({"product-a": 5})
    analysis = Analysis(maker.write(tmp_path / "x.ktape"))
    rows = analysis.query("SELECT join_basis, network_ns, count(*) AS n FROM call GROUP BY ALL").to_pylist()
    assert rows == [{"join_basis": "position", "network_ns": 200_000, "n": 40}]
    assert analysis.query("SELECT client, server, request_count FROM edge").to_pylist() == [
        {"client": "shop/gateway", "server": "shop/product", "request_count": 40}
    ]


def test_a_slow_replica_is_named(tmp_path: Path) -> None:
    maker, _ = shop({"product-a": 5, "product-b": 90, "product-c": 5})
    found = findings(maker, tmp_path)
    assert [(f["rule"], f["scope"]) for f in found] == [("slow-replica", "shop/product-b")]


def test_when_all_replicas_are_slow_none_is_singled_out(tmp_path: Path) -> None:
    maker, _ = shop({"product-a": 90, "product-b": 95, "product-c": 90})
    assert not [f for f in findings(maker, tmp_path) if f["rule"] == "slow-replica"]


def test_a_lossy_link_is_named_with_both_ends(tmp_path: Path) -> None:
    maker, ids = shop({"product-a": 5, "product-b": 5})
    for turn in range(20):
        maker.tcp_events.append(
            {
                "node": NODE,
                "ts_ns": turn * 100 * MS,
                "connection_id": ids["product-a"][turn % 2],
                "kind": "retransmit",
                "detail": "timeout",
            }
        )
    found = findings(maker, tmp_path)
    assert [(f["rule"], f["scope"]) for f in found] == [("lossy-link", "shop/gateway -> shop/product")]
    assert "product-a" in found[0]["title"]


def test_server_errors_name_the_pod_that_fails(tmp_path: Path) -> None:
    maker, ids = shop({"product-a": 5, "product-b": 5})
    for turn in range(20):
        maker.ask(list(ids["product-b"]), 9000 + turn * 10, 5, *http("/product/1", status=503))
    found = findings(maker, tmp_path)
    assert [f["rule"] for f in found] == ["server-errors"]
    assert "product-b" in found[0]["title"]
    assert "503" in found[0]["title"]


def test_errors_of_the_caller_are_not_the_servers(tmp_path: Path) -> None:
    maker, ids = shop({"product-a": 5})
    for turn in range(20):
        maker.ask(list(ids["product-a"]), 9000 + turn * 10, 5, *http("/product/1", status=404))
    assert findings(maker, tmp_path) == []


def test_a_consequence_points_at_its_cause(tmp_path: Path) -> None:
    maker, _ = shop({"product-a": 5, "product-b": 800, "product-c": 5})
    found = findings(maker, tmp_path)
    assert [(f["rule"], f["severity"]) for f in found] == [("slow-replica", "critical"), ("slow-calls", "notice")]
    assert found[1]["caused_by"] == found[0]["title"]


def test_who_fails_because_of_those_it_calls_points_at_them(tmp_path: Path) -> None:
    maker = BundleMaker(
        pods=[
            Pod("load-1", "load", "10.0.0.9"),
            Pod("gateway-1", "gateway", "10.0.0.1"),
            Pod("product-1", "product", "10.0.1.1"),
        ]
    )
    front = [maker.connect(("10.0.0.9", 41000), ("10.0.0.1", 80), side) for side in ("client", "server")]
    back = [maker.connect(("10.0.0.1", 42000), ("10.0.1.1", 8080), side) for side in ("client", "server")]
    for turn in range(40):
        status = 500 if turn % 2 else 200
        maker.ask(front, 10 + turn * 200, 20, *http("/", status=status))
        maker.ask(back, 15 + turn * 200, 5, *http("/", status=status))
    found = findings(maker, tmp_path)
    assert [(f["rule"], f["scope"], f["severity"]) for f in found] == [
        ("server-errors", "shop/product", "critical"),
        ("server-errors", "shop/gateway", "notice"),
    ]
    assert found[1]["caused_by"] == found[0]["title"]


def test_times_of_findings_are_those_of_the_recording() -> None:
    analysis = Analysis("tests/data/demo.ktape")
    (whole,) = analysis.query("SELECT min(start_ns) AS start_ns, max(end_ns) AS end_ns FROM manifest_node").to_pylist()
    timed = [f for f in analysis.query("SELECT * FROM finding").to_pylist() if f["first_ns"] is not None]
    assert {"lossy-link", "cpu-saturated", "slow-sql-statement"} <= {f["rule"] for f in timed}
    second = 1_000_000_000
    for finding in timed:
        assert whole["start_ns"] - second < finding["first_ns"] <= finding["last_ns"] < whole["end_ns"] + second, (
            finding
        )


def test_each_node_has_its_own_clock(tmp_path: Path) -> None:
    maker = BundleMaker()
    maker.nodes["node-b"] = 35.0
    analysis = Analysis(maker.write(tmp_path / "x.ktape"))
    rows = "(VALUES ('{}', 5), ('{}', 7)) AS r(node, ts_ns)".format(*maker.nodes)
    columns = "list(realtime_ns(node, ts_ns) ORDER BY ts_ns) AS t, min(realtime_ns(r.node, ts_ns)) AS first"
    (row,) = analysis.query(f"SELECT {columns} FROM {rows}").to_pylist()
    assert row["t"][1] - row["t"][0] == 35 * MS + 2
    assert row["first"] == row["t"][0]


def test_lossy_links_of_one_workload_are_one_finding(tmp_path: Path) -> None:
    maker = BundleMaker(pods=[Pod("gateway-1", "gateway", "10.0.0.1")])
    for n in range(3):
        maker.pods.append(Pod(f"backend{n}-1", f"backend{n}", f"10.0.1.{n}"))
        ends = [maker.connect(("10.0.0.1", 43000 + n), (f"10.0.1.{n}", 80), side) for side in ("client", "server")]
        for turn in range(40):
            maker.ask(ends, 10 + turn * 200 + n, 5, *http("/"))
        for turn in range(20):
            event = {"node": NODE, "ts_ns": turn * 100 * MS, "connection_id": ends[0], "kind": "retransmit"}
            maker.tcp_events.append(event | {"detail": "timeout"})
    (found,) = findings(maker, tmp_path)
    assert (found["rule"], found["scope_kind"], found["scope"]) == ("lossy-link", "workload", "shop/gateway")
    assert "2 more links of shop/gateway" in found["title"]


def test_rules_and_thresholds_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/any-call.sql").write_text(
        "-- Anything was called.\n-- Inputs: edge\n-- Kind: cause\n"
        "SELECT 'warning' AS severity, 'edge' AS scope_kind, server AS scope, 'calls to ' || server AS title, "
        "'' AS summary, '' AS evidence, 1 AS confidence, 0 AS impact_ns, NULL AS first_ns, NULL AS last_ns, "
        "[server] AS entities FROM edge\n"
    )
    (tmp_path / "rules/any-call.md").write_text("# any-call\n")
    (tmp_path / "t.toml").write_text("slow_replica_ms = 500\n")
    maker, _ = shop({"product-a": 5, "product-b": 90, "product-c": 5})
    bundle = maker.write(tmp_path / "x.ktape")
    analysis = Analysis(bundle, user_rules(str(tmp_path / "rules")), read_parameters(str(tmp_path / "t.toml")))
    rules = analysis.query("SELECT rule FROM finding").column("rule").to_pylist()
    assert rules == ["any-call"]


@pytest.mark.parametrize("text", ["slow_replica_ms = 'x'", "no_such_thing = 1", "= ="])
def test_thresholds_that_are_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text(text)
    with pytest.raises(KubetapeError, match=r"t\.toml"):
        read_parameters(str(tmp_path / "t.toml"))


def test_every_rule_has_a_page_with_its_four_parts() -> None:
    for rule in RULES.values():
        for part in ("What it shows.", "Why it matters.", "Known problems.", "Confirm by hand."):
            assert f"**{part}**" in rule.page, (rule.name, part)
