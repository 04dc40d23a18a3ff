"""Try every probe on this node and let go again."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from kubetape.bundle.manifest import ProbeStatus
from kubetape.capture import load, recorder
from kubetape.capture.headers import architecture
from kubetape.capture.samplers.cgroups import find_hierarchies


@dataclass
class Report:
    """What `kubetape doctor` answers. facts: other things a user should know, one line each."""

    kernel: str
    architecture: str
    bcc: str
    header_source: str
    load_seconds: float
    probes: list[ProbeStatus]
    facts: list[str]


def examine() -> Report:
    """Raises CaptureError, one clear line, where nothing at all can be recorded."""
    recorder.check_privileges()
    arch = architecture()
    began = time.monotonic()
    loaded = load.load(load.Settings(ring_bytes=1 << 20, stack_hz=99), recorder.kernel_types())
    seconds = time.monotonic() - began
    loaded.detach()
    return Report(
        kernel=os.uname().release,
        architecture=arch,
        bcc=f"bcc {loaded.module.bcc}",
        header_source=loaded.header_source,
        load_seconds=round(seconds, 2),
        probes=loaded.statuses,
        facts=_facts(loaded),
    )


def _facts(loaded: load.Loaded) -> list[str]:
    facts = []
    if not loaded.settings.direct:
        facts.append(
            "kernel memory is read through a helper: an event costs about twice as much (typed tracepoints refused)"
        )
    hierarchies = find_hierarchies()
    if hierarchies.unified is None:
        facts.append("no cgroup v2 tree is mounted: containers are told apart by process, not in the kernel")
    elif hierarchies.v1:
        facts.append(f"cgroups v1 and v2 side by side; containers are named in {(hierarchies.naming or ('',))[0]}")
    # The host's first pid namespace has a fixed number (PROC_PID_INIT_INO, include/linux/proc_ns.h).
    if os.stat("/proc/self/ns/pid").st_ino != 0xEFFFFFFC:
        facts.append("not in the host's pid namespace: processes of other containers cannot be named")
    return facts
