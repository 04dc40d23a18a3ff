"""Frames of the CQL native protocol, and its numbers (native_protocol_v3.spec to native_protocol_v5.spec)."""

from __future__ import annotations

from typing import NamedTuple


class Envelope(NamedTuple):
    """One message: header and the beginning of its body (decompressed). readable: False where that cannot be had."""

    version: int
    flags: int
    stream: int
    opcode: int
    body: bytes
    readable: bool


class Segment(NamedTuple):
    """The outer frame of v5. payload: decompressed, perhaps cut; size: what it should be; whole: self-contained."""

    payload: bytes
    size: int
    whole: bool


OPCODES: dict[int, str] = {
    0x00: "ERROR",
    0x01: "STARTUP",
    0x02: "READY",
    0x03: "AUTHENTICATE",
    0x04: "CREDENTIALS",
    0x05: "OPTIONS",
    0x06: "SUPPORTED",
    0x07: "QUERY",
    0x08: "RESULT",
    0x09: "PREPARE",
    0x0A: "EXECUTE",
    0x0B: "REGISTER",
    0x0C: "EVENT",
    0x0D: "BATCH",
    0x0E: "AUTH_CHALLENGE",
    0x0F: "AUTH_RESPONSE",
    0x10: "AUTH_SUCCESS",
}
ERROR, STARTUP, READY, AUTHENTICATE, OPTIONS, SUPPORTED = 0, 1, 2, 3, 5, 6
QUERY, RESULT, PREPARE, EXECUTE, REGISTER, EVENT, BATCH = 7, 8, 9, 10, 11, 12, 13
REQUESTS = frozenset((0x01, 0x04, 0x05, 0x07, 0x09, 0x0A, 0x0B, 0x0D, 0x0F))
REPLIES = frozenset((0x00, 0x02, 0x03, 0x06, 0x08, 0x0C, 0x0E, 0x10))

COMPRESSED, TRACED, CUSTOM_PAYLOAD, WARNED = 1, 2, 4, 8

CONSISTENCY: dict[int, str] = {
    0: "ANY",
    1: "ONE",
    2: "TWO",
    3: "THREE",
    4: "QUORUM",
    5: "ALL",
    6: "LOCAL_QUORUM",
    7: "EACH_QUORUM",
    8: "SERIAL",
    9: "LOCAL_SERIAL",
    10: "LOCAL_ONE",
}
BATCH_KINDS = {0: "logged", 1: "unlogged", 2: "counter"}

# Section 9 (errors) of the specification.
ERRORS: dict[int, str] = {
    0x0000: "server",
    0x000A: "protocol",
    0x0100: "client",
    0x1000: "server",
    0x1001: "server",
    0x1002: "server",
    0x1003: "server",
    0x1100: "timeout",
    0x1200: "timeout",
    0x1300: "server",
    0x1400: "client",
    0x1500: "server",
    0x1600: "server",
    0x1700: "server",
    0x2000: "client",
    0x2100: "client",
    0x2200: "client",
    0x2300: "client",
    0x2400: "client",
    0x2500: "client",
}
