"""From frames to TCP segments and UDP datagrams, tunnels unwrapped: all packets of a window at once.

# Strategy: one turn of the loop in `decode` handles one IP layer of many packets. What is a TCP segment or UDP
# datagram is done; what carries another packet (IP in IP, GRE, VXLAN, Geneve, a reassembled datagram) goes round
# again with its inner packet. Ordinary traffic needs one turn.
"""

from __future__ import annotations

import numpy as np

from kubetape.capture.pcap.fragments import Fragment, Reassembler
from kubetape.capture.pcap.frames import MAX_LAYERS, Frames, Skipped
from kubetape.capture.pcap.ip_layer import Ip, parse_ipv4, parse_ipv6
from kubetape.capture.pcap.link_layer import ETHERNET, IPV4, IPV6, TRANSPARENT_ETHERNET, Labels, find_ip
from kubetape.capture.pcap.packets import Bytes, Ints, Packets
from kubetape.capture.pcap.rows import MAX_NETWORK_OFFSET, Rows, uniform
from kubetape.capture.pcap.transport import EMPTY, TCP, UDP, Layer4, read_transport
from kubetape.capture.pcap.tunnels import inner_of_gre, inner_of_udp

IP_IN_IP, IPV6_IN_IP, GRE, ICMP, ICMP6 = 4, 41, 47, 1, 58
RAW_IP = 101


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
            frames = Frames(
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
            frames = Frames(order, ts_ns, at, at, end, true_end, np.full(len(at), RAW_IP), label)
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
        frames: Frames,
        parts: list[Layer4],
        side: bytearray,
        side_frames: list[tuple[int, int, int, int, int, int]],
    ) -> None:
        """Every layer of one buffer's frames; what is found goes to `parts`, finished datagrams to `side`."""
        work = [frames]
        for _ in range(MAX_LAYERS):
            if not work:
                return
            following: list[Frames] = []
            for some in work:
                self._one_layer(buffer, number, some, parts, following, side, side_frames)
            work = following
        self.skipped.add("more tunnels in each other than are unwrapped", sum(len(w.at) for w in work))

    def _one_layer(
        self,
        buffer: Bytes,
        number: int,
        frames: Frames,
        parts: list[Layer4],
        following: list[Frames],
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
        for ip_type, parse in ((IPV4, parse_ipv4), (IPV6, parse_ipv6)):
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
        packet: Ip,
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

    def _transport(self, buffer: Bytes, number: int, packet: Ip, parts: list[Layer4], following: list[Frames]) -> None:
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
                inner = inner_of_gre(Rows.at(buffer, packet.l4_at[chosen]), packet.frames.label[chosen], self.labels)
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
        layer4, rows, chosen = read_transport(buffer, number, packet, chosen, self.skipped)
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
