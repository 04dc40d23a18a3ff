"""The demo: a shop with three faults, recorded and explained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.lab.errors import LabError
from tests.lab.faults import FAULTS, Fault
from tests.lab.shop import Shop

SHIPPED = Path(__file__).resolve().parents[1] / "data" / "demo.ktape"
# Faults show in connections made after they began: let the shop reach its new steady state first.
SETTLE_S = 2.0
FINDINGS_SHOWN = 3
DEMO_FAULTS = ("lossy-link", "slow-sql", "slow-replica")


def kubetape(*arguments: str) -> str:
    """Run kubetape's command line; its standard output. Its standard error goes to ours."""
    done = subprocess.run(
        [sys.executable, "-m", "kubetape", *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        raise LabError(f"kubetape {' '.join(arguments[:2])} ended with status {done.returncode}")
    return done.stdout


def record(shop: Shop, bundle: Path, duration_s: float) -> None:
    """Record the machine, of it only the shop, and no command lines: the rest of it is nobody's business."""
    namespaces = [word for name in shop.namespaces for word in ("--namespace", name)]
    kubetape(
        "record", "-o", str(bundle), "--duration", f"{duration_s:g}s", "--from-dir", str(shop.k8s), "--no-arguments",
        *namespaces,
    )  # fmt: skip


def record_shop(bundle: Path, faults: Sequence[Fault], duration_s: float, rate: float) -> None:
    """Start a shop, switch the faults on, record it for `duration_s` seconds into `bundle`."""
    bundle.parent.mkdir(parents=True, exist_ok=True)
    with Shop(rate=rate) as shop:
        for fault in faults:
            shop.apply(fault)
        time.sleep(SETTLE_S)
        record(shop, bundle, duration_s)


def why_not_live() -> str:
    """Why nothing can be recorded here; "" where it can."""
    if os.geteuid() != 0:
        return "recording needs root"
    if not Path("/sys/kernel/btf/vmlinux").exists():
        return "this kernel has no BTF"
    done = subprocess.run([sys.executable, "-m", "kubetape", "doctor"], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else "kubetape doctor finds that eBPF cannot be used here"


def demo(folder: Path, duration_s: float) -> None:
    """Record and analyze; prints where the report is and its first findings."""
    bundle, report = folder / "demo.ktape", folder / "demo"
    if reason := why_not_live():
        print(f"{reason}: analyzing the recording that comes with kubetape instead ({SHIPPED.name})")
        bundle = SHIPPED
    else:
        faults = [FAULTS[name] for name in DEMO_FAULTS]
        print(f"a small shop with {len(faults)} faults is being recorded for {duration_s:g} s:", flush=True)
        for fault in faults:
            print(f"  {fault.title}", flush=True)
        record_shop(bundle, faults, duration_s, rate=30.0)
    kubetape("analyze", str(bundle), "-o", str(report))
    findings = json.loads((report / "results" / "finding.json").read_text())
    print(f"\nreport: {report / 'report.html'}   bundle: {bundle}\nits first findings:")
    for finding in findings[:FINDINGS_SHOWN]:
        print(f"\n{finding['rank']}. [{finding['severity']}] {finding['title']}\n   {finding['summary']}")
