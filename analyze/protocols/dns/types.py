"""Frames of DNS: messages, questions, records, and the names of their numbers."""

from __future__ import annotations

from typing import Final, NamedTuple

# IANA "Domain Name System (DNS) Parameters", resource record types.
TYPES: Final[dict[int, str]] = {
    1: "A",
    2: "NS",
    3: "MD",
    4: "MF",
    5: "CNAME",
    6: "SOA",
    7: "MB",
    8: "MG",
    9: "MR",
    10: "NULL",
    11: "WKS",
    12: "PTR",
    13: "HINFO",
    14: "MINFO",
    15: "MX",
    16: "TXT",
    17: "RP",
    18: "AFSDB",
    19: "X25",
    20: "ISDN",
    21: "RT",
    22: "NSAP",
    23: "NSAP-PTR",
    24: "SIG",
    25: "KEY",
    26: "PX",
    27: "GPOS",
    28: "AAAA",
    29: "LOC",
    30: "NXT",
    31: "EID",
    32: "NIMLOC",
    33: "SRV",
    34: "ATMA",
    35: "NAPTR",
    36: "KX",
    37: "CERT",
    38: "A6",
    39: "DNAME",
    40: "SINK",
    41: "OPT",
    42: "APL",
    43: "DS",
    44: "SSHFP",
    45: "IPSECKEY",
    46: "RRSIG",
    47: "NSEC",
    48: "DNSKEY",
    49: "DHCID",
    50: "NSEC3",
    51: "NSEC3PARAM",
    52: "TLSA",
    53: "SMIMEA",
    55: "HIP",
    56: "NINFO",
    57: "RKEY",
    58: "TALINK",
    59: "CDS",
    60: "CDNSKEY",
    61: "OPENPGPKEY",
    62: "CSYNC",
    63: "ZONEMD",
    64: "SVCB",
    65: "HTTPS",
    66: "DSYNC",
    67: "HHIT",
    68: "BRID",
    99: "SPF",
    100: "UINFO",
    101: "UID",
    102: "GID",
    103: "UNSPEC",
    104: "NID",
    105: "L32",
    106: "L64",
    107: "LP",
    108: "EUI48",
    109: "EUI64",
    128: "NXNAME",
    249: "TKEY",
    250: "TSIG",
    251: "IXFR",
    252: "AXFR",
    253: "MAILB",
    254: "MAILA",
    255: "ANY",
    256: "URI",
    257: "CAA",
    258: "AVC",
    259: "DOA",
    260: "AMTRELAY",
    261: "RESINFO",
    262: "WALLET",
    263: "CLA",
    264: "IPN",
    32768: "TA",
    32769: "DLV",
}

# RFC 6895, section 2.3, and its registry; 16 in an OPT record is BADVERS, in a TSIG record BADSIG.
RCODES: Final[dict[int, str]] = {
    0: "NOERROR",
    1: "FORMERR",
    2: "SERVFAIL",
    3: "NXDOMAIN",
    4: "NOTIMP",
    5: "REFUSED",
    6: "YXDOMAIN",
    7: "YXRRSET",
    8: "NXRRSET",
    9: "NOTAUTH",
    10: "NOTZONE",
    11: "DSOTYPENI",
    16: "BADVERS",
    17: "BADKEY",
    18: "BADTIME",
    19: "BADMODE",
    20: "BADNAME",
    21: "BADALG",
    22: "BADTRUNC",
    23: "BADCOOKIE",
}

OPCODES: Final[dict[int, str]] = {
    0: "QUERY",
    1: "IQUERY",
    2: "STATUS",
    4: "NOTIFY",
    5: "UPDATE",
    6: "DSO",
}

IQUERY: Final = 1
UPDATE: Final = 5

CLASSES: Final[dict[int, str]] = {1: "IN", 2: "CS", 3: "CH", 4: "HS", 254: "NONE", 255: "ANY"}

