"""What the clients did is what the bundle says: every request, on both sides, in order, with its time.

1,000 HTTP requests (curl), 500 plain and 500 prepared MySQL statements, 200 DNS look-ups (dig), made by
clients.py in a pod of the lab while the whole machine is recorded.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab.shop import Shop

pytestmark = [pytest.mark.live, pytest.mark.lab]

# A client measures from user space: now and then it is interrupted between the call and its clock. This share of
# its measurements must agree with the recording to 5 % or 0.2 ms; low, because a machine busy with other tests moves
# the client's clock reading, not the recording.
AGREEING_SHARE = 0.7
Row = dict[str, Any]


def run_kubetape(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "kubetape", *arguments], capture_output=True, text=True, check=True
    ).stdout


@dataclass
class Recording:
    bundle: Path
    truth: dict[str, list[Row]]
    ip: dict[str, str]  # by app
    lost_count: int

    def requests(self, where: str) -> list[Row]:
        """Rows of `request`, in the order of their first byte."""
        answer = run_kubetape(
            "sql", str(self.bundle), f"SELECT * FROM request WHERE {where} ORDER BY start_ns", "--format", "json"
        )
        rows: list[Row] = json.loads(answer)
        return rows

    def served(self, app: str, protocol: str, side: str) -> list[Row]:
        """Requests of the workload's pod to this app."""
        return self.requests(
            f"protocol = '{protocol}' AND side = '{side}' AND server_ip = '{self.ip[app]}'"
            f" AND client_ip = '{self.ip['load']}'"
        )


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    bundle = tmp_path_factory.mktemp("exactness") / "exact.ktape"
    with Shop(rate=0) as shop:
        truth = shop.folder / "truth.json"
        program = Path(__file__).with_name("clients.py")
        result = run_kubetape(
            "record", "-o", str(bundle), "--from-dir", str(shop.k8s), "--json", "--",
            *shop.one("load").enter(), sys.executable, str(program), str(truth),
        )  # fmt: skip
        summary = json.loads(result)
        assert summary["command_status"] == 0
        ips = {pod.app: pod.ip for pod in shop.pods.values()}
        return Recording(bundle, json.loads(truth.read_text()), ips, summary["lost_count"])


def agree(truth: list[Row], rows: list[Row]) -> None:
    """The client's own latencies are those of the recording, as far as a client can measure."""
    off = [abs(t["latency_ns"] - r["latency_ns"]) for t, r in zip(truth, rows, strict=True)]
    agreeing = sum(o <= max(200_000, 0.05 * t["latency_ns"]) for o, t in zip(off, truth, strict=True))
    assert agreeing >= AGREEING_SHARE * len(truth), f"{len(truth) - agreeing} of {len(truth)} are off"
    assert statistics.median(off) < 250_000


def test_nothing_is_lost(recording: Recording) -> None:
    assert recording.lost_count == 0


@pytest.mark.parametrize("side", ["client", "server"])
def test_http_requests(recording: Recording, side: str) -> None:
    truth = recording.truth["http"]
    rows = recording.served("gateway", "http1", side)
    assert len(truth) == len(rows) == 1000
    seen = [(r["client_port"], r["operation"], r["statement"], r["status"]) for r in rows]
    assert seen == [(t["port"], t["method"], t["path"], t["status"]) for t in truth]
    assert [r["is_error"] for r in rows] == [t["status"] >= "400" for t in truth]
    assert {r["outcome"] for r in rows} == {"complete"}


def test_http_latency(recording: Recording) -> None:
    agree(recording.truth["http"], recording.served("gateway", "http1", "client"))


@pytest.mark.parametrize("side", ["client", "server"])
def test_http_requests_behind_the_gateway(recording: Recording, side: str) -> None:
    truth = recording.truth["http"]
    rows = recording.requests(
        f"protocol = 'http1' AND side = '{side}' AND client_ip = '{recording.ip['gateway']}' AND server_port = 8080"
    )
    assert [(r["operation"], r["statement"], r["status"]) for r in rows] == [
        (t["method"], t["path"], t["status"]) for t in truth
    ]


@pytest.mark.parametrize("side", ["client", "server"])
def test_plain_statements(recording: Recording, side: str) -> None:
    truth = recording.truth["mysql_text"]
    rows = [
        r
        for r in recording.served("mysql", "mysql", side)
        if r["operation"] == "COM_QUERY" and str(r["statement"]).startswith("SELECT name FROM")
    ]
    assert len(truth) == len(rows) == 500
    assert [(r["statement"], r["status"]) for r in rows] == [(t["statement"], t["status"]) for t in truth]
    assert sum(r["is_error"] for r in rows) == 50
    assert {r["outcome"] for r in rows} == {"complete"}


@pytest.mark.parametrize("side", ["client", "server"])
def test_prepared_statements(recording: Recording, side: str) -> None:
    truth = recording.truth["mysql_prepared"]
    rows = [r for r in recording.served("mysql", "mysql", side) if r["operation"] == "COM_STMT_EXECUTE"]
    assert len(truth) == len(rows) == 500
    # The connector writes the parameter's place as the server wants it.
    text = truth[0]["statement"].replace("%s", "?")
    assert [(r["statement"], r["status"], r["rows_sent"]) for r in rows] == [(text, "OK", t["rows"]) for t in truth]


def test_statement_latency(recording: Recording) -> None:
    rows = recording.served("mysql", "mysql", "client")
    plain = [r for r in rows if str(r["statement"]).startswith("SELECT name FROM")]
    agree(recording.truth["mysql_text"], plain)
    prepared = [r for r in rows if r["operation"] == "COM_STMT_EXECUTE"]
    agree(recording.truth["mysql_prepared"], prepared)


@pytest.mark.parametrize("side", ["client", "server"])
def test_look_ups(recording: Recording, side: str) -> None:
    truth = recording.truth["dns"]
    asked = {t["name"] for t in truth}
    # The other clients look the servers' names up, too: dig is the one whose questions come last.
    rows = [r for r in recording.served("dns", "dns", side) if r["resource"] in asked][-len(truth) :]
    assert len(truth) == len(rows) == 200
    assert [(r["resource"], r["operation"], r["status"]) for r in rows] == [
        (t["name"], t["type"], t["status"]) for t in truth
    ]
    assert {r["outcome"] for r in rows} == {"complete"}
    if side == "client":
        agree(truth, rows)


def test_requests_carry_their_pods(recording: Recording) -> None:
    rows = recording.served("gateway", "http1", "client")
    assert {r["client_workload"] for r in rows} == {"load"}
    assert {r["server_workload"] for r in rows} == {"gateway"}
    assert {r["server_namespace"] for r in rows} == {"shop"}
