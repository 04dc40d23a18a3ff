"""TLS 1.0 to 1.3, SSL 2.0 and 3.0: one row per handshake; what follows is counted as encrypted."""

from kubetape.analyze.protocols.contract import Protocol
from kubetape.analyze.protocols.tls.parse import detect
from kubetape.analyze.protocols.tls.stitch import TlsDecoder

PROTOCOL = Protocol(
    name="tls",
    detect=detect,
    decoder=TlsDecoder,
    ports=frozenset({443, 465, 636, 853, 993, 995, 6443, 8443, 9443, 10250, 15012}),
)
