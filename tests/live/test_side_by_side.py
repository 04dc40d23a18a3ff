"""The recorder, which sees no packets, and tcpdump tell of the same requests: real servers, odd traffic, both sides."""

from __future__ import annotations

import collections
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubetape.analyze.analysis import Analysis
from kubetape.capture.pcap import import_pcap
from tests.live.odd_traffic import CLIENTS
from tests.live.services import PORTS

pytestmark = [pytest.mark.live, pytest.mark.lab]

COLUMNS = (
    "protocol",
    "operation",
    "resource",
    "statement",
    "status",
    "outcome",
    "trace_id",
    "rows_sent",
    "rows_affected",
)
Rows = dict[tuple[int, str], list[tuple[Any, ...]]]


@pytest.fixture(scope="module")
def bundles() -> Iterator[dict[str, Analysis]]:
    absent = [name for name in ("memcached", "mosquitto", "nats-server", "epmd", "tcpdump") if not shutil.which(name)]
    if absent and os.environ.get("CI") != "true":
        pytest.skip(f"not installed: {', '.join(absent)} (tools/setup.sh test)")
    # Not below pytest's folder, which only root may enter: PostgreSQL's server is not root.
    folder = Path(tempfile.mkdtemp(prefix="kubetape-beside-"))
    folder.chmod(0o755)
    command = ["unshare", "--net", sys.executable, "-m", "tests.live.side_by_side", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 packets dropped by kernel" in done.stdout, done.stdout
    import_pcap([str(folder / "wire.pcap")], str(folder / "wire.ktape"))
    yield {name: Analysis(folder / f"{name}.ktape") for name in ("wire", "node")}
    shutil.rmtree(folder)


def told(analysis: Analysis, side: str, port: int) -> Rows:
    """Of each client port: what its client asked, and what its server began, in the order of the bytes."""
    # Two programs' looks at time differ, positions in the streams do not.
    found = analysis.query(
        f"SELECT *, request_position p, response_position q FROM request "
        f"WHERE side = '{side}' AND server_port = {port} AND server_ip = '127.0.0.1' "
        "ORDER BY p NULLS LAST, q, start_ns, stream_id, request_id"
    ).to_pylist()
    rows: Rows = collections.defaultdict(list)
    for row in found:
        who = "client" if row["p"] is not None else "server"
        rows[row["client_port"], who].append(tuple(row[name] for name in COLUMNS))
    return rows


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("service", CLIENTS)
def test_both_tell_the_same(bundles: dict[str, Analysis], service: str, side: str) -> None:
    wire, node = told(bundles["wire"], "wire", PORTS[service]), told(bundles["node"], side, PORTS[service])
    # Connections of the servers' start are over, or older, when the recorder begins.
    assert sum(map(len, wire.values())) >= 5
    for who, rows in wire.items():
        assert node.get(who) == rows, (service, who)
    assert node.keys() == wire.keys()
