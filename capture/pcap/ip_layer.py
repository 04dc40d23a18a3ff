"""IPv4 and IPv6 headers of many packets at once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from kubetape.capture.pcap.frames import MAX_LAYERS, Frames, Skipped
from kubetape.capture.pcap.packets import Bools, Bytes, Ints
from kubetape.capture.pcap.rows import Rows, uniform

# IPv6 extension headers (RFC 8200, RFC 4302): hop-by-hop, routing, destination options, mobility, HIP, shim6.
EXTENSIONS = (0, 43, 60, 135, 139, 140)
FRAGMENT_HEADER, AUTHENTICATION = 44, 51


@dataclass
class Ip:
    """n IP packets of one version: what their headers say. l4_at, true_end: buffer offsets of the payload."""

    version: int
    rows: Rows
    frames: Frames
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


def parse_ipv4(buffer: Bytes, rows: Rows, offset: int | Ints, frames: Frames, ip_at: Ints, skipped: Skipped) -> Ip:
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
    return Ip(
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
        source_key=mix(rows.field(offset + 12, 4)),
        target_key=mix(rows.field(offset + 16, 4)),
        fragment=(fragment_field & 0x3FFF) != 0,
        fragment_id=ip_id,
        fragment_offset=(fragment_field & 0x1FFF) * 8,
        more_fragments=(fragment_field & 0x2000) != 0,
    )


def parse_ipv6(buffer: Bytes, rows: Rows, offset: int | Ints, frames: Frames, ip_at: Ints, skipped: Skipped) -> Ip:
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
    return Ip(
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
        source_key=mix6(source),
        target_key=mix6(target),
        fragment=fragment,
        fragment_id=fragment_id,
        fragment_offset=fragment_offset,
        more_fragments=more,
    )


def mix(values: Ints) -> Ints:
    """A bijection on 64 bits that scatters them (the finaliser of SplitMix64)."""
    x = values.astype(np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))).view(np.int64)


def mix6(halves: np.ndarray[tuple[int, ...], np.dtype[np.uint64]]) -> Ints:
    """Two 64-bit halves of an address, (n, 2), to one scattered number. Equal for different addresses only by
    a chance of 2**-64."""
    upper = mix(halves[:, 0].view(np.int64) ^ np.int64(0x5851F42D4C957F2D))
    return mix(halves[:, 1].view(np.int64) + upper)
