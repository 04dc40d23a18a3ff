"""What recording costs while it runs: `python -m tools.bench_recording` (root), part of `make bench`.

- nanoseconds per run of each probe, as the kernel counts them (kernel.bpf_stats_enabled), on redis-benchmark SET and
  GET of 256-byte values: with payload and without; beside it an empty program on the same hook, which costs what
  counting and calling cost
- requests per second of redis-benchmark: alone, with the default recording, with everything on, with tcpdump, in turn;
  ratios are medians of the rounds, each to the run alone of its own round
- the recorder's own CPU, memory and time to start, and what was lost, at the rate that is reached
- bytes in the bundle per socket event, and the bundle beside the capture of the same traffic
"""

from __future__ import annotations

import contextlib
import itertools
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KUBETAPE = [sys.executable, "-m", "kubetape"]
ROUNDS = 3
REQUESTS = 100_000
CLIENTS = 20
VALUE_BYTES = 256
EVERYTHING = ("--payload", "full")
WAYS: dict[str, tuple[str, ...]] = {"default": (), "everything on": EVERYTHING, "no payload": ("--payload", "none")}
BURST = """
import ctypes, socket, sys, time
RATE, SECONDS, BATCH, SIZE = int(sys.argv[1]), int(sys.argv[2]), 100, 100
libc = ctypes.CDLL(None)
class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
class Message(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32), ("vectors", ctypes.POINTER(Vector)),
                ("count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
                ("flags", ctypes.c_int), ("padding", ctypes.c_int), ("length", ctypes.c_uint32)]
def batch():
    messages = (Message * BATCH)()
    for one in messages:
        one.vectors = ctypes.pointer(Vector(ctypes.cast(ctypes.create_string_buffer(SIZE), ctypes.c_void_p), SIZE))
        one.count = 1
    return messages
a, b = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
a.bind(("127.0.0.1", 0)); b.bind(("127.0.0.1", 0)); a.connect(b.getsockname()); b.connect(a.getsockname())
out, into = batch(), batch()
begin, events = time.monotonic(), 0
while (now := time.monotonic()) < begin + SECONDS:
    if events > (now - begin) * RATE:
        time.sleep(0.0005)
        continue
    events += libc.sendmmsg(a.fileno(), out, BATCH, 0)
    events += max(0, libc.recvmmsg(b.fileno(), into, BATCH, 0x40, None))
print(events, time.monotonic() - begin)
"""
EMPTY = "int empty(u64 *ctx) { return 0; }\n"


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


