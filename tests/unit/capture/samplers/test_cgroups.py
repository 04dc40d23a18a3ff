"""Container cgroups of both versions from trees of files with real contents."""

from __future__ import annotations

from pathlib import Path

from kubetape.capture.samplers.cgroups import Cgroups, Hierarchies, find_hierarchies

C = "c8575b087da2c8b5d8f9e46341d48fd260464ce5a429712d4a98c009c752713d"
D = "896f37eb7c6aea213f86afc9aa47b9d67dd10594c69be35337859b2f500d61e7"
UID = "3f55ccfc-ebdd-4626-8cbb-c83d9c162f92"
POD = f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice"
SECOND = 1_000_000_000

V2_FILES = {
    "cpu.stat": "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 10\nnr_throttled 4\nthrottled_usec 70\n",
    "cpu.max": "50000 100000\n",
    "cpu.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n",
    "memory.current": "9000000\n",
    "memory.max": "max\n",
    "memory.stat": "anon 100\nfile 200\ninactive_file 1000000\n",
    "memory.events": "low 0\nhigh 3\nmax 2\noom 1\noom_kill 1\n",
    "pids.current": "5\n",
    "pids.max": "max\n",
    "io.stat": "254:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n8:0 rbytes=1 wbytes=1 rios=1 wios=1\n",
}


def _write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def _v2(root: Path) -> Cgroups:
    _write(root / POD / f"cri-containerd-{C}.scope", V2_FILES)
    _write(root / "system.slice" / "ssh.service", V2_FILES)
    return Cgroups(hierarchies=Hierarchies(unified=str(root)))


def test_v2_container(tmp_path: Path) -> None:
    cgroups = _v2(tmp_path)
    cgroups.refresh(0)
    (container,) = [c for c in cgroups.known.values() if not c.root]
    assert container.cgroup_id == (tmp_path / POD / f"cri-containerd-{C}.scope").stat().st_ino
    assert container.identity.pod_uid == UID
    row = cgroups.row(container)
    assert row == {
        "cgroup_id": container.cgroup_id,
        "cpu_usage_ns": 1_500_000,
        "cpu_user_ns": 1_000_000,
        "cpu_system_ns": 500_000,
        "cpu_quota_ns": 50_000_000,
        "cpu_period_ns": 100_000_000,
        "period_count": 10,
        "throttled_count": 4,
        "throttled_ns": 70_000,
        "memory_bytes": 9_000_000,
        "memory_limit_bytes": None,
        "memory_working_set_bytes": 8_000_000,
        "memory_high_count": 3,
        "memory_max_count": 2,
        "oom_count": 1,
        "oom_kill_count": 1,
        "process_count": 5,
        "process_limit": None,
        "io_read_bytes": 4097,
        "io_write_bytes": 8193,
        "psi_cpu_some_ns": 12_000,
        "psi_memory_some_ns": None,
        "psi_io_some_ns": None,
    }


def test_only_containers_and_the_roots_above_all_pods(tmp_path: Path) -> None:
    cgroups = _v2(tmp_path)
    cgroups.refresh(0)
    assert sorted(c.path for c in cgroups.known.values()) == [
        "/kubepods.slice",
        f"/{POD}/cri-containerd-{C}.scope",
    ]


def test_container_that_comes_and_one_that_goes(tmp_path: Path) -> None:
    cgroups = _v2(tmp_path)
    cgroups.refresh(0)
    _write(tmp_path / POD / f"cri-containerd-{D}.scope", V2_FILES)
    cgroups.refresh(SECOND)
    assert {c.identity.container_id for c in cgroups.known.values()} == {None, C, D}
    new_pod = tmp_path / POD.replace("3f55ccfc", "00000000") / f"cri-containerd-{'1' * 64}.scope"
    _write(new_pod, V2_FILES)
    cgroups.refresh(2 * SECOND)
    assert "1" * 64 in {c.identity.container_id for c in cgroups.known.values()}
    gone = next(c for c in cgroups.known.values() if c.identity.container_id == C)
    for file in (tmp_path / gone.path[1:]).iterdir():
        file.unlink()
    (tmp_path / gone.path[1:]).rmdir()
    assert cgroups.row(gone) is None
    cgroups.refresh(3 * SECOND)
    assert C not in {c.identity.container_id for c in cgroups.known.values()}
    # What was sampled once stays in the list that names the ids.
    assert C in {row["container_id"] for row in cgroups.cgroup_rows()}


