"""Verdicts of the comparison on shops that differ in one thing."""

from __future__ import annotations

import json
import random
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import CliRunner

from kubetape.analyze.compare import Comparison, compare, to_junit, to_markdown
from kubetape.cli import cli
from tests.shop import BundleMaker, Pod, http


def record(path: Path, latency_ms: float, failures: int = 0, requests: int = 100, seed: int = 1) -> str:
    chance = random.Random(seed)
    maker = BundleMaker(pods=[Pod("gateway-1", "gateway", "10.0.0.1"), Pod("product-a", "product", "10.0.1.1")])
    ends = [maker.connect(("10.0.0.1", 40000), ("10.0.1.1", 8080), side) for side in ("client", "server")]
    for turn in range(requests):
        status = 500 if turn < failures else 200
        maker.ask(ends, turn * 100, latency_ms * chance.uniform(0.8, 1.3), *http("/product/1", status))
    return str(maker.write(path))


def verdict(tmp_path: Path, **candidate: float) -> Comparison:
    base = record(tmp_path / "base.ktape", 5)
    settings = {"latency_ms": 5.0, "seed": 2, **candidate}
    return compare(base, record(tmp_path / "candidate.ktape", **settings))  # type: ignore[arg-type]


def test_the_same_twice(tmp_path: Path) -> None:
    assert verdict(tmp_path).verdict == "same"


def test_slower_is_a_regression_and_named(tmp_path: Path) -> None:
    result = verdict(tmp_path, latency_ms=15)
    assert (result.verdict, result.exit_status) == ("regression", 1)
    assert result.differences[0].server == "shop/product"
    assert "p50" in to_markdown(result)


def test_faster_is_an_improvement(tmp_path: Path) -> None:
    base = record(tmp_path / "base.ktape", 15)
    assert compare(base, record(tmp_path / "candidate.ktape", 5)).verdict == "improvement"


def test_a_significant_but_small_difference_is_none(tmp_path: Path) -> None:
    result = verdict(tmp_path, latency_ms=6)
    assert result.differences[0].p_value is not None
    assert result.differences[0].p_value < 1e-6
    assert result.verdict == "same"


def test_a_slow_quarter_is_a_regression_though_the_median_stays(tmp_path: Path) -> None:
    def one(path: Path, slow_ms: float) -> str:
        maker = BundleMaker()
        connection = maker.connect(("10.0.0.1", 40000), ("10.0.1.1", 8080), "client")
        for turn in range(160):
            maker.ask([connection], turn * 200, slow_ms if turn % 4 == 0 else 5 + turn % 3, *http("/product/1"))
        return str(maker.write(path))

    result = compare(one(tmp_path / "base.ktape", 6), one(tmp_path / "candidate.ktape", 120))
    assert result.verdict == "regression"
    assert "25% of requests" in result.differences[0].reasons[0]


def test_more_errors_are_a_regression(tmp_path: Path) -> None:
    result = verdict(tmp_path, failures=20)
    assert result.verdict == "regression"
    assert any("errors" in reason for reason in result.differences[0].reasons)


def test_too_few_requests_are_inconclusive(tmp_path: Path) -> None:
    result = verdict(tmp_path, requests=5, latency_ms=50)
    assert (result.verdict, result.exit_status) == ("inconclusive", 3)


def test_junit_is_xml_with_the_failure(tmp_path: Path) -> None:
    suite = ET.fromstring(to_junit(verdict(tmp_path, latency_ms=15)))
    assert suite.attrib["failures"] == "1"


@pytest.mark.parametrize(("latency_ms", "status"), [(5, 0), (15, 1)])
def test_the_command_ends_with_the_verdict(tmp_path: Path, latency_ms: float, status: int) -> None:
    base = record(tmp_path / "base.ktape", 5)
    candidate = record(tmp_path / "candidate.ktape", latency_ms, seed=3)
    result = CliRunner().invoke(cli, ["compare", base, candidate, "--json", "-"], standalone_mode=False)
    assert result.return_value == status
    assert json.loads(result.output)["exit_status"] == status
