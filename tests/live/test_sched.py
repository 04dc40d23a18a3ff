"""Sleeps, a busy loop and a shared CPU, against the kernel's own account of the same thread."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubetape.bundle.reader import Bundle
from tests.lab.cgroups import CgroupTree
from tests.live.recording import one, record, rows

pytestmark = pytest.mark.live

# Prints, for the stretch of time given, what /proc says of each thread: on the CPU, waiting for one (ns).
WORKLOAD = """
import hashlib, json, os, socket, threading, time
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
client.send(b"mark me"); server.accept()[0].recv(7)
time.sleep(0.01)
known = {"pid": os.getpid(), "threads": []}
def account():
    on, waiting, _ = open(f"/proc/self/task/{threading.get_native_id()}/schedstat").read().split()
    return int(on), int(waiting), time.monotonic_ns()
def watched(name, work):
    def run():
        os.sched_setaffinity(threading.get_native_id(), {min(os.sched_getaffinity(0))})
        time.sleep(0.01)
        begin = account(); work(); end = account()
        known["threads"].append([name, threading.get_native_id(), begin, end])
    return threading.Thread(target=run)
def spin():
    end = time.thread_time_ns() + 400_000_000
    while time.thread_time_ns() < end: hashlib.pbkdf2_hmac("sha256", b"of 8 B", b"no lock", 20_000)
def sleeps():
    for _ in range(50): time.sleep(0.004)
for group in ([("sleeps", sleeps)], [("spin", spin)], [("spin one", spin), ("spin two", spin)]):
    threads = [watched(*one) for one in group]
    for t in threads: t.start()
    for t in threads: t.join()
print(json.dumps(known))
"""


def test_as_long_on_and_off_the_cpu_as_the_kernel_accounts(tmp_path: Path) -> None:
    done = record(tmp_path / "x.ktape", "--", sys.executable, "-c", WORKLOAD)
    known = json.loads(done.stdout.splitlines()[0])
    slices = rows(Bundle(tmp_path / "x.ktape"), "sched_slice", pid=known["pid"])

    for name, tid, (on, waiting, begin), (on_end, waiting_end, end) in known["threads"]:
        spent: dict[str, int] = defaultdict(int)
        sleeps = []
        for part in (s for s in slices if s["tid"] == tid):
            inside = min(end, part["ts_ns"] + part["duration_ns"]) - max(begin, part["ts_ns"])
            if inside > 0:
                spent[part["state"]] += inside
                if part["state"] == "sleeping" and part["syscall"] == "clock_nanosleep":
                    sleeps.append(part["duration_ns"])
        total = end - begin
        assert sum(spent.values()) == pytest.approx(total, rel=0.02), name
        assert spent["running"] == pytest.approx(on_end - on, rel=0.02, abs=0.02 * total), name
        # Where a switch was missed, waits between two stays are one with the sleep or wait before them.
        assert spent["runnable"] == pytest.approx(waiting_end - waiting, rel=0.02, abs=0.05 * total), name
        if name == "sleeps":
            assert 49 <= len(sleeps) <= 50
            assert sorted(sleeps)[1] >= 3_900_000
        if name in ("spin one", "spin two"):  # on one CPU: each waits while the other runs
            assert spent["runnable"] > 200_000_000, name


def test_no_slices_when_not_asked_for(tmp_path: Path) -> None:
    record(tmp_path / "x.ktape", "--sched", "none", "--", "true")
    bundle = Bundle(tmp_path / "x.ktape")
    assert rows(bundle, "sched_slice") == []
    assert {p.status for p in bundle.manifest.nodes[0].probes if p.probe == "sched_slice"} == {"off"}


# Spins for two seconds of the clock.
SPIN = """
import time
time.sleep(0.2)
end = time.monotonic() + 2
while time.monotonic() < end: pass
"""


@pytest.fixture
def tree() -> Iterator[CgroupTree]:
    made = CgroupTree("kubetape-test")
    yield made
    made.kill()
    made.remove()


def joined(tree: CgroupTree, path: str, *command: str) -> list[str]:
    """A command line that runs another one inside a cgroup, in every hierarchy."""
    enter = "".join(f"echo $$ > {file}; " for file in tree.make(path))
    return ["/bin/sh", "-c", f'{enter}exec "$0" "$@"', *command]


def limit(tree: CgroupTree, path: str, controller: str, first: tuple[str, str], unified: tuple[str, str]) -> None:
    """Set a limit, by its name in a hierarchy of version 1 or in the unified one."""
    for name, value in (first, unified):
        file = tree.file(path, controller, name)
        if file.exists():
            file.write_text(value)
            return
    pytest.fail(f"no controller {controller} is mounted")


def test_a_throttled_cgroup_is_not_running_half_of_the_time(tmp_path: Path, tree: CgroupTree) -> None:
    half = "kubepods/pod0a0a0a0a-0000-4000-8000-000000000001/" + 64 * "c"  # the form a container has
    command = joined(tree, half, sys.executable, "-c", SPIN)
    limit(tree, half, "cpu", ("cpu.cfs_quota_us", "50000"), ("cpu.max", "50000 100000"))
    record(tmp_path / "x.ktape", "--sched", "all", "--", *command)
    bundle = Bundle(tmp_path / "x.ktape")
    (pid,) = {r["pid"] for r in rows(bundle, "process_event", kind="exec") if SPIN.strip() in (r["arguments"] or "")}

    spent: dict[str, int] = defaultdict(int)
    for part in rows(bundle, "sched_slice", tid=pid):
        spent[part["state"]] += part["duration_ns"]
    # Stopped by its limit it is ready to run and does not, for about half of the time.
    assert 0.7e9 < spent["running"] < 1.5e9
    assert spent["runnable"] > 0.6e9
    samples = rows(bundle, "cgroup_sample")
    paths = {c["cgroup_id"]: c["path"] for c in rows(bundle, "cgroup")}
    mine = [s for s in samples if paths.get(s["cgroup_id"], "").endswith(half)]
    assert max(s["throttled_count"] or 0 for s in mine) >= 5


def test_an_oom_kill_names_the_victim_and_its_cgroup(tmp_path: Path, tree: CgroupTree) -> None:
    hungry = "taken = []\nwhile True: taken.append(bytearray(b'x') * (1 << 20))"
    command = joined(tree, "small", sys.executable, "-c", hungry)
    limit(tree, "small", "memory", ("memory.limit_in_bytes", "64M"), ("memory.max", "64M"))
    swap = tree.file("small", "memory", "memory.swap.max")
    if swap.exists():
        swap.write_text("0")
    record(tmp_path / "x.ktape", "--", *command)
    bundle = Bundle(tmp_path / "x.ktape")

    kill = one(rows(bundle, "process_event", kind="oom_kill"))
    end = one(rows(bundle, "process_event", kind="exit", pid=kill["pid"]))
    assert end["exit_signal"] == 9
    path = one(rows(bundle, "cgroup", cgroup_id=kill["cgroup_id"]))["path"]
    assert path.endswith("/kubetape-test/small")
    assert kill["command"].startswith("python")
