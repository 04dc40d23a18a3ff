"""A snapshot by itself as a bundle."""

from __future__ import annotations

import os
import platform
import sys
import time

from kubetape.bundle import ClockAnchor, Manifest, Node
from kubetape.bundle.writer import BundleWriter
from kubetape.capture.kubernetes.snapshot import Snapshot


def write_snapshot(path: str, snapshot: Snapshot, name: str) -> None:
    """Write the bundle; raises BundleError where that is not possible. name: of the manifest's one node."""
    before = time.monotonic_ns()
    realtime = time.time_ns()
    after = time.monotonic_ns()
    node = Node(
        name,
        kernel=platform.release(),
        architecture=platform.machine(),
        cpu_count=os.cpu_count() or 0,
        clock=[ClockAnchor((before + after) // 2, realtime, (after - before + 1) // 2)],
        command_line=sys.argv,
        source="snapshot",
        start_ns=before,
        end_ns=before,
        stop_reason="command",
        notes=snapshot.notes,
        facts=snapshot.facts,
    )
    with BundleWriter(path, Manifest(nodes=[node])) as writer:
        for table, rows in sorted(snapshot.rows.items()):
            if rows:
                writer.write_rows(table, rows)
