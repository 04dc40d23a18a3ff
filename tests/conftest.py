"""What tests need from the machine.

On a person's machine a test that needs root, eBPF, the lab's servers or the capture corpus is skipped where
they are missing. In CI (`CI=true`) it fails there: a check that silently did not run is no check.
"""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT.parent / "shared" / "corpus"
LAB_PROGRAMS = ("mariadbd", "mariadb-install-db", "redis-server", "nginx", "dnsmasq", "nft", "ip", "nsenter")


@functools.cache
def missing_for(marker: str) -> str:
    """Why tests with this marker cannot run here, or "" where they can."""
    if marker == "corpus":
        return "" if (CORPUS / "MANIFEST.tsv").exists() else f"no capture corpus at {CORPUS}"
    if os.geteuid() != 0:
        return "needs root"
    if marker == "live" and not Path("/sys/kernel/btf/vmlinux").exists():
        return "the kernel has no BTF"
    if marker == "lab":
        absent = [program for program in LAB_PROGRAMS if not shutil.which(program)]
        return f"not installed: {', '.join(absent)} (tools/setup.sh test)" if absent else ""
    return ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in ("corpus", "live", "lab"):
        if item.get_closest_marker(marker) and (reason := missing_for(marker)):
            if os.environ.get("CI") == "true":
                pytest.fail(f"{marker}: {reason}", pytrace=False)
            pytest.skip(f"{marker}: {reason}")


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of the capture corpus; for tests marked `corpus`."""
    return CORPUS
