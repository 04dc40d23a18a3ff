"""Healthy shops under different loads: a report on any of them has nothing to say above notice."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.lab.shop import Shop

# Reads a few hundred megabytes every other second, for part of one CPU.
_CRON = "while :; do sha256sum /usr/lib/*/lib*.so* >/dev/null 2>&1; sleep 3; done"


@dataclass(frozen=True)
class Load:
    """rate: requests per second; workers: clients; uses: requests on a connection; prepare: what else there is."""

    name: str
    rate: float = 40.0
    workers: int = 8
    uses: int = 25
    duration_s: float = 15.0
    prepare: Callable[[Shop], None] = lambda _shop: None


def _large(shop: Shop) -> None:
    for pod in shop.of("product"):
        shop.control(pod, answer_bytes=100_000)


def _far(shop: Shop) -> None:
    """All replicas take their time, and the same time."""
    for pod in shop.of("product"):
        shop.control(pod, extra_ms=150)


def _cron(shop: Shop) -> None:
    shop.helpers["cron"] = subprocess.Popen(["sh", "-c", _CRON], stdin=subprocess.DEVNULL)


def _wide_pool(shop: Shop) -> None:
    """Pools with a limit that is not reached."""
    for pod in shop.of("product"):
        shop.control(pod, pool_size=6)


LOADS = {
    load.name: load
    for load in (
        Load("usual"),
        Load("nobody", rate=0),
        Load("few", rate=1, workers=1),
        Load("many", rate=110, workers=24),
        Load("one-client", rate=50, workers=1, uses=1_000_000),
        Load("no-keep-alive", rate=30, uses=1),
        Load("large-answers", rate=20, prepare=_large),
        Load("slow-but-steady", workers=16, prepare=_far),
        Load("beside-cron", prepare=_cron),
        Load("short", duration_s=5.0),
        Load("limited-pool", rate=60, prepare=_wide_pool),
    )
}
