"""From frames to TCP segments and UDP datagrams, tunnels unwrapped: all packets of a window at once.

# Strategy: one turn of the loop in `decode` handles one IP layer of many packets. What is a TCP segment or UDP
# datagram is done; what carries another packet (IP in IP, GRE, VXLAN, Geneve, a reassembled datagram) goes round
# again with its inner packet. Ordinary traffic needs one turn.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np

from kubetape.capture.pcap.fragments import Fragment, Reassembler
from kubetape.capture.pcap.link_layer import ETHERNET, IPV4, IPV6, TRANSPARENT_ETHERNET, Labels, find_ip
from kubetape.capture.pcap.packets import Bools, Bytes, Ints, Packets
from kubetape.capture.pcap.rows import HEADER_BYTES, MAX_NETWORK_OFFSET, Rows, uniform
from kubetape.capture.pcap.tunnels import inner_of_gre, inner_of_udp

MAX_LAYERS = 8  # tunnels in tunnels; more is not traffic
TCP, UDP, IP_IN_IP, IPV6_IN_IP, GRE, ICMP, ICMP6 = 6, 17, 4, 41, 47, 1, 58
RAW_IP = 101
# IPv6 extension headers (RFC 8200, RFC 4302): hop-by-hop, routing, destination options, mobility, HIP, shim6.
EXTENSIONS = (0, 43, 60, 135, 139, 140)
FRAGMENT_HEADER, AUTHENTICATION = 44, 51


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


@dataclass
class Skipped:
    """Packets that became no row, by reason."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, count: int) -> None:
        if count:
            self.counts[reason] = self.counts.get(reason, 0) + count


@dataclass
class _Frames:
    """Packets on their way: `at` is where the next header begins, `end` where captured bytes end, `true_end`
    where the packet's own do; kind: LINKTYPE of that header, RAW_IP for IP."""

    order: Ints
    ts_ns: Ints
    frame_at: Ints
    at: Ints
    end: Ints
    true_end: Ints
    link: Ints
    label: Ints

    def take(self, which: Ints | Bools) -> _Frames:
        return _Frames(*(getattr(self, f.name)[which] for f in dataclasses.fields(self)))

    def inside(self, which: Ints, at: Ints, true_end: Ints, link: Ints, label: Ints) -> _Frames:
        """The packets that begin at `at` within those chosen."""
        return _Frames(
            self.order[which],
            self.ts_ns[which],
            self.frame_at[which],
            at,
            np.minimum(self.end[which], true_end),
            true_end,
            link,
            label,
        )


