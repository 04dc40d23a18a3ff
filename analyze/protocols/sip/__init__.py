"""SIP, the Session Initiation Protocol (RFC 3261), over UDP and TCP."""

from __future__ import annotations

from kubetape.analyze.protocols.contract import Protocol
from kubetape.analyze.protocols.sip.parse import detect
from kubetape.analyze.protocols.sip.stitch import SipDecoder

PROTOCOL = Protocol(
    name="sip",
    detect=detect,
    decoder=SipDecoder,
    ports=frozenset({5060, 5080}),
    transports=frozenset({"tcp", "udp"}),
)
