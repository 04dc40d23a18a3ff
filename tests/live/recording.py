"""Run the recorder as a user does, and look into the bundle it wrote."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from kubetape.bundle.reader import Bundle

# An emulated machine (tools/test_kernel.sh) is so many times slower; time limits grow with it.
SLOWER = float(os.environ.get("KUBETAPE_SLOWER", "1"))
RECORD = [sys.executable, "-m", "kubetape", "record", "--no-kubernetes"]


def record(output: Path, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """kubetape record with these arguments; fails the test where it fails."""
    done = subprocess.run(
        [*RECORD, "-o", str(output), *arguments], capture_output=True, text=True, timeout=timeout * SLOWER
    )
    assert done.returncode == 0, done.stderr
    return done


def rows(bundle: Bundle, table: str, **equal: Any) -> list[dict[str, Any]]:
    """The rows of a table with these values."""
    return [r for r in bundle.table(table).to_pylist() if all(r[k] == v for k, v in equal.items())]


def one(found: list[dict[str, Any]]) -> dict[str, Any]:
    assert len(found) == 1, found
    return found[0]


def stream(bundle: Bundle, connection_id: int, direction: str) -> bytes:
    """The payload of one direction; asserts that positions are contiguous and nothing was cut."""
    found = rows(bundle, "socket_data", connection_id=connection_id, direction=direction)
    data = b""
    position = None
    for row in found:
        assert row["size_bytes"] == len(row["payload"])
        assert position in (None, row["position"])
        position = row["position"] + row["size_bytes"]
        data += row["payload"]
    return data
