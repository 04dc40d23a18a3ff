"""Clocks that differ: both nodes of the two-node lab recorded, one of them with its wall clock set ahead, and merged.

The machine has one clock; what a recorder on the other node would have written is made by shifting its anchors.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from tests.lab.demo import kubetape
from tests.lab.diagnose import Result, judge_again, keep
from tests.lab.errors import LabError
from tests.lab.faults import Answer
from tests.lab.two_nodes import TwoNodes

NAME = "clock-skew"
AHEAD_MS = 80
REQUESTS = 25
READY_TIMEOUT_S = 20.0


def run(folder: Path) -> Result:
    """Record, shift, merge, analyze; prints one line."""
    folder.mkdir(parents=True, exist_ok=True)
    bundles = [folder / f"{NAME}-{node}.ktape" for node in "ab"]
    merged = folder / f"{NAME}.ktape"
    for path in (*bundles, merged):
        path.unlink(missing_ok=True)
    with TwoNodes() as lab:
        recorders = [
            _recorder(lab, bundle, node, namespace)
            for bundle, node, namespace in zip(bundles, ("node-a", "node-b"), ("front", "back"), strict=True)
        ]
        lab.ask(REQUESTS)
        for process in recorders:
            process.terminate()
            if process.wait(60):
                raise LabError("a recorder failed")
    set_ahead(bundles[1], AHEAD_MS)
    kubetape("merge", *map(str, bundles), "-o", str(merged))
    answer = Answer(("clock-skew",), ("node-a", "node-b", f"{AHEAD_MS}"))
    keep(merged, NAME, [answer])
    return judge_again(merged)


def set_ahead(bundle: Path, ms: int) -> None:
    """The bundle as if its node's wall clock had been ahead."""
    with zipfile.ZipFile(bundle) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members["manifest.json"])
    for node in manifest["nodes"]:
        for anchor in node["clock"]:
            anchor["realtime_ns"] += ms * 1_000_000
    members["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def _recorder(lab: TwoNodes, bundle: Path, node: str, namespace: str) -> subprocess.Popen[bytes]:
    """A recorder that records: its spool has the state of the world."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kubetape", "record", "-o", str(bundle), "--duration", "60s",
         "--from-dir", str(lab.k8s), "--namespace", namespace],
        stdout=subprocess.DEVNULL, env=os.environ | {"NODE_NAME": node},
    )  # fmt: skip
    spool = Path(f"{bundle}.spool")
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not (spool.exists() and b'"what":"cgroups"' in spool.read_bytes()):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise LabError("the recorder did not start")
        time.sleep(0.05)
    return process