def throughput(port: int, requests: int = REQUESTS, kinds: str = "set,get") -> float:
    """Requests per second of redis-benchmark, the mean of its kinds."""
    command = ["redis-benchmark", "-p", str(port), "-t", kinds, "-d", str(VALUE_BYTES), "-n", str(requests)]
    command += ["-c", str(CLIENTS), "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return statistics.mean(float(found) for found in re.findall(r"([\d.]+) requests per second", done.stdout))


@dataclass
class Run:
    """A recorder at work: start_s from its start to the first event it would see; peak of its resident memory."""

    process: subprocess.Popen[str]
    bundle: Path
    start_s: float
    resident_bytes: int = 0
    rates: list[float] = field(default_factory=list)


@contextlib.contextmanager
def recorder(bundle: Path, *options: str) -> Iterator[Run]:
    began = time.monotonic()
    process = subprocess.Popen(
        [*KUBETAPE, "record", "-o", str(bundle), "--duration", "10m", "--no-kubernetes", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    spool = Path(f"{bundle}.spool")
    # The spool's first frames come when every probe is attached.
    while not (spool.exists() and spool.stat().st_size) and process.poll() is None:
        time.sleep(0.005)
    run = Run(process, bundle, time.monotonic() - began)
    time.sleep(1)
    try:
        yield run
        run.resident_bytes = _peak_bytes(process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        output = process.communicate()[0]
        if process.returncode:
            print(output, file=sys.stderr)


def _peak_bytes(pid: int) -> int:
    """Peak resident memory while recording; the mapped ring counts as far as it was touched."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", text)
    return int(found[1]) << 10 if found else 0


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


def manifest_of(bundle: Path) -> dict[str, Any]:
    done = subprocess.run([*KUBETAPE, "info", "--json", str(bundle)], capture_output=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def empty_program(port: int) -> str:
    """Nanoseconds that the kernel counts for a program that does nothing."""
    from kubetape.capture import compilation, program
    from kubetape.capture.recorder import kernel_types

    types = kernel_types()
    if types is None:
        return "not measured: no BTF"
    with compilation.header_tree(types):
        module = compilation.compiled("#include <kubetape_types.h>\n" + EMPTY)
    try:
        attachment = program.attach_tp_btf(module, types, "empty", "sock_send_length", "empty")
    except OSError as error:
        return f"not measured: {error}"
    throughput(port, REQUESTS // 4)
    runs, ns = attachment.statistics()
    attachment.detach()
    return f"{ns / max(1, runs):.0f}"


def per_event(folder: Path, port: int) -> None:
    """Nanoseconds per run of each probe, with 256 bytes of payload at most and without; the least of three rounds."""
    for title, options in (
        ("256 bytes of payload", ("--payload-bytes", "256")),
        ("no payload", WAYS["no payload"]),
    ):
        least: dict[str, float] = {}
        for _ in range(3):
            bundle = folder / "cost.ktape"
            with recorder(bundle, *options):
                throughput(port)
            for probe in manifest_of(bundle)["nodes"][0]["probes"]:
                if probe["run_count"]:
                    each = probe["run_ns"] / probe["run_count"]
                    least[probe["probe"]] = min(each, least.get(probe["probe"], each))
        print(f"  ns a run, {title}: " + ", ".join(f"{name} {ns:.0f}" for name, ns in sorted(least.items())))


def side_by_side(folder: Path, port: int) -> None:
    """Throughput in turn; then bundle and capture of the last round."""
    rates: dict[str, list[float]] = {"alone": [], **{way: [] for way in WAYS}, "tcpdump": []}
    throughput(port, 20_000)
    pcap = folder / "bench.pcap"
    for _ in range(ROUNDS):
        rates["alone"].append(throughput(port))
        for way, options in WAYS.items():
            with recorder(folder / f"{way}.ktape", *options):
                rates[way].append(throughput(port))
        with tcpdump(pcap, port):
            rates["tcpdump"].append(throughput(port))
    for way, values in rates.items():
        ratio = statistics.median(v / a for v, a in zip(values, rates["alone"], strict=True))
        print(f"  {way:<14} {statistics.median(values):>9.0f} requests/s   {ratio:.3f} of alone")
    capture_bytes = pcap.stat().st_size
    for way in WAYS:
        bundle = folder / f"{way}.ktape"
        events = manifest_of(bundle)["tables"]["socket_data"]["rows"]
        size = bundle.stat().st_size
        print(
            f"  {way}: bundle {size / 1e6:.2f} MB, {size / max(1, events):.1f} bytes per socket event; capture "
            f"{capture_bytes / 1e6:.2f} MB: {size / capture_bytes:.3f} of it"
        )


def at_full_rate(folder: Path, port: int) -> None:
    """The recorder itself, with as many events a second as this machine makes."""
    bundle = folder / "rate.ktape"
    with recorder(bundle) as run:
        throughput(port, 3 * REQUESTS)
    manifest = manifest_of(bundle)
    node = manifest["nodes"][0]
    query = "SELECT ts_ns, cpu_ns, events_count FROM heartbeat ORDER BY ts_ns"
    done = subprocess.run([*KUBETAPE, "sql", str(bundle), query, "--format", "json"], capture_output=True, text=True)
    beats = json.loads(done.stdout)
    spans = [
        ((b["events_count"] - a["events_count"]) / s, (b["cpu_ns"] - a["cpu_ns"]) / s / 1e9, s)
        for a, b in itertools.pairwise(beats)
        for s in [(b["ts_ns"] - a["ts_ns"]) / 1e9]
    ]
    busy = sorted(spans)[len(spans) // 2 :]
    rate = statistics.median(r for r, _, _ in busy)
    cpu = statistics.median(c for _, c, _ in busy)
    lost = sum(probe["lost_count"] for probe in node["probes"])
    print(f"  {rate:.0f} events/s: the recorder uses {100 * cpu:.2f} % of one CPU, {lost} events lost")
    print(f"  from start to recording {run.start_s:.2f} s; peak memory {run.resident_bytes / 1e6:.0f} MB, ", end="")
    print(f"the touched part of the {node['budgets']['ring_bytes'] / 1e6:.0f} MB ring in it; ", end="")
    print(f"with the compilers before it {compiling_bytes(folder) / 1e6:.0f} MB")


def at_100k(folder: Path) -> None:
    """The recorder's CPU at a steady 100,000 events a second: in its own code, and in the kernel for it."""
    with recorder(folder / "steady.ktape") as run:
        before = _cpu_seconds(run.process.pid)
        done = subprocess.run([sys.executable, "-c", BURST, "100000", "10"], capture_output=True, text=True, check=True)
        user, system = (b - a for a, b in zip(before, _cpu_seconds(run.process.pid), strict=True))
    events, seconds = (float(word) for word in done.stdout.split())
    print(
        f"  {events / seconds:.0f} events/s: the recorder uses {100 * user / seconds:.2f} % of one CPU itself, "
        f"{100 * system / seconds:.2f} % in the kernel"
    )


def _cpu_seconds(pid: int) -> tuple[float, float]:
    """User and system time so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    tick = os.sysconf("SC_CLK_TCK")
    return int(fields[11]) / tick, int(fields[12]) / tick


def compiling_bytes(folder: Path) -> int:
    """Peak memory of the recorder and the compilers it starts, pages that several share counted once."""
    command = [*KUBETAPE, "record", "-o", str(folder / "start.ktape"), "--duration", "1s", "--no-kubernetes"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(_proportional_bytes(pid) for pid in (process.pid, *_children(process.pid))))
        time.sleep(0.02)
    return peak


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _proportional_bytes(pid: int) -> int:
    """Resident memory, of a page that n processes map 1/n."""
    with contextlib.suppress(OSError):
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
        return int(found[1]) << 10 if found else 0
    return 0


def no_loss(folder: Path) -> None:
    """Datagrams sent and received in batches, each an event, at a steady rate: are they all there?"""
    bundle = folder / "burst.ktape"
    command = [
        *KUBETAPE,
        "record",
        "-o",
        str(bundle),
        "--no-kubernetes",
        "--",
        sys.executable,
        "-c",
        BURST,
        "300000",
        "5",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    events, seconds = (float(word) for word in done.stdout.splitlines()[0].split())
    found = manifest_of(bundle)
    lost = sum(probe["lost_count"] for probe in found["nodes"][0]["probes"])
    rows = found["tables"]["socket_data"]["rows"]
    print(f"  {events / seconds:.0f} events/s for {seconds:.0f} s: {events:.0f} made, {rows} recorded, {lost} lost")


def main() -> int:
    if os.geteuid() != 0:
        print("bench: needs root", file=sys.stderr)
        return 2
    print(
        f"recording: redis-benchmark SET and GET of {VALUE_BYTES} bytes, {CLIENTS} clients, {REQUESTS} requests each, "
        f"{ROUNDS} rounds in turn, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} at the start"
    )
    with tempfile.TemporaryDirectory(prefix="kubetape-bench-") as name, redis(Path(name)) as port:
        folder = Path(name)
        with bpf_stats():
            print(f"  ns a run, a program that does nothing: {empty_program(port)}")
            per_event(folder, port)
        side_by_side(folder, port)
        at_full_rate(folder, port)
        at_100k(folder)
        no_loss(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