class Decoder:
    """Keeps what lasts over windows: unfinished fragments, names of encapsulations, counts of what was skipped."""

    def __init__(self) -> None:
        self.labels = Labels()
        self.reassembler = Reassembler()
        self.skipped = Skipped()

    def decode(self, window: list[Packets]) -> tuple[Layer4, list[Bytes]]:
        """All segments and datagrams of a window in time order, and the buffers their offsets refer to."""
        buffers = [p.buffer for p in window]
        parts: list[Layer4] = []
        side = bytearray()  # reassembled datagrams, as raw IP packets
        side_frames: list[tuple[int, int, int, int, int, int]] = []
        first = 0
        for number, packets in enumerate(window):
            frames = _Frames(
                np.arange(first, first + len(packets)),
                packets.ts_ns,
                packets.offset,
                packets.offset,
                packets.offset + packets.captured,
                packets.offset + packets.original,
                packets.link,
                np.zeros(len(packets), np.int64),
            )
            first += len(packets)
            self._layers(packets.buffer, number, frames, parts, side, side_frames)
        # A reassembled datagram may itself be a fragment of an inner packet, hence the loop.
        for _ in range(MAX_LAYERS):
            if not side_frames:
                break
            buffer = np.frombuffer(bytes(side), np.uint8)
            buffers.append(buffer)
            columns = np.array(side_frames, np.int64).T
            order, ts_ns, at, end, true_end, label = columns
            frames = _Frames(order, ts_ns, at, at, end, true_end, np.full(len(at), RAW_IP), label)
            side, side_frames = bytearray(), []
            self._layers(buffer, len(buffers) - 1, frames, parts, side, side_frames)
        if not parts:
            return EMPTY, buffers
        layer4 = parts[0] if len(parts) == 1 else Layer4.concatenate(parts)
        if (np.diff(layer4.ts_ns) < 0).any() or (np.diff(layer4.order) < 0).any():
            layer4 = layer4.take(np.lexsort((layer4.order, layer4.ts_ns)))
        return layer4, buffers

    def _layers(
        self,
        buffer: Bytes,
        number: int,
        frames: _Frames,
        parts: list[Layer4],
        side: bytearray,
        side_frames: list[tuple[int, int, int, int, int, int]],
    ) -> None:
        """Every layer of one buffer's frames; what is found goes to `parts`, finished datagrams to `side`."""
        work = [frames]
        for _ in range(MAX_LAYERS):
            if not work:
                return
            following: list[_Frames] = []
            for some in work:
                self._one_layer(buffer, number, some, parts, following, side, side_frames)
            work = following
        self.skipped.add("more tunnels in each other than are unwrapped", sum(len(w.at) for w in work))

    def _one_layer(
        self,
        buffer: Bytes,
        number: int,
        frames: _Frames,
        parts: list[Layer4],
        following: list[_Frames],
        side: bytearray,
        side_frames: list[tuple[int, int, int, int, int, int]],
    ) -> None:
        rows = Rows.at(buffer, frames.at)
        offset, kind, label = find_ip(rows, frames.link, frames.label, self.labels)
        frames.label = label
        nested = np.nonzero(kind == TRANSPARENT_ETHERNET)[0]
        if len(nested):
            following.append(
                frames.inside(
                    nested,
                    frames.at[nested] + offset[nested],
                    frames.true_end[nested],
                    np.full(len(nested), ETHERNET),
                    label[nested],
                )
            )
        ip_at = frames.at + offset
        if len(offset) and int(offset.max()) > MAX_NETWORK_OFFSET:
            rows, offset = Rows.at(buffer, ip_at), np.zeros_like(offset)
        for ip_type, parse in ((IPV4, _ipv4), (IPV6, _ipv6)):
            mine = np.nonzero(kind == ip_type)[0]
            if not len(mine):
                continue
            whole = len(mine) == len(kind)
            packet = parse(
                buffer,
                rows if whole else rows.take(mine),
                uniform(offset if whole else offset[mine]),
                frames if whole else frames.take(mine),
                ip_at if whole else ip_at[mine],
                self.skipped,
            )
            self._fragments(buffer, packet, side, side_frames)
            self._transport(buffer, number, packet, parts, following)
        self.skipped.add("not IP", int(np.sum((kind != IPV4) & (kind != IPV6) & (kind != TRANSPARENT_ETHERNET))))

    def _fragments(
        self,
        buffer: Bytes,
        packet: _Ip,
        side: bytearray,
        side_frames: list[tuple[int, int, int, int, int, int]],
    ) -> None:
        pieces = np.nonzero(packet.fragment)[0]
        if not len(pieces):
            return
        address_bytes = 4 if packet.version == 4 else 16
        addresses_at = packet.frames_ip_at + (12 if packet.version == 4 else 8)
        for i in pieces.tolist():
            begin, end = int(packet.l4_at[i]), int(packet.frames.end[i])
            addresses = int(addresses_at[i])
            done = self.reassembler.add(
                Fragment(
                    version=packet.version,
                    addresses=buffer[addresses : addresses + 2 * address_bytes].tobytes(),
                    ip_id=int(packet.fragment_id[i]),
                    protocol=int(packet.protocol[i]),
                    ttl=int(packet.ttl[i]),
                    offset=int(packet.fragment_offset[i]),
                    more=bool(packet.more_fragments[i]),
                    size=int(packet.true_end[i]) - begin,
                    data=buffer[begin:end].tobytes() if end > begin else b"",
                    ts_ns=int(packet.frames.ts_ns[i]),
                )
            )
            if done is not None:
                at = len(side)
                side += done.packet
                side_frames.append(
                    (
                        int(packet.frames.order[i]),
                        int(packet.frames.ts_ns[i]),
                        at,
                        at + len(done.packet),
                        at + done.size,
                        int(packet.frames.label[i]),
                    )
                )

    def _transport(
        self, buffer: Bytes, number: int, packet: _Ip, parts: list[Layer4], following: list[_Frames]
    ) -> None:
        """TCP and UDP to `parts`, packets within packets to `following`."""
        protocol = packet.protocol
        final: list[Ints] = []
        whole = ~packet.fragment
        room = packet.frames.end - packet.l4_at
        for proto in np.unique(protocol[whole]).tolist():
            chosen = np.nonzero(whole & (protocol == proto))[0]
            if proto in (IP_IN_IP, IPV6_IN_IP):
                label = self.labels.add(packet.frames.label[chosen], "ipip" if packet.version == 4 else "ip6tnl")
                following.append(
                    packet.frames.inside(
                        chosen,
                        packet.l4_at[chosen],
                        packet.true_end[chosen],
                        np.full(len(chosen), RAW_IP),
                        label,
                    )
                )
            elif proto == GRE:
                inner = inner_of_gre(
                    Rows.at(buffer, packet.l4_at[chosen]), packet.frames.label[chosen], self.labels
                )
                good = inner.found & (inner.offset <= room[chosen])
                self.skipped.add("GRE of another kind", int((~good).sum()))
                chosen = chosen[good]
                following.append(
                    packet.frames.inside(
                        chosen,
                        packet.l4_at[chosen] + inner.offset[good],
                        packet.true_end[chosen],
                        inner.link[good],
                        inner.label[good],
                    )
                )
            elif proto == TCP:
                enough = room[chosen] >= 20
                self.skipped.add("TCP header cut off", int((~enough).sum()))
                final.append(chosen[enough])
            elif proto == UDP:
                enough = room[chosen] >= 8
                self.skipped.add("UDP header cut off", int((~enough).sum()))
                final.append(chosen[enough])
            elif proto in (ICMP, ICMP6):
                self.skipped.add("ICMP", len(chosen))
            else:
                self.skipped.add("other transport", len(chosen))
        chosen = np.sort(np.concatenate(final)) if len(final) > 1 else final[0] if final else np.zeros(0, np.int64)
        if not len(chosen):
            return
        layer4, rows, chosen = _layer4(buffer, number, packet, chosen, self.skipped)
        is_udp = layer4.protocol == UDP
        tunnel = inner_of_udp(rows, layer4.target_port, layer4.label, self.labels) if is_udp.any() else None
        if tunnel is not None:
            tunnel.found &= is_udp
        if tunnel is not None:
            which = np.nonzero(tunnel.found)[0]
            base = chosen[which]
            following.append(
                packet.frames.inside(
                    base,
                    layer4.payload_at[which] + tunnel.offset[which],
                    packet.true_end[base],
                    tunnel.link[which],
                    tunnel.label[which],
                )
            )
            layer4 = layer4.take(~tunnel.found)
        parts.append(layer4)


