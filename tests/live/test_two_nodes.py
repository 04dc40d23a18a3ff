"""A service between two nodes, through DNAT and masquerade: every request has the right pods at both its ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.two_nodes import TwoNodes

pytestmark = [pytest.mark.live, pytest.mark.lab]
KUBETAPE = [sys.executable, "-m", "kubetape"]
REQUESTS = 25


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    with TwoNodes() as lab:
        yield lab


def recorder(lab: TwoNodes, bundle: Path, node: str, *namespaces: str) -> subprocess.Popen[str]:
    """A recorder that records: its spool has the state of the world."""
    process = subprocess.Popen(
        [*KUBETAPE, "record", "-o", str(bundle), "--duration", "60s", "--from-dir", str(lab.k8s),
         *(word for name in namespaces for word in ("--namespace", name))],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"NODE_NAME": node},
    )  # fmt: skip
    spool = Path(f"{bundle}.spool")
    for _ in range(400):
        if spool.exists() and b'"what":"cgroups"' in spool.read_bytes():
            return process
        time.sleep(0.05)
    process.kill()
    pytest.fail(f"the recorder did not start: {process.communicate()[0]}")


def query(bundle: Path, text: str) -> list[dict[str, Any]]:
    done = subprocess.run([*KUBETAPE, "sql", str(bundle), text, "--format", "json"], check=True, capture_output=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def check(bundle: Path, lab: TwoNodes) -> None:
    requests = query(
        bundle,
        "SELECT l.*, c.join_basis FROM logical_request AS l JOIN call AS c USING (request_id) "
        "WHERE protocol = 'http1' AND statement LIKE '/item/%'",
    )
    assert len(requests) == 2 * REQUESTS
    assert {(r["client_pod"], r["client_namespace"], r["client_name"]) for r in requests} == {
        ("client-1", "front", "front/client")
    }
    assert {r["server_pod"] for r in requests} == {pod.name for pod in lab.servers}
    assert {(r["server_namespace"], r["server_name"], r["server_service"]) for r in requests} == {
        ("back", "back/web", "web")
    }
    assert {r["join_basis"] for r in requests} == {"position"}
    edges = query(bundle, "SELECT client, server, request_count FROM edge WHERE protocol = 'http1'")
    assert edges == [{"client": "front/client", "server": "back/web", "request_count": 2 * REQUESTS}]


def stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output


def test_in_one_recording(nodes: TwoNodes, tmp_path: Path) -> None:
    process = recorder(nodes, tmp_path / "one.ktape", "both", "front", "back")
    nodes.ask(REQUESTS)
    stop(process)
    check(tmp_path / "one.ktape", nodes)


def test_in_two_recordings_merged(nodes: TwoNodes, tmp_path: Path) -> None:
    bundles = [tmp_path / "a.ktape", tmp_path / "b.ktape"]
    first = recorder(nodes, bundles[0], "node-a", "front")
    second = recorder(nodes, bundles[1], "node-b", "back")
    nodes.ask(REQUESTS)
    stop(first)
    stop(second)
    merged = tmp_path / "merged.ktape"
    subprocess.run([*KUBETAPE, "merge", *map(str, bundles), "-o", str(merged)], check=True, capture_output=True)
    check(merged, nodes)
    rows = query(merged, "SELECT client_node, server_node, node FROM request WHERE protocol = 'http1'")
    assert {r["node"] for r in rows} == {"node-a", "node-b"}
