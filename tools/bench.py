"""Measurements beside other tools, in one run: `make bench` (root; servers and tools as for `make test`).

Recording: redis-benchmark against a private redis-server, in turn alone, under `kubetape record` and under tcpdump.
Analysis: see tools/bench_analysis.py.
Every figure is printed with its unit; ratios are medians of pairs from neighbouring runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tools import bench_analysis

KUBETAPE = [sys.executable, "-m", "kubetape"]
ROUNDS = 3
REQUESTS = 200_000
CLIENTS = 20


def main() -> int:
    missing = bench_analysis.needed()
    if missing or os.geteuid() != 0:
        print(f"bench: needs root and {', '.join(missing) or 'nothing else'}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="kubetape-bench-") as name:
        folder = Path(name)
        with bpf_stats(), redis(folder) as port:
            recording(folder, port)
        return bench_analysis.main([str(folder)])


@contextlib.contextmanager
def bpf_stats() -> Iterator[None]:
    """The kernel counts run time of every BPF program while this is open."""
    switch = Path("/proc/sys/kernel/bpf_stats_enabled")
    before = switch.read_text()
    switch.write_text("1")
    try:
        yield
    finally:
        switch.write_text(before)


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[int]:
    """A redis-server on a free loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    server = subprocess.Popen(
        ["redis-server", "--port", str(port), "--save", "", "--dir", str(folder)], stdout=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        server.wait()


def throughput(port: int, requests: int = REQUESTS) -> float:
    """Requests per second of redis-benchmark GET."""
    done = subprocess.run(
        ["redis-benchmark", "-p", str(port), "-t", "get", "-n", str(requests), "-c", str(CLIENTS), "-q"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.findall(r"([\d.]+) requests per second", done.stdout)
    return float(found[-1])


@contextlib.contextmanager
def recorder(bundle: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*KUBETAPE, "record", "-o", str(bundle), "--duration", "10m", "--no-kubernetes", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    time.sleep(4)  # compiled and attached; the figure for that is in the bundle
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        output = process.communicate()[0]
        if process.returncode:
            print(output, file=sys.stderr)


@contextlib.contextmanager
def tcpdump(pcap: Path, port: int) -> Iterator[None]:
    process = subprocess.Popen(
        ["tcpdump", "-i", "lo", "-B", "65536", "-w", str(pcap), "port", str(port)], stderr=subprocess.DEVNULL
    )
    time.sleep(1)
    try:
        yield
    finally:
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        process.wait()


def recording(folder: Path, port: int) -> None:
    print(f"recording: redis-benchmark GET, {CLIENTS} clients, {REQUESTS} requests a run, {ROUNDS} rounds in turn")
    ways: dict[str, list[float]] = {"alone": [], "record": [], "record, no payload": [], "tcpdump": []}
    bundle, pcap = folder / "bench.ktape", folder / "bench.pcap"
    throughput(port, 20_000)
    for _ in range(ROUNDS):
        ways["alone"].append(throughput(port))
        with recorder(bundle):
            ways["record"].append(throughput(port))
        with recorder(folder / "none.ktape", "--payload", "none"):
            ways["record, no payload"].append(throughput(port))
        with tcpdump(pcap, port):
            ways["tcpdump"].append(throughput(port))
    for way, values in ways.items():
        ratio = statistics.median(v / a for v, a in zip(values, ways["alone"], strict=True))
        print(f"  {way:<20} {statistics.median(values):>10.0f} requests/s   {ratio:.3f} of alone")
    costs(bundle, "with payload")
    costs(folder / "none.ktape", "without payload")
    manifest = json.loads(subprocess.run([*KUBETAPE, "info", "--json", str(bundle)], capture_output=True).stdout)
    rows = manifest["tables"]["socket_data"]["rows"]
    size = bundle.stat().st_size
    print(f"  bundle {size / 1e6:.1f} MB, {size / max(1, rows):.1f} bytes per socket event;", end=" ")
    print(f"pcap of the same traffic {pcap.stat().st_size / 1e6:.1f} MB: {size / pcap.stat().st_size:.3f} of it")


def costs(bundle: Path, what: str) -> None:
    """What the probes and the recorder itself used, from the bundle's manifest and heartbeats."""
    manifest = json.loads(subprocess.run([*KUBETAPE, "info", "--json", str(bundle)], capture_output=True).stdout)
    for probe in manifest["nodes"][0]["probes"]:
        if probe["run_count"] and probe["event_count"]:
            each = probe["run_ns"] / probe["run_count"]
            print(
                f"  {what}: {probe['probe']:<14} {probe['event_count']:>9} events, {probe['lost_count']} lost, "
                f"{each:.0f} ns a run"
            )
    query = (
        "SELECT max(cpu_ns) AS cpu_ns, max(ts_ns) - min(ts_ns) AS time_ns, max(events_count) AS events FROM heartbeat"
    )
    done = subprocess.run([*KUBETAPE, "sql", str(bundle), query, "--format", "json"], capture_output=True, text=True)
    for row in json.loads(done.stdout or "[]"):
        if row["time_ns"]:
            print(f"  {what}: the recorder itself used {100 * row['cpu_ns'] / row['time_ns']:.1f} % of one CPU")


if __name__ == "__main__":
    sys.exit(main())