@dataclass
class _Ip:
    """n IP packets of one version: what their headers say. l4_at, true_end: buffer offsets of the payload."""

    version: int
    rows: Rows
    frames: _Frames
    frames_ip_at: Ints
    l4_offset: int | Ints  # of the transport header within `rows`
    l4_at: Ints
    true_end: Ints
    protocol: Ints
    ttl: Ints
    ip_id: Ints
    source_key: Ints
    target_key: Ints
    fragment: Bools
    fragment_id: Ints
    fragment_offset: Ints
    more_fragments: Bools


def _ipv4(
    buffer: Bytes, rows: Rows, offset: int | Ints, frames: _Frames, ip_at: Ints, skipped: Skipped
) -> _Ip:
    """RFC 791. Packets whose header is cut off or impossible are left out."""
    first = rows.field(offset, 1)
    header = (first & 15) * 4
    good = (frames.end - ip_at >= header) & (header >= 20) & (first >> 4 == 4)
    if not good.all():
        skipped.add("IP header cut off or damaged", int((~good).sum()))
        rows, frames, ip_at, header = rows.take(good), frames.take(good), ip_at[good], header[good]
        offset = offset if isinstance(offset, int) else offset[good]
    header_or_one = uniform(header)
    size = rows.field(offset + 2, 2)
    # Segmentation offload leaves the length 0 where a packet exceeds 65535 bytes (Linux, "BIG TCP").
    size = np.where(size == 0, frames.true_end - ip_at, np.maximum(size, header))
    fragment_field = rows.field(offset + 6, 2)
    ip_id = rows.field(offset + 4, 2)
    true_end = ip_at + size
    frames = dataclasses.replace(frames, end=np.minimum(frames.end, true_end))
    return _Ip(
        version=4,
        rows=rows,
        frames=frames,
        frames_ip_at=ip_at,
        l4_offset=offset + header_or_one,
        l4_at=ip_at + header,
        true_end=true_end,
        protocol=rows.field(offset + 9, 1),
        ttl=rows.field(offset + 8, 1),
        ip_id=ip_id,
        source_key=_mix(rows.field(offset + 12, 4)),
        target_key=_mix(rows.field(offset + 16, 4)),
        fragment=(fragment_field & 0x3FFF) != 0,
        fragment_id=ip_id,
        fragment_offset=(fragment_field & 0x1FFF) * 8,
        more_fragments=(fragment_field & 0x2000) != 0,
    )


