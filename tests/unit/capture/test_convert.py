"""A small real spool becomes a bundle, without eBPF."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from kubetape.bundle.reader import Bundle
from kubetape.capture.convert import convert
from kubetape.capture.records import record_offsets, windows
from kubetape.capture.spool import JSON, SpoolReader
from kubetape.errors import CaptureError

SMALL = Path(__file__).parents[2] / "data" / "capture" / "small.spool"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    convert(SpoolReader(str(SMALL)), str(tmp_path / "x.ktape"))
    return Bundle(tmp_path / "x.ktape")


def test_the_exchanges_of_the_sample(bundle: Bundle) -> None:
    assert bundle.verify() == []
    connections = {(c["local_port"], c["side"]): c for c in bundle.table("connection").to_pylist()}
    server = connections[18080, "server"]
    received = [
        r["payload"]
        for r in bundle.table("socket_data").to_pylist()
        if r["connection_id"] == server["connection_id"] and r["direction"] == "receive"
    ]
    assert received == [b"GET /item/%d HTTP/1.1\r\nHost: shop\r\n\r\n" % i for i in range(20)]
    sent = [
        r["payload"]
        for r in bundle.table("socket_data").to_pylist()
        if r["connection_id"] == server["connection_id"] and r["direction"] == "send"
    ]
    assert sent == [b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n%3d" % i for i in range(20)]
    assert (server["transport"], server["local_ip"], server["close_reason"]) == ("tcp", "127.0.0.1", "fin")


def test_datagrams_of_unconnected_sockets_belong_to_their_peers(bundle: Bundle) -> None:
    udp = [c for c in bundle.table("connection").to_pylist() if c["transport"] == "udp"]
    assert {(c["side"], c["remote_ip"], c["remote_port"] == 18053) for c in udp} == {
        ("client", "::1", True),
        ("server", "::1", False),
    }
    ids = {c["connection_id"]: c["side"] for c in udp}
    moved = [
        (ids[r["connection_id"]], r["direction"], r["payload"])
        for r in bundle.table("socket_data").to_pylist()
        if r["connection_id"] in ids
    ]
    assert moved == [
        ("client", "send", b"question"),
        ("server", "receive", b"question"),
        ("server", "send", b"answer"),
        ("client", "receive", b"answer"),
    ]


def test_the_manifest_counts_what_the_probes_saw(bundle: Bundle) -> None:
    node = bundle.manifest.nodes[0]
    probes = {p.probe: p for p in node.probes}
    assert probes["socket_data"].event_count == bundle.row_count("socket_data") == 84
    assert node.stop_reason == "command"
    assert len(node.clock) >= 2


def test_events_do_not_depend_on_the_window(tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    small = windows.__defaults__
    assert small is not None
    monkeypatch.setattr(windows, "__defaults__", (64,))
    convert(SpoolReader(str(SMALL)), str(tmp_path / "y.ktape"))
    assert Bundle(tmp_path / "y.ktape").table("socket_data").equals(bundle.table("socket_data"))


@pytest.mark.parametrize("cut", [1, 100, 5000])
def test_a_spool_cut_off_anywhere_still_converts(tmp_path: Path, cut: int) -> None:
    shutil.copy(SMALL, tmp_path / "s")
    with open(tmp_path / "s", "r+b") as file:
        file.truncate(SMALL.stat().st_size - cut)
    convert(SpoolReader(str(tmp_path / "s")), str(tmp_path / "x.ktape"))
    bundle = Bundle(tmp_path / "x.ktape")
    assert bundle.verify() == []
    assert bundle.manifest.nodes[0].stop_reason == "recovered"
    assert any("cut off" in note for note in bundle.manifest.nodes[0].notes)


@pytest.mark.parametrize("data", [b"", b"x", b"PK\x03\x04" + bytes(100)])
def test_what_is_no_spool_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "s").write_bytes(data)
    with pytest.raises(CaptureError):
        SpoolReader(str(tmp_path / "s"))


def test_the_first_frame_says_what_the_events_look_like() -> None:
    spool = SpoolReader(str(SMALL))
    assert spool.frames[0].kind == JSON
    assert {layout["name"] for layout in spool.header["layouts"]} >= {"data_event", "connection_event"}


def ring_bytes(*lengths: int, flags: int = 0) -> bytes:
    return b"".join(struct.pack("<II", n | flags, 0) + bytes(n + (-n % 8)) for n in lengths)


def test_records_are_found_in_ranges_followed_side_by_side() -> None:
    first, second = ring_bytes(48, 53, 60), ring_bytes(100)
    data = np.frombuffer(first + second, np.uint32)
    begins, ends = np.array([0, len(first)]), np.array([len(first), len(first) + len(second)])
    offsets, busy, damaged = record_offsets(data, begins, ends)
    assert offsets.tolist() == [8, 64, 128, len(first) + 8]
    assert (busy, damaged) == (0, 0)


def test_unfinished_and_damaged_records_are_counted_not_believed() -> None:
    busy_bit = 1 << 31
    data = ring_bytes(48) + ring_bytes(24, flags=busy_bit) + ring_bytes(16)
    broken = struct.pack("<II", 1 << 20, 0) + bytes(24)
    words = np.frombuffer(data + broken, np.uint32)
    begins, ends = np.array([0, len(data)]), np.array([len(data), len(data) + len(broken)])
    offsets, busy, damaged = record_offsets(words, begins, ends)
    assert offsets.tolist() == [8, 56 + 32 + 8]
    assert (busy, damaged) == (1, len(broken))
