"""The capture corpus: every file imports, no byte is invented or lost, and trouble is seen where tshark sees it."""

from __future__ import annotations

import functools
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from kubetape.bundle.reader import Bundle
from kubetape.capture.pcap import import_pcap
from tests.conftest import CORPUS
from tests.unit.capture.pcap.slow_reader import NotOrdinaryError, streams

# One group: the bundles are made once per worker process.
pytestmark = [pytest.mark.corpus, pytest.mark.xdist_group("pcap-corpus")]
Ends = frozenset[tuple[str, int]]

# Wireshark counts the payload byte of a keep-alive as payload; it is no byte of the stream.
KEEP_ALIVE_BYTES = {"websocket/arkime-websocket": 2}


@functools.cache
def truths() -> dict[str, dict[str, Any]]:
    return {
        str(path.relative_to(CORPUS)).removesuffix(".truth.json"): json.loads(path.read_text())
        for path in sorted(CORPUS.glob("*/*.truth.json"))
    }


@functools.cache
def bundles() -> dict[str, Bundle]:
    """Every capture of the corpus, imported."""
    folder = Path(tempfile.mkdtemp(prefix="kubetape-corpus-"))
    found = {}
    try:
        for number, (name, truth) in enumerate(truths().items()):
            output = folder / f"{number}.ktape"
            with mock.patch("os.fsync"):  # 450 of them take longer than the imports
                import_pcap([str((CORPUS / name).parent / truth["file"])], str(output))
            found[name] = Bundle(output)
    finally:
        for path in folder.iterdir():  # the bundles stay mapped
            path.unlink()
        folder.rmdir()
    return found


def stream_bytes(bundle: Bundle) -> Counter[Ends]:
    """Bytes of all TCP connections between the same two ends."""
    ends = {
        row["connection_id"]: frozenset(((row["local_ip"], row["local_port"]), (row["remote_ip"], row["remote_port"])))
        for row in bundle.table("connection").to_pylist()
        if row["transport"] == "tcp"
    }
    found: Counter[Ends] = Counter(dict.fromkeys(ends.values(), 0))
    for row in bundle.table("socket_data", ["connection_id", "size_bytes"]).to_pylist():
        if row["connection_id"] in ends:
            found[ends[row["connection_id"]]] += row["size_bytes"]
    return found


def truth_streams(name: str) -> dict[Ends, Counter[str]]:
    """tshark's counts of all TCP connections between the same two ends."""
    found: dict[Ends, Counter[str]] = {}
    for stream in truths()[name]["tcp_streams"]:
        ends = frozenset((host.strip("[]"), int(port)) for host, _, port in (stream[e].rpartition(":") for e in "ab"))
        counts = {k: v for k, v in stream.items() if isinstance(v, int)}
        found.setdefault(ends, Counter()).update(counts)
    return found


def event_counts(bundle: Bundle) -> Counter[str]:
    counts: Counter[str] = Counter()
    for row in bundle.table("tcp_event", ["kind", "detail"]).to_pylist():
        detail = row["detail"] if row["detail"] in ("syn", "synack") else ""
        counts[f"{row['kind']} {detail}".strip()] += 1
    return counts


def test_every_capture_imports() -> None:
    assert len(bundles()) == len(truths()) >= 450
    for name, bundle in bundles().items():
        assert bundle.verify() == [], name


def test_tables_are_sorted_by_time() -> None:
    for name, bundle in bundles().items():
        for table in ("socket_data", "tcp_event", "tcp_sample"):
            times = bundle.table(table, ["ts_ns"])["ts_ns"].to_numpy()
            assert (times[1:] >= times[:-1]).all(), (name, table)


def test_bytes_are_conserved() -> None:
    """Where tshark saw no byte twice, the streams have exactly its number of payload bytes; never more."""
    wrong: list[tuple[object, ...]] = []
    for name, bundle in bundles().items():
        found, truth = stream_bytes(bundle), truth_streams(name)
        if set(found) != set(truth):
            wrong.append((name, "connections", set(found) ^ set(truth)))
        for ends, counts in truth.items():
            expected = counts["payload_bytes"] - KEEP_ALIVE_BYTES.get(name, 0)
            twice = counts["retransmission"] + counts["spurious_retransmission"] + counts["out_of_order"]
            if found[ends] > expected or (found[ends] < expected and not twice):
                wrong.append((name, found[ends], counts))
    assert wrong == []


