"""Everything that may stand before TCP and UDP: link layers, tags, tunnels, fragments, extension headers."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.unit.capture.pcap.conversation import MS, START_NS, Conversation
from tests.unit.capture.pcap.craft import ethernet, imported, ip, pcap, rows, tcp, udp, udp_datagram

A, B = ("10.0.0.1", 40000), ("10.0.0.2", 53)
A6, B6 = ("2001:db8::1", 40000), ("2001:db8::2", 53)
V4, V6 = udp(A, B, b"four"), udp(A6, B6, b"six")


def tag(number: int, packet: bytes, kind: int = 0x8100, inner: int = 0x0800) -> bytes:
    """An Ethernet frame with one VLAN tag."""
    return ethernet(number.to_bytes(2, "big") + inner.to_bytes(2, "big") + packet, kind)


@pytest.mark.parametrize(
    ("link", "before"),
    [
        (1, ethernet(V4)[:14]),
        (113, struct.pack(">HHH8sH", 0, 1, 6, b"\2" * 8, 0x0800)),
        (276, struct.pack(">HHIHBB8s", 0x0800, 0, 3, 1, 0, 6, b"\2" * 8)),
        (0, struct.pack("<I", 2)),
        (0, struct.pack(">I", 2)),
        (108, struct.pack(">I", 2)),
        (101, b""),
        (12, b""),
        (228, b""),
        (10, b"\x50" + b"\2" * 12 + b"\xaa\xaa\3\0\0\0\x08\0"),
        (9, b"\xff\3\0\x21"),
        (104, b"\x0f\0\x08\0"),
        (1, b"\2" * 12 + b"\0\x30\xaa\xaa\3\0\0\0\x08\0"),
    ],
)
def test_link_layers(tmp_path: Path, link: int, before: bytes) -> None:
    bundle = imported(tmp_path, pcap([(START_NS, before + V4)], link=link))
    assert rows(bundle, "socket_data", "payload") == [b"four"]
    assert rows(bundle, "connection", "local_ip", "local_port", "remote_ip", "remote_port", "encapsulation") == [
        (*A, *B, None)
    ]


GRE = ip("1.1.1.1", "2.2.2.2", 47, b"\x20\0\x08\0" + b"\0\0\0\7" + V4)
VXLAN = udp(("1.1.1.1", 5555), ("2.2.2.2", 4789), b"\x08\0\0\0\0\0\x2a\0" + ethernet(V4))
GENEVE = udp(("1.1.1.1", 5555), ("2.2.2.2", 6081), b"\x01\0\x65\x58\0\0\x63\0" + b"opt!" + ethernet(V4))


@pytest.mark.parametrize(
    ("frame", "label"),
    [
        (tag(7, V4), "vlan:7"),
        (tag(0, V4), None),
        (tag(3, V6, inner=0x86DD), "vlan:3"),
        (tag(7, b"\0\x09\x08\0" + V4, 0x88A8, 0x8100), "vlan:7/vlan:9"),
        (ethernet(b"\0\x01\xd1\x40" + V4, 0x8847), "mpls:29"),
        (ethernet(b"\0\x01\xd0\x40\0\0\x21\x40" + V6, 0x8847), "mpls:29/mpls:2"),
        (ethernet(b"\x11\0\0\x05\0\x20\0\x21" + V4, 0x8864), "pppoe"),
        (ethernet(ip("1.1.1.1", "2.2.2.2", 4, V4)), "ipip"),
        (ethernet(ip("1.1.1.1", "2.2.2.2", 41, V6)), "ipip"),
        (ethernet(ip(A6[0], B6[0], 4, V4)), "ip6tnl"),
        (ethernet(GRE), "gre"),
        (ethernet(ip("1.1.1.1", "2.2.2.2", 47, b"\0\0\x65\x58" + ethernet(V4))), "gre"),
        (ethernet(VXLAN), "vxlan:42"),
        (ethernet(GENEVE), "geneve:99"),
        (tag(5, VXLAN), "vlan:5/vxlan:42"),
        (ethernet(ip("3.3.3.3", "4.4.4.4", 4, GRE)), "ipip/gre"),
    ],
)
def test_tags_and_tunnels(tmp_path: Path, frame: bytes, label: str | None) -> None:
    bundle = imported(tmp_path, pcap([(START_NS, frame)], link=1))
    assert rows(bundle, "socket_data", "payload") in ([b"four"], [b"six"])
    assert rows(bundle, "connection", "encapsulation") == [label]


def test_ethernet_padding_is_no_payload(tmp_path: Path) -> None:
    frame = ethernet(udp(A, B, b"x")) + b"\0" * 20
    assert rows(imported(tmp_path, pcap([(START_NS, frame)], link=1)), "socket_data", "payload") == [b"x"]


def test_ipv6_extension_headers(tmp_path: Path) -> None:
    segment = b"\x3c\0" + b"\0" * 6 + b"\x11\1" + b"\0" * 14 + udp_datagram(A6[1], B6[1], b"deep")
    bundle = imported(tmp_path, pcap([(START_NS, ip(A6[0], B6[0], 0, segment))]))
    assert rows(bundle, "socket_data", "payload") == [b"deep"]
    assert rows(bundle, "connection", "local_ip", "remote_port") == [(A6[0], 53)]


def fragments(version: int, datagram: bytes, size: int) -> list[bytes]:
    pieces = []
    for offset in range(0, len(datagram), size):
        part, more = datagram[offset : offset + size], offset + size < len(datagram)
        if version == 4:
            pieces.append(ip(A[0], B[0], 17, part, fragment=offset // 8 | more << 13, ip_id=77))
        else:
            head = struct.pack(">BBHI", 17, 0, offset | more, 77)
            pieces.append(ip(A6[0], B6[0], 44, head + part))
    return pieces


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (0, 0, 2, 1)])
def test_fragments(tmp_path: Path, version: int, order: tuple[int, ...]) -> None:
    payload = bytes(range(256)) * 4
    pieces = fragments(version, udp_datagram(40000, 53, payload), 400)
    records = [(START_NS + n * MS, pieces[k]) for n, k in enumerate(order)]
    bundle = imported(tmp_path, pcap(records))
    assert rows(bundle, "socket_data", "ts_ns", "size_bytes", "payload") == [
        (START_NS + (len(order) - 1) * MS, 1024, payload)
    ]
    assert rows(bundle, "connection", "remote_port") == [53]


def test_missing_fragments_are_told(tmp_path: Path) -> None:
    pieces = fragments(4, udp_datagram(40000, 53, b"x" * 1000), 400)
    bundle = imported(tmp_path, pcap([(START_NS, pieces[0]), (START_NS, pieces[2])]))
    assert bundle.row_count("socket_data") == 0
    assert bundle.manifest.nodes[0].notes == ["1 datagrams lack fragments and were left out"]


def test_a_fragmented_tunnel(tmp_path: Path) -> None:
    outer = udp_datagram(5555, 4789, b"\x08\0\0\0\0\0\x2a\0" + ethernet(udp(A, B, b"y" * 600)))
    records = [(START_NS, piece) for piece in fragments(4, outer, 400)]
    bundle = imported(tmp_path, pcap(records))
    assert rows(bundle, "socket_data", "payload") == [b"y" * 600]
    assert rows(bundle, "connection", "encapsulation") == ["vxlan:42"]


def test_the_same_packets_inside_and_outside_a_tunnel_count_once(tmp_path: Path) -> None:
    talk = Conversation()
    talk.handshake()
    talk.c(1, 1, b"request")
    talk.s(1, 8, b"reply")
    talk.close(8, 6)
    records = []
    for ts_ns, packet in talk.records:
        outer = udp(("1.1.1.1", 5555), ("2.2.2.2", 4789), b"\x08\0\0\0\0\0\x2a\0" + ethernet(packet))
        records += [(ts_ns, ethernet(packet)), (ts_ns + 20_000, ethernet(outer))]
    bundle = imported(tmp_path, pcap(records, link=1))
    assert rows(bundle, "socket_data", "payload") == [b"request", b"reply"]
    assert rows(bundle, "tcp_event", "kind") == ["connect", "state", "state"]
    assert "8 packets were captured twice" in bundle.manifest.nodes[0].notes[0]


def test_datagrams_seen_on_two_interfaces_count_once_but_repeats_count(tmp_path: Path) -> None:
    there, back = ethernet(V6), ethernet(V6)[:6] + b"\4" * 6 + ethernet(V6)[12:]
    records = [(START_NS, there), (START_NS + 1000, back), (START_NS + 500 * MS, there), (START_NS + 501 * MS, back)]
    bundle = imported(tmp_path, pcap(records, link=1))
    assert rows(bundle, "socket_data", "ts_ns") == [START_NS, START_NS + 500 * MS]


def test_icmp_errors_are_no_traffic(tmp_path: Path) -> None:
    error = ip(B[0], A[0], 1, b"\3\3\0\0\0\0\0\0" + V4)
    bundle = imported(tmp_path, pcap([(START_NS, V4), (START_NS + 1, error)]))
    assert rows(bundle, "socket_data", "payload") == [b"four"]
    assert bundle.manifest.nodes[0].notes == ["1 packets were left out: ICMP"]


def test_offloaded_segments_without_an_ip_length(tmp_path: Path) -> None:
    packet = bytearray(tcp(A, ("10.0.0.2", 80), 1, 1, payload=b"z" * 300))
    packet[2:4] = b"\0\0"
    assert rows(imported(tmp_path, pcap([(START_NS, bytes(packet))])), "socket_data", "size_bytes") == [300]


def test_the_server_answers_first_in_a_capture_begun_too_late(tmp_path: Path) -> None:
    bundle = imported(tmp_path, pcap([(START_NS, udp(B, A, b"answer"))]))
    assert rows(bundle, "connection", "local_ip", "side_basis") == [(A[0], "port")]
    assert rows(bundle, "socket_data", "direction") == ["receive"]
