"""Link-layer headers: where the IP header begins, and which tags stood before it."""

from __future__ import annotations

import numpy as np

from kubetape.capture.pcap.packets import Ints
from kubetape.capture.pcap.rows import Rows

# LINKTYPE_* numbers, https://www.tcpdump.org/linktypes.html; 12 and 14 are DLT_RAW of some systems.
NULL, ETHERNET, FDDI, PPP, LOOP, SLL, SLL2, C_HDLC = 0, 1, 10, 9, 108, 113, 276, 104
RAW = (12, 14, 101, 228, 229)
SUPPORTED = frozenset((NULL, ETHERNET, FDDI, PPP, LOOP, SLL, SLL2, C_HDLC, *RAW))
NAMES = {105: "802.11", 127: "802.11 with radiotap", 189: "USB", 220: "USB", 253: "netlink", 147: "user-defined"}

IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806
VLAN_TYPES = (0x8100, 0x88A8, 0x9100)
MPLS_TYPES = (0x8847, 0x8848)
PPPOE_SESSION = 0x8864
TRANSPARENT_ETHERNET = 0x6558
MAX_TAGS = 8  # more VLAN tags or MPLS labels than this are not traffic
PPP_PROTOCOLS = {0x0021: IPV4, 0x0057: IPV6}


class Labels:
    """Encapsulations as small numbers: 0 is none, others name a chain of outer headers."""

    def __init__(self) -> None:
        self.names = [""]
        self._numbers: dict[tuple[int, str], int] = {}

    def add(self, before: Ints, name: str, values: Ints | None = None) -> Ints:
        """The numbers of `before` extended by one more header, with a tag of its own per packet if given."""
        if values is None:
            values = np.zeros(len(before), np.int64)
            texts = {0: name}
        else:
            texts = {int(v): f"{name}:{v}" for v in np.unique(values)}
        result = np.empty(len(before), np.int64)
        for prior in np.unique(before).tolist():
            for value, text in texts.items():
                chosen = (before == prior) & (values == value)
                if chosen.any():
                    result[chosen] = self._number(prior, text)
        return result

    def _number(self, prior: int, text: str) -> int:
        number = self._numbers.get((prior, text))
        if number is None:
            number = len(self.names)
            self.names.append(f"{self.names[prior]}/{text}" if prior else text)
            self._numbers[prior, text] = number
        return number


def find_ip(rows: Rows, link: Ints, label: Ints, labels: Labels) -> tuple[Ints, Ints, Ints]:
    """For n frames of one window: offset of the network header, its EtherType, and the encapsulation number.

    The EtherType is 0 where there is no IP inside, TRANSPARENT_ETHERNET where another Ethernet header is.
    """
    count = len(rows)
    offset = np.zeros(count, np.int64)
    kind = np.zeros(count, np.int64)
    for number in np.unique(link).tolist():
        mine = np.nonzero(link == number)[0]
        part = rows if len(mine) == count else rows.take(mine)
        offset[mine], kind[mine] = _first_header(part, number)
    label = _strip_tags(rows, offset, kind, label, labels)
    return offset, kind, label


def _first_header(rows: Rows, link: int) -> tuple[int, Ints | int]:
    if link == ETHERNET:
        return 14, rows.field(12, 2)
    if link == SLL:
        return 16, rows.field(14, 2)
    if link == SLL2:
        return 20, rows.field(0, 2)
    if link in RAW:
        return 0, _by_version(rows, 0)
    if link in (NULL, LOOP):
        # The address family's number and byte order depend on the capturing machine; the IP version does not.
        return 4, _by_version(rows, 4)
    if link == FDDI:  # frame control, two addresses, LLC and SNAP
        return 21, rows.field(19, 2)
    if link == C_HDLC:
        return 4, rows.field(2, 2)
    if link == PPP:  # with address and control bytes, as RFC 1662 frames have them
        kind = rows.field(2, 2)
        return 4, np.where(kind == 0x21, IPV4, np.where(kind == 0x57, IPV6, 0))
    return 0, 0


def _by_version(rows: Rows, offset: int | Ints) -> Ints:
    version = rows.field(offset, 1) >> 4
    return np.where(version == 4, IPV4, np.where(version == 6, IPV6, 0))


def _strip_tags(rows: Rows, offset: Ints, kind: Ints, label: Ints, labels: Labels) -> Ints:
    """Move `offset` and `kind` past LLC, VLAN, PPPoE and MPLS headers in place; returns the new labels."""
    plain = (kind == IPV4) | (kind == IPV6)
    if plain.all():
        return label
    label = label.copy()
    _llc(rows, offset, kind, np.nonzero(kind < 0x600)[0])
    for _ in range(MAX_TAGS):
        tagged = np.nonzero(np.isin(kind, VLAN_TYPES))[0]
        if not len(tagged):
            break
        part = rows.take(tagged)
        at = offset[tagged]
        # Tag 0 only carries a priority (802.1p); it names no network.
        named = part.field(at, 2) & 0xFFF
        real = tagged[named > 0]
        label[real] = labels.add(label[real], "vlan", named[named > 0])
        kind[tagged] = part.field(at + 2, 2)
        offset[tagged] = at + 4
    session = np.nonzero(kind == PPPOE_SESSION)[0]
    if len(session):
        part = rows.take(session)
        protocol = part.field(offset[session] + 6, 2)
        offset[session] += 8
        kind[session] = np.where(protocol == 0x21, IPV4, np.where(protocol == 0x57, IPV6, 0))
        label[session] = labels.add(label[session], "pppoe")
    switched = np.nonzero(np.isin(kind, MPLS_TYPES))[0]
    if len(switched):
        strip_mpls(rows, offset, kind, label, labels, switched)
    return label


def _llc(rows: Rows, offset: Ints, kind: Ints, short: Ints) -> None:
    """802.3 frames carry a length where others have the type; SNAP brings the type back (RFC 1042)."""
    if len(short):
        part = rows.take(short)
        at = offset[short]
        snap = (part.field(at, 2) == 0xAAAA) & (part.field(at + 2, 1) == 3) & (kind[short] > 0)
        kind[short[snap]] = part.field(at + 6, 2)[snap]
        offset[short[snap]] += 8


def strip_mpls(rows: Rows, offset: Ints, kind: Ints, label: Ints, labels: Labels, which: Ints) -> None:
    """Pop MPLS label stacks (RFC 3032) of the frames `which`, in place; the first half byte tells what follows."""
    left = which
    for _ in range(MAX_TAGS):
        part = rows.take(left)
        entry = part.field(offset[left], 4)
        label[left] = labels.add(label[left], "mpls", entry >> 12)
        offset[left] += 4
        left = left[entry & 0x100 == 0]
        if not len(left):
            break
    kind[left] = 0
    done = which[~np.isin(which, left)]
    part = rows.take(done)
    found = _by_version(part, offset[done])
    pseudowire = part.field(offset[done], 1) >> 4 == 0  # a control word, then Ethernet (RFC 4448)
    kind[done] = np.where(pseudowire, TRANSPARENT_ETHERNET, found)
    offset[done] += np.where(pseudowire, 4, 0)