# RFC 8914 and its registry.
EXTENDED_ERRORS: Final[dict[int, str]] = {
    0: "Other",
    1: "Unsupported DNSKEY Algorithm",
    2: "Unsupported DS Digest Type",
    3: "Stale Answer",
    4: "Forged Answer",
    5: "DNSSEC Indeterminate",
    6: "DNSSEC Bogus",
    7: "Signature Expired",
    8: "Signature Not Yet Valid",
    9: "DNSKEY Missing",
    10: "RRSIGs Missing",
    11: "No Zone Key Bit Set",
    12: "NSEC Missing",
    13: "Cached Error",
    14: "Not Ready",
    15: "Blocked",
    16: "Censored",
    17: "Filtered",
    18: "Prohibited",
    19: "Stale NXDOMAIN Answer",
    20: "Not Authoritative",
    21: "Not Supported",
    22: "No Reachable Authority",
    23: "Network Error",
    24: "Invalid Data",
    25: "Signature Expired before Valid",
    26: "Too Early",
    27: "Unsupported NSEC3 Iterations Value",
    28: "Unable to conform to policy",
    29: "Synthesized",
    30: "Invalid Query Type",
}

A: Final = 1
NS: Final = 2
CNAME: Final = 5
SOA: Final = 6
PTR: Final = 12
MX: Final = 15
TXT: Final = 16
AAAA: Final = 28
SRV: Final = 33
NAPTR: Final = 35
DNAME: Final = 39
OPT: Final = 41
SVCB: Final = 64
HTTPS: Final = 65
SPF: Final = 99
TSIG: Final = 250
IXFR: Final = 251
AXFR: Final = 252
CAA: Final = 257

# Bits of the second header word (RFC 1035, section 4.1.1; AD and CD: RFC 4035).
QR: Final = 0x8000
FLAGS: Final = ((0x0400, "aa"), (0x0200, "tc"), (0x0100, "rd"), (0x0080, "ra"), (0x0020, "ad"), (0x0010, "cd"))


class Question(NamedTuple):
    """name: in presentation form without the final dot, as sent; kind: QTYPE; klass: QCLASS."""

    name: str
    kind: int
    klass: int


class Record(NamedTuple):
    """One resource record; data: its value as text in presentation form, "" where it is not decoded."""

    name: str
    kind: int
    klass: int
    ttl: int
    data: str


class Message:
    """One DNS message.

    flags: the second header word. answers, authority, additional: records read, at most MAX_RECORDS each; counts: as
    the header states them. soa_count: SOA records among the answers, all of them (they end a zone transfer).
    edns: what the OPT record says. whole: every byte fitted and none is left; damaged: a name is none.
    """

    __slots__ = (
        "additional",
        "answers",
        "authority",
        "counts",
        "damaged",
        "edns",
        "first_answer_type",
        "flags",
        "id",
        "last_answer_type",
        "questions",
        "rcode",
        "soa_count",
        "whole",
    )

    def __init__(self, message_id: int, flags: int, counts: tuple[int, int, int, int]) -> None:
        self.id, self.flags, self.counts = message_id, flags, counts
        self.rcode = flags & 15
        self.questions: list[Question] = []
        self.answers: list[Record] = []
        self.authority: list[Record] = []
        self.additional: list[Record] = []
        self.edns: dict[str, object] | None = None
        self.soa_count = 0
        self.first_answer_type = self.last_answer_type = 0
        self.whole = self.damaged = False

    @property
    def is_response(self) -> bool:
        return bool(self.flags & QR)

    @property
    def opcode(self) -> int:
        return self.flags >> 11 & 15


def type_name(kind: int) -> str:
    """RFC 3597, section 5: unknown types are written TYPEn."""
    return TYPES.get(kind) or f"TYPE{kind}"


def rcode_name(rcode: int) -> str:
    return RCODES.get(rcode) or f"RCODE{rcode}"


def class_name(klass: int) -> str:
    return CLASSES.get(klass) or f"CLASS{klass}"
