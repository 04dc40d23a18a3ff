"""The node as a whole: node_sample, cpu_sample, disk_sample, filesystem_sample.

Source of the formats: proc(5), Documentation/admin-guide/iostats.rst, net/core/net-procfs.c (softnet_stat).
"""

from __future__ import annotations

import os
from typing import Any

from kubetape.capture.samplers.files import host_root, key_values, psi_totals, read

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
SECTOR_BYTES = 512  # of /proc/diskstats, whatever the device's own sector is

# Memory file systems that programs do fill up, by where they are mounted.
_TMPFS_OF_INTEREST = ("/", "/tmp", "/run", "/dev/shm", "/var/tmp")
_DISK_TYPES_WITHOUT_DEVICE = ("zfs", "btrfs", "bcachefs")

Row = dict[str, Any]


def node_row(proc: str = "/proc") -> Row | None:
    """One node_sample row without node and ts_ns; None where /proc is not readable."""
    load = read(f"{proc}/loadavg")
    if not load:
        return None
    memory = key_values(read(f"{proc}/meminfo"))
    vm = key_values(read(f"{proc}/vmstat"))
    totals = {}
    for line in (read(f"{proc}/stat") or b"").splitlines():
        if line.startswith((b"ctxt ", b"processes ", b"procs_")):
            name, _, value = line.partition(b" ")
            totals[name] = int(value)
    files = (read(f"{proc}/sys/fs/file-nr") or b"0 0 0").split()
    cpu_some, _ = psi_totals(read(f"{proc}/pressure/cpu"))
    memory_some, memory_full = psi_totals(read(f"{proc}/pressure/memory"))
    io_some, io_full = psi_totals(read(f"{proc}/pressure/io"))
    kib = 1024
    return {
        "load1": float(load.split()[0]),
        "running_count": totals.get(b"procs_running", 0),
        "blocked_count": totals.get(b"procs_blocked", 0),
        "memory_total_bytes": memory.get(b"MemTotal", 0) * kib,
        "memory_available_bytes": memory.get(b"MemAvailable", 0) * kib,
        "memory_free_bytes": memory.get(b"MemFree", 0) * kib,
        "cached_bytes": memory.get(b"Cached", 0) * kib,
        "swap_total_bytes": memory.get(b"SwapTotal", 0) * kib,
        "swap_free_bytes": memory.get(b"SwapFree", 0) * kib,
        "dirty_bytes": memory.get(b"Dirty", 0) * kib,
        "page_in_count": vm.get(b"pgpgin", 0),
        "page_out_count": vm.get(b"pgpgout", 0),
        "swap_in_count": vm.get(b"pswpin", 0),
        "swap_out_count": vm.get(b"pswpout", 0),
        "major_fault_count": vm.get(b"pgmajfault", 0),
        "oom_kill_count": vm.get(b"oom_kill", 0),
        "context_switch_count": totals.get(b"ctxt", 0),
        "fork_count": totals.get(b"processes", 0),
        "psi_cpu_some_ns": cpu_some,
        "psi_memory_some_ns": memory_some,
        "psi_memory_full_ns": memory_full,
        "psi_io_some_ns": io_some,
        "psi_io_full_ns": io_full,
        "file_handle_count": int(files[0]),
        "file_handle_max": int(files[2]),
    }


_CPU_FIELDS = ("user_ns", "nice_ns", "system_ns", "idle_ns", "iowait_ns", "irq_ns", "softirq_ns", "steal_ns")


def _softnet(proc: str) -> dict[int, tuple[int, int, int]]:
    """CPU -> (processed, dropped, squeezed)."""
    found = {}
    for order, line in enumerate((read(f"{proc}/net/softnet_stat") or b"").splitlines()):
        fields = line.split()
        if len(fields) >= 3:
            # The CPU stands in the 13th column since Linux 5.10; before, only CPUs online have a line.
            cpu = int(fields[12], 16) if len(fields) > 12 else order
            found[cpu] = (int(fields[0], 16), int(fields[1], 16), int(fields[2], 16))
    return found


