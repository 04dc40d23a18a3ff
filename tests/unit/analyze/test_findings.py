"""Rules on small shops: the fault is named, and without it nothing is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kubetape.analyze.analysis import Analysis
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
