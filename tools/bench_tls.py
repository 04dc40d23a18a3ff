"""What reading TLS costs: `python -m tools.bench_tls` (root). nginx and wrk over TLS, kept connections, small answers.

- requests per second alone, recorded with --no-tls, and recorded with TLS, in turn; ratios are medians of the rounds,
  each to the run alone of its own round
- the same for HTTP without TLS: what the probes cost programs that use no TLS library
- nanoseconds that a call of SSL_read takes longer under its probes, the breakpoints included: a call that fails at
  once, 200,000 times, with the recorder and without, in turn
- nanoseconds per run of the TLS programs, as the kernel counts them; the breakpoint itself is not in it
"""

from __future__ import annotations

import contextlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tools.bench_recording import bpf_stats, manifest_of, recorder

ROUNDS, SECONDS, CONNECTIONS = 3, 2, 8
NGINX = """
daemon off; user root; error_log stderr crit; pid {folder}/pid; worker_processes 1;
events {{}}
http {{
  access_log off; keepalive_requests 100000000;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  ssl_certificate {folder}/certificate.pem; ssl_certificate_key {folder}/key.pem;
  server {{ listen 127.0.0.1:{plain}; listen 127.0.0.1:{secret} ssl; location / {{ return 200 "an answer\\n"; }} }}
}}
"""
PLAIN, SECRET = 18480, 18443
CALLS = """
import ctypes, time
ssl = ctypes.CDLL("libssl.so.3")
for name in ("TLS_method", "SSL_CTX_new", "SSL_new"):
    getattr(ssl, name).restype = ctypes.c_void_p
session = ctypes.c_void_p(ssl.SSL_new(ctypes.c_void_p(ssl.SSL_CTX_new(ctypes.c_void_p(ssl.TLS_method())))))
buffer, count = ctypes.create_string_buffer(100), 200_000
begin = time.perf_counter_ns()
for _ in range(count):
    ssl.SSL_read(session, buffer, 100)
print((time.perf_counter_ns() - begin) / count)
"""


@contextlib.contextmanager
def nginx(folder: Path) -> Iterator[None]:
    options = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost"]
    files = ["-keyout", f"{folder}/key.pem", "-out", f"{folder}/certificate.pem"]
    subprocess.run(["openssl", "req", *options, *files], check=True, capture_output=True)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, plain=PLAIN, secret=SECRET))
    server = subprocess.Popen(["nginx", "-c", f"{folder}/nginx.conf"])
    time.sleep(1)
    try:
        yield
    finally:
        server.terminate()
        server.wait()


def rate(url: str) -> float:
    """Requests per second of wrk."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert found, done.stdout
    return float(found[1])


def per_call() -> float:
    """Nanoseconds of one call of SSL_read that fails at once, Python's own call included."""
    return float(subprocess.run([sys.executable, "-c", CALLS], capture_output=True, text=True, check=True).stdout)


def call_cost(folder: Path) -> None:
    more = []
    for turn in range(ROUNDS):
        alone = per_call()
        with recorder(folder / f"{turn}.ktape", "--no-stacks"):
            more.append(per_call() - alone)
    print(f"SSL_read: {statistics.median(more):,.0f} ns longer a call ({min(more):,.0f} to {max(more):,.0f})")


def main() -> int:
    urls = {"TLS": f"https://127.0.0.1:{SECRET}/", "no TLS": f"http://127.0.0.1:{PLAIN}/"}
    with tempfile.TemporaryDirectory(prefix="kubetape-bench-") as name:
        folder = Path(name)
        call_cost(folder)
        with nginx(folder):
            for what, url in urls.items():
                rates: dict[str, list[float]] = {"alone": [], "--no-tls": [], "--tls": []}
                for turn in range(ROUNDS):
                    rates["alone"].append(rate(url))
                    for option in ("--no-tls", "--tls"):
                        bundle = folder / f"{turn}{option}{what[:2]}.ktape"
                        with recorder(bundle, "--no-stacks", option):
                            rates[option].append(rate(url))
                        bundle.unlink()
                print(f"{what}: {statistics.median(rates['alone']):,.0f} requests a second alone")
                for option in ("--no-tls", "--tls"):
                    ratios = [x / alone for x, alone in zip(rates[option], rates["alone"], strict=True)]
                    print(
                        f"  {option}: {statistics.median(ratios):.2f} of that ({min(ratios):.2f} to {max(ratios):.2f})"
                    )
            with bpf_stats(), recorder(folder / "cost.ktape"):
                rate(urls["TLS"])
            probe = next(p for p in manifest_of(folder / "cost.ktape")["nodes"][0]["probes"] if p["probe"] == "tls")
            print(f"tls: {probe['run_ns'] / probe['run_count']:,.0f} ns a run, {probe['run_count']:,} runs")
            print(f"  {probe['event_count']:,} events, {probe['lost_count']:,} lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
