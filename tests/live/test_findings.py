"""The shop with its faults and without: the first findings are the faults, and a healthy shop has none."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.lab.demo import DEMO_FAULTS, SETTLE_S
from tests.lab.faults import FAULTS, Answer
from tests.lab.loads import LOADS
from tests.lab.shop import Shop

pytestmark = [pytest.mark.live, pytest.mark.lab]

DURATION_S = 15
HEALTHY_LOADS = ("usual", "no-keep-alive", "slow-but-steady")
Row = dict[str, Any]


def record(shop: Shop, bundle: Path) -> list[Row]:
    """Record the shop; the findings, first one first."""
    kubetape = [sys.executable, "-m", "kubetape"]
    scope = [word for name in shop.namespaces for word in ("--namespace", name)]
    times = ["--duration", f"{DURATION_S}s", "--from-dir", str(shop.k8s)]
    subprocess.run([*kubetape, "record", "-o", str(bundle), *times, *scope], check=True, capture_output=True)
    query = ["sql", str(bundle), "SELECT * FROM finding ORDER BY rank", "--format", "json"]
    found: list[Row] = json.loads(subprocess.run([*kubetape, *query], check=True, capture_output=True).stdout)
    return found


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Row], dict[str, Answer]]:
    """Findings on a shop with the demo's three faults, and the right answers."""
    with Shop() as shop:
        faults = [FAULTS[name] for name in DEMO_FAULTS]
        for fault in faults:
            shop.apply(fault)
        time.sleep(SETTLE_S)
        findings = record(shop, tmp_path_factory.mktemp("faulty") / "faulty.ktape")
        return findings, {fault.name: fault.answer(shop) for fault in faults}


@pytest.mark.parametrize("name", DEMO_FAULTS)
def test_the_first_findings_are_the_faults(name: str, faulty: tuple[list[Row], dict[str, Answer]]) -> None:
    findings, answers = faulty
    first = findings[: len(DEMO_FAULTS)]
    assert any(answers[name].is_given_by(f) for f in first), [f["title"] for f in findings]


def test_a_healthy_shop_has_no_finding_above_notice(tmp_path: Path) -> None:
    for load in (LOADS[name] for name in HEALTHY_LOADS):
        with Shop(rate=load.rate, workers=load.workers, uses=load.uses) as shop:
            load.prepare(shop)
            time.sleep(SETTLE_S)
            findings = record(shop, tmp_path / f"{load.name}.ktape")
        loud = [f"{f['severity']}: {f['title']}" for f in findings if f["severity"] in ("critical", "warning")]
        assert loud == []


def test_every_fault_can_be_switched_on_and_off_twice() -> None:
    with Shop(rate=0) as shop:
        for fault in FAULTS.values():
            for _ in range(2):
                shop.apply(fault)
                shop.lift(fault)
        assert shop.faults == []
        assert (shop.helpers, shop.threads) == ({}, {})
