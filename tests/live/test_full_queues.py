"""Queues that are full: connections that nobody accepts, bytes that nobody reads. As often as the kernel counts it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubetape.bundle.reader import Bundle
from tests.live.recording import record, rows
from tests.live.test_loss import ip

pytestmark = pytest.mark.live

COUNTERS = ("ListenOverflows", "ListenDrops", "TCPToZeroWindowAdv", "TCPFromZeroWindowAdv")
WORKLOAD = """
import json, socket, sys, time
full = socket.create_server(("127.0.0.1", 7801), backlog=2)
clients = [socket.socket() for _ in range(10)]
for client in clients:
    client.setblocking(False); client.connect_ex(("127.0.0.1", 7801))
quiet = socket.create_server(("127.0.0.1", 7802))
writer = socket.create_connection(("127.0.0.1", 7802)); reader = quiet.accept()[0]
writer.setblocking(False)
sent, left_ms = 0, 1500
while left_ms:
    try: sent += writer.send(b"x" * 65536)
    except BlockingIOError: time.sleep(0.01); left_ms -= 10
got = 0
while got < sent: got += len(reader.recv(65536))
for one in (*clients, full, writer, reader): one.close()
time.sleep(1.5)
names, values = [line.split() for line in open("/proc/net/netstat") if line.startswith("TcpExt:")]
counted = dict(zip(names, values))
print(json.dumps({name: int(counted[name]) for name in sys.argv[1:]} | {"sent": sent}))
"""


@pytest.fixture
def space() -> Iterator[str]:
    """A network namespace of its own: nobody else moves its counters."""
    name = f"ktq{os.getpid()}"
    ip("netns", "add", name)
    try:
        ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        ip("netns", "delete", name)


def test_what_is_turned_away_and_what_has_to_wait(tmp_path: Path, space: str) -> None:
    command = ["ip", "netns", "exec", space, sys.executable, "-c", WORKLOAD, *COUNTERS]
    done = record(tmp_path / "x.ktape", "--", *command)
    expected: dict[str, Any] = json.loads(done.stdout.splitlines()[0])
    bundle, netns = Bundle(tmp_path / "x.ktape"), os.stat(f"/run/netns/{space}").st_ino

    for name in COUNTERS:
        values = [r["value"] for r in rows(bundle, "protocol_counter", netns_id=netns, counter=f"TcpExt.{name}")]
        assert max(values) == expected[name] > 0, name
    listening = rows(bundle, "listener", netns_id=netns, local_port=7801)
    assert max(r["backlog_count"] - r["backlog_max"] for r in listening) == 1  # Linux lets one more in

    # A connect is over when the handshake is: of three the server took, and of the others nobody said anything.
    results = sorted(r["detail"] for r in rows(bundle, "tcp_event", kind="connect", remote_port=7801))
    assert results == ["aborted"] * 7 + ["ok"] * 3
    waiting = rows(bundle, "tcp_event", kind="retransmit", remote_port=7801)
    assert {r["connection_id"] for r in waiting} >= {
        r["connection_id"] for r in rows(bundle, "tcp_event", kind="connect", remote_port=7801, detail="aborted")
    }

    (reader,) = rows(bundle, "connection", netns_id=netns, local_port=7802, side="server")
    samples = rows(bundle, "tcp_sample", connection_id=reader["connection_id"])
    assert max(r["receive_queue_bytes"] for r in samples) > 50_000
    received = rows(bundle, "socket_data", connection_id=reader["connection_id"], direction="receive")
    assert sum(r["size_bytes"] for r in received) == expected["sent"]
