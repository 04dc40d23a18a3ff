"""The lab starts, stops without a trace, and two of them coexist."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.lab.cgroups import CgroupTree
from tests.lab.shop import Shop, remove_by_state, states

pytestmark = pytest.mark.lab

HOLD_A_SHOP = """
import time
from tests.lab.shop import Shop
with Shop(rate=0) as shop:
    print(shop.lab_id, flush=True)
    time.sleep(60)
"""


def get(shop: Shop, path: str) -> int:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{shop.one('gateway').ip}{path}", timeout=10) as answer:
        return int(answer.status)


def leaves_no_trace(shop: Shop) -> bool:
    mounts = set(CgroupTree("").mounts.values())
    return not (
        shop.folder.exists() or shop.bridge.exists() or any((mount / shop.tree.root).exists() for mount in mounts)
    )


def test_two_shops_coexist_and_leave_no_trace() -> None:
    with Shop(rate=0) as one, Shop(rate=0) as other:
        assert one.bridge.subnet != other.bridge.subnet
        assert get(one, "/products/1") == get(other, "/products?category=3") == 200
        cgroup = Path(f"/proc/{one.one('mysql').pause_pid}/cgroup").read_text()
        assert f"/kubepods/burstable/pod{one.one('mysql').uid}/" in cgroup
    assert leaves_no_trace(one)
    assert leaves_no_trace(other)


def test_what_a_killed_lab_leaves_behind_can_be_removed() -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD_A_SHOP], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lab_id = process.stdout.readline().strip()
        process.send_signal(signal.SIGKILL)
    (state,) = [s for s in states() if s.lab_id == lab_id]
    tree = CgroupTree(f"kt{lab_id}")
    assert len(tree.processes()) >= 8
    remove_by_state(state)
    assert lab_id not in [s.lab_id for s in states()]
    assert not (tree.mounts[""] / tree.root).exists()