def cpu_rows(proc: str = "/proc") -> list[Row]:
    """One cpu_sample row per CPU online, without node and ts_ns."""
    softnet = _softnet(proc)
    rows = []
    for line in (read(f"{proc}/stat") or b"").splitlines():
        if not line.startswith(b"cpu"):
            break
        fields = line.split()
        if fields[0] == b"cpu" or not fields[0][3:].isdigit():
            continue
        cpu = int(fields[0][3:])
        row: Row = {"cpu": cpu}
        for name, value in zip(_CPU_FIELDS, [*fields[1:9], *[b"0"] * 8], strict=False):
            row[name] = int(value) * TICK_NS
        processed, dropped, squeezed = softnet.get(cpu, (None, None, None))
        row["softnet_processed_count"] = processed
        row["softnet_dropped_count"] = dropped
        row["softnet_squeezed_count"] = squeezed
        rows.append(row)
    return rows


class Disks:
    """disk_sample rows: whole devices that have done any I/O (partitions are part of their disk)."""

    def __init__(self, proc: str = "/proc", sys: str = "/sys") -> None:
        self.proc, self.sys = proc, sys
        self._whole: dict[bytes, bool] = {}

    def _is_whole(self, name: bytes) -> bool:
        known = self._whole.get(name)
        if known is None:
            # A device's `/` is `!` in sysfs (cciss/c0d0).
            folder = f"{self.sys}/block/{name.decode(errors='replace').replace('/', '!')}"
            known = self._whole[name] = os.path.isdir(folder)
        return known

    def rows(self) -> list[Row]:
        """Without node and ts_ns; counters since boot."""
        rows = []
        for line in (read(f"{self.proc}/diskstats") or b"").splitlines():
            f = line.split()
            if len(f) < 14 or (f[3] == b"0" and f[7] == b"0") or not self._is_whole(f[2]):
                continue
            rows.append(
                {
                    "device": f[2].decode(errors="replace"),
                    "read_count": int(f[3]),
                    "read_bytes": int(f[5]) * SECTOR_BYTES,
                    "read_time_ns": int(f[6]) * 1_000_000,
                    "write_count": int(f[7]),
                    "write_bytes": int(f[9]) * SECTOR_BYTES,
                    "write_time_ns": int(f[10]) * 1_000_000,
                    "in_flight_count": int(f[11]),
                    "busy_ns": int(f[12]) * 1_000_000,
                }
            )
        return rows


def _unescape(text: str) -> str:
    """Blanks and backslashes are written in octal in /proc/mounts (fs/proc_namespace.c, mangle)."""
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def filesystem_rows(proc: str = "/proc") -> list[Row]:
    """filesystem_sample rows without node and ts_ns: those on devices, and memory ones that fill up.

    Network file systems are left out on purpose: asking a dead server for its size would hang the recorder.
    """
    mounts = read(f"{proc}/1/mounts") or read(f"{proc}/self/mounts") or b""
    prefix = host_root(proc)
    with_device = {
        line.strip().decode()
        for line in (read(f"{proc}/filesystems") or b"").splitlines()
        if line and not line.startswith(b"nodev")
    }
    rows = []
    seen = set()
    for line in mounts.decode(errors="replace").splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        device, point, kind = _unescape(fields[0]), _unescape(fields[1]), fields[2]
        on_disk = (kind in with_device and kind != "fuseblk") or kind in _DISK_TYPES_WITHOUT_DEVICE
        fills_up = (kind == "tmpfs" and point in _TMPFS_OF_INTEREST) or (kind == "overlay" and point == "/")
        if not (on_disk or fills_up):
            continue
        try:
            number = os.stat(prefix + point).st_dev
            size = os.statvfs(prefix + point)
        except OSError:
            continue
        if number in seen or size.f_blocks == 0:
            continue
        seen.add(number)
        rows.append(
            {
                "mount_point": point,
                "device": device,
                "type": kind,
                "size_bytes": size.f_blocks * size.f_frsize,
                "free_bytes": size.f_bavail * size.f_frsize,
                "inode_count": size.f_files,
                "inode_free_count": size.f_ffree,
            }
        )
    return rows
