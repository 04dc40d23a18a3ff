"""A server whose time has known parts: each is found, from the scheduler's account and the calls it makes."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.recording import record
from tests.live.test_spans import BACKEND, free_port, wait_for

pytestmark = pytest.mark.live
REQUESTS = 30
# What the server measures of itself for each part goes into its answer; the recording must agree within 10 %.
SERVER = """
import http.client, http.server, json, mmap, os, sys, threading, time
file = os.open(sys.argv[3], os.O_RDONLY | os.O_DIRECT)
lock = threading.Lock()
def queued(): return int(open("/proc/thread-self/schedstat").read().split()[1])
def hold(taken, seconds):
    with lock:
        taken.set(); time.sleep(seconds)
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        marks = [time.monotonic_ns()]
        time.sleep(0.03); marks.append(time.monotonic_ns())
        end = time.thread_time() + 0.02
        while time.thread_time() < end: pass
        marks.append(time.monotonic_ns())
        taken = threading.Event(); threading.Thread(target=hold, args=(taken, 0.04)).start(); taken.wait()
        marks[-1] = time.monotonic_ns()
        with lock: pass
        marks.append(time.monotonic_ns())
        page = mmap.mmap(-1, 32 << 20); page.write(bytes(32 << 20))
        cpu, before, waited = time.thread_time_ns(), queued(), -time.monotonic_ns()
        # Past the page cache, in one wait: what is neither computing nor waiting for a CPU is waiting for the disk.
        os.preadv(file, [page], 0); waited += time.monotonic_ns()
        disk = waited - (time.thread_time_ns() - cpu) - (queued() - before)
        c = http.client.HTTPConnection("127.0.0.1", int(sys.argv[2])); c.connect()
        asked = time.monotonic_ns()
        c.request("GET", "/item"); c.getresponse().read()
        called = time.monotonic_ns() - asked
        c.close()
        parts = dict(zip(("timer", "spin", "lock"), (b - a for a, b in zip(marks, marks[1:]))))
        parts |= {"call": called, "disk": disk, "cpu": time.thread_time_ns()}
        data = json.dumps(parts).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(data))); self.end_headers()
        self.wfile.write(data)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), H).serve_forever()
"""
CLIENT = f"""
import http.client, json, sys
parts = []
for i in range({REQUESTS}):
    c = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1])); c.request("GET", "/")
    parts.append(json.loads(c.getresponse().read())); c.close()
json.dump(parts, open(sys.argv[2], "w"))
"""


def test_every_part_is_found(tmp_path: Path) -> None:
    front, back = free_port(), free_port()
    file = tmp_path / "file"
    file.write_bytes(os.urandom(32 << 20))
    os.sync()
    programs = [
        subprocess.Popen([sys.executable, "-c", BACKEND, str(back)]),
        subprocess.Popen([sys.executable, "-c", SERVER, str(front), str(back), str(file)]),
    ]
    truth = tmp_path / "truth.json"
    try:
        wait_for(back)
        wait_for(front)
        record(tmp_path / "x.ktape", "--", sys.executable, "-c", CLIENT, str(front), str(truth))
    finally:
        for program in programs:
            program.kill()
            program.wait()
    query = (
        f"SELECT t.* FROM request_time_split AS t JOIN logical_request USING (request_id) WHERE server_port = {front}"
    )
    done = subprocess.run(
        [sys.executable, "-m", "kubetape", "sql", str(tmp_path / "x.ktape"), query, "--format", "json"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    rows = json.loads(done.stdout)
    parts = json.loads(truth.read_text())
    assert len(rows) == len(parts) == REQUESTS

    def found(column: str) -> float:
        return statistics.median(float(row[column]) for row in rows)

    def measured(part: str) -> float:
        return statistics.median(float(part_of[part]) for part_of in parts)

    assert found("timer_ns") == pytest.approx(measured("timer"), rel=0.1)
    assert found("lock_ns") == pytest.approx(measured("lock"), rel=0.1)
    assert found("downstream_ns") == pytest.approx(measured("call"), rel=0.1, abs=1e6)
    assert found("on_cpu_ns") == pytest.approx(measured("cpu"), rel=0.1)
    assert found("disk_ns") == pytest.approx(measured("disk"), rel=0.1, abs=1e6)
    # The disk is asked long enough for the comparison to mean something.
    assert measured("disk") > 3e6
    for row in rows:
        assert row["network_ns"] + row["server_ns"] == row["total_ns"]
