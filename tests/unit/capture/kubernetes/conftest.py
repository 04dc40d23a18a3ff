"""Where the whole set of real Kubernetes objects stands."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[5] / "shared" / "k8s"


@pytest.fixture(scope="session")
def shared_k8s() -> Path:
    """../shared/k8s; skips where it is absent, fails in CI."""
    if not SHARED.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{SHARED} is missing")
        pytest.skip(f"{SHARED} is missing")
    return SHARED
