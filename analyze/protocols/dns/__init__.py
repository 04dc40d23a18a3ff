"""DNS (RFC 1035) over UDP and TCP; multicast DNS (RFC 6762) and LLMNR (RFC 4795) share its messages."""

from __future__ import annotations

from kubetape.analyze.protocols.contract import Protocol
from kubetape.analyze.protocols.dns.detect import PORTS, detect
from kubetape.analyze.protocols.dns.stitch import DnsDecoder

PROTOCOL = Protocol(name="dns", detect=detect, decoder=DnsDecoder, ports=PORTS, transports=frozenset({"tcp", "udp"}))
