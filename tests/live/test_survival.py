"""Hard circumstances: nothing hangs, nothing is lost in silence, what was spooled becomes a bundle."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kubetape.bundle.reader import Bundle
from tests.live.recording import SLOWER, record, rows
from tests.live.test_stops import chatter, started

pytestmark = pytest.mark.live

# A forking server, its children gone after one answer each; clients that connect, ask and leave.
FORKED = """
import os, signal, socket
listener = socket.create_server(("127.0.0.1", 0), backlog=256)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
server = os.fork()
if server == 0:
    while True:
        connection = listener.accept()[0]
        if os.fork() == 0:
            connection.sendall(b"answer to " + connection.recv(100))
            os._exit(0)
        connection.close()
for number in range(40):
    with socket.create_connection(listener.getsockname()) as one:
        one.sendall(b"question %d" % number)
        while one.recv(100): pass
os.kill(server, signal.SIGKILL)
"""

# Opens and closes connections as fast as it can; prints how many.
CHURN = """
import socket, struct, sys, time
listener = socket.create_server(("127.0.0.1", 0), backlog=64)
address = listener.getsockname()
end, count = time.time() + float(sys.argv[1]), 0
while time.time() < end:
    client = socket.socket()
    # Reset instead of TIME_WAIT, or the ports would run out.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.connect(address)
    accepted = listener.accept()[0]
    client.send(b"x"); accepted.recv(1)
    client.close(); accepted.close()
    count += 1
print(address[1], count)
"""


def test_each_child_of_a_forking_server_is_named(tmp_path: Path) -> None:
    record(tmp_path / "x.ktape", "--", sys.executable, "-c", FORKED)
    bundle = Bundle(tmp_path / "x.ktape")

    answers = [r for r in rows(bundle, "socket_data", direction="send") if (r["payload"] or b"").startswith(b"answer")]
    assert sorted(r["payload"] for r in answers) == sorted(b"answer to question %d" % i for i in range(40))
    assert len({r["pid"] for r in answers}) == 40
    known = {p["pid"]: p for p in rows(bundle, "process")}
    assert all(known[r["pid"]]["end_ns"] is not None for r in answers)
    assert sum(p.lost_count for p in bundle.manifest.nodes[0].probes) == 0


def test_every_one_of_many_short_connections(tmp_path: Path) -> None:
    done = record(tmp_path / "x.ktape", "--", sys.executable, "-c", CHURN, "2")
    port, count = (int(word) for word in done.stdout.splitlines()[0].split())
    bundle = Bundle(tmp_path / "x.ktape")

    assert count > 500 / SLOWER
    assert sum(p.lost_count for p in bundle.manifest.nodes[0].probes) == 0
    servers = rows(bundle, "connection", local_port=port)
    clients = rows(bundle, "connection", remote_port=port)
    assert (len(servers), len(clients)) == (count, count)
    assert all(c["end_ns"] is not None for c in servers + clients)
    used = {c["connection_id"] for c in servers + clients}
    moved = [r for r in rows(bundle, "socket_data") if r["connection_id"] in used]
    assert len(moved) == 2 * count


def test_processes_that_vanish_are_no_problem(tmp_path: Path) -> None:
    """Hundreds of processes end while /proc is being read, at the start and at the end."""
    storm = "for i in $(seq 400); do /bin/true & done; wait"
    done = record(tmp_path / "x.ktape", "--", "/bin/sh", "-c", storm)
    assert "Traceback" not in done.stderr
    bundle = Bundle(tmp_path / "x.ktape")
    assert len({r["pid"] for r in rows(bundle, "process_event", kind="exit")}) >= 400


def test_a_ring_keeps_the_newest_part(tmp_path: Path) -> None:
    began = time.monotonic_ns()
    record(
        tmp_path / "x.ktape", "--ring", "--max-bytes", "12M", "--payload", "full", "--", *chatter(4, 20_000, 0.001)
    )  # fmt: skip
    ended = time.monotonic_ns()
    bundle = Bundle(tmp_path / "x.ktape")

    assert bundle.verify() == []
    assert os.listdir(tmp_path) == ["x.ktape"]
    node = bundle.manifest.nodes[0]
    assert node.stop_reason == "command"
    assert node.facts["spool_bytes"] <= 13 << 20
    assert any("--max-bytes" in note for note in node.notes), node.notes
    times = bundle.table("socket_data").column("ts_ns").to_pylist()
    assert began < node.start_ns < times[0] <= times[-1] <= node.end_ns < ended
    assert times[0] - began > (ended - began) // 4  # the beginning went
    # Connections made in what was given up are known nevertheless.
    known = {c["connection_id"]: c for c in rows(bundle, "connection")}
    used = {r["connection_id"] for r in rows(bundle, "socket_data", size_bytes=20_000)}
    assert len(used) >= 1
    assert all(known[i]["local_port"] and known[i]["pid"] and known[i]["side_basis"] == "state" for i in used)


def test_a_ring_survives_kill_9(tmp_path: Path) -> None:
    talking = subprocess.Popen(chatter(60, 20_000, 0.0005))
    try:
        process = started(tmp_path / "x.ktape", "--ring", "--max-bytes", "8M", "--payload", "full")
        for _ in range(int(200 * SLOWER)):
            if len(os.listdir(tmp_path)) > 1 and not (tmp_path / "x.ktape.spool.1").exists():
                break
            time.sleep(0.1)
        process.kill()
        process.communicate()
    finally:
        talking.kill()
        talking.wait()
    command = [sys.executable, "-m", "kubetape", "recover", f"{tmp_path}/x.ktape.spool", "-o", f"{tmp_path}/r.ktape"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    bundle = Bundle(tmp_path / "r.ktape")
    assert bundle.verify() == []
    assert "given up" in done.stdout
    assert bundle.row_count("socket_data") > 50
    known = {c["connection_id"] for c in rows(bundle, "connection")}
    assert {r["connection_id"] for r in rows(bundle, "socket_data")} <= known


def test_a_cpu_budget_thins_by_connection_and_says_so(tmp_path: Path) -> None:
    talkers = " & ".join(['"$0" -c "$1" 5 100 0'] * 6)
    record(
        tmp_path / "x.ktape", "--max-cpu", "1%", "--",
        "/bin/sh", "-c", f"{talkers} & wait", sys.executable, chatter(0)[2],
    )  # fmt: skip
    bundle = Bundle(tmp_path / "x.ktape")
    node = bundle.manifest.nodes[0]
    thinned = rows(bundle, "loss", reason="thinned")

    assert {r["probe"] for r in thinned} == {"socket_data"}
    assert sum(r["lost_count"] for r in thinned) > 1000
    assert any("--max-cpu" in note for note in node.notes)
    assert sum(p.lost_count for p in node.probes) == 0
    assert not rows(bundle, "socket_data", call="splice")  # what was left out is no hidden transfer
