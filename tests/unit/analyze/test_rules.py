"""Single rules, each on a conversation that has its fault and on one that nearly has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from kubetape.analyze.analysis import Analysis
from kubetape.analyze.findings import find, parse_rule
from tests.shop import MS, NODE, BundleMaker, Pod, http, mysql

CLIENT, MIDDLE, BACK = ("10.0.0.1", 40000), ("10.0.0.2", 8080), ("10.0.0.3", 80)


def three() -> BundleMaker:
    pods = [Pod("client-1", "client", CLIENT[0]), Pod("middle-1", "middle", MIDDLE[0]), Pod("back-1", "back", BACK[0])]
    return BundleMaker(pods=pods)


def findings(maker: BundleMaker, path: Path, rule: str) -> list[dict[str, Any]]:
    analysis = Analysis(maker.write(path / "x.ktape"))
    rows: list[dict[str, Any]] = analysis.query(f"SELECT * FROM finding WHERE rule = '{rule}'").to_pylist()
    return rows


def both_ends(maker: BundleMaker, client: tuple[str, int], server: tuple[str, int]) -> list[int]:
    return [maker.connect(client, server, side) for side in ("client", "server")]


# ---- retry-storm ------------------------------------------------------------------------------------------


def asking(tries: int, between_ms: float, visits: int = 12) -> BundleMaker:
    """Each visit asks one thing that fails `tries` times, and three that do not."""
    maker = three()
    maker.seconds = 70.0
    ends = both_ends(maker, CLIENT, BACK)
    for visit in range(visits):
        for turn in range(tries):
            maker.ask(ends, 10 + visit * 1500 + turn * between_ms, 2, *http("/stock", status=503))
        for turn in range(3):
            maker.ask(ends, 700 + visit * 1500 + turn * 10, 2, *http(f"/product/{turn}"))
    return maker


def test_retries_are_a_storm(tmp_path: Path) -> None:
    (found,) = findings(asking(tries=10, between_ms=5), tmp_path, "retry-storm")
    assert (found["severity"], found["scope"]) == ("critical", "shop/client -> shop/back")
    assert "69.0 % of its http1 requests are retries, 9.0 for each failure (503): GET /stock" in found["title"]


def test_a_failure_is_no_storm(tmp_path: Path) -> None:
    assert findings(asking(tries=1, between_ms=5, visits=40), tmp_path, "retry-storm") == []


def test_a_monitor_that_asks_one_thing_all_the_time_makes_no_storm(tmp_path: Path) -> None:
    maker = three()
    ends = both_ends(maker, CLIENT, BACK)
    for turn in range(100):
        maker.ask(ends, 10 + turn * 90, 2, *http("/healthz", status=200 if turn < 50 else 503))
    assert findings(maker, tmp_path, "retry-storm") == []


# ---- pool-exhausted ---------------------------------------------------------------------------------------


def pooled(first_wait_ms: float, second_wait_ms: float, apart_ms: float = 1) -> BundleMaker:
    """Requests in twos, 30 ms long at least, on two threads that share one connection to `back`."""
    maker = three()
    inbound = [maker.connect((CLIENT[0], CLIENT[1] + n), MIDDLE, "server") for n in range(2)]
    pool = maker.connect((MIDDLE[0], 50000), BACK, "client")
    for turn in range(40):
        start = 10 + turn * 200
        waits = (first_wait_ms, second_wait_ms)
        for n in range(2):
            maker.say(inbound[n], start + n * apart_ms, "receive", http()[0])
        for n, wait in enumerate(waits):
            for direction, at, payload in (
                ("send", start + n * apart_ms + wait, http("/x")[0]),
                ("receive", start + n * apart_ms + wait + 20, http("/x")[1]),
            ):
                maker.say(pool, at, direction, payload)
                maker.data[-1]["tid"] = n + 1
            maker.say(inbound[n], start + n * apart_ms + wait + 40, "send", http()[1])
    for row in maker.data:
        row["pid"] = 7
        if row["connection_id"] in inbound:
            row["tid"] = inbound.index(row["connection_id"]) + 1
    return maker


def test_requests_that_wait_for_the_only_connection(tmp_path: Path) -> None:
    (found,) = findings(pooled(0.1, 60), tmp_path, "pool-exhausted")
    assert found["scope"] == "shop/middle -> shop/back"
    assert "1 for up to 2 requests" in found["title"]
    assert "40 of 80 requests began their first call 59.9 ms (p50) late" in found["summary"]


def test_who_is_slow_without_others_does_not_wait_for_a_connection(tmp_path: Path) -> None:
    assert findings(pooled(40, 40, apart_ms=25), tmp_path, "pool-exhausted") == []


# ---- slow-disk --------------------------------------------------------------------------------------------


def stored(state: str) -> BundleMaker:
    """Twenty requests of 60 ms, for 50 of which the serving thread slept in `state`."""
    maker = three()
    end = maker.connect(CLIENT, BACK, "server")
    slices = []
    for turn in range(20):
        start = 10 + turn * 200
        maker.ask([end], start, 60, *http("/write"))
        for at, length, what in ((start - 1, 6, "running"), (start + 5, 50, state), (start + 55, 144, "running")):
            row = {"node": NODE, "ts_ns": round(at * MS), "duration_ns": length * MS, "pid": 1, "tid": 1, "state": what}
            slices.append(row | {"syscall": None if what == "running" else "write"})
    maker.more["sched_slice"] = slices
    return maker


def test_requests_that_wait_for_the_disk(tmp_path: Path) -> None:
    (found,) = findings(stored("blocked"), tmp_path, "slow-disk")
    assert (found["severity"], found["scope"]) == ("critical", "shop/back")
    assert "20 of 20 requests slept for storage, p95 50 ms" in found["title"]


def test_requests_that_wait_for_something_else(tmp_path: Path) -> None:
    assert findings(stored("sleeping"), tmp_path, "slow-disk") == []


def test_requests_that_wait_for_a_lock(tmp_path: Path) -> None:
    maker = stored("sleeping")
    for row in maker.more["sched_slice"]:
        row["syscall"] = row["syscall"] and "futex"
    (found,) = findings(maker, tmp_path, "process-lock")
    assert (found["severity"], found["scope"]) == ("warning", "shop/back")
    assert "20 of 20, p95 50 ms (http1)" in found["title"]


# ---- client-errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "count", "expected"), [(404, 40, 1), (404, 15, 0), (500, 40, 0)])
def test_an_endpoint_that_is_gone(tmp_path: Path, status: int, count: int, expected: int) -> None:
    maker = three()
    ends = both_ends(maker, CLIENT, BACK)
    for turn in range(count):
        maker.ask(ends, 10 + turn * 200, 2, *http("/gone", status=status))
        maker.ask(ends, 50 + turn * 200, 2, *http("/there"))
    found = findings(maker, tmp_path, "client-errors")
    assert [f["scope"] for f in found] == ["shop/client -> shop/back"] * expected
    assert all(
        "100.0 % of the http1 requests of shop/client for GET /gone, mostly with 404" in f["title"] for f in found
    )


# ---- small-writes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("written_late", "expected"), [(False, 1), (True, 0)])
def test_answers_held_back_between_their_parts(tmp_path: Path, written_late: bool, expected: int) -> None:
    maker = three()
    client, server = both_ends(maker, CLIENT, BACK)
    request, answer = http(body=b"x" * 200)
    for turn in range(20):
        at = 10 + turn * 200
        maker.say(client, at, "send", request)
        maker.say(server, at + 0.1, "receive", request)
        maker.say(server, at + 1, "send", answer[:50])
        maker.say(client, at + 1.1, "receive", answer[:50])
        maker.say(server, at + (40 if written_late else 1.1), "send", answer[50:])
        maker.say(client, at + 41, "receive", answer[50:])
    maker.tcp_samples.append(
        {"node": NODE, "ts_ns": MS, "connection_id": client, "min_rtt_ns": 50_000, "reason": "end"}
    )
    found = findings(maker, tmp_path, "small-writes")
    assert len(found) == expected
    assert all("Answers of shop/back to shop/client are held back on the way for 39.8 ms" in f["title"] for f in found)


# ---- slow-reader ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unread", "latency_ms", "severities"), [(200_000, 900, ["warning"]), (200_000, 5, ["notice"]), (900, 900, [])]
)
def test_who_does_not_read(tmp_path: Path, unread: int, latency_ms: float, severities: list[str]) -> None:
    maker = three()
    client, server = both_ends(maker, CLIENT, BACK)
    for turn in range(8):
        maker.ask([client, server], 10 + turn * 1000, latency_ms, *http())
        sample = {"node": NODE, "ts_ns": turn * 1000 * MS, "connection_id": client, "reason": "periodic"}
        maker.tcp_samples.append(sample | {"receive_queue_bytes": unread})
    found = findings(maker, tmp_path, "slow-reader")
    assert [f["severity"] for f in found] == severities
    assert all("shop/client does not read what shop/back sends it: up to 195 KiB" in f["title"] for f in found)


# ---- slow-replica: one that stalls ------------------------------------------------------------------------


@pytest.mark.parametrize(("stalling", "expected"), [(1, 1), (3, 0)])
def test_a_pod_that_stops_now_and_then(tmp_path: Path, stalling: int, expected: int) -> None:
    maker = BundleMaker(pods=[Pod("client-1", "client", CLIENT[0])])
    for n in range(3):
        maker.pods.append(Pod(f"back-{n}", "back", f"10.0.1.{n}"))
        ends = both_ends(maker, (CLIENT[0], 41000 + n), (f"10.0.1.{n}", 80))
        for turn in range(60):
            is_stalled = n < stalling and turn % 8 == 0
            maker.ask(ends, 10 + turn * 160 + n, 120 if is_stalled else 5, *http(f"/{turn}"))
    found = findings(maker, tmp_path, "slow-replica")
    assert [f["scope"] for f in found] == ["shop/back-0"] * expected
    assert all("stalls: 8 of 60 requests take up to 120 ms" in f["title"] for f in found)


# ---- clock-skew -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ahead_ms", "titles"), [(35.0, ["node-b is 35 ms ahead"]), (-35.0, ["behind"]), (2.0, [])])
def test_clocks_that_differ(tmp_path: Path, ahead_ms: float, titles: list[str]) -> None:
    maker = three()
    maker.nodes["node-b"] = ahead_ms
    ends = both_ends(maker, CLIENT, BACK)
    for turn in range(20):
        maker.ask(ends, 100 + turn * 50, 5, *http(f"/{turn}"))
    for row in [*maker.connections, *maker.data]:
        if row["connection_id"] == ends[1]:
            row["node"] = "node-b"
    maker.data.sort(key=lambda row: (row["node"], row["ts_ns"]))
    found = findings(maker, tmp_path, "clock-skew")
    assert len(found) == len(titles)
    for finding, words in zip(found, titles, strict=True):
        assert words in finding["title"]


# ---- conntrack-full ---------------------------------------------------------------------------------------


def test_a_full_table_of_one_pod_is_not_the_nodes(tmp_path: Path) -> None:
    maker = three()
    both_ends(maker, CLIENT, BACK)
    for connection, netns in zip(maker.connections, (1, 2), strict=True):
        connection["netns_id"] = netns
    samples = []
    for second in range(5):
        for netns, entries in ((1, 20), (2, 1000)):
            row = {"node": NODE, "ts_ns": second * 1000 * MS, "netns_id": netns, "entry_count": entries}
            samples.append(row | {"entry_max": 1000, "drop_count": second * 10 if netns == 2 else 0})
    maker.more["conntrack_sample"] = samples
    (found,) = findings(maker, tmp_path, "conntrack-full")
    assert (found["scope_kind"], found["scope"], found["severity"]) == ("pod", "shop/back-1", "critical")
    assert "1000 of 1000 entries, 40 packets dropped" in found["title"]


# ---- effects: what can explain what -----------------------------------------------------------------------

ROW = (
    "SELECT '{severity}' AS severity, 'workload' AS scope_kind, 'a' AS scope, '{name}' AS title, '' AS summary, "
    "'' AS evidence, 0.9 AS confidence, 1 AS impact_ns, 0 AS first_ns, 0 AS last_ns, ['a'] AS entities, "
    "['a'] AS explains"
)


@pytest.mark.parametrize(
    ("root", "cause", "is_explained"),
    [
        ("slowness", "failure", False),
        ("slowness", "work", False),
        ("slowness", "timeout", True),
        ("slowness", "slowness", True),
        ("failure", "failure", True),
    ],
)
def test_slowness_explains_neither_errors_nor_what_is_asked(root: str, cause: str, is_explained: bool) -> None:
    rules = [
        parse_rule(
            name,
            f"-- x\n-- Inputs: t\n-- Kind: {kind}\n-- Effect: {effect}\n" + ROW.format(severity="warning", name=name),
            "",
        )
        for name, kind, effect in (("root", "root", root), ("cause", "cause", cause))
    ]
    database = duckdb.connect()
    database.execute("CREATE TABLE connection_health (client_name VARCHAR, server_name VARCHAR)")
    rows = {row["title"]: row for row in find(database, rules, 0.0).to_pylist()}
    assert (rows["cause"]["caused_by"] == "root") == is_explained
    assert rows["root"]["severity"] == "warning"


# ---- traffic-surge ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "grows", "severity"),
    [("other", False, "notice"), ("client", False, "warning"), ("other", True, "warning")],
)
def test_a_busy_client_is_no_surge_by_itself(tmp_path: Path, other: str, grows: bool, severity: str) -> None:
    """Beside a probe, a sibling of its own, and at last suddenly."""
    maker = three()
    maker.pods.append(Pod("other-1", other, "10.0.0.9"))
    ends = both_ends(maker, CLIENT, BACK)
    for turn in range(1200):
        maker.ask(ends, 7500 + turn * 2 if grows else 10 + turn * 8, 1, *http())
    ends = both_ends(maker, ("10.0.0.9", 40001), BACK)
    for turn in range(10):
        maker.ask(ends, 10 + turn * 900, 1, *http())
    (found,) = findings(maker, tmp_path, "traffic-surge")
    assert (found["severity"], found["scope"]) == (severity, "shop/client-1")


# ---- slow-sql-statement -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("heavy_ms", "others_ms", "is_found"), [(60, 1, True), (60, 12, False), (10, 0.5, False)])
def test_below_the_threshold_a_statement_unlike_the_others_is_slow(
    heavy_ms: float, others_ms: float, is_found: bool, tmp_path: Path
) -> None:
    maker = three()
    ends = both_ends(maker, CLIENT, BACK)
    for turn in range(30):
        maker.ask(ends, 10 + turn * 300, heavy_ms, *mysql(f"update stock set quantity = (select 1) where id = {turn}"))
        for number in range(3):
            maker.ask(ends, 110 + turn * 300 + number * 40, others_ms, *mysql(f"update visit set n = {number}"))
    found = findings(maker, tmp_path, "slow-sql-statement")
    assert [f["severity"] for f in found] == ["warning"] * is_found
