"""CPU and memory of `kubetape import pcap` and of the analysis, beside tshark and pt-query-digest on the same files.

    python -m tools.bench_analysis            make the captures (root), measure them, print the table
    python -m tools.bench_analysis FOLDER     the same, keeping the captures in FOLDER and using those already there

Captures, each of known size (twice: once, and once with twice the requests): MySQL, sysbench oltp_read_only in plain
text against MariaDB; Redis, redis-benchmark; HTTP, wrk against nginx. `analyze` here is what stands behind every
report: `request` and the tables of golden signals. CPU is user and system time of the whole process, its start
included, the median of RUNS runs; memory is its peak.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

KUBETAPE = [sys.executable, "-m", "kubetape"]
RUNS = 3
TRANSACTIONS = 6_000  # of 16 queries each
REDIS_REQUESTS = 200_000
HTTP_SECONDS = 5
MAX_ANALYZE_RATIO, MAX_BOTH_RATIO = 1 / 10, 1 / 3
MAX_MEMORY_BYTES = 1 << 30
MAX_SCALING = 2.1

# What `analyze` computes first, whatever is asked: requests with names, and the golden signals.
GOLDEN = (
    "SELECT (SELECT count(*) FROM request), (SELECT count(*) FROM service_summary), "
    "(SELECT count(*) FROM endpoint_summary), (SELECT count(*) FROM edge), (SELECT count(*) FROM sql_digest)"
)


@dataclass(frozen=True)
class Traffic:
    """One kind of traffic: its port's dissector and the fields tshark prints, as `request` has them."""

    name: str
    port: int
    dissector: str
    fields: tuple[str, ...]


MYSQL = Traffic("mysql", 3306, "mysql", ("mysql.command", "mysql.query", "mysql.response_code", "mysql.error_code"))
REDIS = Traffic("redis", 6379, "resp", ("resp.bulk_string.value", "resp.string", "resp.error"))
HTTP = Traffic(
    "http",
    8080,
    "http",
    ("http.request.method", "http.request.uri", "http.response.code", "http.content_length", "http.time"),
)
COMMON_FIELDS = ("frame.time_epoch", "tcp.stream", "ip.src", "tcp.srcport", "ip.dst", "tcp.dstport")


@dataclass(frozen=True)
class Cost:
    """CPU seconds (user and system) and peak memory of one process."""

    cpu_s: float
    peak_bytes: int


