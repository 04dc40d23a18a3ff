"""The recording that comes with kubetape: made by the lab, without the processes of the machine it was made on.

python -m tests.lab ship        writes tests/data/demo.ktape
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from kubetape.bundle.manifest import Manifest
from kubetape.bundle.reader import Bundle
from kubetape.bundle.writer import BundleWriter
from tests.lab.demo import DEMO_FAULTS, SHIPPED, record_shop
from tests.lab.faults import FAULTS

# Every row of these tells of one process, wherever on the machine it runs.
BY_PROCESS = ("process", "thread", "process_event", "process_sample", "listener")
DURATION_S = 20.0


def ship() -> None:
    """Record the demo's shop, keep of the machine's processes only the shop's, and write the bundle."""
    with tempfile.TemporaryDirectory() as folder:
        recorded = Path(folder) / "demo.ktape"
        record_shop(recorded, [FAULTS[name] for name in DEMO_FAULTS], DURATION_S, rate=30.0)
        without_strangers(recorded, SHIPPED)


def without_strangers(source: Path, target: Path) -> None:
    """A copy of a bundle in which every process belongs to a container."""
    bundle = Bundle(source)
    cgroups = bundle.table("cgroup")
    contained = cgroups.filter(pc.is_valid(cgroups["container_id"]))["cgroup_id"]
    processes = bundle.table("process")
    pids = processes.filter(pc.is_in(processes["cgroup_id"], contained))["pid"]

    def kept(name: str) -> Any:
        table = bundle.table(name)
        if name == "cgroup":
            return table.filter(pc.is_valid(table["container_id"]))
        return table.filter(pc.is_in(table["pid"], pids)) if name in BY_PROCESS else table

    for node in bundle.manifest.nodes:
        node.command_line = ["kubetape", *node.command_line[1:]]
        node.boot_id = ""
        node.notes.append("made by the lab; processes that belong to no container were left out afterwards")
    with BundleWriter(target, Manifest(nodes=bundle.manifest.nodes, extra=bundle.manifest.extra)) as writer:
        for name in bundle.table_names:
            writer.write(name, kept(name))
