"""Retransmissions, forced by dropping packets between two network namespaces: as many as the kernel counts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubetape.bundle.reader import Bundle
from kubetape.capture.btf import Btf
from tests.live.recording import record, rows

pytestmark = pytest.mark.live

SEGMENT_BYTES = 1448  # 1500 less IP, TCP and time stamps

SERVER = """
import socket
s = socket.create_server(("10.77.0.2", 7777))
print("ready", flush=True)
c = s.accept()[0]
while c.recv(65536): pass
"""
CLIENT = """
import socket, time
s = socket.create_connection(("10.77.0.2", 7777))
for _ in range(150):
    s.sendall(b"z" * 3000); time.sleep(0.002)
s.close()
time.sleep(1)
n = socket.socket(); n.settimeout(0.5)
try: n.connect(("10.77.0.2", 7999))
except ConnectionRefusedError: pass
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.fixture
def spaces() -> Iterator[tuple[str, str]]:
    """Two namespaces joined by a veth pair; the receiving one drops every twentieth segment with payload."""
    left, right = (f"kt{side}{os.getpid()}" for side in "ab")
    ip("netns", "add", left)
    ip("netns", "add", right)
    try:
        ip("link", "add", "kt0", "netns", left, "type", "veth", "peer", "name", "kt1", "netns", right)
        for name, device, address in ((left, "kt0", "10.77.0.1/24"), (right, "kt1", "10.77.0.2/24")):
            ip("-n", name, "addr", "add", address, "dev", device)
            ip("-n", name, "link", "set", device, "up")
            ip("-n", name, "link", "set", "lo", "up")
        rules = (
            "add table inet t; add chain inet t input { type filter hook input priority 0; }; "
            "add rule inet t input tcp dport 7777 meta length > 500 numgen inc mod 20 19 counter drop"
        )
        subprocess.run(["ip", "netns", "exec", right, "nft", rules], check=True)
        yield left, right
    finally:
        ip("netns", "delete", left)
        ip("netns", "delete", right)


def counter(space: str, name: str) -> int:
    """A counter of the line pair `Tcp:` in the namespace's /proc/net/snmp."""
    done = subprocess.run(["ip", "netns", "exec", space, "cat", "/proc/net/snmp"], capture_output=True, text=True)
    names, values = [line.split() for line in done.stdout.splitlines() if line.startswith("Tcp:")]
    return int(values[names.index(name)])


def test_as_many_retransmissions_and_drops_as_the_kernel_counts(tmp_path: Path, spaces: tuple[str, str]) -> None:
    left, right = spaces
    server = subprocess.Popen(
        ["ip", "netns", "exec", right, sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        record(tmp_path / "x.ktape", "--", "ip", "netns", "exec", left, sys.executable, "-c", CLIENT)
    finally:
        server.kill()
        server.wait()
    bundle = Bundle(tmp_path / "x.ktape")
    netns = {space: os.stat(f"/run/netns/{space}").st_ino for space in spaces}

    resent = rows(bundle, "tcp_event", kind="retransmit", netns_id=netns[left])
    # The kernel counts segments on the wire; one event is one buffer, which the device may cut into several.
    segments = sum(-(-r["size_bytes"] // SEGMENT_BYTES) for r in resent)
    assert segments == counter(left, "RetransSegs")
    assert segments >= 10
    assert {r["remote_port"] for r in resent} == {7777}
    assert {r["detail"] for r in resent} <= {"fast", "timeout", "tail_loss", "other"}
    assert all(r["connection_id"] is not None and r["size_bytes"] > 0 for r in resent)

    drops = rows(bundle, "tcp_event", kind="drop", netns_id=netns[right], detail="NETFILTER_DROP")
    rules = subprocess.run(["ip", "netns", "exec", right, "nft", "list", "ruleset"], capture_output=True, text=True)
    counted = re.search(r"counter packets (\d+)", rules.stdout)
    assert counted is not None
    assert len(drops) == int(counted[1]) >= 5
    assert {(d["direction"], d["local_port"]) for d in drops} == {("receive", 7777)}
    last = [s for s in rows(bundle, "tcp_sample", reason="close") if s["retransmit_count"]]
    assert [s["retransmit_count"] for s in last] == [segments]
    (refused,) = rows(bundle, "tcp_event", kind="connect", remote_port=7999)
    assert refused["detail"] == "refused"
    # Before kernel 6.10 (the tracepoint got a reason then) a reset in the name of no socket runs no tracepoint.
    if (Btf.of_kernel().parameter_count("btf_trace_tcp_send_reset") or 0) >= 3:
        assert rows(bundle, "tcp_event", kind="reset_sent", netns_id=netns[right], local_port=7999)
    assert rows(bundle, "tcp_event", kind="reset_received", netns_id=netns[left], remote_port=7999)
