"""Packets of Oracle's Transparent Network Substrate, and the functions of the two-task interface inside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CONNECT, ACCEPT, REFUSE, REDIRECT, DATA, RESEND, MARKER = 1, 2, 4, 5, 6, 11, 12
TYPES: Final = {
    1: "Connect",
    2: "Accept",
    3: "Acknowledge",
    4: "Refuse",
    5: "Redirect",
    6: "Data",
    7: "Null",
    9: "Abort",
    11: "Resend",
    12: "Marker",
    13: "Attention",
    14: "Control",
}
# What the client sends: message type of the two-task interface, and of function calls (type 3) the function.
# Names as in the trace files of Oracle's own client.
CALL, PIGGYBACK = 0x03, 0x11
MESSAGES: Final = {0x01: "ProtocolNegotiation", 0x02: "DataTypes", 0x03: "Call", 0x11: "Piggyback"}
FUNCTIONS: Final = {
    0x02: "OOPEN",
    0x03: "OPARSE",
    0x04: "OEXEC",
    0x05: "OFETCH",
    0x08: "OCLOSE",
    0x09: "OLOGOFF",
    0x0E: "OCOMMIT",
    0x0F: "OROLLBACK",
    0x14: "OCANCEL",
    0x3B: "OVERSION",
    0x47: "OALL7",
    0x5E: "OALL8",
    0x60: "OLOBOPS",
    0x69: "OCLOSEALL",
    0x73: "OAUTH",
    0x76: "OSESSKEY",
    0x93: "OPING",
}


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet. size_bytes: as declared; body: what follows the header, as far as captured."""

    kind: int
    size_bytes: int
    body: bytes
