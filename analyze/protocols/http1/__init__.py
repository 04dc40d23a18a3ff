"""HTTP/1.0 and 1.1 (RFC 9112), WebDAV and SSDP included: one row per request and its final response."""

from kubetape.analyze.protocols.contract import Protocol
from kubetape.analyze.protocols.http1.parse import detect
from kubetape.analyze.protocols.http1.stitch import Http1Decoder, resolve

PROTOCOL = Protocol(
    name="http1",
    detect=detect,
    decoder=Http1Decoder,
    ports=frozenset({80, 81, 591, 1900, 2375, 3000, 3128, 5000, 8000, 8008, 8080, 8081, 8888, 9090, 9200}),
    transports=frozenset({"tcp", "udp"}),
    resolve=resolve,
)
