"""Damaged captures: whatever the bytes, the import ends in a sound bundle or in one clear line."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from kubetape.bundle.reader import Bundle
from kubetape.capture.pcap import import_pcap
from kubetape.errors import ImportFileError
from tests.unit.capture.pcap.conversation import Conversation
from tests.unit.capture.pcap.craft import (
    enhanced,
    ethernet,
    interface,
    ip,
    pcap,
    section,
    udp,
    udp_datagram,
)


def specimen() -> tuple[bytes, bytes]:
    """A pcap and a pcapng file with something of everything."""
    talk = Conversation()
    talk.handshake()
    for number in range(12):
        talk.c(1 + 10 * number, 1 + 7 * number, b"0123456789")
        talk.s(1 + 7 * number, 11 + 10 * number, b"abcdefg")
    talk.c(41, 85, b"0123456789")
    talk.close(121, 85)
    frames = [(ts_ns, ethernet(packet)) for ts_ns, packet in talk.records]
    last_ns = frames[-1][0]
    inner = ethernet(udp(("10.0.0.1", 40000), ("10.0.0.2", 53), b"question"))
    carried = udp_datagram(9, 4789, b"\x08\0\0\0\0\0\x2a\0" + inner)
    options = b"\x3c\0" + b"\0" * 6 + b"\x2c\1" + b"\0" * 14 + struct.pack(">BBHI", 17, 0, 1, 5) + b"f" * 16
    more = [
        ip("1.1.1.1", "2.2.2.2", 17, carried[:40], fragment=0x2000, ip_id=9),
        ip("1.1.1.1", "2.2.2.2", 17, carried[40:], fragment=5, ip_id=9),
        ip("1.1.1.1", "2.2.2.2", 47, b"\xb0\0\x65\x58" + b"\0" * 12 + inner),
        ip("2001:db8::1", "2001:db8::2", 0, options),
    ]
    frames += [(last_ns + n, ethernet(packet)) for n, packet in enumerate(more)]
    frames.append((last_ns + 9, ethernet(b"\0\1\x08\0" + b"\0" * 30, 0x8100)))
    frames.append((last_ns + 10, ethernet(b"\0\1\xd1\x40" + more[0], 0x8847)))
    blocks = [enhanced(0, ts_ns // 1000, frame) for ts_ns, frame in frames]
    return pcap(frames, link=1), section() + interface(1) + b"".join(blocks)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.filterwarnings("error")
def test_damaged_bytes(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    capture, output = tmp_path / "damaged.pcap", tmp_path / "out.ktape"
    imported = 0
    for _ in range(60):
        data = bytearray(chance.choice(specimen()))
        match chance.randrange(3):
            case 0:
                for _ in range(chance.choice((1, 5, 50))):
                    data[chance.randrange(len(data))] = chance.choice((0, 255, chance.randrange(256)))
            case 1:
                del data[chance.randrange(len(data)) :]
            case _:
                start = chance.randrange(len(data))
                del data[start : start + chance.randrange(100)]
        capture.write_bytes(data)
        try:
            import_pcap([str(capture)], str(output))
        except ImportFileError:
            continue
        imported += 1
        bundle = Bundle(output)
        rows = bundle.table("socket_data").to_pylist()
        assert [r["ts_ns"] for r in rows] == sorted(r["ts_ns"] for r in rows)
        assert all(0 <= len(r["payload"]) <= r["size_bytes"] and r["position"] >= 0 for r in rows)
    assert imported > 20
