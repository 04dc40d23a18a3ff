"""The lab starts, stops without a trace, and two of them coexist."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.lab.cgroups import CgroupTree
from tests.lab.shop import Shop, remove_by_state, states

pytestmark = pytest.mark.lab


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
    program = "import time\nfrom tests.lab.shop import Shop\nwith Shop(rate=0) as s:\n print(s.lab_id, flush=True)\n time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lab_id = process.stdout.readline().strip()
        process.send_signal(signal.SIGKILL)
    (state,) = [s for s in states() if s.lab_id == lab_id]
    tree = CgroupTree(f"kt{lab_id}")
    pids = tree.processes()
    assert len(pids) >= 8
    remove_by_state(state)
    assert lab_id not in [s.lab_id for s in states()]
    assert not (tree.mounts[""] / tree.root).exists()
    deadline = time.monotonic() + 5
    while any(os.path.exists(f"/proc/{pid}/ns/net") and _alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
