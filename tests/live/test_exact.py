"""A known workload goes in, exactly its events come out."""

from __future__ import annotations

import json
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kubetape.bundle.reader import Bundle
from kubetape.capture.btf import TYPEDEF, Btf
from tests.live.recording import one, record, rows, stream

pytestmark = pytest.mark.live

WORKLOAD = Path(__file__).parent / "workload.py"


def best_mechanism(typed: bool) -> str:
    """What the ladder of socket_data has to choose here: the tracepoints came with kernel 6.3."""
    if Btf.of_kernel().find("btf_trace_sock_send_length", TYPEDEF) is not None:
        return "tp_btf:sock_send_length" if typed else "raw_tracepoint:sock_send_length"
    return "fexit:inet_sendmsg" if typed else "kprobe:inet_sendmsg"


@pytest.fixture(scope="module", params=["typed", "plain"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("exact")
    if request.param == "typed":
        done = record(folder / "x.ktape", "--", sys.executable, str(WORKLOAD))
        known = json.loads(done.stdout.splitlines()[0])
    else:
        known = _record_plain(folder)
    bundle = Bundle(folder / "x.ktape")
    mechanisms = {p.probe: p.mechanism for p in bundle.manifest.nodes[0].probes}
    assert (mechanisms["socket_data"] or "").startswith(best_mechanism(request.param == "typed"))
    return bundle, known


def _record_plain(folder: Path) -> dict[str, Any]:
    """As on kernels without typed tracepoints."""
    from kubetape.capture.recorder import Options, Recorder

    output = folder / "known.json"
    command = ("/bin/sh", "-c", f"exec {sys.executable} {WORKLOAD} > {output}")
    options = Options(output=str(folder / "x.ktape"), kubernetes=False, direct=False, command=command)
    assert Recorder(options).run().command_status == 0
    known: dict[str, Any] = json.loads(output.read_text())
    return known


def connection(bundle: Bundle, known: dict[str, Any], side: str) -> dict[str, Any]:
    local, remote = ("client_port", "server_port") if side == "client" else ("server_port", "client_port")
    return one(rows(bundle, "connection", local_port=known[local], remote_port=known[remote], transport="tcp"))


@pytest.mark.parametrize("family", ["tcp4", "tcp6"])
def test_every_system_call_of_a_stream(run: tuple[Bundle, dict[str, Any]], family: str) -> None:
    bundle, known = run
    exchange = known[family]
    client, server = connection(bundle, exchange, "client"), connection(bundle, exchange, "server")

    assert (client["side"], server["side"]) == ("client", "server")
    assert client["side_basis"] == server["side_basis"] == "state"
    assert client["pid"] == server["pid"] == known["pid"]
    assert client["close_reason"] == server["close_reason"] == "fin"
    sent = bytes.fromhex(exchange["sent"])
    assert stream(bundle, client["connection_id"], "send") == sent
    assert stream(bundle, server["connection_id"], "receive") == sent
    moved = Counter(
        (r["direction"], r["call"])
        for r in rows(bundle, "socket_data")
        if r["connection_id"] in (client["connection_id"], server["connection_id"])
    )
    assert moved == {(direction, call): count for direction, call, count in exchange["calls"]}


def test_the_same_byte_has_the_same_position_at_both_ends(run: tuple[Bundle, dict[str, Any]]) -> None:
    bundle, known = run
    ends = [connection(bundle, known["tcp4"], side)["connection_id"] for side in ("client", "server")]
    first = [
        rows(bundle, "socket_data", connection_id=i, direction=d)[0]
        for i, d in zip(ends, ("send", "receive"), strict=True)
    ]
    assert first[0]["payload"] == first[1]["payload"]
    assert first[0]["position"] & 0xFFFFFFFF == first[1]["position"] & 0xFFFFFFFF


def test_the_end_of_a_stream_is_no_byte_of_it(run: tuple[Bundle, dict[str, Any]]) -> None:
    bundle, known = run
    for port in known["last_words"]:
        (client,) = rows(bundle, "connection", local_port=port)
        (server,) = rows(bundle, "connection", remote_port=port)
        sent = rows(bundle, "socket_data", connection_id=server["connection_id"], direction="send")
        got = rows(bundle, "socket_data", connection_id=client["connection_id"], direction="receive")
        assert [r["position"] & 0xFFFFFFFF for r in got] == [r["position"] & 0xFFFFFFFF for r in sent]


def test_sendfile_and_splice_are_lengths(run: tuple[Bundle, dict[str, Any]]) -> None:
    bundle, known = run
    client, server = (connection(bundle, known["transfer"], side) for side in ("client", "server"))
    sent = rows(bundle, "socket_data", connection_id=client["connection_id"])
    got = rows(bundle, "socket_data", connection_id=server["connection_id"])

    assert sum(r["size_bytes"] for r in sent) == sum(r["size_bytes"] for r in got) == 5011
    assert sum(r["size_bytes"] for r in sent if r["call"] == "sendfile") == 5000
    assert sum(r["size_bytes"] for r in got if r["call"] == "splice") == 5000
    assert {r["call"] for r in sent + got if r["payload"] is None} == {"sendfile", "splice"}
    assert [r["payload"] for r in got if r["payload"]] == [b"before", b"after"]


@pytest.mark.parametrize("family", ["udp4", "udp6"])
def test_datagrams_both_ways_with_their_peers(run: tuple[Bundle, dict[str, Any]], family: str) -> None:
    bundle, known = run
    ports = known[family]
    host = "127.0.0.1" if family == "udp4" else "::1"

    def seen(local: str, remote: str) -> list[tuple[str, bytes]]:
        found = one(rows(bundle, "connection", local_port=ports[local], remote_port=ports[remote], transport="udp"))
        assert found["remote_ip"] == host
        return [
            (r["direction"], r["payload"]) for r in rows(bundle, "socket_data", connection_id=found["connection_id"])
        ]

    question = [b"question", b"answer to question", b""]
    assert seen("loose_port", "server_port") == list(zip(("send", "receive", "send"), question, strict=True))
    assert seen("server_port", "loose_port") == list(zip(("receive", "send", "receive"), question, strict=True))
    batch = [b.encode() for b in ports["batch"]] + [b"more 0", b"more 1", b"last"]
    assert seen("connected_port", "server_port") == [("send", data) for data in batch]


@pytest.mark.parametrize("family", ["udp4", "udp6"])
def test_recvmmsg_takes_each_message_from_its_own_buffer(run: tuple[Bundle, dict[str, Any]], family: str) -> None:
    bundle, known = run
    ports = known[family]
    local = {r["connection_id"] for r in rows(bundle, "connection", local_port=ports["server_port"], transport="udp")}
    got = [r["payload"] for r in rows(bundle, "socket_data", call="recvmmsg") if r["connection_id"] in local]
    assert got == [b.encode() for b in ports["batch"]] + [b"more 0", b"more 1", b"last"]


def test_counters_of_datagram_sockets(run: tuple[Bundle, dict[str, Any]]) -> None:
    bundle, known = run
    ports = {known["udp4"]["connected_port"], known["udp6"]["connected_port"]}
    for connection_row in rows(bundle, "connection", transport="udp"):
        totals = one(rows(bundle, "udp_sample", connection_id=connection_row["connection_id"]))
        moved = rows(bundle, "socket_data", connection_id=connection_row["connection_id"])
        sent = [r["size_bytes"] for r in moved if r["direction"] == "send"]
        assert (totals["sent_count"], totals["sent_bytes"]) == (len(sent), sum(sent))
        assert totals["received_count"] == len(moved) - len(sent)
        if connection_row["local_port"] in ports:
            assert totals["sent_count"] == 8


def test_connects_and_their_results(run: tuple[Bundle, dict[str, Any]]) -> None:
    bundle, known = run
    expected = known["connects"]
    results = Counter(r["detail"] for r in rows(bundle, "tcp_event", kind="connect", remote_port=expected["port"]))
    assert results == {"ok": expected["ok"], "refused": expected["refused"]}
    assert all(r["local_port"] for r in rows(bundle, "tcp_event", kind="connect", remote_port=expected["port"]))
    servers = [c["close_reason"] for c in rows(bundle, "connection", local_port=expected["port"])]
    assert Counter(servers) == {"fin": expected["ok"] - expected["reset"], "reset_sent": expected["reset"]}
    clients = Counter(c["close_reason"] for c in rows(bundle, "connection", remote_port=expected["port"]))
    assert clients["reset_received"] == expected["reset"] + expected["refused"]


def test_processes_that_ran_and_how_they_ended(run: tuple[Bundle, dict[str, Any]]) -> None:
    bundle, known = run
    execs = [r for r in rows(bundle, "process_event", kind="exec") if r["arguments"] == "/bin/true kubetape-known"]
    assert len(execs) == known["processes"]["execs"]
    ends = {r["pid"]: r for r in rows(bundle, "process_event", kind="exit")}
    assert all(ends[r["pid"]]["exit_code"] == 0 for r in execs)
    status = one([r for r in rows(bundle, "process_event", kind="exec") if "kubetape-status" in (r["arguments"] or "")])
    assert ends[status["pid"]]["exit_code"] == 3
    killed = ends[known["processes"]["killed"]]
    assert (killed["exit_code"], killed["exit_signal"]) == (None, 9)


def test_nothing_was_lost_and_the_bundle_is_intact(run: tuple[Bundle, dict[str, Any]]) -> None:
    bundle, _ = run
    assert bundle.verify() == []
    node = bundle.manifest.nodes[0]
    assert node.stop_reason == "command"
    assert sum(p.lost_count for p in node.probes) == 0
    assert rows(bundle, "loss") == []
    assert all(
        a <= b
        for table in ("socket_data", "tcp_event", "tcp_sample", "process_event")
        for times in [bundle.table(table).column("ts_ns").to_pylist()]
        for a, b in pairwise(times)
    )
