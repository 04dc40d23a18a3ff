"""Packets inside GRE (RFC 2784, 2890, 2637), VXLAN (RFC 7348) and Geneve (RFC 8926)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kubetape.capture.pcap.link_layer import ETHERNET, IPV4, IPV6, TRANSPARENT_ETHERNET, Labels
from kubetape.capture.pcap.packets import Bools, Ints
from kubetape.capture.pcap.rows import Rows

VXLAN_PORTS = (4789, 8472)  # IANA's, and Linux's and flannel's older default
GENEVE_PORT = 6081
RAW_IP = 101
PPP, ERSPAN2, ERSPAN3 = 0x880B, 0x88BE, 0x22EB


@dataclass
class Inner:
    """Per packet: whether one is inside, its offset from the tunnel header's start, its link type and label."""

    found: Bools
    offset: Ints
    link: Ints
    label: Ints


def inner_of_gre(rows: Rows, label: Ints, labels: Labels) -> Inner:
    """What GRE packets carry; `rows` begin at the GRE header."""
    flags = rows.field(0, 2)
    kind = rows.field(2, 2)
    version = flags & 7
    offset = 4 + 4 * ((flags & 0x8000) != 0) + 4 * ((flags & 0x2000) != 0) + 4 * ((flags & 0x1000) != 0)
    offset = offset + 4 * ((version == 1) & ((flags & 0x80) != 0))
    # ERSPAN type I has no header of its own and no sequence number, type II 8 bytes, type III 12 (or 20).
    long_header = np.where(rows.field(np.minimum(offset + 11, 100), 1) & 1, 20, 12)
    mirrored = np.where(kind == ERSPAN2, np.where(flags & 0x1000, 8, 0), long_header)
    is_span = (kind == ERSPAN2) | (kind == ERSPAN3)
    offset = offset + np.where(is_span, mirrored, 0)
    # PPTP: PPP with or without address and control bytes, protocol in one or two bytes (RFC 1661).
    ppp = kind == PPP
    if ppp.any():
        framed = rows.field(offset, 2) == 0xFF03
        offset = offset + np.where(ppp & framed, 2, 0)
        short = rows.field(offset, 1) & 1 == 1
        protocol = np.where(short, rows.field(offset, 1), rows.field(offset, 2))
        offset = offset + np.where(ppp, np.where(short, 1, 2), 0)
        kind = np.where(ppp, np.where(protocol == 0x21, IPV4, np.where(protocol == 0x57, IPV6, 0)), kind)
    is_ip = (kind == IPV4) | (kind == IPV6)
    is_ethernet = (kind == TRANSPARENT_ETHERNET) | is_span
    found = (version <= 1) & ((flags & 0x4000) == 0) & (is_ip | is_ethernet)
    return Inner(found, offset, np.where(is_ip, RAW_IP, ETHERNET), labels.add(label, "gre"))


def inner_of_udp(rows: Rows, port: Ints, label: Ints, labels: Labels) -> Inner | None:
    """What VXLAN and Geneve packets carry; `rows` begin at the UDP payload. None where no packet is one."""
    vxlan = np.isin(port, VXLAN_PORTS)
    geneve = port == GENEVE_PORT
    if not (vxlan.any() or geneve.any()):
        return None
    first = rows.field(0, 4)
    network = rows.field(4, 4) >> 8
    # VXLAN: the I flag alone (0x04 is the protocol extension, 0x80 and 0x40 group policy bits).
    vxlan &= first & 0x0800_0000 != 0
    inner_kind = first & 0xFFFF
    geneve &= (first >> 30 == 0) & np.isin(inner_kind, (TRANSPARENT_ETHERNET, IPV4, IPV6))
    found = vxlan | geneve
    offset = np.where(geneve, 8 + (first >> 24 & 0x3F) * 4, 8)
    link = np.where(geneve & (inner_kind != TRANSPARENT_ETHERNET), RAW_IP, ETHERNET)
    new = label.copy()
    for name, mine in (("vxlan", vxlan), ("geneve", geneve)):
        which = np.nonzero(mine)[0]
        if len(which):
            new[which] = labels.add(label[which], name, network[which])
    return Inner(found, offset, link, new)
