"""LDAP (RFC 4511) over TCP, and connectionless LDAP over UDP."""

from __future__ import annotations

from kubetape.analyze.protocols.contract import Protocol
from kubetape.analyze.protocols.ldap.parse import detect
from kubetape.analyze.protocols.ldap.stitch import LdapDecoder

PROTOCOL = Protocol(
    name="ldap",
    detect=detect,
    decoder=LdapDecoder,
    ports=frozenset({389, 3268, 1389}),
    transports=frozenset({"tcp", "udp"}),
)
