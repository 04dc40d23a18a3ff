"""The smallest case of plaintext inside TLS, with nothing but Python and openssl: a foreign kernel can run it, too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kubetape.analyze.analysis import Analysis
from kubetape.bundle.reader import Bundle
from tests.live.recording import SLOWER, record
from tests.live.test_spans import free_port, wait_for
from tests.live.test_tls import HERE, make_certificate

pytestmark = pytest.mark.live


def test_requests_of_python_inside_tls_equal_those_without(tmp_path: Path) -> None:
    make_certificate(tmp_path)
    ports = [free_port() for _ in range(4)]
    pair = [f"{tmp_path}/certificate.pem", f"{tmp_path}/key.pem"]
    client = [sys.executable, str(HERE / "python_client.py")]
    lines = []
    for way, plain, secret in (("threads", *ports[:2]), ("asyncio", *ports[2:])):
        for scheme, port, mark in (("http", plain, "p"), ("https", secret, "t")):
            urls = " ".join(f"{scheme}://127.0.0.1:{port}/{mark}/{way}/{n}" for n in "ab")
            lines.append(f"{' '.join(client)} {way} {urls} > {tmp_path}/{way}-{mark}")
    server = subprocess.Popen([sys.executable, str(HERE / "servers.py"), *pair, *map(str, ports)])
    try:
        for port in ports:
            wait_for(port)
        record(tmp_path / "x.ktape", "--", "sh", "-ec", "\n".join(lines), timeout=60)
    finally:
        server.terminate()
        server.wait(20 * SLOWER)
    (tls,) = (p for p in Bundle(tmp_path / "x.ktape").manifest.nodes[0].probes if p.probe == "tls")
    assert (tls.status, tls.lost_count) == ("attached", 0)
    found: dict[str, list[tuple[str, ...]]] = {"p": [], "t": []}
    query = """SELECT side, operation, statement, status, outcome FROM request
        WHERE protocol = 'http1' AND regexp_matches(statement, '^/[pt]/')"""
    for row in Analysis(tmp_path / "x.ktape").query(query).to_pylist():
        side, operation, statement, status, outcome = row.values()
        found[statement[1]].append((side, operation, statement[3:], status, outcome))
    # Two URLs each: a GET and a POST of the threads, three GETs of asyncio; seen from both sides.
    assert len(found["p"]) == 2 * 2 * (2 + 3)
    assert sorted(found["t"]) == sorted(found["p"])