def test_streams_agree_with_a_slow_reading() -> None:
    """Byte for byte, at the right sequence numbers, in every plain capture."""
    compared = 0
    for name, bundle in bundles().items():
        try:
            expected = streams((CORPUS / name).parent / truths()[name]["file"])
        except NotOrdinaryError:
            continue
        rows = {row["connection_id"]: row for row in bundle.table("connection").to_pylist()}
        found: dict[tuple[str, int, str, int], dict[int, int]] = {}
        for row in bundle.table("socket_data", ["connection_id", "direction", "position", "payload"]).to_pylist():
            connection = rows[row["connection_id"]]
            if connection["transport"] != "tcp":
                continue
            local = (connection["local_ip"], connection["local_port"])
            remote = (connection["remote_ip"], connection["remote_port"])
            key = (*local, *remote) if row["direction"] == "send" else (*remote, *local)
            stream = found.setdefault(key, {})
            for offset, byte in enumerate(row["payload"]):
                assert stream.setdefault((row["position"] + offset) & 0xFFFFFFFF, byte) == byte, name
        assert found == expected, name
        compared += len(expected)
    assert compared > 500


# What tshark flags and the importer, on purpose, does not; each capture was looked at.
# Captured twice (same IP identification, within a second): tshark sees resent segments and duplicate ACKs.
CAPTURED_TWICE = {
    "http/arkime-http-post-upload",
    "http/zeek-ctu-62604-80",
    "http/zeek-m57-long-49600-80",
    "http/zeek-vnd.ms-cab-compressed-multi-conn",
    "ldap/pcapplusplus-PacketExamples",
    "mongodb/arkime-mongo",
    "mysql/zeek-mysql8-navicat-login-failed",
    "oracle-tns/arkime-oracle",
    "postgresql/zeek-psql-login-no-role",
    "tcp-health/arkime-tcp-reassembly-synthetic",
    "thrift/packetbeat-thrift_echo_binary",
    "tls/zeek-ssl-to-http-server",
}
EXACT = {
    "reset": ("reset_sent", "reset_received"),
    "duplicate_ack": ("duplicate_ack",),
    "keep_alive": ("keep_alive",),
    "syn_retransmission": ("retransmit syn",),
    "synack_retransmission": ("retransmit synack",),
}


@pytest.mark.parametrize("field", sorted(EXACT))
def test_events_agree_with_tshark(field: str) -> None:
    wrong = {}
    seen = 0
    for name, bundle in bundles().items():
        expected = truths()[name]["tcp_analysis"].get(field, 0)
        found = sum(event_counts(bundle)[kind] for kind in EXACT[field])
        seen += found
        if found != expected and not (name in CAPTURED_TWICE and found < expected):
            wrong[name] = (found, expected)
    assert wrong == {}
    assert seen > 0


def test_retransmissions_and_reordering_agree_with_tshark() -> None:
    """In sum of both, for tshark tells them apart by time alone."""
    wrong = {}
    for name, bundle in bundles().items():
        analysis = truths()[name]["tcp_analysis"]
        counts = event_counts(bundle)
        found = sum(counts[kind] for kind in ("retransmit", "retransmit syn", "retransmit synack", "out_of_order"))
        expected = analysis.get("retransmission", 0) + analysis.get("out_of_order", 0)
        if found != expected and not (name in CAPTURED_TWICE and found < expected):
            wrong[name] = (found, expected)
    assert wrong == {}


# tshark flags a segment that arrives too early at once; here bytes are lost only if they never come.
FILLED_LATER = {
    "http/arkime-http-tcp-seq-issue": 1,
    "postgresql/zeek-psql-aws-ssl-require": 1,
    "postgresql/zeek-psql-aws-ssl-require-15432": 1,
    "tls/zeek-ssl-to-http-server": 1,
}


def test_losses_agree_with_tshark() -> None:
    """Bytes lost are found in the same captures; a hole is one row here, tshark may flag it twice."""
    wrong = {}
    for name, bundle in bundles().items():
        analysis = truths()[name]["tcp_analysis"]
        flagged = analysis.get("lost_segment", 0) + analysis.get("ack_lost_segment", 0)
        found = event_counts(bundle)["lost_segment"]
        if (found > 0) != (flagged - FILLED_LATER.get(name, 0) > 0) or found > flagged:
            wrong[name] = (found, flagged)
    assert wrong == {}


def test_handshake_times_agree_with_tshark() -> None:
    """tshark's initial RTT runs from the SYN to the client's ACK: the first samples of both directions together."""
    compared = 0
    for name, truth in truths().items():
        if len(truth["tcp_streams"]) != 1 or "initial_rtt" not in truth["tcp_streams"][0] or name in CAPTURED_TWICE:
            continue
        stream = truth["tcp_streams"][0]
        if stream.get("syn_retransmission") or stream.get("synack_retransmission"):
            continue
        if name == "tcp-health/deepflow-out-of-order":  # its SYN-ACK comes before its SYN
            continue
        samples = bundles()[name].table("tcp_sample", ["direction", "srtt_ns"]).to_pylist()
        first = {row["direction"]: row["srtt_ns"] for row in reversed(samples)}
        if len(first) == 2:
            assert sum(first.values()) == pytest.approx(float(stream["initial_rtt"]) * 1e9, abs=1000), name
            compared += 1
    assert compared > 100