def _ipv6(
    buffer: Bytes, rows: Rows, offset: int | Ints, frames: _Frames, ip_at: Ints, skipped: Skipped
) -> _Ip:
    """RFC 8200, extension headers followed. Packets whose headers are cut off are left out."""
    good = (frames.end - ip_at >= 40) & (rows.field(offset, 1) >> 4 == 6)
    if not good.all():
        skipped.add("IP header cut off or damaged", int((~good).sum()))
        rows, frames, ip_at = rows.take(good), frames.take(good), ip_at[good]
        offset = offset if isinstance(offset, int) else offset[good]
    count = len(rows)
    size = rows.field(offset + 4, 2)
    # Length 0: a jumbogram, or segmentation offload (RFC 2675, "BIG TCP").
    true_end = np.where(size == 0, frames.true_end, ip_at + 40 + size)
    frames = dataclasses.replace(frames, end=np.minimum(frames.end, true_end))
    protocol = rows.field(offset + 6, 1)
    skip = np.full(count, 40, np.int64)
    fragment = np.zeros(count, bool)
    fragment_id, fragment_offset = np.zeros(count, np.int64), np.zeros(count, np.int64)
    more = np.zeros(count, bool)
    left = np.nonzero(np.isin(protocol, (*EXTENSIONS, FRAGMENT_HEADER, AUTHENTICATION)))[0]
    for _ in range(MAX_LAYERS):
        left = left[(frames.end - ip_at - skip)[left] >= 8]
        if not len(left):
            break
        part = Rows.at(buffer, ip_at[left] + skip[left])
        kind = protocol[left]
        length = part.field(1, 1)
        in_fragment = left[kind == FRAGMENT_HEADER]
        if len(in_fragment):
            words = part.take(kind == FRAGMENT_HEADER)
            field_ = words.field(2, 2)
            fragment_offset[in_fragment] = field_ & 0xFFF8
            more[in_fragment] = (field_ & 1) != 0
            fragment_id[in_fragment] = words.field(4, 4)
            # An atomic fragment (RFC 6946) is a whole packet.
            fragment[in_fragment] = (field_ & 0xFFF9) != 0
        skip[left] += np.where(
            kind == FRAGMENT_HEADER, 8, np.where(kind == AUTHENTICATION, (length + 2) * 4, (length + 1) * 8)
        )
        protocol[left] = part.field(0, 1)
        # Behind a fragment header lies a part of the packet: no more headers can be read there.
        left = left[np.isin(protocol[left], (*EXTENSIONS, FRAGMENT_HEADER, AUTHENTICATION)) & ~fragment[left]]
    source = rows.block(offset + 8, 16).view(">u8").astype(np.uint64)
    target = rows.block(offset + 24, 16).view(">u8").astype(np.uint64)
    return _Ip(
        version=6,
        rows=rows,
        frames=frames,
        frames_ip_at=ip_at,
        l4_offset=offset + uniform(skip),
        l4_at=ip_at + skip,
        true_end=true_end,
        protocol=protocol,
        ttl=rows.field(offset + 7, 1),
        ip_id=np.full(count, -1, np.int64),
        source_key=_mix6(source),
        target_key=_mix6(target),
        fragment=fragment,
        fragment_id=fragment_id,
        fragment_offset=fragment_offset,
        more_fragments=more,
    )


def _layer4(
    buffer: Bytes, number: int, packet: _Ip, chosen: Ints, skipped: Skipped
) -> tuple[Layer4, Rows, Ints]:
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


def _mix(values: Ints) -> Ints:
    """A bijection on 64 bits that scatters them (the finaliser of SplitMix64)."""
    x = values.astype(np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))).view(np.int64)


def _mix6(halves: np.ndarray[tuple[int, ...], np.dtype[np.uint64]]) -> Ints:
    """Two 64-bit halves of an address, (n, 2), to one scattered number. Equal for different addresses only by
    a chance of 2**-64."""
    upper = _mix(halves[:, 0].view(np.int64) ^ np.int64(0x5851F42D4C957F2D))
    return _mix(halves[:, 1].view(np.int64) + upper)
