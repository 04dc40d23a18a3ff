"""Control packets of MQTT."""

from __future__ import annotations

from typing import Final, NamedTuple

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = range(1, 8)
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = range(8, 16)

NAMES: Final[dict[int, str]] = {
    CONNECT: "CONNECT",
    PUBLISH: "PUBLISH",
    SUBSCRIBE: "SUBSCRIBE",
    UNSUBSCRIBE: "UNSUBSCRIBE",
    PINGREQ: "PINGREQ",
    DISCONNECT: "DISCONNECT",
    AUTH: "AUTH",
}
# Acknowledgement -> the packet that it answers.
ANSWERS: Final[dict[int, int]] = {
    CONNACK: CONNECT,
    PUBACK: PUBLISH,
    PUBREC: PUBLISH,
    PUBREL: PUBLISH,
    PUBCOMP: PUBLISH,
    SUBACK: SUBSCRIBE,
    UNSUBACK: UNSUBSCRIBE,
    PINGRESP: PINGREQ,
}

# MQTT 3.1.1, table 3.1.
RETURN_CODES: Final[dict[int, str]] = {
    1: "unacceptable protocol version",
    2: "identifier rejected",
    3: "server unavailable",
    4: "bad user name or password",
    5: "not authorized",
}
# MQTT 5.0, section 2.4: reason codes from 0x80 on are failures.
REASONS: Final[dict[int, str]] = {
    0x80: "unspecified error",
    0x81: "malformed packet",
    0x82: "protocol error",
    0x83: "implementation specific error",
    0x84: "unsupported protocol version",
    0x85: "client identifier not valid",
    0x86: "bad user name or password",
    0x87: "not authorized",
    0x88: "server unavailable",
    0x89: "server busy",
    0x8A: "banned",
    0x8B: "server shutting down",
    0x8C: "bad authentication method",
    0x8D: "keep alive timeout",
    0x8E: "session taken over",
    0x8F: "topic filter invalid",
    0x90: "topic name invalid",
    0x91: "packet identifier in use",
    0x92: "packet identifier not found",
    0x93: "receive maximum exceeded",
    0x94: "topic alias invalid",
    0x95: "packet too large",
    0x96: "message rate too high",
    0x97: "quota exceeded",
    0x98: "administrative action",
    0x99: "payload format invalid",
    0x9A: "retain not supported",
    0x9B: "QoS not supported",
    0x9C: "use another server",
    0x9D: "server moved",
    0x9E: "shared subscriptions not supported",
    0x9F: "connection rate exceeded",
    0xA0: "maximum connect time",
    0xA1: "subscription identifiers not supported",
    0xA2: "wildcard subscriptions not supported",
}
SERVER_FAULTS: Final = frozenset({0x80, 0x83, 0x88, 0x89, 0x8B, 0x98, 0x9C, 0x9D})
FAILURE: Final = 0x80


class Packet(NamedTuple):
    """kind: control packet type; flags: low bits of the first byte; what follows it at data[start:end]."""

    kind: int
    flags: int
    data: bytes
    start: int
    end: int