def measure(command: Sequence[str], runs: int = RUNS) -> Cost:
    """The median cost of a command; its output goes nowhere. Raises CalledProcessError where it fails."""
    costs = []
    for _ in range(runs):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, list(command))
        costs.append(Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024))
    return sorted(costs, key=lambda c: c.cpu_s)[len(costs) // 2]


# ---- captures ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(command: Sequence[str], port: int, log: Path) -> Iterator[None]:
    """A server process that listens on a loopback port while this is open."""
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        for _ in range(400):
            if server.poll() is not None:
                raise RuntimeError(f"{command[0]} did not start: {log.read_text(errors='replace')[-500:]}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        server.wait()


@contextlib.contextmanager
def capturing(pcap: Path, port: int) -> Iterator[None]:
    """tcpdump of the port on loopback, with a kernel buffer that loses nothing."""
    partial = pcap.with_suffix(".partial")
    process = subprocess.Popen(
        ["tcpdump", "-i", "lo", "-B", "262144", "-w", str(partial), "tcp", "port", str(port)],
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(1)
    try:
        yield
    finally:
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1]
    if not re.search(r"\b0 packets dropped by kernel", said):
        raise RuntimeError(f"the capture lost packets: {said.strip()}")
    partial.rename(pcap)


def quiet(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def capture_mysql(folder: Path, wanted: dict[Path, int]) -> None:
    data, control = folder / "mysql-data", folder / "mysql.sock"
    shutil.rmtree(data, ignore_errors=True)
    quiet(
        ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-test-db",
         "--auth-root-authentication-method=normal"]
    )  # fmt: skip
    server = ["mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={control}"]
    server += [f"--port={MYSQL.port}", "--bind-address=127.0.0.1", "--skip-name-resolve"]
    with serving(server, MYSQL.port, folder / "mysql.log"):
        client = ["mariadb", "--no-defaults", "-uroot", f"--socket={control}", "-e"]
        quiet([*client, "CREATE DATABASE sbtest; CREATE USER bench@'127.0.0.1'; GRANT ALL ON *.* TO bench@'127.0.0.1'"])
        sysbench = ["sysbench", "oltp_read_only", "--mysql-host=127.0.0.1", f"--mysql-port={MYSQL.port}"]
        sysbench += ["--mysql-user=bench", "--table-size=100000", "--db-ps-mode=disable", "--threads=8", "--time=0"]
        quiet([*sysbench, "prepare"])
        for pcap, transactions in wanted.items():
            with capturing(pcap, MYSQL.port):
                quiet([*sysbench, f"--events={transactions}", "run"])
    shutil.rmtree(data, ignore_errors=True)


def capture_redis(folder: Path, wanted: dict[Path, int]) -> None:
    server = ["redis-server", "--port", str(REDIS.port), "--save", "", "--dir", str(folder)]
    with serving(server, REDIS.port, folder / "redis.log"):
        for pcap, requests in wanted.items():
            half = str(requests // 2)
            with capturing(pcap, REDIS.port):
                quiet(["redis-benchmark", "-p", str(REDIS.port), "-t", "set,get", "-n", half, "-r", "10000", "-q"])


def capture_http(folder: Path, wanted: dict[Path, int]) -> None:
    site = folder / "site"
    site.mkdir(exist_ok=True)
    for number in range(50):
        (site / f"page-{number}.html").write_text("<p>one line of text</p>\n" * (number + 1))
    site.chmod(0o755)
    folder.chmod(0o755)
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;\n"
        "events { worker_connections 256; }\n"
        f"http {{ access_log off; keepalive_requests 1000000; server {{ listen 127.0.0.1:{HTTP.port}; root {site};\n"
        '  location /api/ { add_header Content-Type application/json; return 200 "{}"; } } }\n'
    )
    (folder / "paths.lua").write_text(
        "local n = 0\n"
        "request = function() n = n + 1\n"
        '  if n % 2 == 0 then return wrk.format("GET", "/page-" .. (n % 60) .. ".html") end\n'
        '  return wrk.format("GET", "/api/users/" .. n .. "/orders?page=" .. (n % 7)) end\n'
    )
    with serving(["nginx", "-c", str(folder / "nginx.conf")], HTTP.port, folder / "nginx.out"):
        for pcap, seconds in wanted.items():
            with capturing(pcap, HTTP.port):
                quiet(
                    ["wrk", "-t1", "-c16", f"-d{seconds}s", "-s", str(folder / "paths.lua"),
                     f"http://127.0.0.1:{HTTP.port}/"]
                )  # fmt: skip


MAKERS = (
    (MYSQL, capture_mysql, TRANSACTIONS),
    (REDIS, capture_redis, REDIS_REQUESTS),
    (HTTP, capture_http, HTTP_SECONDS),
)


def make_captures(folder: Path) -> None:
    """All captures that the folder does not have yet: NAME.pcap, and NAME-2.pcap of twice the traffic."""
    for traffic, make, amount in MAKERS:
        wanted = {folder / f"{traffic.name}.pcap": amount, folder / f"{traffic.name}-2.pcap": 2 * amount}
        missing = {pcap: size for pcap, size in wanted.items() if not pcap.exists()}
        if missing:
            make(folder, missing)


# ---- measurements --------------------------------------------------------------------------------------------


def tshark(traffic: Traffic, pcap: Path) -> list[str]:
    command = ["tshark", "-n", "-r", str(pcap), "-d", f"tcp.port=={traffic.port},{traffic.dissector}", "-T", "fields"]
    return command + [word for name in (*COMMON_FIELDS, *traffic.fields) for word in ("-e", name)]


def tshark_bare(traffic: Traffic, pcap: Path) -> list[str]:
    """The least it can do: one field of the protocol."""
    command = ["tshark", "-n", "-r", str(pcap), "-d", f"tcp.port=={traffic.port},{traffic.dissector}", "-T", "fields"]
    return [*command, "-e", traffic.fields[1]]


def importing(pcap: Path, bundle: Path) -> list[str]:
    return [*KUBETAPE, "import", "pcap", str(pcap), "-o", str(bundle)]


def analyzing(bundle: Path) -> list[str]:
    return [*KUBETAPE, "sql", str(bundle), GOLDEN]


def request_count(bundle: Path) -> int:
    done = subprocess.run(
        [*KUBETAPE, "sql", str(bundle), "SELECT count(*) FROM request", "--format", "csv"],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.split()[-1])


def query_digest(pcap: Path, folder: Path) -> float:
    """CPU seconds of pt-query-digest over tcpdump's text of the capture, both counted."""
    text = folder / "mysql.txt"
    with text.open("wb") as out:
        process = subprocess.Popen(
            ["tcpdump", "-s", "65535", "-x", "-nn", "-q", "-tttt", "-r", str(pcap)],
            stdout=out,
            stderr=subprocess.DEVNULL,
        )
        _, _, usage = os.wait4(process.pid, 0)
    first = usage.ru_utime + usage.ru_stime
    second = measure(["pt-query-digest", "--type", "tcpdump", "--no-version-check", str(text)], runs=1).cpu_s
    text.unlink()
    return first + second


def one(traffic: Traffic, folder: Path) -> None:
    """Print the figures of one kind of traffic."""
    costs: dict[str, tuple[Cost, Cost]] = {}
    for suffix in ("", "-2"):
        pcap, bundle = folder / f"{traffic.name}{suffix}.pcap", folder / f"{traffic.name}{suffix}.ktape"
        costs[suffix] = (measure(importing(pcap, bundle)), measure(analyzing(bundle)))
    pcap, bundle = folder / f"{traffic.name}.pcap", folder / f"{traffic.name}.ktape"
    theirs, bare = measure(tshark(traffic, pcap), runs=1), measure(tshark_bare(traffic, pcap), runs=1)
    count, twice = request_count(bundle), request_count(folder / f"{traffic.name}-2.ktape")
    (imported, analyzed), (imported_2, analyzed_2) = costs[""], costs["-2"]
    both = imported.cpu_s + analyzed.cpu_s
    print(f"{traffic.name}: {count} requests, {pcap.stat().st_size / 1e6:.0f} MB; CPU seconds, peak MB")
    _line(f"tshark, {len(COMMON_FIELDS + traffic.fields)} fields", theirs)
    _line("tshark, 1 field", bare)
    _line("import", imported)
    ratio = analyzed.cpu_s / theirs.cpu_s
    _line("analyze", analyzed, f"{ratio:.3f} of tshark: {_judged(ratio, MAX_ANALYZE_RATIO)}")
    ratio = both / theirs.cpu_s
    peak = max(imported.peak_bytes, analyzed.peak_bytes)
    _line("both", Cost(both, peak), f"{ratio:.3f} of tshark: {_judged(ratio, MAX_BOTH_RATIO)}")
    print(f"  peak memory: {_judged(peak, MAX_MEMORY_BYTES)} of {MAX_MEMORY_BYTES >> 20} MiB")
    # wrk runs for a time, not for a number: what twice the requests cost is taken from what so many did.
    for name, once, again in (("import", imported, imported_2), ("analyze", analyzed, analyzed_2)):
        growth = 1 + (again.cpu_s / once.cpu_s - 1) / (twice / count - 1)
        print(f"  twice the requests: {name} {growth:.2f} times the CPU: {_judged(growth, MAX_SCALING)}")
    if traffic is MYSQL and shutil.which("pt-query-digest"):
        digest_s = query_digest(pcap, folder)
        print(f"  pt-query-digest with tcpdump -x {digest_s:.1f}: {digest_s / both:.0f} times import and analyze")


def _line(name: str, cost: Cost, remark: str = "") -> None:
    print(f"  {name:<20}{cost.cpu_s:7.2f} {cost.peak_bytes / 1e6:6.0f}   {remark}".rstrip(), flush=True)


def _judged(value: float, limit: float) -> str:
    return "within the goal" if value <= limit else "MISSES the goal"


def needed() -> list[str]:
    """Programs that are not there."""
    programs = (
        "tshark", "tcpdump", "mariadbd", "mariadb-install-db", "sysbench", "redis-server", "redis-benchmark", "nginx",
        "wrk",
    )  # fmt: skip
    return [name for name in programs if not shutil.which(name)]


def main(arguments: Sequence[str]) -> int:
    if missing := needed():
        print(f"bench: needs {', '.join(missing)}", file=sys.stderr)
        return 2
    with contextlib.ExitStack() as stack:
        if arguments:
            folder = Path(arguments[0]).absolute()
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kubetape-bench-")))
        make_captures(folder)
        start = statistics.median(measure([*KUBETAPE, "--help"], 1).cpu_s for _ in range(RUNS))
        print(f"kubetape --help: {start:.2f} s of CPU")
        for traffic, _, _ in MAKERS:
            one(traffic, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
