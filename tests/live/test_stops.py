"""However a recording ends, what was recorded is there, and nothing stays in the kernel."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubetape.bundle.reader import Bundle
from tests.live.recording import RECORD, SLOWER, one, record, rows, stream

pytestmark = pytest.mark.live

# The kernel frees programs some grace periods after their last user; on a busy machine these are seconds.
FREED_S = 30.0 * SLOWER

CHATTER = """
import socket, sys, time
a, b = socket.socket(), socket.socket()
a.bind(("127.0.0.1", 0)); a.listen()
b.connect(a.getsockname()); c = a.accept()[0]
end = time.time() + float(sys.argv[1])
size = int(sys.argv[2])
while time.time() < end:
    b.sendall(b"x" * size); got = 0
    while got < size: got += len(c.recv(size - got))
    time.sleep(float(sys.argv[3]))
"""


def chatter(seconds: float, size: int = 1000, pause: float = 0.002) -> list[str]:
    return [sys.executable, "-c", CHATTER, str(seconds), str(size), str(pause)]


def programs() -> set[str]:
    """Ids of the BPF programs in the kernel."""
    done = subprocess.run(["bpftool", "--json", "prog", "show"], capture_output=True, text=True, check=True)
    return {f"{p['id']} {p.get('name', '')}" for p in json.loads(done.stdout)}


@pytest.fixture
def before() -> Iterator[set[str]]:
    """Programs loaded before the test; afterwards none may be left."""
    existing = programs()
    yield existing
    deadline = time.monotonic() + FREED_S
    while left := {p for p in programs() - existing if "socket_" in p or "state_change" in p}:
        if time.monotonic() > deadline:
            pytest.fail(f"left in the kernel: {left}")
        time.sleep(0.1)


@pytest.fixture
def talking() -> Iterator[None]:
    process = subprocess.Popen(chatter(20 * SLOWER))
    yield
    process.kill()
    process.wait()


def started(output: Path, *arguments: str) -> subprocess.Popen[str]:
    """A recorder that is recording: the state of the world, spooled after the probes are attached, is there."""
    process = subprocess.Popen(
        [*RECORD, "-o", str(output), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    spool = Path(f"{output}.spool")
    for _ in range(int(400 * SLOWER)):
        if spool.exists() and b'"what":"cgroups"' in spool.read_bytes():
            return process
        time.sleep(0.05)
    process.kill()
    pytest.fail(f"the recorder did not start: {process.communicate()[1]}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_recording_with_a_good_bundle(
    tmp_path: Path, before: set[str], talking: None, number: signal.Signals
) -> None:
    process = started(tmp_path / "x.ktape")
    process.send_signal(number)
    _, errors = process.communicate(timeout=60 * SLOWER)

    assert (process.returncode, errors) == (0, "")
    bundle = Bundle(tmp_path / "x.ktape")
    assert bundle.verify() == []
    assert bundle.manifest.nodes[0].stop_reason == "interrupt"
    assert bundle.row_count("socket_data") > 50
    assert os.listdir(tmp_path) == ["x.ktape"]


def test_after_kill_9_the_spool_becomes_a_bundle(tmp_path: Path, before: set[str], talking: None) -> None:
    process = started(tmp_path / "x.ktape")
    time.sleep(0.5)
    process.kill()
    process.communicate()
    done = subprocess.run(
        [sys.executable, "-m", "kubetape", "recover", str(tmp_path / "x.ktape.spool"), "-o", str(tmp_path / "r.ktape")],
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    bundle = Bundle(tmp_path / "r.ktape")
    assert bundle.verify() == []
    assert bundle.manifest.nodes[0].stop_reason == "recovered"
    assert bundle.row_count("socket_data") > 50
    assert bundle.row_count("connection") >= 2
    assert not (tmp_path / "x.ktape").exists()


def test_a_spool_left_behind_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "x.ktape.spool").write_bytes(b"precious")
    done = subprocess.run(
        [*RECORD, "-o", str(tmp_path / "x.ktape"), "--duration", "1s"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "kubetape recover" in done.stderr
    assert (tmp_path / "x.ktape.spool").read_bytes() == b"precious"


def test_the_disk_budget_ends_the_recording(tmp_path: Path, before: set[str]) -> None:
    record(tmp_path / "x.ktape", "--payload", "full", "--max-bytes", "3M", "--", *chatter(3, 60_000, 0.0))
    node = Bundle(tmp_path / "x.ktape").manifest.nodes[0]
    assert node.stop_reason == "disk_budget"
    assert any("--max-bytes" in note for note in node.notes)
    assert node.facts["spool_bytes"] < 4 << 20


def test_a_full_disk_ends_the_recording(tmp_path: Path, before: set[str]) -> None:
    disk = tmp_path / "small"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], check=True)
    try:
        record(tmp_path / "x.ktape", "--spool", str(disk), "--payload", "full", "--", *chatter(3, 60_000, 0.0))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    bundle = Bundle(tmp_path / "x.ktape")
    assert bundle.verify() == []
    node = bundle.manifest.nodes[0]
    assert node.stop_reason == "disk_budget"
    assert any("disk was full" in note for note in node.notes)
    assert bundle.row_count("socket_data") > 50


def test_the_duration_and_connections_that_existed_before(tmp_path: Path, before: set[str]) -> None:
    with socket.socket() as listener, socket.socket() as client, socket.socket() as idle:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        client.connect(("127.0.0.1", port))
        accepted = listener.accept()[0]
        client.sendall(b"earlier")
        accepted.recv(100)
        idle.connect(("127.0.0.1", port))
        process = started(tmp_path / "x.ktape", "--duration", "2s", "--port", str(port))
        client.sendall(b"during")
        accepted.recv(100)
        output, _ = process.communicate(timeout=60 * SLOWER)
        accepted.close()

    assert process.returncode == 0, output
    bundle = Bundle(tmp_path / "x.ktape")
    node = bundle.manifest.nodes[0]
    assert node.stop_reason == "duration"
    assert 1.9e9 < node.end_ns - node.start_ns < 4e9 * SLOWER
    found = rows(bundle, "connection")
    assert {c["existed_before"] for c in found} == {True}
    assert {(c["side"], c["side_basis"]) for c in found if c["local_port"] == port} == {("server", "listener")}
    assert {(c["side"], c["side_basis"]) for c in found if c["remote_port"] == port} == {("client", "listener")}
    assert all(c["pid"] == os.getpid() and c["start_ns"] is None for c in found if c["remote_port"] == port)
    beats = [b["events_count"] for b in rows(bundle, "heartbeat")]
    assert beats
    assert beats == sorted(beats)
    assert 0 < beats[-1] <= sum(p.event_count for p in node.probes)
    sent = rows(bundle, "socket_data", direction="send")
    used = one(sent)["connection_id"]
    assert stream(bundle, used, "send") == b"during"
    assert len([c for c in found if c["remote_port"] == port]) == 2
    samples = rows(bundle, "tcp_sample", connection_id=used)
    assert {s["reason"] for s in samples} >= {"start", "end"}
    assert samples[-1]["sent_bytes"] == len(b"earlier" + b"during")


def test_filters_keep_everything_else_out(tmp_path: Path, talking: None) -> None:
    other = subprocess.Popen(chatter(20 * SLOWER))
    try:
        record(tmp_path / "x.ktape", "--duration", "1s", "--pid", str(other.pid))
    finally:
        other.kill()
        other.wait()
    bundle = Bundle(tmp_path / "x.ktape")
    assert bundle.row_count("socket_data") > 50
    assert {r["pid"] for r in rows(bundle, "socket_data")} == {other.pid}
    assert {r["pid"] for r in rows(bundle, "connection")} == {other.pid}


def test_payload_policy(tmp_path: Path) -> None:
    record(tmp_path / "none.ktape", "--payload", "none", "--", *chatter(0.3))
    record(tmp_path / "some.ktape", "--payload-bytes", "100", "--", *chatter(0.3))
    none, some = (rows(Bundle(tmp_path / f"{n}.ktape"), "socket_data", size_bytes=1000) for n in ("none", "some"))
    assert none
    assert {r["payload"] for r in none} == {None}
    assert some
    assert {r["payload"] for r in some} == {b"x" * 100}
