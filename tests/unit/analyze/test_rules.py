"""Single rules, each on a conversation that has its fault and on one that nearly has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from kubetape.analyze.analysis import Analysis
from kubetape.analyze.findings import find, parse_rule
from kubetape.bundle.schema import TABLES
from tests.shop import MS, NODE, BundleMaker, Pod, http, mysql

CLIENT, MIDDLE, BACK = ("10.0.0.1", 40000), ("10.0.0.2", 8080), ("10.0.0.3", 80)


def three() -> BundleMaker:
    pods = [Pod("client-1", "client", CLIENT[0]), Pod("middle-1", "middle", MIDDLE[0]), Pod("back-1", "back", BACK[0])]
    return BundleMaker(pods=pods)


def findings(maker: BundleMaker, path: Path, rule: str) -> list[dict[str, Any]]:
    analysis = Analysis(maker.write(path / "x.ktape"))
    rows: list[dict[str, Any]] = analysis.query(f"SELECT * FROM finding WHERE rule = '{rule}'").to_pylist()
    return rows


def filled(table: str, row: dict[str, Any]) -> dict[str, Any]:
    """The row with nothing in what it leaves out and what may not be NULL."""
    empty = {"string": "", "label": "", "json": "{}", "bool": False}
    return {c.name: empty.get(c.type, 0) for c in TABLES[table].columns if not c.null} | row


def both_ends(maker: BundleMaker, client: tuple[str, int], server: tuple[str, int]) -> list[int]:
    return [maker.connect(client, server, side) for side in ("client", "server")]


def mysql_rows(count: int) -> bytes:
    """A result set of one column and `count` rows of 50 kB, without its end (text protocol, deprecated EOF packets)."""

    def packet(number: int, body: bytes) -> bytes:
        return len(body).to_bytes(3, "little") + bytes([number & 255]) + body

    column = b"\x03def\0\0\0\x01a\0\x0c\x21\0\0\0\0\0\xfd\0\0\0\0\0"
    head = packet(1, b"\x01") + packet(2, column) + packet(3, b"\xfe\0\0\x02\0")
    row = b"\xfd" + (50_000).to_bytes(3, "little") + b"x" * 50_000
    return head + b"".join(packet(4 + n, row) for n in range(count))


def mysql_end(count: int) -> bytes:
    """The end of that result set."""
    return b"\x05\0\0" + bytes([4 + count & 255]) + b"\xfe\0\0\x02\0"


def dns_without_answer(number: int) -> tuple[bytes, bytes]:
    """A question for a name that does not exist, and NXDOMAIN (RFC 1035, 4.1)."""
    head, question = number.to_bytes(2, "big"), b"\x03api\x07example\0\0\x01\0\x01"
    counts = b"\0\x01\0\0\0\0\0\0"
    return head + b"\x01\0" + counts + question, head + b"\x81\x83" + counts + question


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


@pytest.mark.parametrize(("megabytes", "ttfb_ms", "is_transfer"), [(2, 1, True), (2, 150, False), (0.01, 1, False)])
def test_a_statement_that_takes_as_long_as_its_answer_is_large(
    megabytes: float, ttfb_ms: float, is_transfer: bool, tmp_path: Path
) -> None:
    maker = three()
    ends = both_ends(maker, CLIENT, BACK)
    request, _ = mysql("select * from review")
    for turn in range(8):
        at = 10 + turn * 1000
        for end, way, back in ((ends[0], "send", "receive"), (ends[1], "receive", "send")):
            maker.say(end, at, way, request)
            maker.say(end, at + ttfb_ms, back, mysql_rows(int(megabytes * 20)))
            maker.say(end, at + 300, back, mysql_end(int(megabytes * 20)))
    (found,) = findings(maker, tmp_path, "slow-sql-statement")
    assert ("the transfer of" in found["title"]) == is_transfer


# ---- retry-storm: nothing succeeds ------------------------------------------------------------------------


@pytest.mark.parametrize(("every_ms", "expected"), [(700, 0), (20, 1)])
def test_visitors_of_what_always_fails_are_no_storm(tmp_path: Path, every_ms: float, expected: int) -> None:
    maker = three()
    maker.seconds = 60.0
    ends = both_ends(maker, CLIENT, BACK)
    for turn in range(60):
        maker.ask(ends, 10 + turn * every_ms, 2, *http("/", status=503))
    assert len(findings(maker, tmp_path, "retry-storm")) == expected


# ---- unread-requests --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wait_ms", "rtt_ms", "expected"), [(200, 0.1, 1), (200, 150, 0), (5, 0.1, 0)])
def test_requests_that_lie_unread(tmp_path: Path, wait_ms: float, rtt_ms: float, expected: int) -> None:
    maker = three()
    client, server = both_ends(maker, CLIENT, BACK)
    request, answer = http()
    for turn in range(20):
        at = 10 + turn * 400
        maker.say(client, at, "send", request)
        maker.say(server, at + wait_ms, "receive", request)
        maker.say(server, at + wait_ms + 40, "send", answer)
        maker.say(client, at + wait_ms + 40.1, "receive", answer)
    rtt_ns = int(rtt_ms * MS)
    sample = {"node": NODE, "ts_ns": MS, "connection_id": client, "reason": "end"}
    maker.tcp_samples.append(sample | {"srtt_ns": rtt_ns, "min_rtt_ns": rtt_ns})
    found = findings(maker, tmp_path, "unread-requests")
    assert len(found) == expected
    assert all("shop/back wait until it reads them: 200 ms (p50), then it takes 40" in f["title"] for f in found)


# ---- connect-failures -------------------------------------------------------------------------------------


def refused(port: int, local_port: int = 41000, detail: str = "refused", ip: str = BACK[0]) -> BundleMaker:
    maker = three()
    for turn in range(5):
        connection = maker.connect((CLIENT[0], local_port and local_port + turn), (ip, port), "client")
        maker.tcp_events.append(
            {
                "node": NODE, "ts_ns": turn * MS, "connection_id": connection, "kind": "connect", "detail": detail,
                "duration_ns": 50_000, "local_ip": CLIENT[0], "local_port": local_port and local_port + turn,
                "remote_ip": ip, "remote_port": port,
            }
        )  # fmt: skip
    return maker


def test_a_port_where_nobody_listens(tmp_path: Path) -> None:
    maker = refused(81)
    maker.connect(CLIENT, BACK, "server")
    maker.connections[-1]["netns_id"] = 7
    listener = {"node": NODE, "ts_ns": 0, "netns_id": 7, "transport": "tcp", "local_ip": "0.0.0.0", "local_port": 80}
    maker.more["listener"] = [listener]
    (found,) = findings(maker, tmp_path, "connect-failures")
    assert found["title"].endswith("5 of 5 attempts to port 81, refused")
    assert "shop/back listens at 80" in found["summary"]


def test_no_local_port(tmp_path: Path) -> None:
    (found,) = findings(refused(80, 0, "aborted"), tmp_path, "connect-failures")
    assert found["title"].endswith("attempts to port 80, no free local port")


@pytest.mark.parametrize(("ready", "expected"), [(False, "the service has no endpoints"), (True, "refused")])
def test_a_service_without_endpoints(tmp_path: Path, ready: bool, expected: str) -> None:
    maker = refused(80, ip="172.30.0.1")
    service = {"namespace": "shop", "name": "recommend", "cluster_ips": "172.30.0.1 fd00::80", "port": 80}
    maker.more["k8s_service"] = [filled("k8s_service", service | {"selector": "{}"})]
    endpoint = {"namespace": "shop", "service": "recommend", "ip": "10.0.0.8", "port": 80, "ready": ready}
    maker.more["k8s_endpoint"] = [filled("k8s_endpoint", endpoint)]
    (found,) = findings(maker, tmp_path, "connect-failures")
    assert found["title"].endswith(expected)


@pytest.mark.parametrize(("failing_at_ms", "worst"), [(0, "connect-failures"), (2000, "server-errors")])
def test_what_a_failed_connect_explains(tmp_path: Path, failing_at_ms: float, worst: str) -> None:
    """Only what fails while somebody tries: a replica that looks for its master does not fail its readers by it."""
    maker = refused(81)
    asked = both_ends(maker, ("10.0.0.2", 42000), (CLIENT[0], 8080))
    for turn in range(8):
        maker.ask(asked, failing_at_ms + turn * 50, 45, *http(status=503))
    analysis = Analysis(maker.write(tmp_path / "x.ktape"))
    loud = analysis.query("SELECT rule FROM finding WHERE severity <> 'notice' ORDER BY rank").to_pylist()
    assert loud[0]["rule"] == worst
    assert len(loud) == (1 if worst == "connect-failures" else 2)


@pytest.mark.parametrize(("least_rtt_ms", "expected"), [(40, 1), (0.2, 0)])
def test_a_far_pod_when_only_its_caller_was_recorded(tmp_path: Path, least_rtt_ms: float, expected: int) -> None:
    maker = three()
    connection = maker.connect(CLIENT, BACK, "client")
    for turn in range(12):
        maker.ask([connection], 10 + turn * 200, 60, *http())
    sample = {"node": NODE, "ts_ns": 500 * MS, "connection_id": connection, "reason": "periodic"}
    # Whose answer takes its time acknowledges late as well: only the smallest round trip is the way.
    maker.tcp_samples.append(sample | {"srtt_ns": 45 * MS, "min_rtt_ns": int(least_rtt_ms * MS)})
    found = findings(maker, tmp_path, "slow-network")
    assert [f["title"] for f in found] == [
        "Network between shop/client and shop/back is slow: round-trip time at least 40 ms"
    ] * expected


@pytest.mark.parametrize(("made_for_each", "expected"), [(True, ["warning"]), (False, [])])
def test_a_connection_for_each_request(tmp_path: Path, made_for_each: bool, expected: list[str]) -> None:
    maker = three()
    connection = maker.connect(CLIENT, ("10.0.0.3", 3306), "client")
    for turn in range(30):
        if made_for_each:
            connection = maker.connect((CLIENT[0], 41000 + turn), ("10.0.0.3", 3306), "client")
            maker.connections[-1] |= {"start_ns": turn * 200 * MS, "end_ns": (turn * 200 + 15) * MS}
        maker.ask([connection], turn * 200 + 10, 2, *mysql("select 1"))
    found = findings(maker, tmp_path, "connection-churn")
    assert [f["severity"] for f in found] == expected
    assert all("30 for 30 mysql requests, set up in 10 ms (p50)" in f["title"] for f in found)


# ---- time-share -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("back_ms", "title"),
    [
        (110, "requests to shop/middle (p50 120 ms, http1) 92.0 % is spent in shop/back"),
        (10, "requests to shop/middle (p50 120 ms, http1) 92.0 % is spent in shop/middle"),
    ],
)
def test_where_the_time_of_requests_from_outside_goes(tmp_path: Path, back_ms: float, title: str) -> None:
    maker = three()
    outer, inner = both_ends(maker, CLIENT, MIDDLE), both_ends(maker, (MIDDLE[0], 50000), BACK)
    for turn in range(20):
        maker.ask(outer, 10 + turn * 200, 120, *http("/outer"))
        maker.ask(inner, 15 + turn * 200, back_ms, *http("/inner"))
    (found,) = findings(maker, tmp_path, "time-share")
    assert title in found["title"]
    assert found["severity"] == "notice"


# ---- duplicate-ip -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "state", "expected"),
    [
        ("aa:aa:aa:aa:aa:02", "stale", 1),  # another pod's
        ("aa:aa:aa:aa:aa:99", "reachable", 1),  # nobody's that was recorded
        ("aa:aa:aa:aa:aa:99", "stale", 0),  # remembered only
        ("aa:aa:aa:aa:aa:03", "reachable", 0),  # its own
        ("aa:aa:aa:aa:aa:04", "reachable", 0),  # its own, of another interface, as a bridge takes a port's
        ("aa:aa:aa:aa:aa:00", "reachable", 0),  # the node's, which answers for it
    ],
)
def test_an_address_that_is_used_twice(tmp_path: Path, held: str, state: str, expected: int) -> None:
    maker = three()
    both_ends(maker, CLIENT, BACK)
    interfaces = [
        (1, "01", CLIENT[0]),
        (2, "02", MIDDLE[0]),
        (3, "03", BACK[0]),
        (3, "04", None),
        (9, "00", "10.0.0.254"),
    ]
    rows = []
    for netns, end, ip in interfaces:
        row = {"node": NODE, "netns_id": netns, "interface": f"eth{end}", "mac": f"aa:aa:aa:aa:aa:{end}"}
        rows.append(filled("interface_sample", row | {"addresses": ip and f"{ip}/24 fe80::1/64"}))
    maker.more["interface_sample"] = rows
    entry = {"node": NODE, "ts_ns": 0, "netns_id": 1, "ip": BACK[0], "mac": held, "interface": "eth0", "state": state}
    maker.more["neighbour"] = [entry, entry | {"ts_ns": 9000 * MS}]
    found = findings(maker, tmp_path, "duplicate-ip")
    assert [f["scope"] for f in found] == [BACK[0]] * expected
    assert all(("of pod shop/middle-1" in f["title"]) == (held[-2:] == "02") for f in found)


# ---- unanswered-messages ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("is_answered", "expected"), [(False, 1), (True, 0)])
def test_messages_that_nobody_answers(tmp_path: Path, is_answered: bool, expected: int) -> None:
    maker = three()
    asker = maker.connect(CLIENT, (MIDDLE[0], 4222), "client")
    listener = maker.connect((BACK[0], 50000), (MIDDLE[0], 4222), "client")
    for number, (end, subject) in enumerate(((asker, b"_INBOX.a.*"), (listener, b"rates.get"))):
        # Two connections have other positions; equal ones are the two ends of one.
        maker.say(end, 1, "receive", b'INFO {"server_id":"x"}\r\n', skip=5000 * number)
        maker.say(end, 1.5, "send", b'CONNECT {"verbose":false}\r\nSUB ' + subject + b" 1\r\n", skip=5000 * number)
    for turn in range(8):
        at = 10 + turn * 500
        maker.say(asker, at, "send", b"PUB rates.get _INBOX.a.%d 3\r\nEUR\r\n" % turn)
        maker.say(listener, at + 1, "receive", b"MSG rates.get 1 _INBOX.a.%d 3\r\nEUR\r\n" % turn)
        if is_answered:
            maker.say(listener, at + 2, "send", b"PUB _INBOX.a.%d 4\r\n1.08\r\n" % turn)
            maker.say(asker, at + 3, "receive", b"MSG _INBOX.a.%d 1 4\r\n1.08\r\n" % turn)
    found = findings(maker, tmp_path, "unanswered-messages")
    says = "shop/back does not answer what shop/client asks through shop/middle: 8 of 8 nats messages of rates.get"
    assert [f["title"] for f in found] == [says] * expected


# ---- slow-calls: where in a chain -------------------------------------------------------------------------


@pytest.mark.parametrize(("back_ms", "loud"), [(700, "shop/middle -> shop/back"), (100, "shop/client -> shop/middle")])
def test_of_slow_calls_in_a_chain_the_last_is_left(tmp_path: Path, back_ms: float, loud: str) -> None:
    maker = three()
    outer, inner = both_ends(maker, CLIENT, MIDDLE), both_ends(maker, (MIDDLE[0], 50000), BACK)
    for turn in range(8):
        maker.ask(outer, 10 + turn * 1000, 720, *http("/outer"))
        maker.ask(inner, 20 + turn * 1000, back_ms, *http("/inner"))
    found = findings(maker, tmp_path, "slow-calls")
    assert [f["scope"] for f in found if f["severity"] == "warning"] == [loud]


def test_what_costs_little_explains_no_slow_calls(tmp_path: Path) -> None:
    """A search path that fails fast, and a server that takes its time."""
    maker = three()
    names = maker.connect((CLIENT[0], 50001), ("10.0.0.5", 53), "client", "udp")
    ends = both_ends(maker, CLIENT, BACK)
    for turn in range(8):
        maker.ask(ends, 10 + turn * 1000, 800, *http())
    for turn in range(300):
        maker.ask([names], 5 + turn * 30, 0.2, *dns_without_answer(turn))
    analysis = Analysis(maker.write(tmp_path / "x.ktape"))
    rows = analysis.query("SELECT rule, severity, caused_by FROM finding WHERE severity = 'warning' ORDER BY rank")
    assert [(r["rule"], r["caused_by"]) for r in rows.to_pylist()] == [("slow-calls", None), ("dns-failures", None)]
