"""Container formats: the same datagrams in every form, damaged ones, and what is no capture at all."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest

from kubetape.capture.pcap import import_pcap
from kubetape.errors import ImportFileError
from tests.unit.capture.pcap.conversation import START_NS
from tests.unit.capture.pcap.craft import (
    block,
    enhanced,
    ethernet,
    imported,
    interface,
    option,
    pcap,
    rows,
    section,
    udp,
)

A, B = ("10.0.0.1", 40000), ("10.0.0.2", 53)
FRAMES = [udp(A, B, b"question"), udp(B, A, b"answer")]
TIMES = [START_NS, START_NS + 1_000]
EXPECTED = [(TIMES[0], "send", b"question"), (TIMES[1], "receive", b"answer")]
COLUMNS = ("ts_ns", "direction", "payload")
RECORDS = list(zip(TIMES, FRAMES, strict=True))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["micro", "nano", "modified"])
def test_pcap(tmp_path: Path, kind: str, order: str) -> None:
    bundle = imported(tmp_path, pcap(RECORDS, kind=kind, order=order))
    assert rows(bundle, "socket_data", *COLUMNS) == EXPECTED
    assert bundle.manifest.nodes[0].notes == []


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng(tmp_path: Path, order: str) -> None:
    secrets = block(10, struct.pack(order + "II", 0x544C534B, 4) + b"keys", order)
    blocks = [enhanced(0, t // 1000, f, order) for t, f in RECORDS]
    data = section(order) + interface(101, order) + blocks[0] + secrets + blocks[1]
    bundle = imported(tmp_path, data)
    assert rows(bundle, "socket_data", *COLUMNS) == EXPECTED
    node = bundle.manifest.nodes[0]
    assert (node.source, node.stop_reason, node.notes) == ("pcap", "end_of_file", [])
    assert (node.start_ns, node.end_ns) == (TIMES[0], TIMES[1])
    assert all(anchor.monotonic_ns == anchor.realtime_ns for anchor in node.clock)


def test_pcapng_with_several_sections_and_interfaces(tmp_path: Path) -> None:
    """Two byte orders, two link types, three clocks: microseconds, nanoseconds, and 2**-20 s with an offset."""
    nano = option(9, b"\x09")
    binary = option(9, b"\x94", ">") + option(14, struct.pack(">q", 1_700_000_000), ">")
    data = (
        section()
        + interface(101)
        + interface(1, options=nano + option(2, b"eth0"))
        + enhanced(0, START_NS // 1000, FRAMES[0])
        + enhanced(1, START_NS + 7, ethernet(FRAMES[1]))
        + section(">")
        + interface(101, ">", binary)
        + enhanced(0, 3 << 19, udp(A, B, b"third"), ">")
    )
    bundle = imported(tmp_path, data)
    assert rows(bundle, "socket_data", *COLUMNS) == [
        (START_NS, "send", b"question"),
        (START_NS + 7, "receive", b"answer"),
        (START_NS + 1_500_000_000, "send", b"third"),
    ]
    facts = bundle.manifest.nodes[0].facts["capture_files"][0]
    assert (facts["interfaces"], facts["link_types"]) == (["", "eth0", ""], [1, 101])


def test_simple_and_obsolete_packet_blocks(tmp_path: Path) -> None:
    simple = block(3, struct.pack("<I", len(FRAMES[1])) + FRAMES[1])
    ticks = START_NS // 1000
    words = struct.pack("<HHIIII", 0, 0, ticks >> 32, ticks & 0xFFFFFFFF, len(FRAMES[0]), len(FRAMES[0]))
    bundle = imported(tmp_path, section() + interface(101) + block(2, words + FRAMES[0]) + simple)
    # A simple packet block has no time; it gets that of the packet before it.
    assert rows(bundle, "socket_data", *COLUMNS) == [EXPECTED[0], (START_NS, "receive", b"answer")]


def test_drops_the_capture_admits_are_reported(tmp_path: Path) -> None:
    statistics = block(5, struct.pack("<III", 0, 0, 0) + option(5, struct.pack("<Q", 17)))
    data = section() + interface(101) + enhanced(0, START_NS // 1000, FRAMES[0]) + statistics
    assert imported(tmp_path, data).manifest.nodes[0].probes[0].lost_count == 17


def test_gzip(tmp_path: Path) -> None:
    packed = gzip.compress(pcap(RECORDS))
    assert rows(imported(tmp_path, packed), "socket_data", *COLUMNS) == EXPECTED
    cut = imported(tmp_path, packed[:-12])
    assert "compressed data is cut off" in " ".join(cut.manifest.nodes[0].notes)


def test_a_cut_off_end_is_a_note(tmp_path: Path) -> None:
    for data in (pcap(RECORDS), section() + interface(101) + b"".join(enhanced(0, 5, f) for f in FRAMES)):
        bundle = imported(tmp_path, data[:-3])
        assert rows(bundle, "socket_data", "payload") == [b"question"]
        assert "cut off inside its last" in bundle.manifest.nodes[0].notes[0]


def test_damage_in_the_middle_is_a_note(tmp_path: Path) -> None:
    whole = pcap([*RECORDS, (START_NS + 5, FRAMES[0])])
    at = 24 + 16 + len(FRAMES[0])
    damaged = whole[: at + 8] + b"\xff\xff\xff\xff" + whole[at + 12 :]
    bundle = imported(tmp_path, damaged)
    assert rows(bundle, "socket_data", "payload") == [b"question"]
    assert f"damaged at byte {at}" in bundle.manifest.nodes[0].notes[0]


def test_several_files_are_merged_by_time(tmp_path: Path) -> None:
    first = pcap([(START_NS, FRAMES[0]), (START_NS + 2000, udp(A, B, b"c"))])
    second = pcap([(START_NS + 1000, FRAMES[1]), (START_NS + 3000, udp(B, A, b"d"))], order=">", kind="nano")
    bundle = imported(tmp_path, first, second)
    assert rows(bundle, "socket_data", "payload") == [b"question", b"answer", b"c", b"d"]
    assert bundle.row_count("connection") == 1


def test_packets_out_of_order_are_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Displaced within a window, and over many windows (then the file is listed and sorted as a whole)."""
    numbers = [n ^ 3 for n in range(200)]
    frames = [(START_NS + n * 1000, udp(A, B, b"%03d" % n + b"." * 100)) for n in numbers]
    expected = sorted(frame[1][28:] for frame in frames)
    assert rows(imported(tmp_path, pcap(frames)), "socket_data", "payload") == expected
    monkeypatch.setattr("kubetape.capture.pcap.file_input.WINDOW_BYTES", 1000)
    monkeypatch.setattr("kubetape.capture.pcap.opening.WINDOW_BYTES", 1000)
    turned = pcap(frames[100:] + frames[:100])
    for data in (turned, gzip.compress(turned)):
        bundle = imported(tmp_path, data)
        assert rows(bundle, "socket_data", "payload") == expected
        assert "not in the order of their times" in " ".join(bundle.manifest.nodes[0].notes)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"hello world, this is no capture", "not a pcap or pcapng capture"),
        (b"\xd4\xc3", "not a pcap or pcapng capture"),
        (b"PK\x03\x04rest", "ZIP"),
        (pcap([])[:20], "ends inside its file header"),
        (section()[:15], "ends inside its first block"),
        (pcap(RECORDS, link=105), "link type 105 (802.11), which is not supported"),
        (gzip.compress(b"", mtime=0), "is empty"),
    ],
)
def test_unusable_files_are_refused_in_one_line(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "input"
    path.write_bytes(data)
    with pytest.raises(ImportFileError, match="input") as caught:
        import_pcap([str(path)], str(tmp_path / "out.ktape"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["input"]


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(ImportFileError, match="cannot read"):
            import_pcap([str(path)], str(tmp_path / "out.ktape"))


def test_a_capture_without_packets_gives_an_empty_bundle(tmp_path: Path) -> None:
    bundle = imported(tmp_path, pcap([]))
    assert bundle.row_count("socket_data") == 0
    assert bundle.verify() == []
