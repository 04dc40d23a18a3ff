"""TCP and UDP headers of many packets at once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from kubetape.capture.pcap.frames import Skipped
from kubetape.capture.pcap.ip_layer import Ip
from kubetape.capture.pcap.packets import Bools, Bytes, Ints
from kubetape.capture.pcap.rows import HEADER_BYTES, Rows, uniform

TCP, UDP = 6, 17


@dataclass
class Layer4:
    """n TCP segments and UDP datagrams as columns (all int64 unless said otherwise).

    order: number of the packet in the window, for a stable sort; buffer: index into the window's buffers;
    frame_at, ip_at: offsets of the outermost link header and the innermost IP header in that buffer;
    source_key, target_key: 64-bit mixes of the addresses; payload_at: offset of the payload; size: its true
    length; captured: how much of it is there; ip_id: identification, -1 for IPv6; seq .. window: TCP's, else 0
    (seq of UDP: its checksum); options: bytes of TCP options.
    """

    order: Ints
    ts_ns: Ints
    buffer: Ints
    frame_at: Ints
    ip_at: Ints
    protocol: Ints
    source_key: Ints
    target_key: Ints
    source_port: Ints
    target_port: Ints
    ip_id: Ints
    label: Ints
    payload_at: Ints
    size: Ints
    captured: Ints
    seq: Ints
    ack: Ints
    flags: Ints
    window: Ints

    def __len__(self) -> int:
        return len(self.order)

    def take(self, which: Ints | Bools) -> Layer4:
        return Layer4(*(getattr(self, f.name)[which] for f in dataclasses.fields(self)))

    @staticmethod
    def concatenate(parts: list[Layer4]) -> Layer4:
        names = [f.name for f in dataclasses.fields(Layer4)]
        return Layer4(*(np.concatenate([getattr(p, n) for p in parts]) for n in names))


EMPTY = Layer4(*(np.zeros(0, np.int64) for _ in dataclasses.fields(Layer4)))


def read_transport(buffer: Bytes, number: int, packet: Ip, chosen: Ints, skipped: Skipped) -> tuple[Layer4, Rows, Ints]:
    """The columns of the packets `chosen`, which carry TCP or UDP, their payload's first bytes as Rows (without
    rows where all are TCP), and which packets they are: those with an impossible header length are left out.
    """
    everything = len(chosen) == len(packet.protocol)

    def pick(values: Ints) -> Ints:
        return values if everything else values[chosen]

    rows = packet.rows if everything else packet.rows.take(chosen)
    at: int | Ints = packet.l4_offset
    if not isinstance(at, int):
        at = uniform(pick(at))
    l4_at, true_end, end = pick(packet.l4_at), pick(packet.true_end), pick(packet.frames.end)
    if int(np.max(at)) > HEADER_BYTES - 20:
        rows, at = Rows.at(buffer, l4_at), 0
    protocol = pick(packet.protocol)
    is_tcp = protocol == TCP
    all_tcp = bool(is_tcp.all())
    ports = rows.field(at, 4)
    third = rows.field(at + 4, 4)
    header: Ints
    if all_tcp or is_tcp.any():
        data_offset_flags = rows.field(at + 12, 2)
        header = np.where(is_tcp, (data_offset_flags >> 12) * 4, 8)
        seq, ack = third, rows.field(at + 8, 4)
        flags, window = data_offset_flags & 0x1FF, rows.field(at + 14, 2)
    else:
        header = np.full(len(l4_at), 8, np.int64)
        seq, ack, flags, window = third, *(np.zeros(len(l4_at), np.int64) for _ in range(3))
    if not all_tcp:
        # The datagram's own length may be smaller than what IP carries, and is 0 in jumbograms.
        length = third >> 16
        limit = l4_at + np.where(is_tcp | (length < 8), true_end - l4_at, length)
        true_end = np.minimum(true_end, limit)
        seq = np.where(is_tcp, seq, third & 0xFFFF)
        ack, flags, window = (np.where(is_tcp, v, 0) for v in (ack, flags, window))
    payload_at = l4_at + header
    good = (header >= 8 + 12 * is_tcp) & (payload_at <= true_end)
    layer4 = Layer4(
        order=pick(packet.frames.order),
        ts_ns=pick(packet.frames.ts_ns),
        buffer=np.full(len(l4_at), number, np.int64),
        frame_at=pick(packet.frames.frame_at),
        ip_at=pick(packet.frames_ip_at),
        protocol=protocol,
        source_key=pick(packet.source_key),
        target_key=pick(packet.target_key),
        source_port=ports >> 16,
        target_port=ports & 0xFFFF,
        ip_id=pick(packet.ip_id),
        label=pick(packet.frames.label),
        payload_at=payload_at,
        size=true_end - payload_at,
        captured=np.clip(np.minimum(end, true_end) - payload_at, 0, None),
        seq=seq,
        ack=ack,
        flags=flags,
        window=window,
    )
    if not good.all():
        skipped.add("TCP or UDP header damaged", int((~good).sum()))
        layer4, chosen = layer4.take(good), chosen[good]
    start = Rows.at(buffer, layer4.payload_at[:0] if all_tcp else layer4.payload_at)
    return layer4, start, chosen