def _v1(root: Path) -> dict[str, str]:
    path = f"kubepods/burstable/pod{UID}/{C}"
    _write(
        root / "cpu" / path,
        {
            "cpu.cfs_quota_us": "20000\n",
            "cpu.cfs_period_us": "100000\n",
            "cpu.stat": "nr_periods 9\nnr_throttled 2\nthrottled_time 12345\n",
        },
    )
    _write(root / "cpuacct" / path, {"cpuacct.usage": "777\n", "cpuacct.stat": "user 3\nsystem 1\n"})
    _write(
        root / "memory" / path,
        {
            "memory.usage_in_bytes": "5000\n",
            "memory.limit_in_bytes": "9223372036854771712\n",
            "memory.stat": "cache 1\ntotal_inactive_file 1000\n",
            "memory.failcnt": "6\n",
            "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        },
    )
    _write(root / "pids" / path, {"pids.current": "3\n", "pids.max": "100\n"})
    _write(
        root / "blkio" / path,
        {"blkio.throttle.io_service_bytes_recursive": "254:0 Read 10\n254:0 Write 20\n254:0 Total 30\nTotal 30\n"},
    )
    return {name: str(root / name) for name in ("cpu", "cpuacct", "memory", "pids", "blkio")}


def test_v1_container(tmp_path: Path) -> None:
    cgroups = Cgroups(hierarchies=Hierarchies(v1=_v1(tmp_path)))
    cgroups.refresh(0)
    (container,) = [c for c in cgroups.known.values() if not c.root]
    assert container.hierarchy == "memory"
    row = cgroups.row(container)
    assert row is not None
    assert row["cpu_usage_ns"] == 777
    assert (row["cpu_quota_ns"], row["period_count"], row["throttled_count"], row["throttled_ns"]) == (
        20_000_000,
        9,
        2,
        12_345,
    )
    assert (row["memory_bytes"], row["memory_working_set_bytes"], row["memory_limit_bytes"]) == (
        5000,
        4000,
        None,
    )
    assert (row["memory_max_count"], row["oom_kill_count"]) == (6, 2)
    assert (row["process_count"], row["process_limit"]) == (3, 100)
    assert (row["io_read_bytes"], row["io_write_bytes"]) == (10, 20)


def test_hybrid_id_is_that_of_the_unified_tree_and_numbers_are_v1(tmp_path: Path) -> None:
    v1 = _v1(tmp_path)
    unified = tmp_path / "unified" / "kubepods" / "burstable" / f"pod{UID}" / C
    _write(
        unified,
        {"cpu.stat": "usage_usec 1\nuser_usec 1\nsystem_usec 0\n", "memory.pressure": "some total=4\n"},
    )
    for early in (False, True):
        # The unified tree may have been empty when the recorder looked for a tree to walk.
        cgroups = Cgroups(hierarchies=Hierarchies(v1=v1, unified=str(tmp_path / "unified")))
        if early:
            cgroups.hierarchy, cgroups.mount = "memory", v1["memory"]
        cgroups.refresh(0)
        (container,) = [c for c in cgroups.known.values() if not c.root]
        assert (container.cgroup_id, container.hierarchy) == (unified.stat().st_ino, "v2")
        row = cgroups.row(container)
        assert row is not None
        assert (row["cpu_usage_ns"], row["memory_bytes"], row["psi_memory_some_ns"]) == (777, 5000, 4000)


def test_mounts_of_a_hybrid_node(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "mountinfo").write_text(
        "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
        "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
        "99 31 0:32 /docker/x /run/x rw - cgroup cgroup rw,memory\n"
    )
    found = find_hierarchies(str(tmp_path))
    assert found.unified == "/sys/fs/cgroup/unified"
    assert found.v1 == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "memory": "/sys/fs/cgroup/memory",
    }
