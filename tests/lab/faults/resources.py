"""Faults of CPU and memory: of the node and of one container."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.lab.faults.fault import Answer, Fault

if TYPE_CHECKING:
    from tests.lab.pods import Pod
    from tests.lab.shop import Shop

QUOTA_US, PERIOD_US = 2_000, 100_000
# What the service may take beyond what it has; at 40 requests a second to three replicas enough for ten seconds.
SPARE_BYTES, LEAK_BYTES = 24 << 20, 160_000
ODD_REPLICA = 0


def _hog(shop: Shop) -> None:
    """Three busy loops for each CPU, outside of every pod."""
    for number in range(3 * (os.cpu_count() or 1)):
        shop.helpers[f"hog {number}"] = subprocess.Popen([sys.executable, "-c", "while True: pass"])


def _no_hog(shop: Shop) -> None:
    for name in [name for name in shop.helpers if name.startswith("hog ")]:
        process = shop.helpers.pop(name)
        process.kill()
        process.wait()


def _limit(shop: Shop, pod: Pod, controller: str, v1: str, v2: str, value: str) -> None:
    file = shop.tree.file(pod.container_cgroup, controller, v1)
    (file if file.exists() else shop.tree.file(pod.container_cgroup, controller, v2)).write_text(value)


def _throttle(shop: Shop) -> None:
    pod = shop.of("product")[ODD_REPLICA]
    _limit(shop, pod, "cpu", "cpu.cfs_quota_us", "cpu.max", str(QUOTA_US))


def _unthrottle(shop: Shop) -> None:
    pod = shop.of("product")[ODD_REPLICA]
    file = shop.tree.file(pod.container_cgroup, "cpu", "cpu.cfs_quota_us")
    if file.exists():
        file.write_text("-1")
    else:
        shop.tree.file(pod.container_cgroup, "cpu", "cpu.max").write_text("max")


def _no_memory(shop: Shop) -> None:
    """The service takes more and more memory, up to its limit, and is killed; the kubelet's part is left out."""
    pod = shop.of("product")[ODD_REPLICA]
    usage = shop.tree.file(pod.container_cgroup, "memory", "memory.usage_in_bytes")
    if not usage.exists():
        usage = shop.tree.file(pod.container_cgroup, "memory", "memory.current")
    limit = int(usage.read_text()) + SPARE_BYTES
    _limit(shop, pod, "memory", "memory.limit_in_bytes", "memory.max", str(limit))
    shop.control(pod, leak_bytes=LEAK_BYTES)


def _memory(shop: Shop) -> None:
    pod = shop.of("product")[ODD_REPLICA]
    shop.control(pod, leak_bytes=None)
    file = shop.tree.file(pod.container_cgroup, "memory", "memory.limit_in_bytes")
    if file.exists():
        file.write_text("-1")
    else:
        shop.tree.file(pod.container_cgroup, "memory", "memory.max").write_text("max")
    if pod.container is not None and pod.container.poll() is not None:
        pod.start(shop.tree, shop.command(pod), shop.folder)
        pod.wait_for_port()


FAULTS = (
    Fault(
        "cpu-hog",
        "busy loops outside of every pod use all CPUs of the node",
        _hog,
        _no_hog,
        lambda _shop: Answer(("cpu-saturated",), ("python", "no pod")),
    ),
    Fault(
        "throttled",
        f"one product pod may use {QUOTA_US / PERIOD_US:.0%} of a CPU",
        _throttle,
        _unthrottle,
        lambda shop: Answer(("cpu-throttled",), (shop.of("product")[ODD_REPLICA].name,)),
    ),
    Fault(
        "oom",
        "one product pod leaks memory up to its limit",
        _no_memory,
        _memory,
        lambda shop: Answer(("oom-kill",), (shop.of("product")[ODD_REPLICA].name,)),
    ),
)
