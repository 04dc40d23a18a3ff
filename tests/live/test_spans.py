"""Parents inferred from threads, checked against trace ids that the servers pass on and the inference does not read."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.live.recording import SLOWER, record

pytestmark = pytest.mark.live
REQUESTS, CLIENTS = 160, 4

BACKEND = """
import http.server, sys, time
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        time.sleep(0.004)
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), H).serve_forever()
"""
THREADED = """
import http.client, http.server, sys
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        for _ in range(2):
            c = http.client.HTTPConnection("127.0.0.1", int(sys.argv[2]))
            c.request("GET", "/item", headers={"traceparent": self.headers["traceparent"]})
            c.getresponse().read(); c.close()
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), H).serve_forever()
"""
ASYNCIO = """
import asyncio, sys
import aiohttp
from aiohttp import web
async def handle(request):
    async with aiohttp.ClientSession() as session:
        for _ in range(2):
            headers = {"traceparent": request.headers["traceparent"]}
            async with session.get(f"http://127.0.0.1:{sys.argv[2]}/item", headers=headers) as answer:
                await answer.read()
    return web.Response(text="ok")
app = web.Application(); app.add_routes([web.get("/", handle)])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
"""
CLIENT = f"""
import http.client, os, sys, threading
def work(n):
    for i in range({REQUESTS // CLIENTS}):
        c = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
        c.request("GET", "/", headers={{"traceparent": f"00-{{os.urandom(16).hex()}}-{{os.urandom(8).hex()}}-01"}})
        c.getresponse().read(); c.close()
threads = [threading.Thread(target=work, args=(n,)) for n in range({CLIENTS})]
[t.start() for t in threads]; [t.join() for t in threads]
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    for _ in range(round(200 * SLOWER)):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    pytest.fail(f"nothing listens on {port}")


# An event loop serves several requests with one thread: which of them makes a call is at times a guess, and said to be.
@pytest.mark.parametrize(("server", "precision", "recall"), [(THREADED, 0.99, 0.99), (ASYNCIO, 0.95, 0.3)])
def test_precision_and_recall(tmp_path: Path, server: str, precision: float, recall: float) -> None:
    front, back = free_port(), free_port()
    programs = [
        subprocess.Popen([sys.executable, "-c", BACKEND, str(back)]),
        subprocess.Popen([sys.executable, "-c", server, str(front), str(back)]),
    ]
    try:
        wait_for(back)
        wait_for(front)
        ports = ["--port", str(front), "--port", str(back)]
        record(tmp_path / "x.ktape", *ports, "--", sys.executable, "-c", CLIENT, str(front))
    finally:
        for program in programs:
            program.kill()
            program.wait()
    query = "SELECT sum(carried_count)::BIGINT AS n, sum(right_count) / sum(inferred_count) AS precision, "
    query += "sum(recall * carried_count) / sum(carried_count) AS recall FROM span_quality"
    done = subprocess.run(
        [sys.executable, "-m", "kubetape", "sql", str(tmp_path / "x.ktape"), query, "--format", "json"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    (row,) = json.loads(done.stdout)
    assert row["n"] == 2 * REQUESTS
    assert row["precision"] >= precision
    assert row["recall"] >= recall
