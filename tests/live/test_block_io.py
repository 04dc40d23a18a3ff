"""Requests to a real disk, made past the page cache: each byte is found, with its device, its process and its time."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from kubetape.analyze.analysis import Analysis
from kubetape.bundle.reader import Bundle
from tests.live.recording import record, rows

pytestmark = pytest.mark.live

READS, WRITES, SIZE = 40, 20, 1 << 16
# Prints its pid and how long it waited for reads and writes, ns.
PROGRAM = f"""
import json, mmap, os, sys, time
page = mmap.mmap(-1, {SIZE}); page.write(os.urandom({SIZE}))
file = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
begin = time.monotonic_ns()
for n in range({READS}): os.preadv(file, [page], n * {SIZE})
middle = time.monotonic_ns()
for n in range({WRITES}): os.pwritev(file, [page], n * {SIZE})
print(json.dumps([os.getpid(), middle - begin, time.monotonic_ns() - middle]))
"""


def disk_of(path: Path) -> str:
    """The name of the block device that holds a file, as in /sys/block; "" where it is none."""
    device = os.stat(path).st_dev
    link = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    if not link.exists():
        return ""
    whole = link.resolve()
    return whole.parent.name if (whole / "partition").exists() else whole.name


def test_every_byte_with_its_device_its_process_and_its_time(tmp_path: Path) -> None:
    disk = disk_of(tmp_path)
    if not disk and not os.environ.get("CI"):
        pytest.skip("the folder for temporary files is on no disk")
    file = tmp_path / "file"
    file.write_bytes(os.urandom(READS * SIZE))
    os.sync()
    done = record(tmp_path / "x.ktape", "--", sys.executable, "-c", PROGRAM, str(file))
    pid, read_ns, written_ns = json.loads(done.stdout.splitlines()[0])
    bundle = Bundle(tmp_path / "x.ktape")

    for operation, count, spent_ns in (("read", READS, read_ns), ("write", WRITES, written_ns)):
        mine = [r for r in rows(bundle, "block_io", pid=pid, operation=operation) if r["device"] == disk]
        # Python reads its own modules, too, in other sizes.
        data = [r for r in mine if r["size_bytes"] == SIZE]
        assert len(data) == count
        assert all(r["duration_ns"] > 0 and not r["is_error"] and r["command"].startswith("python") for r in data)
        on_device = sum(r["duration_ns"] for r in data)
        assert 0.2 * spent_ns < on_device < spent_ns
    asked = Analysis(tmp_path / "x.ktape").query(
        f"SELECT operation, request_count FROM disk_summary WHERE name LIKE 'python%' AND device = '{disk}' "
        f"AND size_bytes % {SIZE} = 0"
    )
    assert {(r["operation"], r["request_count"]) for r in asked.to_pylist()} >= {("write", WRITES)}
    assert [p.status for p in bundle.manifest.nodes[0].probes if p.probe == "block_io"] == ["attached"]
